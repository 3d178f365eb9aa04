//! Flush: rounds that make everything durable that was answered before they began.
//!
//! One thread at a time runs a round; who asks meanwhile waits for the next one, and one round serves all that wait. A
//! round writes what of the log is queued, syncs the slot file, appends a mark, syncs the log, and only then lets the slots
//! go that changes freed. It keeps no lock during the syncs. Why that is enough:
//!
//! - a first write is queued after its data is in the slot, so the sync that follows covers the data of every record before
//!   the point that the mark names. (A record that comes before its data is of sectors that had earlier records.);
//! - retired slots are taken before the queue is written, and a slot is retired after its change was queued, so a slot that
//!   is let go has its change in the log that is then synced;
//! - slots that were punched are handed out again when that is synced, and `unsynced` is set before they are listed;
//! - a request that was answered before the round began has queued its changes and set `unsynced` before.
//!
//! A round that cannot get space for its mark fails; nothing was promised, and the volume goes on. Any other failure is
//! final: after a failed sync nobody knows what is on disk, and the next sync that succeeds would not tell.

use super::Engine;
use crate::{VolumeError, protection::Protection};

impl<P: Protection> Engine<P> {
    /// Makes durable everything that was answered before.
    pub(crate) fn flush(&self) -> Result<(), VolumeError> {
        self.alive()?;
        self.commit.run(|| self.whole(|| self.round()))
    }

    fn round(&self) -> Result<(), VolumeError> {
        self.alive()?;
        let key = self.protection.log_key();
        let appending = |error| self.fail("appending to the metadata log", &error);
        let _no_switch = self.switching.lock();
        let retired = self.slots.take_retired();
        let punched = self.slots.take_punched();
        let written = self.journal.write_all(key, true).map_err(appending)?;
        if self.take_unsynced() || !written.settled {
            self.store
                .sync()
                .map_err(|error| self.fail("syncing the slot file", &error))?;
        }
        for (run, empty) in punched {
            self.slots.restore(run, empty);
        }
        if !written.settled {
            match self.journal.mark(key, written.position) {
                Ok(outcome) => outcome.map_err(appending)?,
                Err(error) => {
                    self.slots.untake_retired(retired);
                    return Err(VolumeError::from_io("preparing the metadata log", error));
                }
            }
        }
        let (file, end) = {
            let log = &self.journal.file().log;
            ((!log.is_durable()).then(|| log.file()), log.end())
        };
        if let Some(file) = file {
            file.sync_data()
                .map_err(|error| self.fail("syncing the metadata log", &error))?;
            let epoch = {
                let log = &mut self.journal.file().log;
                log.synced(end);
                log.header().epoch
            };
            // Durable with the next flush's sync. It proves later that a log was cut; without, a flush is no less one.
            if let Err(error) = self.note_log(epoch, end) {
                tracing::warn!(volume = %self.shape.volume, %error, "the header of the slot file could not be written");
            }
        }
        self.unsettled.settle(written.epoch);
        self.housekeeping.punch(retired);
        Ok(())
    }
}
