//! The engine: a volume's sectors in slots, its map in memory, its changes in a log.
//!
//! | file | is |
//! |---|---|
//! | `open` | making a volume's files, reading them back |
//! | `read`, `write`, `zero`, `extents` | the requests |
//! | `commit`, `rounds` | flush: what is durable when, and who runs it |
//! | `housekeeping`, `chores` | punching freed slots, writing a new log, in the background |
//!
//! Order on disk: sealed data goes to its slot; at a flush the slot file is synced, then the changes of the map are
//! appended to the log, then the log is synced, then the flush is answered. So the map on disk never names a sector that
//! is not there, and a slot that a change frees is used again only when that change is durable.
//!
//! Who may do what: any number of threads call the requests. Each takes the range locks of the chunks it touches. One
//! thread at a time runs a round of [`commit`]; it takes range locks one by one, for reading.

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
    log::{folder::LogFolder, writer::LogFile},
    map::Map,
    protection::Protection,
    ranges::Ranges,
    slot_file::SlotFile,
    slots::Slots,
};

mod chores;
mod commit;
mod extents;
mod housekeeping;
mod open;
mod read;
mod rounds;
#[cfg(test)]
mod tests;
mod write;
mod zero;

pub(crate) use open::create;

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
    map: Map,
    ranges: Ranges,
    /// Whether the slot file was written since it was last synced. Set after the write, so that it is never clear while
    /// a finished write is not covered.
    unsynced: AtomicBool,
    log: Mutex<LogFile>,
    log_folder: LogFolder,
    commit: rounds::Rounds,
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

    /// Takes a slot, with space.
    fn take_slot(&self, near: Option<Slot>) -> Result<Slot, VolumeError> {
        self.slots
            .take(near, |offset, len| self.store.allocate(offset, len))
            .map_err(|error| VolumeError::from_io("taking space in the slot file", error))
    }

    fn written(&self) {
        self.unsynced
            .store(true, std::sync::atomic::Ordering::Release);
    }

    fn take_unsynced(&self) -> bool {
        self.unsynced.swap(false, AcqRel)
    }
}

/// The sector of the volume that holds a byte.
fn sector_of(offset: u64) -> u64 {
    offset / SECTOR_LEN as u64
}
