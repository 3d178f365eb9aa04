//! Flush: rounds that make everything durable that was answered before they began.
//!
//! One thread at a time runs a round; who asks meanwhile waits for the next one, and one round serves all that wait. A
//! round collects the map's changes, syncs the slot file, appends the changes to the log, syncs the log, and only then
//! lets the slots go that the changes freed. Why that is enough:
//!
//! - a change is marked after the data it speaks of was written, so the sync that follows covers that data;
//! - retired slots are taken before the changes are collected, and a slot is retired after its change was marked, so a
//!   slot that is let go has its change in this round's records or in earlier ones;
//! - a request that was answered before the round began has marked its changes and set `unsynced` before.
//!
//! A round that cannot get space for the log undoes its collecting and fails; nothing was promised, and the volume goes
//! on. Any other failure is final: after a failed sync nobody knows what is on disk, and the next sync
//! that succeeds would not tell.

use std::io;

use parking_lot::{Condvar, Mutex};

use super::{BASE_GENERATION, BASE_LAYER, Engine};
use crate::{
    VolumeError,
    geometry::{Chunk, SlotRun},
    log::{
        Batch, Record,
        frame::{FileHeader, PAGE_LEN},
        writer::{LogFile, PrepareError},
    },
    protection::Protection,
};

/// The log is written anew when it is longer than this and three times what the last new one was. Tests make it short, so
/// that they see that often.
const LOG_LEN_MIN: u64 = if cfg!(test) { 32 << 10 } else { 8 << 20 };

/// Who runs a round, and how the last one ended.
pub(super) struct Commit {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    running: bool,
    /// Rounds begun. A request needs one that begins after it asked.
    begun: u64,
    ended: u64,
    outcome: Result<(), VolumeError>,
    /// When the log is to be written anew.
    checkpoint_at: u64,
}

impl Commit {
    /// For a log of that length, of which a part is the checkpoint that it began with.
    pub(super) fn new(checkpoint_len: u64) -> Self {
        Self {
            state: Mutex::new(State {
                running: false,
                begun: 0,
                ended: 0,
                outcome: Ok(()),
                checkpoint_at: checkpoint_at(checkpoint_len),
            }),
            ended: Condvar::new(),
        }
    }

    /// Runs `round`, or shares one that begins from now on. With `own`, runs one in any case.
    fn run(
        &self,
        own: bool,
        mut round: impl FnMut() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let mut state = self.state.lock();
        let needed = state.begun + 1;
        let mut ran = !own;
        loop {
            if ran && state.ended >= needed {
                return state.outcome.clone();
            }
            if state.running {
                self.ended.wait(&mut state);
                continue;
            }
            state.running = true;
            state.begun += 1;
            drop(state);
            let guard = EndOnUnwind(self);
            let outcome = round();
            #[expect(
                clippy::mem_forget,
                reason = "the round has not unwound; it holds no secret"
            )]
            std::mem::forget(guard);
            state = self.state.lock();
            state.end(outcome);
            self.ended.notify_all();
            ran = true;
        }
    }
}

impl State {
    fn end(&mut self, outcome: Result<(), VolumeError>) {
        self.running = false;
        self.ended = self.begun;
        self.outcome = outcome;
    }
}

/// If a round panics, those who wait for it are not to wait for ever.
struct EndOnUnwind<'a>(&'a Commit);

impl Drop for EndOnUnwind<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.end(Err(VolumeError::Failed("a flush panicked".into())));
        self.0.ended.notify_all();
    }
}

fn checkpoint_at(checkpoint_len: u64) -> u64 {
    LOG_LEN_MIN.max(checkpoint_len.saturating_mul(3))
}

/// What a round collected, to be put back if it comes to nothing.
struct Collected {
    retired: Vec<SlotRun>,
    /// Runs of chunks: first, count.
    changed: Vec<(Chunk, u32)>,
    unsynced: bool,
}

impl Collected {
    fn note(&mut self, chunk: Chunk) {
        match self.changed.last_mut() {
            Some((first, count)) if first.0 + *count == chunk.0 => *count += 1,
            _ => self.changed.push((chunk, 1)),
        }
    }
}

impl<P: Protection> Engine<P> {
    /// Makes durable everything that was answered before.
    pub(crate) fn flush(&self) -> Result<(), VolumeError> {
        self.alive()?;
        self.commit.run(false, || self.round())
    }

    /// Writes the map to a new log, which takes the old one's place; flushes by the way.
    pub(crate) fn checkpoint(&self) -> Result<(), VolumeError> {
        self.alive()?;
        let mut outcome = Ok(());
        self.commit.run(true, || {
            outcome = self.checkpoint_round();
            match &outcome {
                // Flushes may wait for this round, and what failed is no concern of theirs.
                Err(_) if self.alive().is_ok() => self.round(),
                _ => outcome.clone(),
            }
        })?;
        outcome
    }

    fn round(&self) -> Result<(), VolumeError> {
        self.alive()?;
        let mut log = self.log.lock();
        let mut batch = Batch::default();
        let mut collected = self.collect();
        self.map.take_changed(|chunk| {
            collected.note(chunk);
            let _held = self.ranges.read(chunk, chunk);
            batch.push(Record::of(BASE_LAYER, chunk, self.map.get(chunk)));
        });
        collected.unsynced = self.take_unsynced();
        let payloads = batch.finish();
        match log.prepare(&payloads) {
            Ok(()) => {}
            Err(PrepareError::Write(error)) => {
                self.put_back(collected);
                return Err(VolumeError::from_io("preparing the metadata log", error));
            }
            Err(PrepareError::Sync(error)) => {
                return Err(self.fail("syncing the metadata log", &error));
            }
        }
        if collected.unsynced || !payloads.is_empty() {
            self.store
                .sync()
                .map_err(|error| self.fail("syncing the slot file", &error))?;
        }
        if !payloads.is_empty() {
            let start = log.end();
            log.append(self.protection.log_key(), start, &payloads)
                .and_then(|()| log.sync())
                .map_err(|error| self.fail("appending to the metadata log", &error))?;
        }
        self.housekeeping.punch(collected.retired);
        if log.end() > self.commit.state.lock().checkpoint_at {
            self.housekeeping.checkpoint();
        }
        Ok(())
    }

    fn checkpoint_round(&self) -> Result<(), VolumeError> {
        self.alive()?;
        let mut log = self.log.lock();
        let mut collected = self.collect();
        self.map.take_changed(|chunk| collected.note(chunk));
        let mut new = match self.write_map(&log) {
            Ok(new) => new,
            Err(error) => {
                // The old log is as good as before. It may grow as much again before the next try.
                self.log_folder.discard_next();
                self.put_back(collected);
                self.commit.state.lock().checkpoint_at = log.end().saturating_mul(2);
                return Err(VolumeError::from_io("writing a new metadata log", error));
            }
        };
        collected.unsynced = self.take_unsynced();
        self.store
            .sync()
            .map_err(|error| self.fail("syncing the slot file", &error))?;
        new.finish(self.protection.log_key())
            .and_then(|()| self.log_folder.publish_next())
            .map_err(|error| self.fail("putting a new metadata log in its place", &error))?;
        self.commit.state.lock().checkpoint_at = checkpoint_at(new.end());
        *log = new;
        self.housekeeping.punch(collected.retired);
        Ok(())
    }

    /// The whole map, in a new file. Not durable yet, and neither is the data it speaks of.
    fn write_map(&self, old: &LogFile) -> io::Result<LogFile> {
        let key = self.protection.log_key();
        let header = FileHeader {
            epoch: old.header().epoch + 1,
            checkpoint_end: 0,
            ..*old.header()
        };
        let mut new = LogFile::create(self.log_folder.create_next()?, key, header);
        let mut batch = Batch::default();
        batch.push(first_record());
        let end = Chunk(self.map.chunks());
        let mut at = Chunk(0);
        while let Some(chunk) = self.map.next_mapped(at, end) {
            let held = self.ranges.read(chunk, chunk);
            if let Some(entry) = self.map.get(chunk) {
                batch.push(Record::of(BASE_LAYER, chunk, Some(entry)));
            }
            drop(held);
            let full = batch.take_full();
            if !full.is_empty() {
                new.append(key, PAGE_LEN as u64, &full)?;
            }
            at = chunk.next();
        }
        new.append(key, PAGE_LEN as u64, &batch.finish())?;
        Ok(new)
    }

    fn collect(&self) -> Collected {
        Collected {
            retired: self.slots.take_retired(),
            changed: Vec::new(),
            unsynced: false,
        }
    }

    fn put_back(&self, collected: Collected) {
        if collected.unsynced {
            self.written();
        }
        for (first, count) in collected.changed {
            for chunk in first.0..first.0 + count {
                self.map.mark(Chunk(chunk));
            }
        }
        self.slots.untake_retired(collected.retired);
    }
}

/// What every log begins with.
pub(super) fn first_record() -> Record {
    Record::Layer {
        layer: BASE_LAYER,
        below: None,
        generation: BASE_GENERATION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn waiting_flushes_share_one_round_that_begins_after_them() {
        let commit = Commit::new(0);
        let rounds = AtomicU32::new(0);
        let hold = Mutex::new(());
        let held = hold.lock();
        let round = || {
            rounds.fetch_add(1, SeqCst);
            drop(hold.lock());
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| commit.run(false, round).unwrap());
            while rounds.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            // All of these ask while the first round runs, so it does not cover them.
            for _ in 0..8 {
                scope.spawn(|| commit.run(false, round).unwrap());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(held);
        });
        let rounds = rounds.load(SeqCst);
        assert!((2..9).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_round_that_panics_fails_those_who_wait() {
        let commit = Commit::new(0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = commit.run(false, || panic!("on purpose"));
        }));
        assert!(caught.is_err());
        assert!(!commit.state.lock().running);
        assert!(commit.run(false, || Ok(())).is_ok());
    }
}
