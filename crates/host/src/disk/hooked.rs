//! A disk that asks before each call whether it may be made.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::sim::Call;
use super::{Disk, Entry, EntryKind, File, Mode};

/// What is asked before a call, with the path that it is for; an open file is known by the one it was opened under. Its
/// error is the call's, which is not made then. May block.
type Hook = dyn Fn(Call, &Path) -> io::Result<()> + Send + Sync;

/// Another disk, with a hook before each of its calls: for a test that has one kind of call fail or wait. Forwards every
/// call that there is.
#[derive(Clone)]
pub struct HookedDisk {
    disk: Arc<dyn Disk>,
    hook: Arc<Hook>,
}

struct HookedFile {
    file: Arc<dyn File>,
    path: PathBuf,
    hook: Arc<Hook>,
}

impl HookedDisk {
    /// Asks `hook` before each call of `disk`.
    pub fn new(
        disk: Arc<dyn Disk>,
        hook: impl Fn(Call, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let hook = Arc::new(hook);
        Self { disk, hook }
    }

    fn opened(
        &self,
        path: &Path,
        open: impl FnOnce(&dyn Disk) -> io::Result<Arc<dyn File>>,
    ) -> io::Result<Arc<dyn File>> {
        (self.hook)(Call::Open, path)?;
        Ok(Arc::new(HookedFile {
            file: open(&*self.disk)?,
            path: path.to_owned(),
            hook: Arc::clone(&self.hook),
        }))
    }

    fn asked(&self, call: Call, path: &Path) -> io::Result<&dyn Disk> {
        (self.hook)(call, path)?;
        Ok(&*self.disk)
    }
}

impl HookedFile {
    fn asked(&self, call: Call) -> io::Result<&dyn File> {
        (self.hook)(call, &self.path)?;
        Ok(&*self.file)
    }
}

impl fmt::Debug for HookedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HookedDisk").field(&self.disk).finish()
    }
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HookedFile").field(&self.path).finish()
    }
}

impl Disk for HookedDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        self.opened(path, |disk| disk.open(path, mode))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.opened(path, |disk| disk.create_direct(path))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.opened(path, |disk| disk.open_direct(path))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.asked(Call::FreeBytes, dir)?.free_bytes(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.asked(Call::Rename, from)?.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.asked(Call::Link, from)?.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.asked(Call::Remove, path)?.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.asked(Call::CreateDir, path)?.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.asked(Call::RemoveDir, path)?.remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.asked(Call::List, dir)?.list(dir)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.asked(Call::Kind, path)?.kind(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.asked(Call::SyncDir, dir)?.sync_dir(dir)
    }
}

impl File for HookedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.asked(Call::Read)?.read_at(offset, buf)
    }

    fn read_cached(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        self.asked(Call::Read)?.read_cached(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.asked(Call::Write)?.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.asked(Call::SyncData)?.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.asked(Call::SyncAll)?.sync_all()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.asked(Call::Allocate)?.allocate(offset, len)
    }

    fn may_take(&self, len: u64) -> io::Result<()> {
        self.file.may_take(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.asked(Call::Punch)?.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.asked(Call::SetLen)?.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.asked(Call::Len)?.len()
    }

    fn is_empty(&self) -> io::Result<bool> {
        self.asked(Call::Len)?.is_empty()
    }

    fn permissions(&self) -> io::Result<Option<u32>> {
        self.file.permissions()
    }

    fn lock(&self) -> io::Result<()> {
        self.asked(Call::Lock)?.lock()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.asked(Call::ForgetCached)?.forget_cached()
    }
}
