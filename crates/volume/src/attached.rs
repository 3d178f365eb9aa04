//! A volume in use.

use crate::{VolumeError, VolumeId};

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

/// A volume in use. Shared by all its users; the last one to drop it detaches it: what was written is flushed, the
/// data key is wiped and the files are released. Dropping blocks on the store, so do it where blocking is allowed.
#[derive(Debug)]
pub struct AttachedVolume {
    id: VolumeId,
}

macro_rules! later {
    () => {
        Err(VolumeError::ShuttingDown)
    };
}

#[allow(unused_variables)]
impl AttachedVolume {
    /// Which volume.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        0
    }

    /// Fills `buf` from `offset`. Any offset and length. What was never written reads as zeroes.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        later!()
    }

    /// Writes `buf` at `offset`; with `fua` it is durable on return. **Destroys the content of `buf`**: sectors are
    /// sealed in place. After an error, each sector of the range holds its old or its new content.
    pub fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), VolumeError> {
        later!()
    }

    /// Makes durable everything that was answered before, on any thread.
    pub fn flush(&self) -> Result<(), VolumeError> {
        later!()
    }

    /// Gives the range back to the store; it reads as zeroes afterwards.
    pub fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), VolumeError> {
        later!()
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
        later!()
    }

    /// What the range holds, from `offset` on without gaps: at least one extent, at most `max`, so possibly less than
    /// `len` in sum. Does no I/O.
    pub fn extents(&self, offset: u64, len: u64, max: usize) -> Result<Vec<Extent>, VolumeError> {
        later!()
    }
}
