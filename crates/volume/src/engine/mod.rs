//! The engine: a volume's sectors in slots, its map in memory, its changes in a log.
//!
//! | file | is |
//! |---|---|
//! | `open` | making a volume's files, reading them back |
//! | `read`, `write`, `zero`, `extents` | the requests |
//! | `journal` | the log: changes are written to it before they are answered |
//! | `owners`, `table` | the owner table of the slots: the map, seen from the other side |
//! | `unsettled` | which sectors the slot file was not synced since |
//! | `recovery` | what the log says after a crash, compared with the slots |
//! | `repair` | what is damaged, and a map made again from the owner table |
//! | `commit`, `rounds` | flush: what is durable when, and who runs it |
//! | `checkpoint` | a new log, written beside the old one |
//! | `housekeeping`, `chores` | punching freed slots, writing a new log, in the background |
//!
//! Order, so that a killed process loses nothing that was answered: sealed data goes to its slot, the record that names it
//! to the log, and then the request is answered. Neither is synced; the record has checksums of the data, so that after a
//! power cut, which may have kept the one and lost the other, what is not there is not named. Sectors that were in their
//! slot already are overwritten without a record, unless a record of theirs would still be compared (`unsettled`).
//!
//! Order, so that a flush keeps what it promises: the slot file is synced, then a mark is appended that says so, then the
//! log is synced, then the flush is answered. A slot that a change frees is used again only when that change is durable.
//!
//! Who may do what: any number of threads call the requests. Each takes the range locks of the chunks it touches. One
//! thread at a time runs a round of [`commit`], which takes none; another may write a checkpoint meanwhile, which takes them
//! one by one, for reading. Order of locks: ranges, the log's file, the log's queue; slots by themselves.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
};

use host::File;
use parking_lot::Mutex;

use crate::{
    VolumeError, VolumeId,
    geometry::{Generation, LayerId, SECTOR_LEN, Slot},
    log::folder::LogFolder,
    map::Map,
    protection::Protection,
    ranges::Ranges,
    slot_file::SlotFile,
    slots::{Slots, Taken},
};

mod checkpoint;
mod chores;
mod commit;
mod extents;
mod housekeeping;
mod journal;
mod open;
mod owners;
mod read;
mod recovery;
mod repair;
mod rounds;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_kill;
#[cfg(test)]
mod tests_repair;
mod unsettled;
mod write;
mod zero;

pub(crate) use open::create;
pub use repair::{Checked, Finding, MapSource, Repaired};
pub(crate) use repair::{check, repair};

/// The layer of a volume without snapshots.
pub(crate) const BASE_LAYER: LayerId = LayerId(0);
/// What its sectors are sealed under.
pub(crate) const BASE_GENERATION: Generation = Generation(1);

/// Where a volume's bytes go.
pub(crate) struct Media {
    /// The slot file.
    pub(crate) slots: Arc<dyn File>,
    /// The metadata log.
    pub(crate) log: LogFolder,
    /// Called once, when the volume fails.
    pub(crate) on_failed: Box<dyn Fn() + Send + Sync>,
}

/// What a volume is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) volume: VolumeId,
    /// In bytes, a whole number of chunks.
    pub(crate) size: u64,
}

/// A volume in use.
pub(crate) struct Engine<P: Protection> {
    shape: Shape,
    protection: P,
    store: SlotFile<P>,
    slots: Slots,
    owners: table::Owners,
    map: Map,
    ranges: Ranges,
    /// Whether the slot file was written since it was last synced. Set after the write, so that it is never clear while
    /// a finished write is not covered.
    unsynced: AtomicBool,
    unsettled: unsettled::Unsettled,
    journal: journal::Journal,
    log_folder: LogFolder,
    commit: rounds::Rounds,
    /// Held while a checkpoint is written.
    checkpointing: Mutex<()>,
    /// Held while a round runs, and while another log is put in the place of this one.
    switching: Mutex<()>,
    housekeeping: chores::Chores,
    failed: OnceLock<VolumeError>,
    on_failed: Box<dyn Fn() + Send + Sync>,
}

impl<P: Protection> Engine<P> {
    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.shape.size
    }

    /// Whether it has failed, and that the range lies within the volume.
    fn check(&self, offset: u64, len: u64) -> Result<(), VolumeError> {
        self.alive()?;
        match offset.checked_add(len) {
            Some(end) if end <= self.shape.size => Ok(()),
            _ => Err(VolumeError::OutOfRange { offset, len }),
        }
    }

    /// [`VolumeError::Failed`] if it has failed.
    pub(crate) fn alive(&self) -> Result<(), VolumeError> {
        match self.failed.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The volume does nothing more: what was answered may not be on disk, and another try would not tell.
    fn fail(&self, what: &'static str, source: &io::Error) -> VolumeError {
        let reason: Arc<str> = format!("{what}: {source}").into();
        let first = self.failed.set(VolumeError::Failed(reason.clone())).is_ok();
        if first {
            tracing::error!(volume = %self.shape.volume, %reason, "the volume has failed");
            (self.on_failed)();
        }
        VolumeError::Failed(reason)
    }

    /// Takes a slot; with `ahead`, one with space, and with space for more behind it.
    fn take_slot(&self, near: Option<Slot>, ahead: bool) -> Result<Taken, VolumeError> {
        self.slots
            .take(near, ahead, |run| self.store.allocate(run))
            .map_err(|error| VolumeError::from_io("taking space in the slot file", error))
    }

    /// Sets aside space in the log for a change, before anything has changed.
    fn claim(&self, len: usize, need: journal::Need) -> Result<journal::Claim<'_>, VolumeError> {
        self.journal
            .claim(len, need)
            .map_err(|error| VolumeError::from_io("preparing the metadata log", error))
    }

    /// Sees to it that a change and all before it are in the log, so that they outlive this process.
    fn log(&self, ticket: journal::Ticket) -> Result<(), VolumeError> {
        match self.journal.write(self.protection.log_key(), ticket) {
            Err(error) => Err(self.fail("appending to the metadata log", &error)),
            Ok(None) => Ok(()),
            Ok(Some(file)) => {
                let (grown, unflushed) = (file.wants_checkpoint(), file.wants_flush());
                drop(file);
                if grown {
                    self.housekeeping.checkpoint();
                }
                if unflushed {
                    self.housekeeping.flush();
                }
                Ok(())
            }
        }
    }

    fn written(&self) {
        self.unsynced
            .store(true, std::sync::atomic::Ordering::Release);
    }

    fn take_unsynced(&self) -> bool {
        self.unsynced.swap(false, AcqRel)
    }
}

/// Fails the engine if what is done under it panics: nobody knows how far that came.
struct FailOnPanic<'a, P: Protection> {
    engine: &'a Engine<P>,
    done: bool,
}

impl<P: Protection> Engine<P> {
    /// Does what leaves the engine useless if it is left in the middle.
    fn whole<T>(&self, what: impl FnOnce() -> T) -> T {
        let mut guard = FailOnPanic {
            engine: self,
            done: false,
        };
        let outcome = what();
        guard.done = true;
        outcome
    }
}

impl<P: Protection> Drop for FailOnPanic<'_, P> {
    fn drop(&mut self) {
        if !self.done {
            self.engine
                .fail("a flush or a checkpoint", &io::Error::other("panicked"));
        }
    }
}

/// The sector of the volume that holds a byte.
fn sector_of(offset: u64) -> u64 {
    offset / SECTOR_LEN as u64
}
