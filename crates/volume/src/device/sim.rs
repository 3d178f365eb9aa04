//! A disk that crashes, for tests: what was not synced lies in a volatile cache, and a power failure keeps any part of it.
//!
//! Everything random comes from one seed. The disk can be told to stop after so many calls (in the middle of one, if it
//! writes), to run out of space, and to fail a read, a write or a sync. A failed sync behaves as Linux's does: the pages
//! are clean from then on, and not on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Device, LogDir};

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process dies; the page cache lives on.
    Process,
    /// The power fails; of what was not synced, any part is kept.
    Power,
}

/// What can be made to fail, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Read,
    Write,
    SyncSlots,
    SyncLog,
}

/// A disk with one volume's slot file and log on it.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

struct State {
    rng: Rng,
    files: Vec<SimFile>,
    /// Index of the current log and of the next; the slot file is 0.
    log: usize,
    next_log: Option<usize>,
    /// The log before the current one, while its replacement is not durable.
    log_before: Option<usize>,
    /// Bytes that may still be taken.
    space: u64,
    calls_left: Option<u64>,
    down: bool,
    fault: Option<Fault>,
}

type Block = Option<Box<[u8]>>;

#[derive(Default)]
struct SimFile {
    /// What a crash leaves zero or right.
    block_len: usize,
    durable: BTreeMap<u64, Block>,
    /// Written, and dropped by a failed sync: seen by readers until the power fails.
    lost: BTreeMap<u64, Block>,
    dirty: BTreeMap<u64, Block>,
    taken: BTreeSet<u64>,
    len: u64,
    durable_len: u64,
}

impl SimFile {
    fn new(block_len: usize) -> Self {
        Self {
            block_len,
            ..Self::default()
        }
    }

    fn block(&self, index: u64) -> Option<&[u8]> {
        [&self.dirty, &self.lost, &self.durable]
            .into_iter()
            .find_map(|blocks| blocks.get(&index))
            .and_then(|block| block.as_deref())
    }

    fn set(&mut self, index: u64, block: Block, rng: &mut Rng) {
        if let Some(before) = self.dirty.insert(index, block)
            && rng.one_in(4)
        {
            // The kernel had written it back by itself.
            self.durable.insert(index, before);
        }
    }

    fn sync(&mut self) {
        self.durable.append(&mut self.dirty);
        self.durable_len = self.len;
    }

    fn power_fails(&mut self, rng: &mut Rng) {
        self.lost.clear();
        let keep = rng.below(4); // none, some, most, all
        for (index, block) in std::mem::take(&mut self.dirty) {
            if keep == 3 || rng.below(4) < keep {
                self.durable.insert(index, block);
            }
        }
        if rng.one_in(2) {
            self.len = self.durable_len;
        }
        self.durable_len = self.len;
        let end = self.len.div_ceil(self.block_len as u64);
        self.durable.retain(|index, _| *index < end);
    }
}

impl SimDisk {
    /// A disk with nothing on it, and that much space.
    pub(crate) fn new(seed: u64, space: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng(seed),
            files: vec![SimFile::new(4096), SimFile::new(512)],
            log: 1,
            next_log: None,
            log_before: None,
            space,
            calls_left: None,
            down: false,
            fault: None,
        })))
    }

    pub(crate) fn slots(&self) -> Arc<dyn Device> {
        Arc::new(SimHandle {
            disk: self.clone(),
            file: 0,
        })
    }

    pub(crate) fn log_dir(&self) -> Box<dyn LogDir> {
        Box::new(self.clone())
    }

    /// After so many more calls, every call fails, until [`restart`](Self::restart).
    pub(crate) fn stop_after(&self, calls: u64) {
        self.0.lock().calls_left = Some(calls);
    }

    pub(crate) fn fail_once(&self, fault: Fault) {
        self.0.lock().fault = Some(fault);
    }

    /// Whether the fault that was asked for has not happened yet.
    pub(crate) fn take_fault(&self) -> bool {
        self.0.lock().fault.take().is_some()
    }

    pub(crate) fn set_space(&self, space: u64) {
        self.0.lock().space = space;
    }

    pub(crate) fn space(&self) -> u64 {
        self.0.lock().space
    }

    /// The machine goes down and comes back.
    pub(crate) fn restart(&self, crash: Crash) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.calls_left = None;
        state.down = false;
        state.fault = None;
        if crash == Crash::Power {
            for file in &mut state.files {
                file.power_fails(&mut state.rng);
            }
            if let Some(before) = state.log_before.take()
                && state.rng.one_in(2)
            {
                state.log = before;
            }
        }
    }

    /// The bytes of the slot file and of the log, as whoever has the disk sees them.
    pub(crate) fn contents(&self) -> Vec<u8> {
        let state = self.0.lock();
        let mut out = Vec::new();
        for file in &state.files {
            for blocks in [&file.durable, &file.lost, &file.dirty] {
                for block in blocks.values().flatten() {
                    out.extend_from_slice(block);
                }
            }
        }
        out
    }

    /// Changes a byte of the log on disk.
    pub(crate) fn damage_log(&self, at: u64, change: impl FnOnce(u8) -> u8) {
        let mut state = self.0.lock();
        let log = state.log;
        let file = &mut state.files[log];
        let block = file
            .durable
            .entry(at / 512)
            .or_insert_with(|| Some(vec![0; 512].into()))
            .get_or_insert_with(|| vec![0; 512].into());
        let byte = &mut block[(at % 512) as usize];
        *byte = change(*byte);
    }

    /// A file of the log, whole.
    pub(crate) fn log_bytes(&self) -> Vec<u8> {
        let state = self.0.lock();
        let file = &state.files[state.log];
        let mut out = vec![0; usize::try_from(file.len).expect("held in memory")];
        for (index, out) in (0..).zip(out.chunks_mut(512)) {
            if let Some(block) = file.block(index) {
                out.copy_from_slice(&block[..out.len()]);
            }
        }
        out
    }
}

impl State {
    /// Counts a call; an error if the machine is down, and the number of calls left.
    fn call(&mut self) -> io::Result<bool> {
        if self.down {
            return Err(io::Error::other("the machine is down"));
        }
        if let Some(left) = &mut self.calls_left {
            if *left == 0 {
                self.down = true;
                return Ok(false);
            }
            *left -= 1;
        }
        Ok(true)
    }

    fn sync_folder(&mut self) {
        if let Some(before) = self.log_before.take() {
            let old = &mut self.files[before];
            self.space += old.taken.len() as u64 * old.block_len as u64;
            *old = SimFile::new(512);
        }
    }

    fn goes_down() -> io::Error {
        io::Error::other("the machine went down")
    }

    fn faulty(&mut self, fault: Fault) -> io::Result<()> {
        if self.fault == Some(fault) {
            self.fault = None;
            return Err(io::Error::other("an injected fault"));
        }
        Ok(())
    }

    fn take_space(&mut self, file: usize, indices: std::ops::Range<u64>) -> io::Result<()> {
        let file = &mut self.files[file];
        let new = indices.clone().filter(|i| !file.taken.contains(i)).count() as u64;
        let bytes = new * file.block_len as u64;
        if bytes > self.space {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.space -= bytes;
        file.taken.extend(indices);
        Ok(())
    }
}

/// An open file of a [`SimDisk`].
struct SimHandle {
    disk: SimDisk,
    file: usize,
}

impl Device for SimHandle {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        if !state.call()? {
            return Err(State::goes_down());
        }
        state.faulty(Fault::Read)?;
        let file = &state.files[self.file];
        if offset + buf.len() as u64 > file.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let block_len = file.block_len as u64;
        let mut at = 0;
        while at < buf.len() {
            let position = offset + at as u64;
            let within = usize::try_from(position % block_len).expect("below a usize");
            let len = (file.block_len - within).min(buf.len() - at);
            match file.block(position / block_len) {
                Some(block) => buf[at..at + len].copy_from_slice(&block[within..within + len]),
                None => buf[at..at + len].fill(0),
            }
            at += len;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut guard = self.disk.0.lock();
        let state = &mut *guard;
        let alive = state.call()?;
        state.faulty(Fault::Write)?;
        let block_len = state.files[self.file].block_len;
        assert!(
            offset.is_multiple_of(block_len as u64) && bytes.len().is_multiple_of(block_len),
            "the engine writes whole blocks"
        );
        let first = offset / block_len as u64;
        let count = (bytes.len() / block_len) as u64;
        state.take_space(self.file, first..first + count)?;
        let file = &mut state.files[self.file];
        for (index, block) in (first..).zip(bytes.chunks(block_len)) {
            if alive || state.rng.one_in(2) {
                file.set(index, Some(block.into()), &mut state.rng);
                file.len = file.len.max((index + 1) * block_len as u64);
            }
        }
        if alive {
            Ok(())
        } else {
            Err(State::goes_down())
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        if !state.call()? {
            return Err(State::goes_down());
        }
        let fault = if self.file == 0 {
            Fault::SyncSlots
        } else {
            Fault::SyncLog
        };
        let outcome = state.faulty(fault);
        let file = &mut state.files[self.file];
        match outcome {
            Ok(()) => file.sync(),
            Err(_) => file.lost.append(&mut file.dirty),
        }
        outcome
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        if !state.call()? {
            return Err(State::goes_down());
        }
        let block_len = state.files[self.file].block_len as u64;
        state.take_space(self.file, offset / block_len..(offset + len) / block_len)?;
        let file = &mut state.files[self.file];
        file.len = file.len.max(offset + len);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut guard = self.disk.0.lock();
        let state = &mut *guard;
        if !state.call()? {
            return Err(State::goes_down());
        }
        let file = &mut state.files[self.file];
        let block_len = file.block_len as u64;
        for index in offset / block_len..(offset + len) / block_len {
            if file.block(index).is_some() {
                file.set(index, None, &mut state.rng);
            }
            if file.taken.remove(&index) {
                state.space += block_len;
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.0.lock();
        if !state.call()? {
            return Err(State::goes_down());
        }
        Ok(state.files[self.file].len)
    }
}

impl LogDir for SimDisk {
    fn open_current(&self) -> io::Result<Box<dyn Device>> {
        let mut state = self.0.lock();
        if !state.call()? {
            return Err(State::goes_down());
        }
        state.sync_folder();
        Ok(Box::new(SimHandle {
            disk: self.clone(),
            file: state.log,
        }))
    }

    fn create_next(&self) -> io::Result<Box<dyn Device>> {
        let mut state = self.0.lock();
        if !state.call()? {
            return Err(State::goes_down());
        }
        if state.space < 4096 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files.push(SimFile::new(512));
        let file = state.files.len() - 1;
        state.next_log = Some(file);
        Ok(Box::new(SimHandle {
            disk: self.clone(),
            file,
        }))
    }

    fn publish_next(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if !state.call()? {
            return Err(State::goes_down());
        }
        let next = state.next_log.take().expect("there is one to publish");
        let before = std::mem::replace(&mut state.log, next);
        state.log_before = Some(before);
        // Then the folder is synced.
        if !state.call()? {
            return Err(State::goes_down());
        }
        state.sync_folder();
        Ok(())
    }

    fn discard_next(&self) {
        let mut state = self.0.lock();
        if !state.down
            && let Some(next) = state.next_log.take()
        {
            let file = &mut state.files[next];
            let freed = file.taken.len() as u64 * file.block_len as u64;
            *file = SimFile::new(512);
            state.space += freed;
        }
    }
}
