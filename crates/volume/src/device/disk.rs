//! Files of the operating system.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, FlockOperation};

use super::{Device, LogDir};

/// Name of the current log in a volume's folder.
pub(crate) const LOG_NAME: &str = "map.log";
/// Name of the log that is about to replace it.
const LOG_NEXT_NAME: &str = "map.log.new";

/// A file, read and written through the page cache.
pub(crate) struct DiskFile(File);

impl DiskFile {
    /// Opens a file for reading and writing. A symbolic link is refused.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(no_follow())
            .open(path)?;
        Ok(Self(file))
    }

    /// Makes a new file, mode 0600.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self(file))
    }

    /// Takes the lock that goes with the open file; `WouldBlock` if another process, or another opening in this one,
    /// has it.
    pub(crate) fn lock(&self) -> io::Result<()> {
        rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive)?;
        Ok(())
    }

    /// Drops what the page cache holds of the file, so that reads give what the disk has. After a failed sync the cache
    /// holds pages that count as clean and are not on disk.
    pub(crate) fn forget_cached(&self) -> io::Result<()> {
        self.0.sync_data()?;
        rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}

fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

impl Device for DiskFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        retry(|| rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        retry(|| rustix::fs::fallocate(&self.0, flags, offset, len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// `fallocate` is not restarted after a signal by everyone.
fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// A volume's folder.
pub(crate) struct DiskLogDir {
    dir: PathBuf,
}

impl DiskLogDir {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }
}

impl LogDir for DiskLogDir {
    fn open_current(&self) -> io::Result<Box<dyn Device>> {
        sync_dir(&self.dir)?;
        Ok(Box::new(DiskFile::open(&self.dir.join(LOG_NAME))?))
    }

    fn create_next(&self) -> io::Result<Box<dyn Device>> {
        let path = self.dir.join(LOG_NEXT_NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Box::new(DiskFile::create_new(&path)?))
    }

    fn publish_next(&self) -> io::Result<()> {
        fs::rename(self.dir.join(LOG_NEXT_NAME), self.dir.join(LOG_NAME))?;
        sync_dir(&self.dir)
    }

    fn discard_next(&self) {
        let _ = fs::remove_file(self.dir.join(LOG_NEXT_NAME));
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_space_reads_as_zeroes_and_punched_space_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile::create_new(&dir.path().join("f")).unwrap();
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
        let first = DiskFile::create_new(&path).unwrap();
        first.lock().unwrap();
        let second = DiskFile::open(&path).unwrap();
        assert_eq!(second.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        second.lock().unwrap();
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile::create_new(&dir.path().join("f")).unwrap();
        file.write_at(0, &[1; 10]).unwrap();
        assert!(file.read_at(5, &mut [0; 10]).is_err());
    }
}
