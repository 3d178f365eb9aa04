//! A disk whose last bytes are not for bulk data.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Disk, Entry, EntryKind, File, Mode};

/// Another disk, on which [`File::allocate`] and [`File::may_take`] leave so many bytes free. What is written without either
/// may take them: what a part needs to go on, so that it can free space, and say what it does, when bulk data has filled
/// the disk.
#[derive(Debug)]
pub struct ReservingDisk {
    disk: Arc<dyn Disk>,
    reserve: u64,
    /// What may be taken before the disk is asked again.
    left: Arc<AtomicU64>,
}

/// Free space is asked for once for so many bytes: others may have taken it meanwhile.
const ASKED_LEN: u64 = 4 << 20;

impl ReservingDisk {
    /// Keeps `reserve` bytes of `disk` free.
    pub fn new(disk: Arc<dyn Disk>, reserve: u64) -> Self {
        Self {
            disk,
            reserve,
            left: Arc::default(),
        }
    }

    fn wrap(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(ReservingFile {
            file,
            disk: Arc::clone(&self.disk),
            reserve: self.reserve,
            left: Arc::clone(&self.left),
            folder: path.parent().unwrap_or(Path::new(".")).to_owned(),
        })
    }
}

#[derive(Debug)]
struct ReservingFile {
    file: Arc<dyn File>,
    disk: Arc<dyn Disk>,
    reserve: u64,
    left: Arc<AtomicU64>,
    folder: PathBuf,
}

impl ReservingFile {
    /// What is free beyond the reserve and `len`.
    fn beyond(&self, len: u64) -> io::Result<u64> {
        let free = self.disk.free_bytes(&self.folder)?;
        free.checked_sub(self.reserve.saturating_add(len))
            .ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}

impl Disk for ReservingDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(path, self.disk.open(path, mode)?))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(path, self.disk.create_direct(path)?))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(path, self.disk.open_direct(path)?))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        Ok(self.disk.free_bytes(dir)?.saturating_sub(self.reserve))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.disk.kind(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
}

impl File for ReservingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn read_cached(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        self.file.read_cached(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.beyond(len)?;
        self.file.allocate(offset, len)
    }

    fn may_take(&self, len: u64) -> io::Result<()> {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = self
            .left
            .fetch_update(set, fetch, |left| left.checked_sub(len));
        if taken.is_err() {
            let beyond = self.beyond(len)?;
            self.left.store(beyond.min(ASKED_LEN), Ordering::Relaxed);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn is_empty(&self) -> io::Result<bool> {
        self.file.is_empty()
    }

    fn permissions(&self) -> io::Result<Option<u32>> {
        self.file.permissions()
    }

    fn lock(&self) -> io::Result<()> {
        self.file.lock()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.file.forget_cached()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OsDisk;

    #[test]
    fn space_is_not_taken_below_the_reserve_and_what_is_written_may_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let free = OsDisk.free_bytes(dir.path()).unwrap();
        // More is kept than there is: nothing may be taken.
        let disk = ReservingDisk::new(Arc::new(OsDisk), free * 2);
        let file = disk.open(&dir.path().join("f"), Mode::New).unwrap();
        for refused in [file.allocate(0, 1), file.may_take(1)] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        file.write_at(0, b"x").unwrap();
        assert_eq!(disk.free_bytes(dir.path()).unwrap(), 0);
        let disk = ReservingDisk::new(Arc::new(OsDisk), 0);
        let file = disk.open(&dir.path().join("f"), Mode::Write).unwrap();
        for _ in 0..3 {
            file.may_take(ASKED_LEN / 2).unwrap();
        }
        match file.allocate(0, 4096) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
            Ok(()) => assert_eq!(file.len().unwrap(), 4096),
        }
    }
}
