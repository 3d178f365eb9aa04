//! A disk that forgets: for measuring what an audit log costs beyond its disk.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use host::{Disk, Entry, EntryKind, File, Mode, OsDisk};

/// The operating system's disk until [`silence`](Self::silence); from then on nothing is written or synced, and that is
/// called a success. What was written before can be read.
#[derive(Debug, Default)]
pub(crate) struct SilentDisk(Arc<AtomicBool>);

#[derive(Debug)]
struct SilentFile {
    file: Arc<dyn File>,
    silent: Arc<AtomicBool>,
}

impl SilentDisk {
    /// Forgets all that is written from now on.
    pub(crate) fn silence(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SilentFile {
    fn unless_silent(&self, act: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
        match self.silent.load(Ordering::Relaxed) {
            true => Ok(()),
            false => act(&*self.file),
        }
    }
}

impl File for SilentFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.unless_silent(|file| file.write_at(offset, bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unless_silent(|file| file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.unless_silent(|file| file.sync_all())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.unless_silent(|file| file.allocate(offset, len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.unless_silent(|file| file.punch(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.unless_silent(|file| file.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn lock(&self) -> io::Result<()> {
        self.file.lock()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.file.forget_cached()
    }
}

impl Disk for SilentDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SilentFile {
            file: OsDisk.open(path, mode)?,
            silent: Arc::clone(&self.0),
        }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SilentFile {
            file: OsDisk.open_direct(path)?,
            silent: Arc::clone(&self.0),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        OsDisk.list(dir)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        OsDisk.kind(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
}
