//! Files of the operating system.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Disk, Entry, EntryKind, File, Mode};

/// The operating system's file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

/// A file, read and written through the page cache.
#[derive(Debug)]
struct OsFile(fs::File);

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        match mode {
            Mode::Read => {}
            Mode::Write => {
                options.write(true);
            }
            Mode::Create => {
                options.write(true).create(true);
            }
            Mode::New => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::NOFOLLOW | OFlags::DIRECT;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::NOFOLLOW | OFlags::DIRECT;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(flags.bits().cast_signed());
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        fs::read_dir(dir)?
            .map(|entry| {
                let entry = entry?;
                Ok(Entry {
                    name: entry.file_name(),
                    kind: kind_of(entry.file_type()?),
                })
            })
            .collect()
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match path.symlink_metadata() {
            Ok(found) => Ok(Some(kind_of(found.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

fn kind_of(kind: fs::FileType) -> EntryKind {
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Folder
    } else {
        EntryKind::Other
    }
}

impl File for OsFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn read_cached(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        let len = buf.len();
        let mut into = [io::IoSliceMut::new(buf)];
        match rustix::io::preadv2(&self.0, &mut into, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == len),
            // Not in memory; or a file system or kernel that has no such call.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        retry(|| rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        retry(|| rustix::fs::fallocate(&self.0, flags, offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn permissions(&self) -> io::Result<Option<u32>> {
        Ok(Some(self.0.metadata()?.mode() & 0o777))
    }

    fn lock(&self) -> io::Result<()> {
        rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive)?;
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.0.sync_data()?;
        rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}

/// `fallocate` is not restarted after a signal by every file system.
fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_space_reads_as_zeroes_and_punched_space_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("f"), Mode::New).unwrap();
        match file.allocate(0, 1 << 20) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            other => other.unwrap(),
        }
        assert_eq!(file.len().unwrap(), 1 << 20);
        file.write_at(4096, &[7; 8192]).unwrap();
        file.punch(4096, 4096).unwrap();
        let mut buf = [1; 8192];
        file.read_at(4096, &mut buf).unwrap();
        assert!(buf[..4096].iter().all(|b| *b == 0) && buf[4096..].iter().all(|b| *b == 7));
        assert_eq!(file.len().unwrap(), 1 << 20);
    }

    #[test]
    fn a_second_opening_does_not_get_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let first = OsDisk.open(&path, Mode::New).unwrap();
        first.lock().unwrap();
        let second = OsDisk.open(&path, Mode::Write).unwrap();
        assert_eq!(second.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        second.lock().unwrap();
    }

    #[test]
    fn what_was_just_written_is_read_from_memory_where_the_system_can_tell() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("f"), Mode::New).unwrap();
        file.write_at(0, &[7; 5000]).unwrap();
        let mut buf = [0; 5000];
        if file.read_cached(0, &mut buf).unwrap() {
            assert_eq!(buf, [7; 5000]);
        }
        // Past the end there is nothing in memory either.
        assert!(!file.read_cached(4000, &mut buf).unwrap());
        assert!(OsDisk.free_bytes(dir.path()).unwrap() > 0);
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("f"), Mode::New).unwrap();
        file.write_at(0, &[1; 10]).unwrap();
        let error = file.read_at(5, &mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_symbolic_link_is_not_followed_and_a_link_does_not_replace() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        OsDisk.open(&a, Mode::New).unwrap();
        std::os::unix::fs::symlink(&a, &b).unwrap();
        assert!(OsDisk.open(&b, Mode::Write).is_err());
        assert_eq!(OsDisk.kind(&b).unwrap(), Some(EntryKind::Other));
        let error = OsDisk.link(&a, &b).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
