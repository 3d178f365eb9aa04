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
        if self.commit.wants_checkpoint(log.end()) {
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
                self.commit.checkpoint_past(log.end().saturating_mul(2));
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
        self.commit.checkpointed(new.end());
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
