//! What the connections to one database share while any of them is open: locks, and the memory that SQLite indexes a
//! write-ahead log in (<https://sqlite.org/vfs.html>, <https://sqlite.org/walformat.html#walidxfmt>).
//!
//! It is the process's: gone when the last connection is, as it would be after a crash, so that SQLite makes it anew from
//! the log. Locks are not waited for; who does not get one is told that the database is busy.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rusqlite::ffi::{
    SQLITE_LOCK_EXCLUSIVE, SQLITE_LOCK_NONE, SQLITE_LOCK_PENDING, SQLITE_LOCK_RESERVED,
    SQLITE_LOCK_SHARED, SQLITE_SHM_NLOCK,
};

const SLOTS: usize = SQLITE_SHM_NLOCK as usize;

/// The databases that are open, by path.
#[derive(Default)]
pub(crate) struct Memories(Mutex<BTreeMap<PathBuf, Weak<Memory>>>);

#[derive(Default)]
struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    /// The level each handle has of the database's own lock; those without one are not here.
    levels: BTreeMap<u64, i32>,
    /// The handles that have a part of the memory mapped.
    mapped: usize,
    regions: Vec<Region>,
    /// Of each slot: who shares it, or the one that has it.
    shared: [Vec<u64>; SLOTS],
    exclusive: [Option<u64>; SLOTS],
}

/// Memory at a place that stays. In words, so that it is aligned.
struct Region(Box<[AtomicU64]>);

/// One connection's share.
pub(crate) struct Handle {
    memory: Arc<Memory>,
    id: u64,
    mapped: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memories {
    pub(crate) fn join(&self, path: &Path) -> Handle {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut open = locked(&self.0);
        let memory = open.get(path).and_then(Weak::upgrade).unwrap_or_default();
        open.insert(path.to_owned(), Arc::downgrade(&memory));
        Handle {
            memory,
            id: NEXT.fetch_add(1, Relaxed),
            mapped: false,
        }
    }
}

impl Handle {
    /// Raises the level of the database's lock, or leaves it (but for one that waits to be alone).
    pub(crate) fn lock(&mut self, level: i32) -> bool {
        let mut state = locked(&self.memory.0);
        let mine = state.levels.get(&self.id).copied();
        let mine = mine.unwrap_or(SQLITE_LOCK_NONE);
        if mine >= level {
            return true;
        }
        let others = state.levels.iter().filter(|(id, _)| **id != self.id);
        let highest = others.map(|(_, level)| *level).max();
        let highest = highest.unwrap_or(SQLITE_LOCK_NONE);
        let free = match level.cmp(&SQLITE_LOCK_RESERVED) {
            Ordering::Less => highest < SQLITE_LOCK_PENDING,
            Ordering::Equal => highest < SQLITE_LOCK_RESERVED,
            Ordering::Greater => highest == SQLITE_LOCK_NONE,
        };
        if free {
            state.levels.insert(self.id, level);
        } else if level == SQLITE_LOCK_EXCLUSIVE && highest <= SQLITE_LOCK_SHARED {
            // Others are on their way out, and no new ones get in.
            state.levels.insert(self.id, SQLITE_LOCK_PENDING);
        }
        free
    }

    pub(crate) fn unlock(&mut self, level: i32) {
        let mut state = locked(&self.memory.0);
        if level == SQLITE_LOCK_NONE {
            state.levels.remove(&self.id);
        } else if let Some(mine) = state.levels.get_mut(&self.id) {
            *mine = level.min(*mine);
        }
    }

    pub(crate) fn is_reserved(&self) -> bool {
        let state = locked(&self.memory.0);
        let mut levels = state.levels.values();
        levels.any(|level| *level >= SQLITE_LOCK_RESERVED)
    }

    /// A region of so many bytes; null if it is not there and is not to be made.
    pub(crate) fn map(&mut self, number: usize, len: usize, make: bool) -> *mut u8 {
        let mut state = locked(&self.memory.0);
        if !self.mapped {
            self.mapped = true;
            state.mapped += 1;
        }
        while make && state.regions.len() <= number {
            let words = (0..len.div_ceil(8)).map(|_| AtomicU64::new(0));
            state.regions.push(Region(words.collect()));
        }
        // To cells, so that whoever has the pointer may write.
        let region = state.regions.get(number).map(|region| region.0.as_ptr());
        region.map_or(std::ptr::null_mut(), |words| words.cast_mut().cast())
    }

    pub(crate) fn unmap(&mut self) {
        self.shm_unlock(0..SLOTS);
        let mut state = locked(&self.memory.0);
        if std::mem::take(&mut self.mapped) {
            state.mapped -= 1;
            if state.mapped == 0 {
                state.regions.clear();
            }
        }
    }

    pub(crate) fn shm_lock(&mut self, slots: Range<usize>, exclusive: bool) -> bool {
        let mut state = locked(&self.memory.0);
        let taken = slots.clone().any(|slot| {
            let by_one = state.exclusive[slot].is_some_and(|id| id != self.id);
            by_one || (exclusive && state.shared[slot].iter().any(|id| *id != self.id))
        });
        if taken {
            return false;
        }
        for slot in slots {
            if exclusive {
                state.exclusive[slot] = Some(self.id);
            } else {
                state.shared[slot].push(self.id);
            }
        }
        true
    }

    pub(crate) fn shm_unlock(&mut self, slots: Range<usize>) {
        let mut state = locked(&self.memory.0);
        for slot in slots {
            state.shared[slot].retain(|id| *id != self.id);
            if state.exclusive[slot] == Some(self.id) {
                state.exclusive[slot] = None;
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.unmap();
        self.unlock(SQLITE_LOCK_NONE);
    }
}
