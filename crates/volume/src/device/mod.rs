//! What the engine asks of the disk, so that it can be given one that crashes on demand.
//!
//! [`disk`] is the real one. `sim`, for tests, keeps what was not synced in a volatile cache and loses any part of it.
//!
//! Assumed of the disk under a file: a block of 4096 bytes, aligned, is written whole or not at all (of the log: 512
//! bytes); a sync that returns success has made durable what was written before it began; nothing else changes what was
//! synced. Not assumed: that writes between two syncs keep their order.

use std::io;

pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod sim;

/// A file, addressed by offset. Called from any number of threads.
pub(crate) trait Device: Send + Sync + 'static {
    /// Fills `buf` from `offset`; reaching past the end is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`, or fails having written any part of them.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was written before, and the length (`fdatasync`).
    fn sync(&self) -> io::Result<()>;

    /// Takes the space of a range, so that writing there does not run out of it. What is there stays, the rest reads
    /// as zeroes. `Unsupported` where the file system has no such call.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Gives the space of a range back; it reads as zeroes, the length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// Where a volume's metadata log lives: the current file, and the one that is about to replace it.
pub(crate) trait LogDir: Send + Sync + 'static {
    /// The current file. First makes its name durable: a process that died while it put the file in its place may not
    /// have come to that, and what is appended to it must not vanish with the name.
    fn open_current(&self) -> io::Result<Box<dyn Device>>;

    /// An empty file beside it; what an earlier attempt left is gone.
    fn create_next(&self) -> io::Result<Box<dyn Device>>;

    /// Puts the next file in the current one's place, durably. On an error it is unknown which of them is there.
    fn publish_next(&self) -> io::Result<()>;

    /// Removes the next file if there is one. A failure costs space and nothing else.
    fn discard_next(&self);
}
