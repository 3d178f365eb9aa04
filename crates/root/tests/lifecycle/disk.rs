//! A disk that fails from its n-th change on, as if the process had been killed there: what was done before stays,
//! nothing after it happens.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use host::{Disk, Entry, EntryKind, File, Mode, OsDisk};

#[derive(Debug, Clone)]
pub(crate) struct DyingDisk {
    left: Arc<AtomicI64>,
}

impl DyingDisk {
    /// A disk that takes `changes` changes.
    pub(crate) fn after(changes: i64) -> Self {
        let left = Arc::new(AtomicI64::new(changes));
        Self { left }
    }

    /// Whether it has refused anything.
    pub(crate) fn died(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn change(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        self.left.store(-1, Ordering::SeqCst);
        Err(io::Error::other("killed here"))
    }
}

#[derive(Debug)]
struct DyingFile {
    file: Arc<dyn File>,
    disk: DyingDisk,
}

impl Disk for DyingDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        if mode != Mode::Read {
            self.change()?;
        }
        Ok(Arc::new(DyingFile {
            file: OsDisk.open(path, mode)?,
            disk: self.clone(),
        }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.create_dir(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.remove_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        OsDisk.list(dir)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        OsDisk.kind(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.sync_dir(dir)
    }
}

impl File for DyingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(killed) = self.disk.change() {
            // Cut off in the middle of the write.
            self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(killed);
        }
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.change()?;
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.disk.change()?;
        self.file.sync_all()
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.allocate(offset, len)
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.punch(offset, len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
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
