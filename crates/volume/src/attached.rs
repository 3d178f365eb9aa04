//! A volume in use.

use std::{collections::BTreeMap, fmt, sync::Arc, thread::JoinHandle};

use iam::Authorizer;
use keyring::Keyring;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    CacheEpoch, VolumeError, VolumeId, cache_epoch::Current, engine::Engine,
    protection::Protection, standing::Grounds,
};

/// What is in a range of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Written.
    Data,
    /// Space is taken, reads as zeroes.
    Zero,
    /// No space is taken, reads as zeroes.
    Hole,
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, not zero.
    pub len: u64,
    /// What it holds.
    pub kind: ExtentKind,
}

/// What an engine does, whatever its protection.
trait Requests: Send + Sync {
    fn size(&self) -> u64;
    fn sealed(&self) -> bool;
    fn alive(&self) -> Result<(), VolumeError>;
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError>;
    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), VolumeError>;
    fn flush(&self) -> Result<(), VolumeError>;
    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), VolumeError>;
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        no_hole: bool,
        fua: bool,
    ) -> Result<(), VolumeError>;
    fn extents(&self, offset: u64, len: u64, max: usize) -> Result<Vec<Extent>, VolumeError>;
    fn close(&self) -> Result<(), VolumeError>;
    fn keep_house(&self);
    fn stop_housekeeping(&self);
    fn free_space(&self);
}

impl<P: Protection> Requests for Engine<P> {
    fn size(&self) -> u64 {
        self.size()
    }

    fn sealed(&self) -> bool {
        P::SEALED
    }

    fn alive(&self) -> Result<(), VolumeError> {
        self.alive()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        self.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), VolumeError> {
        self.write(offset, buf, fua)
    }

    fn flush(&self) -> Result<(), VolumeError> {
        self.flush()
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), VolumeError> {
        self.trim(offset, len, fua)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        no_hole: bool,
        fua: bool,
    ) -> Result<(), VolumeError> {
        self.write_zeroes(offset, len, no_hole, fua)
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> Result<Vec<Extent>, VolumeError> {
        self.extents(offset, len, max)
    }

    fn close(&self) -> Result<(), VolumeError> {
        self.close()
    }

    fn keep_house(&self) {
        self.keep_house();
    }

    fn stop_housekeeping(&self) {
        self.stop_housekeeping();
    }

    fn free_space(&self) {
        self.free_space();
    }
}

/// A volume in use. Shared by all its users; the last one to drop it detaches it: what was written is flushed, the
/// data key is wiped and the files are released. Dropping blocks on the store, so do it where blocking is allowed.
pub struct AttachedVolume {
    id: VolumeId,
    // Dropped in this order: the files and the key, then the permission to be the one attachment.
    engine: Arc<dyn Requests>,
    housekeeper: Option<JoinHandle<()>>,
    epoch: Current,
    grounds: Mutex<Grounds>,
    unflushed: Arc<Unflushed>,
    _only: OwnedSemaphorePermit,
}

/// Volumes that were detached with something that could not be flushed, and not attached and detached in order since.
#[derive(Debug, Default)]
pub(crate) struct Unflushed(Mutex<BTreeMap<VolumeId, VolumeError>>);

impl Unflushed {
    pub(crate) fn all(&self) -> Vec<(VolumeId, VolumeError)> {
        let all = self.0.lock();
        all.iter().map(|(id, why)| (*id, why.clone())).collect()
    }
}

impl AttachedVolume {
    /// Takes an open engine into use, and gives it a thread for its housekeeping.
    pub(crate) fn new<P: Protection>(
        id: VolumeId,
        engine: Engine<P>,
        epoch: Current,
        grounds: Grounds,
        unflushed: Arc<Unflushed>,
        only: OwnedSemaphorePermit,
    ) -> Result<Self, VolumeError> {
        let engine: Arc<dyn Requests> = Arc::new(engine);
        let for_thread = Arc::clone(&engine);
        let housekeeper = std::thread::Builder::new()
            .name(id.to_string())
            .spawn(move || for_thread.keep_house())
            .map_err(|error| VolumeError::from_io("starting a thread for a volume", error))?;
        Ok(Self {
            id,
            engine,
            housekeeper: Some(housekeeper),
            epoch,
            grounds: Mutex::new(grounds),
            unflushed,
            _only: only,
        })
    }

    /// Decides again about what the attachment rests on, if anything that decides has changed.
    pub(crate) fn review(
        &self,
        authorizer: &Authorizer,
        keyring: &Keyring,
    ) -> Result<(), VolumeError> {
        let mut grounds = self.grounds.lock();
        if grounds.are_current() {
            return Ok(());
        }
        grounds.renew(authorizer, keyring)
    }

    /// Which volume.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// Changes when what was answered may have been lost: a client that has requests answered in one epoch must not go
    /// on in another as if nothing had happened.
    pub fn epoch(&self) -> CacheEpoch {
        self.epoch.epoch()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.engine.size()
    }

    /// Whether it is encrypted.
    pub fn is_sealed(&self) -> bool {
        self.engine.sealed()
    }

    /// [`VolumeError::Failed`] if the volume has failed and must be attached again.
    pub fn alive(&self) -> Result<(), VolumeError> {
        self.engine.alive()
    }

    /// Fills `buf` from `offset`. Any offset and length. What was never written reads as zeroes.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        self.engine.read(offset, buf)
    }

    /// Writes `buf` at `offset`; with `fua` it is durable on return. **Destroys the content of `buf`**: sectors are
    /// sealed in place. After an error, each sector of the range holds its old or
    /// its new content.
    pub fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), VolumeError> {
        self.engine.write(offset, buf, fua)
    }

    /// Makes durable everything that was answered before, on any thread.
    pub fn flush(&self) -> Result<(), VolumeError> {
        self.engine.flush()
    }

    /// The range reads as zeroes afterwards, and its space is given back to the store: that of whole chunks of 512 KiB,
    /// in the background.
    pub fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), VolumeError> {
        self.engine.trim(offset, len, fua)
    }

    /// Makes the range read as zeroes; with `no_hole` its space is taken (and kept) as if it were written, otherwise
    /// given back.
    pub fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        no_hole: bool,
        fua: bool,
    ) -> Result<(), VolumeError> {
        self.engine.write_zeroes(offset, len, no_hole, fua)
    }

    /// What the range holds, from `offset` on without gaps: at least one extent, at most `max`, so possibly less than
    /// `len` in sum. Does no I/O.
    pub fn extents(&self, offset: u64, len: u64, max: usize) -> Result<Vec<Extent>, VolumeError> {
        self.engine.extents(offset, len, max)
    }
}

impl Drop for AttachedVolume {
    fn drop(&mut self) {
        self.engine.stop_housekeeping();
        if let Some(housekeeper) = self.housekeeper.take()
            && housekeeper.join().is_err()
        {
            tracing::error!(volume = %self.id, "the housekeeping of a volume panicked");
        }
        // Nobody asked for it, but nobody expects a detach to lose what an orderly host would have written by and by.
        let flushed = self.engine.flush();
        // The housekeeper ends with what it is doing, and the flush may have freed more.
        self.engine.free_space();
        match flushed.and_then(|()| self.engine.close()) {
            Ok(()) => {
                self.unflushed.0.lock().remove(&self.id);
                // After the flush, whose success it states.
                if let Err(error) = self.epoch.end() {
                    tracing::warn!(volume = %self.id, %error, "a clean detach could not be noted: after a reboot clients will not reconnect");
                }
            }
            Err(error) => {
                tracing::error!(volume = %self.id, %error, "a volume was detached and could not be flushed");
                self.unflushed.0.lock().insert(self.id, error);
            }
        }
        tracing::info!(volume = %self.id, "detached");
    }
}

impl fmt::Debug for AttachedVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachedVolume")
            .field("id", &self.id)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
