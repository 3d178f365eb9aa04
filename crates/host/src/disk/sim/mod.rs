//! A disk in memory that crashes and fails as it is told. For tests.
//!
//! What is written lies in a cache that every process sees. A **killed process** ([`Crash::Process`]) loses its open
//! files and its locks, and nothing it has written. A **power cut** ([`Crash::Power`]) keeps any part of what was not
//! synced, and all of what was:
//! - of each sector of 512 bytes: its last synced content, its last content, or one between them, one sector
//!   independently of the next (torn, dropped and reordered writes);
//! - of a file's length: the synced one, the last one, or one between; what was cut off may come back;
//! - of the changes of names since their folder was synced: any, though those of one name in their order, and a rename
//!   as a whole. A rename between two folders is undone or done in each of them by itself once one of them was synced.
//!   A file or folder whose name is lost is lost. Neither syncing a file nor syncing a folder makes its own name
//!   durable.
//!
//! A sync that fails behaves as Linux's: part of it may have reached the disk, all of it counts as clean. Readers see
//! it until the power fails or [`forget_cached`](crate::File::forget_cached); no later sync makes it durable. A
//! folder's sync that fails has made nothing durable, and a later one may: file systems with a journal write it again or
//! stop.
//!
//! Everything random follows from one seed, and everything is listed in order, so a run can be repeated. Calls are
//! counted: let a test run once, then stop the machine at each of the calls it made ([`campaign`] does
//! it).
//!
//! Paths begin at the root, with a slash or without. There are no symbolic links.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use super::{DIRECT_ALIGN, Disk, Entry, EntryKind, File, Mode, SECTOR_LEN};
use crate::entropy::SeededEntropy;

pub mod campaign;
mod content;
mod names;
mod plan;
#[cfg(test)]
mod tests;

use content::Content;
use names::{Id, Names};
pub use plan::{Call, Failure, Fault};

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the page cache lives on.
    Process,
    /// The power fails; of what was not synced, any part is kept.
    Power,
}

/// The simulated disk. A clone is another handle to the same disk; [`fork`](Self::fork) copies it.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: SeededEntropy,
    names: Names,
    files: BTreeMap<Id, Inode>,
    next: Id,
    /// How much all files may take.
    capacity: u64,
    plan: plan::Plan,
    down: bool,
    /// Which start of the machine this is; files opened before it are dead.
    epoch: u64,
    calls: u64,
    next_handle: u64,
    /// Whether the disk writes pages whole.
    whole: bool,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    content: Content,
    /// The name it had last.
    path: PathBuf,
    links: u64,
    handles: u64,
    /// The handle that has the lock.
    locked: Option<u64>,
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: Id,
    handle: u64,
    epoch: u64,
    writable: bool,
    /// What offsets and lengths of writes must be multiples of; then their addresses are ones of [`DIRECT_ALIGN`].
    direct: Option<usize>,
}

impl SimDisk {
    /// An empty disk with plenty of space.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: SeededEntropy::new(seed),
            names: Names::new(),
            files: BTreeMap::new(),
            next: names::ROOT + 1,
            capacity: u64::MAX,
            plan: plan::Plan::default(),
            down: false,
            epoch: 0,
            calls: 0,
            next_handle: 0,
            whole: false,
        })))
    }

    /// A copy of the disk as it is, cache and all, that goes its own way from here with another seed. Files are not
    /// open on it, and nothing is planned to go wrong.
    pub fn fork(&self, seed: u64) -> Self {
        let state = self.0.lock();
        let mut files = state.files.clone();
        for file in files.values_mut() {
            (file.handles, file.locked) = (0, None);
        }
        Self(Arc::new(Mutex::new(State {
            rng: SeededEntropy::new(seed),
            names: state.names.clone(),
            files,
            next: state.next,
            capacity: state.capacity,
            plan: plan::Plan::default(),
            down: false,
            epoch: 0,
            calls: 0,
            next_handle: 0,
            whole: state.whole,
        })))
    }

    /// Such a disk, but one that tears nothing smaller than 4096 aligned bytes, as most do and none has to. Of files made
    /// from now on.
    pub fn with_whole_pages(self) -> Self {
        self.0.lock().whole = true;
        self
    }

    /// Plans a failure.
    pub fn fail(&self, fault: Fault) {
        self.0.lock().plan.add(fault);
    }

    /// After so many more calls the machine stops, in the middle of one.
    pub fn stop_after(&self, calls: u64) {
        self.fail(Fault::new(Failure::Stop).after(calls));
    }

    /// How many planned failures have not happened; lasting ones are not counted.
    pub fn faults_left(&self) -> usize {
        self.0.lock().plan.left()
    }

    /// Forgets what was planned.
    pub fn clear_faults(&self) {
        self.0.lock().plan.clear();
    }

    /// Whether the machine stopped.
    pub fn is_down(&self) -> bool {
        self.0.lock().down
    }

    /// How many calls were made, failed ones included.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// The machine goes down, if it is not, and comes back. Files that were open are dead, locks are gone, and so is
    /// what was planned to fail.
    pub fn restart(&self, crash: Crash) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.plan.clear();
        state.down = false;
        state.epoch += 1;
        for file in state.files.values_mut() {
            (file.handles, file.locked) = (0, None);
        }
        if crash == Crash::Power {
            state.names.power_fails(&state.rng);
            let reached = state.names.reached();
            for file in state.files.values_mut() {
                file.links = 0;
            }
            for (path, id) in reached {
                if let Some(file) = state.files.get_mut(&id) {
                    file.links += 1;
                    file.path = path;
                }
            }
            state.files.retain(|_, file| file.links > 0);
            for file in state.files.values_mut() {
                file.content.power_fails(&state.rng);
            }
        }
    }

    /// Leaves so much space free, in bytes.
    pub fn set_free(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.capacity = state.used().saturating_add(bytes);
    }

    /// How much space is free, in bytes; counted in pages of 4096.
    pub fn free(&self) -> u64 {
        let state = self.0.lock();
        state.capacity.saturating_sub(state.used())
    }

    /// A file as readers see it.
    ///
    /// # Panics
    /// If there is none.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let state = self.0.lock();
        let content = &state.files[&state.file(path.as_ref())].content;
        let mut bytes = vec![0; usize::try_from(content.len).expect("it fits memory")];
        content.read(0, &mut bytes);
        bytes
    }

    /// The paths of all files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        let state = self.0.lock();
        let reached = state.names.reached().into_iter();
        let files = reached.filter(|(_, id)| state.files.contains_key(id));
        files.map(|(path, _)| path).collect()
    }

    /// All that any file holds, in the cache or on the disk, as whoever has the machine sees it: for looking whether
    /// something is among it.
    pub fn everything(&self) -> Vec<u8> {
        let state = self.0.lock();
        let pages = state.files.values().flat_map(|f| f.content.each_page());
        pages.collect::<Vec<_>>().concat()
    }

    /// Changes a byte of a file, as whoever has the disk may.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn damage(&self, path: impl AsRef<Path>, offset: u64, change: impl FnOnce(u8) -> u8) {
        let mut state = self.0.lock();
        let id = state.file(path.as_ref());
        let file = state.files.get_mut(&id).expect("it was just found");
        file.content.damage(offset, change);
    }

    /// Cuts a file, as whoever has the disk may.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn cut(&self, path: impl AsRef<Path>, len: u64) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let id = state.file(path.as_ref());
        let file = state.files.get_mut(&id).expect("it was just found");
        file.content.cut(len, &state.rng);
    }

    /// Begins a call for a path.
    fn call(
        &self,
        call: Call,
        path: &Path,
    ) -> io::Result<(MutexGuard<'_, State>, Option<Failure>)> {
        let mut state = self.0.lock();
        let failure = state.begins(call, path)?;
        Ok((state, failure))
    }
}

impl State {
    /// Counts a call, and says how it is to fail.
    fn begins(&mut self, call: Call, path: &Path) -> io::Result<Option<Failure>> {
        if self.down {
            return Err(io::Error::other("the machine is down"));
        }
        self.calls += 1;
        let failure = self.plan.meets(call, path);
        self.down = failure == Some(Failure::Stop);
        Ok(failure)
    }

    /// The error of a call that is to fail. If the machine stops, `act` may have happened.
    fn end(
        &mut self,
        failure: Option<Failure>,
        act: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        match failure {
            None => act(self),
            Some(failure) => {
                if failure == Failure::Stop && self.rng.one_in(2) {
                    act(self)?;
                }
                Err(failure.error())
            }
        }
    }

    fn used(&self) -> u64 {
        let live = self.files.values();
        live.filter(|file| file.links > 0 || file.handles > 0)
            .map(|file| file.content.taken())
            .sum()
    }

    /// The file at a path, for a test.
    fn file(&self, path: &Path) -> Id {
        match self.names.find(path) {
            Ok(Some(id)) if self.files.contains_key(&id) => id,
            other => panic!("no file {}: {other:?}", path.display()),
        }
    }

    /// What a path stands for, or `NotFound`.
    fn found(&self, path: &Path) -> io::Result<Id> {
        let found = self.names.find(path)?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn new_id(&mut self) -> Id {
        self.next += 1;
        self.next - 1
    }

    /// A name no longer stands for this.
    fn unlinked(&mut self, id: Option<Id>) {
        if let Some(file) = id.and_then(|id| self.files.get_mut(&id)) {
            file.links -= 1;
        }
    }

    fn linked(&mut self, id: Id, path: &Path) {
        if let Some(file) = self.files.get_mut(&id) {
            file.links += 1;
            path.clone_into(&mut file.path);
        }
    }
}

/// A path's folder and name, which is not the root.
fn name_of<'a>(state: &State, path: &'a Path) -> io::Result<(Id, &'a std::ffi::OsStr)> {
    let found = state.names.split(path)?;
    found.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl SimDisk {
    fn open_file(&self, path: &Path, mode: Mode) -> io::Result<SimFile> {
        let (mut state, failure) = self.call(Call::Open, path)?;
        let mut opened = None;
        state.end(failure, |state| {
            let (folder, name) = name_of(state, path)?;
            let found = state.names.get(folder, name);
            let id = match (found, mode) {
                (Some(_), Mode::New) => return Err(io::ErrorKind::AlreadyExists.into()),
                (Some(id), _) if state.names.is_folder(id) => {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                (Some(id), _) => id,
                (None, Mode::Read | Mode::Write) => return Err(io::ErrorKind::NotFound.into()),
                (None, Mode::Create | Mode::New) => {
                    let id = state.new_id();
                    let inode = Inode {
                        content: Content::new(state.whole),
                        ..Inode::default()
                    };
                    state.files.insert(id, inode);
                    state.names.change(&[(folder, name, Some(id))], false);
                    state.linked(id, path);
                    id
                }
            };
            opened = Some(id);
            Ok(())
        })?;
        let id = opened.expect("it was opened");
        state.next_handle += 1;
        if let Some(file) = state.files.get_mut(&id) {
            file.handles += 1;
        }
        Ok(SimFile {
            disk: self.clone(),
            id,
            handle: state.next_handle,
            epoch: state.epoch,
            writable: mode != Mode::Read,
            direct: None,
        })
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.open_file(path, mode)?))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut file = self.open_file(path, Mode::New)?;
        file.direct = Some(DIRECT_ALIGN);
        Ok(Arc::new(file))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut file = self.open_file(path, Mode::Write)?;
        file.direct = Some(SECTOR_LEN);
        Ok(Arc::new(file))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let (mut state, failure) = self.call(Call::FreeBytes, dir)?;
        state.end(failure, |_| Ok(()))?;
        Ok(state.capacity.saturating_sub(state.used()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, failure) = self.call(Call::Rename, to)?;
        state.end(failure, |state| {
            let id = state.found(from)?;
            let (old, new) = (name_of(state, from)?, name_of(state, to)?);
            let replaced = state.names.get(new.0, new.1);
            if replaced == Some(id) {
                return Ok(());
            }
            let is_folder = state.names.is_folder(id);
            if is_folder && to.starts_with(from) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            match replaced.map(|id| (state.names.is_folder(id), id)) {
                Some((true, _)) if !is_folder => return Err(io::ErrorKind::IsADirectory.into()),
                Some((true, id)) if state.names.list(id).next().is_some() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                Some((false, _)) if is_folder => return Err(io::ErrorKind::NotADirectory.into()),
                _ => {}
            }
            state.unlinked(replaced);
            state.unlinked(Some(id));
            state
                .names
                .change(&[(old.0, old.1, None), (new.0, new.1, Some(id))], is_folder);
            state.linked(id, to);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, failure) = self.call(Call::Link, to)?;
        state.end(failure, |state| {
            let id = state.found(from)?;
            let (folder, name) = name_of(state, to)?;
            if state.names.is_folder(id) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            if state.names.get(folder, name).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.names.change(&[(folder, name, Some(id))], false);
            state.linked(id, to);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, failure) = self.call(Call::Remove, path)?;
        state.end(failure, |state| {
            let id = state.found(path)?;
            if state.names.is_folder(id) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let (folder, name) = name_of(state, path)?;
            state.names.change(&[(folder, name, None)], false);
            state.unlinked(Some(id));
            Ok(())
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, failure) = self.call(Call::CreateDir, path)?;
        state.end(failure, |state| {
            if state.names.find(path)?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let (folder, name) = name_of(state, path)?;
            let id = state.new_id();
            state.names.add_folder(id);
            state.names.change(&[(folder, name, Some(id))], false);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, failure) = self.call(Call::RemoveDir, path)?;
        state.end(failure, |state| {
            let id = state.found(path)?;
            if !state.names.is_folder(id) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if state.names.list(id).next().is_some() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let (folder, name) = name_of(state, path)?;
            state.names.change(&[(folder, name, None)], false);
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let (mut state, failure) = self.call(Call::List, dir)?;
        state.end(failure, |_| Ok(()))?;
        let id = state.found(dir)?;
        if !state.names.is_folder(id) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let entries = state.names.list(id).map(|(name, id)| Entry {
            name: name.clone(),
            kind: if state.names.is_folder(id) {
                EntryKind::Folder
            } else {
                EntryKind::File
            },
        });
        Ok(entries.collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        let (mut state, failure) = self.call(Call::Kind, path)?;
        state.end(failure, |_| Ok(()))?;
        match state.names.find(path) {
            Ok(Some(id)) if state.names.is_folder(id) => Ok(Some(EntryKind::Folder)),
            Ok(Some(_)) => Ok(Some(EntryKind::File)),
            Ok(None) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, failure) = self.call(Call::SyncDir, dir)?;
        let id = state.found(dir)?;
        if !state.names.is_folder(id) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        state.end(failure, |state| {
            state.names.sync(id);
            Ok(())
        })
    }
}

impl SimFile {
    /// Begins a call for this file.
    fn call(&self, call: Call) -> io::Result<(MutexGuard<'_, State>, Option<Failure>)> {
        let mut state = self.disk.0.lock();
        if self.epoch != state.epoch {
            return Err(io::Error::other("the machine has gone down since"));
        }
        let changes = matches!(
            call,
            Call::Write | Call::Allocate | Call::Punch | Call::SetLen
        );
        if changes && !self.writable {
            return Err(rustix::io::Errno::BADF.into());
        }
        let path = state.files.get(&self.id).map(|file| file.path.clone());
        let failure = state.begins(call, &path.unwrap_or_default())?;
        Ok((state, failure))
    }

    /// Does something to the content.
    fn act(
        &self,
        call: Call,
        act: impl FnOnce(&mut Content, &SeededEntropy) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut state, failure) = self.call(call)?;
        state.end(failure, |state| {
            let file = state.files.get_mut(&self.id).expect("an open file is kept");
            act(&mut file.content, &state.rng)
        })
    }

    fn sync(&self, call: Call) -> io::Result<()> {
        let (mut guard, failure) = self.call(call)?;
        let state = &mut *guard;
        let file = state.files.get_mut(&self.id).expect("an open file is kept");
        match failure {
            None => file.content.sync(),
            // Nobody sees how far it came, before the power fails.
            Some(Failure::Stop) => {}
            Some(_) => file.content.sync_fails(&state.rng),
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }
}

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    let end = offset.checked_add(len);
    end.filter(|end| i64::try_from(*end).is_ok())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = end_of(offset, buf.len() as u64)?;
        self.act(Call::Read, |content, _| {
            if end > content.len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            content.read(offset, buf);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = end_of(offset, bytes.len() as u64)?;
        if let Some(unit) = self.direct
            && !(offset.is_multiple_of(unit as u64)
                && bytes.len().is_multiple_of(unit)
                && bytes.as_ptr().addr().is_multiple_of(DIRECT_ALIGN))
        {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let (mut guard, failure) = self.call(Call::Write)?;
        let state = &mut *guard;
        let free = state.capacity.saturating_sub(state.used());
        let file = state.files.get_mut(&self.id).expect("an open file is kept");
        let failure = if file.content.lacks(offset..end) > free {
            failure.or(Some(Failure::NoSpace))
        } else {
            failure
        };
        let len = match failure {
            None => bytes.len(),
            Some(_) => {
                // Some of the first sectors, as far as there is space for them.
                let unit = file.content.unit();
                let sectors = bytes.len().div_ceil(unit) as u64;
                let mut len = bytes
                    .len()
                    .min(state.rng.below(sectors + 1) as usize * unit);
                if file.content.lacks(offset..offset + len as u64) > free {
                    len = 0;
                }
                len
            }
        };
        file.content.take(offset..offset + len as u64);
        file.content.write(offset, &bytes[..len], &state.rng);
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Call::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Call::SyncAll)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = end_of(offset, len)?;
        let (mut state, failure) = self.call(Call::Allocate)?;
        state.end(failure, |state| {
            let free = state.capacity.saturating_sub(state.used());
            let file = state.files.get_mut(&self.id).expect("an open file is kept");
            if file.content.lacks(offset..end) > free {
                return Err(Failure::NoSpace.error());
            }
            file.content.take(offset..end);
            file.content.grow(end);
            Ok(())
        })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = end_of(offset, len)?;
        self.act(Call::Punch, |content, rng| {
            content.punch(offset..end, rng);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        end_of(len, 0)?;
        self.act(Call::SetLen, |content, rng| {
            content.set_len(len, rng);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        let mut len = 0;
        self.act(Call::Len, |content, _| {
            len = content.len;
            Ok(())
        })?;
        Ok(len)
    }

    fn lock(&self) -> io::Result<()> {
        let (mut state, failure) = self.call(Call::Lock)?;
        state.end(failure, |state| {
            let file = state.files.get_mut(&self.id).expect("an open file is kept");
            match file.locked {
                Some(holder) if holder != self.handle => Err(io::ErrorKind::WouldBlock.into()),
                _ => {
                    file.locked = Some(self.handle);
                    Ok(())
                }
            }
        })
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.sync(Call::ForgetCached)?;
        let mut state = self.disk.0.lock();
        if let Some(file) = state.files.get_mut(&self.id) {
            file.content.forget_clean();
        }
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if self.epoch != state.epoch {
            return;
        }
        if let Some(file) = state.files.get_mut(&self.id) {
            file.handles -= 1;
            if file.locked == Some(self.handle) {
                file.locked = None;
            }
        }
    }
}
