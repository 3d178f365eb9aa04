//! Writing the log anew: the whole map to a file beside it, which takes its place.
//!
//! Requests and flushes go on meanwhile. The map is read chunk by chunk while it changes; then the slot file is synced, and
//! what the log got since the reading began is copied behind the map. A change may so be in the file twice, in the map as it
//! was read and as a record; replaying it again comes to the same, since for each sector the last record that speaks of it
//! decides, and all of them from the reading's beginning on are there. Behind what came before the sync a mark is put, so
//! that it is not compared with the slots.
//!
//! The log's lock is held for the end alone: what came last is copied, the file synced and put in the log's place. A flush
//! that was answered before is in the file by then, its mark included. No round of flush may be under way, since it would
//! mark a place of the old file in the new one.

use std::io;

use super::{BASE_GENERATION, BASE_LAYER, Engine};
use crate::{
    VolumeError,
    geometry::Chunk,
    log::{
        Batch, Record,
        frame::{FileHeader, PAGE_LEN},
        replay,
        writer::LogFile,
    },
    protection::Protection,
};

/// The log is written anew when it is longer than this and three times what the last new one was. Tests make it short, so
/// that they see that often.
const LOG_LEN_MIN: u64 = if cfg!(test) { 32 << 10 } else { 8 << 20 };

/// When a log is to be written anew that begins with a checkpoint of that length.
pub(super) fn checkpoint_at(checkpoint_len: u64) -> u64 {
    LOG_LEN_MIN.max(checkpoint_len.saturating_mul(3))
}

/// What every log begins with.
pub(super) fn first_record() -> Record {
    Record::Layer {
        layer: BASE_LAYER,
        below: None,
        generation: BASE_GENERATION,
    }
}

/// Why a new log did not take the old one's place.
enum Trouble {
    /// The old one is as good as before.
    Discard(io::Error),
    Final(VolumeError),
}

impl<P: Protection> Engine<P> {
    /// Writes the map to a new log, which takes the old one's place. Makes durable what was answered before, too.
    pub(crate) fn checkpoint(&self) -> Result<(), VolumeError> {
        let _one_at_a_time = self.checkpointing.lock();
        self.alive()?;
        self.whole(|| self.write_anew())?;
        let (epoch, end) = {
            let log = &self.journal.file().log;
            (log.header().epoch, log.header().checkpoint_end)
        };
        if let Err(error) = self.note_log(epoch, end) {
            tracing::warn!(volume = %self.shape.volume, %error, "the header of the slot file could not be written");
        }
        // Until it is made, and if it cannot be, the checkpoint is there once.
        if let Err(error) = self.write_copy() {
            tracing::warn!(volume = %self.shape.volume, %error, "the map's last checkpoint could not be copied");
        }
        Ok(())
    }

    /// Makes the second copy of the checkpoint that there is.
    pub(crate) fn copy_checkpoint(&self) -> Result<(), VolumeError> {
        let _one_at_a_time = self.checkpointing.lock();
        self.alive()?;
        self.write_copy()
            .map_err(|error| VolumeError::from_io("copying the map's last checkpoint", error))
    }

    fn write_copy(&self) -> io::Result<()> {
        let (file, end) = {
            let log = &self.journal.file().log;
            (log.file(), log.header().checkpoint_end)
        };
        self.log_folder.copy_checkpoint(&*file, end)
    }

    /// Whether there is a copy of this log's checkpoint; whether it is whole is found when it is needed, or checked.
    pub(super) fn has_checkpoint_copy(&self) -> bool {
        let same = || {
            let Some(copy) = self.log_folder.open_copy()? else {
                return Ok(false);
            };
            let header = *self.journal.file().log.header();
            let mut page = [0; PAGE_LEN];
            if copy.len()? != header.checkpoint_end {
                return Ok(false);
            }
            copy.read_at(0, &mut page)?;
            Ok::<_, io::Error>(page == header.encode(self.protection.log_key()))
        };
        same().unwrap_or(false)
    }

    fn write_anew(&self) -> Result<(), VolumeError> {
        let key = self.protection.log_key();
        // The old log is as good as before. It may grow as much again before the next try.
        let later = |error| {
            self.log_folder.discard_next();
            let mut current = self.journal.file();
            current.checkpoint_at = current.log.end().saturating_mul(2);
            VolumeError::from_io("writing a new metadata log", error)
        };
        let appending = |error| self.fail("appending to the metadata log", &error);
        let publishing = |error| self.fail("putting a new metadata log in its place", &error);

        let from = self.journal.write_all(key, false).map_err(appending)?;
        let (old, header) = {
            let current = self.journal.file();
            (current.log.file(), *current.log.header())
        };
        let mut new = self.write_map(header).map_err(later)?;
        let middle = self.journal.write_all(key, false).map_err(appending)?;
        self.store
            .sync()
            .map_err(|error| self.fail("syncing the slot file", &error))?;
        let part = (&*old, from.position, middle.position);
        replay::copy(key, part, &mut new, 0)
            .and_then(|_| {
                let sequence = new.position().sequence;
                new.mark(key, sequence)
            })
            .map_err(later)?;
        // Most of the file, so that the sync under the lock has little to do.
        new.file().sync_data().map_err(publishing)?;

        let _no_round = self.switching.lock();
        let final_ = |error| Trouble::Final(appending(error));
        let outcome = self.journal.replace(key, final_, |current, promised| {
            let part = (&*old, middle.position, current.log.position());
            let settled = current.log.settled();
            replay::copy(key, part, &mut new, settled)
                .and_then(|mark| {
                    if settled > middle.position.sequence {
                        new.mark(key, mark)?;
                    }
                    new.prepare(promised, 0)
                })
                .map_err(Trouble::Discard)?;
            new.finish(key)
                .and_then(|()| self.log_folder.publish_next())
                .map_err(|error| Trouble::Final(publishing(error)))?;
            current.checkpoint_at = checkpoint_at(new.end());
            current.unsettled_from = new.end();
            Ok(new)
        });
        outcome.map_err(|trouble| match trouble {
            Trouble::Discard(error) => later(error),
            Trouble::Final(error) => error,
        })
    }

    /// The whole map, in a new file. Not durable yet, and neither is the data it speaks of.
    fn write_map(&self, old: FileHeader) -> io::Result<LogFile> {
        let key = self.protection.log_key();
        let header = FileHeader {
            epoch: old.epoch + 1,
            checkpoint_end: 0,
            ..old
        };
        let mut new = LogFile::create(self.log_folder.create_next()?, key, header);
        let mut batch = Batch::default();
        batch.push(first_record());
        let end = Chunk(self.map.chunks());
        let mut at = Chunk(0);
        while let Some(chunk) = self.map.next_mapped(at, end) {
            let held = self.ranges.read(chunk, chunk);
            if let Some(entry) = self.map.get(chunk) {
                batch.push(Record::of(BASE_LAYER, chunk, Some(entry)));
            }
            drop(held);
            let full = batch.take_full();
            if !full.is_empty() {
                new.append(key, &full)?;
            }
            at = chunk.next();
        }
        new.append(key, &batch.finish())?;
        Ok(new)
    }
}
