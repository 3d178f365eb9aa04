//! Files and folders, as a store needs them: by offset, with every sync asked for.
//!
//! [`OsDisk`] is the real one. The simulated twin, `sim::SimDisk` (feature `test-util`), keeps what was not synced in a
//! volatile cache and loses any part of it.
//!
//! Assumed of the disk under a file: an aligned sector of 512 bytes is written whole or not at all; a sync that
//! returns success has made durable what was written before it began; nothing else changes what was synced. Not
//! assumed: that writes between two syncs keep their order, or that a name is durable before its folder was synced.
//! After a failed sync the pages count as clean and are not on the disk (Linux): nothing read from that file is
//! believed any more.
//!
//! All calls block; none is made on the runtime's workers.

use std::{fmt, io, path::Path, sync::Arc};

#[cfg(any(test, feature = "test-util"))]
mod hooked;
mod os;
mod reserving;
#[cfg(any(test, feature = "test-util"))]
#[allow(
    clippy::cast_possible_truncation,
    reason = "for tests: what it holds fits memory"
)]
pub mod sim;

#[cfg(any(test, feature = "test-util"))]
pub use hooked::HookedDisk;
pub use os::OsDisk;
pub use reserving::ReservingDisk;

/// What [`Disk::create_direct`] asks of a write; covers every sector size in use.
pub const DIRECT_ALIGN: usize = 4096;

/// A sector: what a disk writes whole or not at all, in bytes.
pub const SECTOR_LEN: usize = 512;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To be read; it must be there.
    Read,
    /// To be read and written; it must be there.
    Write,
    /// To be read and written; made (mode 0600) if it is not there.
    Create,
    /// To be read and written; made (mode 0600). Fails with `AlreadyExists` if it is there.
    New,
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Anything else: a symbolic link, a socket.
    Other,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name alone.
    pub name: std::ffi::OsString,
    /// What it stands for.
    pub kind: EntryKind,
}

/// An open file, addressed by offset. Called from any number of threads.
pub trait File: Send + Sync + fmt::Debug + 'static {
    /// Fills `buf` from `offset`; reaching past the end is `UnexpectedEof`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Fills `buf` from `offset` if all of it is in memory, without ever waiting for the disk; `false`, with anything in
    /// `buf`, if it is not or where the system cannot tell.
    fn read_cached(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        let _ = (offset, buf);
        Ok(false)
    }

    /// Writes all of `bytes`, or fails having written any part of them.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was written before, and the length (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes durable what was written before and all that is known of the file (`fsync`).
    fn sync_all(&self) -> io::Result<()>;

    /// Takes the space of a range, so that writing there does not run out of it. What is there stays, the rest
    /// reads as zeroes, the file grows to the range's end. `Unsupported` where the file system has no such call.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Refuses with `StorageFull` what is about to take so many bytes by being written, where the disk keeps a reserve.
    fn may_take(&self, len: u64) -> io::Result<()> {
        let _ = len;
        Ok(())
    }

    /// Gives the space of a range back; it reads as zeroes, the length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Cuts the file, or lets it grow with zeroes.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Permission bits of a regular file; `None` where the disk keeps none.
    fn permissions(&self) -> io::Result<Option<u32>> {
        Ok(None)
    }

    /// Takes the lock that goes with the open file; `WouldBlock` if another process, or another opening in this
    /// one, has it. Dropped with the file.
    fn lock(&self) -> io::Result<()>;

    /// Drops what the page cache holds of the file, so that reads give what the disk has.
    fn forget_cached(&self) -> io::Result<()>;
}

/// A file system, or the part of one below a folder. Names are never followed through a symbolic link at their end.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file. The name of a new one is durable once its folder is synced.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>>;

    /// Makes a file as [`Mode::New`] does, whose writes go past the page cache: their offset, length and address in memory
    /// must be multiples of [`DIRECT_ALIGN`]. An error where the file system has no such thing.
    fn create_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a file as [`Mode::Write`] does, whose writes go past the page cache: their offset and length must be multiples
    /// of [`SECTOR_LEN`], their address in memory one of [`DIRECT_ALIGN`]. An error where the file system has no such
    /// thing; a disk with longer sectors refuses the first write with `InvalidInput`.
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bytes that may still be written below a folder; as many as there are numbers where the disk does not count.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let _ = dir;
        Ok(u64::MAX)
    }

    /// Puts `from` in `to`'s place, which may be there. Durable once both folders are synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name; fails with `AlreadyExists` if `to` is there. Unlike a rename it never replaces.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder (mode 0700) in one that is there; `AlreadyExists` if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder that is empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// What a name stands for; `None` if there is nothing.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Removes a folder and all that is in it, or whatever else has that name; nothing there is all right. Blocks. Nothing is
/// synced; what a failure leaves is removed by another try.
pub fn remove_tree(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match disk.kind(path)? {
        None => Ok(()),
        Some(EntryKind::Folder) => {
            for entry in disk.list(path)? {
                remove_tree(disk, &path.join(entry.name))?;
            }
            gone(disk.remove_dir(path))
        }
        Some(_) => gone(disk.remove(path)),
    }
}
