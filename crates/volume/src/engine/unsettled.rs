//! Sectors whose slots were not synced since they were first written.
//!
//! After a crash, replay compares such a sector with the checksums in the log. So overwriting it needs a record too, written
//! **before** the sector is: without, the sector would match nothing that the log knows, and what was answered would be
//! lost with the process. A sector that is settled is overwritten with no record, since nothing is compared any more.
//!
//! Saying of a settled sector that it is not costs a record and nothing else, so a chunk has one mask, of the last epoch in
//! which any sector was added to it.

use std::{
    collections::HashMap,
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use parking_lot::Mutex;

use crate::geometry::{Chunk, Sectors};

const SHARDS: usize = 64;

/// Which sectors are not settled, and since which epoch.
pub(super) struct Unsettled {
    shards: Box<[Mutex<HashMap<u32, Mask>>]>,
    /// Chunks in all shards.
    chunks: AtomicUsize,
    /// What was added in this epoch and earlier ones is settled.
    settled: AtomicU64,
}

struct Mask {
    epoch: u64,
    sectors: Sectors,
}

impl Unsettled {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            chunks: AtomicUsize::new(0),
            settled: AtomicU64::new(0),
        }
    }

    fn shard(&self, chunk: Chunk) -> &Mutex<HashMap<u32, Mask>> {
        &self.shards[chunk.0 as usize % SHARDS]
    }

    /// The sectors of a chunk that are not settled, perhaps with some that are, or are not written at all. Hold the
    /// chunk's range lock.
    pub(super) fn of(&self, chunk: Chunk) -> Sectors {
        // Whoever added sectors of this chunk had its range lock, so its count is seen here.
        if self.chunks.load(Relaxed) == 0 {
            return Sectors::NONE;
        }
        match self.shard(chunk).lock().get(&chunk.0) {
            Some(mask) if mask.epoch > self.settled.load(Acquire) => mask.sectors,
            _ => Sectors::NONE,
        }
    }

    /// Sectors were written whose record is of that epoch. Hold the chunk's range lock for writing.
    pub(super) fn add(&self, chunk: Chunk, sectors: Sectors, epoch: u64) {
        let mut shard = self.shard(chunk).lock();
        let mask = shard.entry(chunk.0).or_insert_with(|| {
            self.chunks.fetch_add(1, Relaxed);
            Mask {
                epoch,
                sectors: Sectors::NONE,
            }
        });
        if mask.epoch <= self.settled.load(Acquire) {
            mask.sectors = Sectors::NONE;
        }
        mask.epoch = mask.epoch.max(epoch);
        mask.sectors = mask.sectors.with(sectors);
    }

    /// The slots were synced after the records of that epoch were written, and the log says so.
    pub(super) fn settle(&self, epoch: u64) {
        self.settled.store(epoch, Release);
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|_, mask| mask.epoch > epoch);
            self.chunks.fetch_sub(before - shard.len(), Relaxed);
            if shard.is_empty() {
                shard.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_unsettled_until_their_epoch_is_over() {
        let unsettled = Unsettled::new();
        let (a, b) = (Sectors::range(0, 1), Sectors::range(5, 2));
        let chunk = Chunk(70);
        assert_eq!(unsettled.of(chunk), Sectors::NONE);
        unsettled.add(chunk, a, 1);
        unsettled.add(Chunk(6), a, 1);
        unsettled.add(chunk, b, 2);
        unsettled.settle(1);
        assert_eq!(unsettled.of(chunk), a.with(b));
        assert_eq!(unsettled.of(Chunk(6)), Sectors::NONE);
        assert_eq!(unsettled.chunks.load(Relaxed), 1);
        // Late: its record was written before the round that settled it ended.
        unsettled.add(Chunk(6), a, 1);
        assert_eq!(unsettled.of(Chunk(6)), Sectors::NONE);
        unsettled.settle(2);
        assert_eq!(unsettled.of(chunk), Sectors::NONE);
        assert_eq!(unsettled.chunks.load(Relaxed), 0);
        unsettled.add(chunk, a, 3);
        assert_eq!(unsettled.of(chunk), a);
    }
}
