//! Where each chunk is: the map of the top layer, in memory.
//!
//! Two levels. A leaf covers 4096 chunks (2 GiB of volume) and is made when one of them is first written, so an empty
//! 64 TiB volume costs half a MiB and a full one 1 GiB. A chunk is one 64-bit word if all its sectors are alike; the
//! masks of a chunk that is partly written are kept aside, in shards.
//!
//! Who reads or changes a chunk holds its range lock (`ranges`); the words are atomic so that this needs no further
//! lock, not for concurrency.

use std::{
    collections::HashMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use crate::geometry::{Chunk, Generation, Sectors, Slot};

const LEAF_CHUNKS: u32 = 4096;
const SHARDS: usize = 64;

/// Greatest generation that fits a word.
pub(crate) const GENERATION_MAX: u32 = (1 << 24) - 1;

/// What a layer has of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where its sectors are.
    pub(crate) slot: Slot,
    /// Under which generation they are sealed.
    pub(crate) generation: Generation,
    /// Sectors that are in the slot.
    pub(crate) valid: Sectors,
    /// Sectors that are zero, without being in the slot. Never both. A sector that is neither comes from below; there
    /// is nothing below yet, so it reads as zeroes too.
    pub(crate) zero: Sectors,
    /// Sectors that were written and cannot be told from what they are not: a repair has marked them. They are neither
    /// of the others, and cannot be read until they are written or trimmed.
    pub(crate) lost: Sectors,
}

impl Entry {
    pub(crate) fn is_empty(&self) -> bool {
        self.valid.is_empty() && self.zero.is_empty() && self.lost.is_empty()
    }

    /// Two masks that say all three: what is in both is lost.
    pub(crate) fn masks(&self) -> (Sectors, Sectors) {
        (self.valid.with(self.lost), self.zero.with(self.lost))
    }

    /// The inverse of [`masks`](Self::masks).
    pub(crate) fn from_masks(
        slot: Slot,
        generation: Generation,
        (valid, zero): (Sectors, Sectors),
    ) -> Self {
        let lost = valid.and(zero);
        Self {
            slot,
            generation,
            valid: valid.without(lost),
            zero: zero.without(lost),
            lost,
        }
    }

    /// These sectors hold nothing any more.
    pub(crate) fn without(&self, sectors: Sectors) -> Self {
        Self {
            valid: self.valid.without(sectors),
            zero: self.zero.without(sectors),
            lost: self.lost.without(sectors),
            ..*self
        }
    }
}

/// A word: slot in the low 32 bits, then 8 bits of kind, then 24 bits of generation.
#[derive(Clone, Copy)]
struct Word(u64);

const KIND_NONE: u8 = 0;
/// All sectors valid.
const KIND_FULL: u8 = 1;
/// All sectors zero.
const KIND_ZERO: u8 = 2;
/// Masks are kept aside.
const KIND_PARTIAL: u8 = 3;

impl Word {
    const NONE: Self = Self(0);

    fn new(kind: u8, slot: Slot, generation: Generation) -> Self {
        debug_assert!(generation.0 <= GENERATION_MAX);
        Self(u64::from(generation.0) << 40 | u64::from(kind) << 32 | u64::from(slot.0))
    }

    #[allow(clippy::cast_possible_truncation)] // the bits meant
    fn kind(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[allow(clippy::cast_possible_truncation)]
    fn slot(self) -> Slot {
        Slot(self.0 as u32)
    }

    #[allow(clippy::cast_possible_truncation)]
    fn generation(self) -> Generation {
        Generation((self.0 >> 40) as u32)
    }
}

/// [`Entry::masks`]
struct Masks {
    valid: Sectors,
    zero: Sectors,
}

struct Leaf {
    words: [AtomicU64; LEAF_CHUNKS as usize],
}

impl Leaf {
    fn new() -> Box<Self> {
        Box::new(Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }
}

/// The map of a volume's top layer.
pub(crate) struct Map {
    leaves: Box<[OnceLock<Box<Leaf>>]>,
    masks: Box<[Mutex<HashMap<u32, Masks>>]>,
    chunks: u32,
}

impl Map {
    /// An empty map of that many chunks.
    pub(crate) fn new(chunks: u32) -> Self {
        Self {
            leaves: (0..chunks.div_ceil(LEAF_CHUNKS))
                .map(|_| OnceLock::new())
                .collect(),
            masks: (0..SHARDS).map(|_| Mutex::default()).collect(),
            chunks,
        }
    }

    /// How many chunks the volume has.
    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    fn leaf(&self, chunk: Chunk) -> Option<&Leaf> {
        self.leaves[(chunk.0 / LEAF_CHUNKS) as usize]
            .get()
            .map(Box::as_ref)
    }

    fn masks(&self, chunk: Chunk) -> &Mutex<HashMap<u32, Masks>> {
        &self.masks[chunk.0 as usize % SHARDS]
    }

    /// What the layer has of a chunk; `None` if nothing. Hold the chunk's range lock.
    pub(crate) fn get(&self, chunk: Chunk) -> Option<Entry> {
        let leaf = self.leaf(chunk)?;
        let word = Word(leaf.words[(chunk.0 % LEAF_CHUNKS) as usize].load(Relaxed));
        let (valid, zero) = match word.kind() {
            KIND_NONE => return None,
            KIND_FULL => (Sectors::ALL, Sectors::NONE),
            KIND_ZERO => (Sectors::NONE, Sectors::ALL),
            _ => {
                let shard = self.masks(chunk).lock();
                let masks = shard
                    .get(&chunk.0)
                    .expect("a partial word has its masks, changed under the same range lock");
                (masks.valid, masks.zero)
            }
        };
        let (slot, generation) = (word.slot(), word.generation());
        Some(Entry::from_masks(slot, generation, (valid, zero)))
    }

    /// The slot of the chunk before this one, if it has any: a hint where to put this one. Takes no lock.
    pub(crate) fn slot_before(&self, chunk: Chunk) -> Option<Slot> {
        let before = Chunk(chunk.0.checked_sub(1)?);
        let word = Word(self.leaf(before)?.words[(before.0 % LEAF_CHUNKS) as usize].load(Relaxed));
        (word.kind() != KIND_NONE).then(|| word.slot())
    }

    /// Whether all sectors of the chunk before this one are in its slot. Takes no lock.
    pub(crate) fn is_full_before(&self, chunk: Chunk) -> bool {
        let before = chunk.0.checked_sub(1).map(Chunk);
        let leaf = before.and_then(|before| Some((before, self.leaf(before)?)));
        leaf.is_some_and(|(before, leaf)| {
            let word = &leaf.words[(before.0 % LEAF_CHUNKS) as usize];
            Word(word.load(Relaxed)).kind() == KIND_FULL
        })
    }

    /// Sets what the layer has of a chunk (an empty entry: nothing). Hold the chunk's range lock
    /// for writing.
    pub(crate) fn set(&self, chunk: Chunk, entry: Option<Entry>) {
        let leaf = match &entry {
            Some(_) => self.leaves[(chunk.0 / LEAF_CHUNKS) as usize].get_or_init(Leaf::new),
            None => match self.leaf(chunk) {
                Some(leaf) => leaf,
                None => return,
            },
        };
        let word = &leaf.words[(chunk.0 % LEAF_CHUNKS) as usize];
        let was_partial = Word(word.load(Relaxed)).kind() == KIND_PARTIAL;
        let (kind, new) = match entry {
            None => (KIND_NONE, Word::NONE),
            Some(entry) => {
                debug_assert!(!entry.valid.overlaps(entry.zero));
                let kind = if entry.valid == Sectors::ALL {
                    KIND_FULL
                } else if entry.zero == Sectors::ALL {
                    KIND_ZERO
                } else {
                    KIND_PARTIAL
                };
                if kind == KIND_PARTIAL {
                    let (valid, zero) = entry.masks();
                    let masks = Masks { valid, zero };
                    self.masks(chunk).lock().insert(chunk.0, masks);
                }
                (kind, Word::new(kind, entry.slot, entry.generation))
            }
        };
        if was_partial && kind != KIND_PARTIAL {
            self.masks(chunk).lock().remove(&chunk.0);
        }
        word.store(new.0, Relaxed);
    }

    /// The first chunk from `from` on, below `end`, that may have something. Takes no lock; whole leaves are skipped.
    pub(crate) fn next_mapped(&self, from: Chunk, end: Chunk) -> Option<Chunk> {
        let mut at = from.0;
        while at < end.0 {
            let leaf_end = (at / LEAF_CHUNKS + 1) * LEAF_CHUNKS;
            let Some(leaf) = self.leaf(Chunk(at)) else {
                at = leaf_end;
                continue;
            };
            while at < leaf_end.min(end.0) {
                if leaf.words[(at % LEAF_CHUNKS) as usize].load(Relaxed) != 0 {
                    return Some(Chunk(at));
                }
                at += 1;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u32, valid: Sectors, zero: Sectors) -> Entry {
        Entry {
            slot: Slot(slot),
            generation: Generation(1),
            valid,
            zero,
            lost: Sectors::NONE,
        }
    }

    #[test]
    fn entries_read_back_as_they_were_set() {
        let map = Map::new(10_000);
        let some = Sectors::range(3, 4);
        let entries = [
            entry(0, Sectors::ALL, Sectors::NONE),
            entry(u32::MAX - 1, Sectors::NONE, Sectors::ALL),
            entry(7, some, Sectors::range(100, 28)),
            entry(7, Sectors::NONE, some),
            Entry {
                lost: Sectors::ALL,
                ..entry(7, Sectors::NONE, Sectors::NONE)
            },
            Entry {
                lost: Sectors::range(9, 2),
                ..entry(7, some, Sectors::range(100, 28))
            },
        ];
        for before in entries {
            for after in entries {
                map.set(Chunk(9_999), Some(before));
                map.set(Chunk(9_999), Some(after));
                assert_eq!(map.get(Chunk(9_999)), Some(after));
            }
        }
        map.set(Chunk(9_999), None);
        assert_eq!(map.get(Chunk(9_999)), None);
        assert!(map.masks.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn unmapped_chunks_are_skipped() {
        let map = Map::new(1 << 27);
        let full = |n| Some(entry(n, Sectors::ALL, Sectors::NONE));
        map.set(Chunk(100_000_000), full(1));
        let end = Chunk(1 << 27);
        assert_eq!(map.next_mapped(Chunk(0), end), Some(Chunk(100_000_000)));
        assert_eq!(map.next_mapped(Chunk(100_000_001), end), None);
        assert_eq!(map.next_mapped(Chunk(0), Chunk(100_000_000)), None);
    }
}
