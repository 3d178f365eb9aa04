//! Reading the map back: what the log says, and whether the slots bear it out.
//!
//! Records may be older than the last sync of the slots, which a mark states; what they speak of is there. Of younger ones
//! that is not known after a power cut, so each sector that they add is compared with their checksums, in pieces of 512
//! bytes. A sector each of whose pieces is as one of the records says is kept: it was written, and perhaps overwritten in
//! part when the process died. Any other is in no slot, as before it was first written: it holds zeroes.
//!
//! A sector that was in a slot already when a younger record speaks of it is not compared: it holds an old or a new
//! content, and both may be there.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use super::{BASE_GENERATION, BASE_LAYER};
use crate::{
    geometry::{CHUNK_LEN, CHUNK_SECTORS, Chunk, Generation, LayerId, SECTOR_LEN, Sectors, Slot},
    log::{Record, sums::SectorSums},
    map::{Entry, Map},
    protection::Protection,
    slot_file::{Place, SlotFile},
};

/// A map being read.
pub(super) struct Recovery {
    map: Map,
    layers: u32,
    unsettled: Candidates,
}

/// What was found of what is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Compared {
    /// There was nothing to compare.
    Nothing,
    /// All that the log says.
    All,
    /// Less than that.
    Less,
}

/// A map that was read back.
pub(super) struct Recovered {
    pub(super) map: Map,
    pub(super) compared: Compared,
    /// The chunks of which less was there than the log says, in order.
    pub(super) dropped: Vec<Chunk>,
}

/// What unsettled sectors may hold: by chunk, by sector.
#[derive(Default)]
struct Candidates(HashMap<Chunk, BTreeMap<u32, Candidate>>);

struct Candidate {
    /// Of the frame with the first record that has the sector in a slot.
    first: u64,
    /// Nobody knew what the sector held when it was written.
    was_lost: bool,
    /// One for each record since.
    sums: Vec<SectorSums>,
}

impl Candidate {
    /// Whether each piece of a sector is as one of the records says.
    fn bears_out(&self, stored: &[u8]) -> bool {
        let stored = SectorSums::of(stored);
        let pieces = self.sums.iter().map(|sums| sums.alike(&stored));
        pieces.fold(0, |all, one| all | one) == u8::MAX
    }
}

impl Candidates {
    /// The chunk has these sectors in its slot, and no others.
    fn keep(&mut self, chunk: Chunk, valid: Sectors) {
        if let Some(sectors) = self.0.get_mut(&chunk) {
            sectors.retain(|sector, _| valid.contains(*sector));
            if sectors.is_empty() {
                self.0.remove(&chunk);
            }
        }
    }

    /// The slots were synced when the frames before this one had been written.
    fn settle(&mut self, sequence: u64) {
        self.0.retain(|_, sectors| {
            sectors.retain(|_, candidate| candidate.first >= sequence);
            !sectors.is_empty()
        });
    }
}

impl Recovery {
    pub(super) fn new(map: Map) -> Self {
        Self {
            map,
            layers: 0,
            unsettled: Candidates::default(),
        }
    }

    /// Whether a layer has begun.
    pub(super) fn has_layer(&self) -> bool {
        self.layers > 0
    }

    /// Does to the map what a record says, if that can be. `sequence` is its frame's.
    pub(super) fn apply(&mut self, sequence: u64, record: Record) -> Result<(), &'static str> {
        let map = &self.map;
        if (self.layers == 0) != matches!(record, Record::Layer { .. }) {
            return Err("one layer was expected, before everything else");
        }
        let check = |layer: LayerId, chunk: Chunk, count: u32| {
            let end = chunk.0.checked_add(count);
            if layer != BASE_LAYER {
                Err("a record of an unknown layer")
            } else if count == 0 || end.is_none_or(|end| end > map.chunks()) {
                Err("a record of chunks behind the end of the volume")
            } else {
                Ok(())
            }
        };
        let check_slots = |slot: Slot, count: u32, generation: Generation| {
            if generation != BASE_GENERATION {
                Err("a record of an unknown key generation")
            } else if slot.0.checked_add(count).is_none() {
                Err("a record of slots that cannot be")
            } else {
                Ok(())
            }
        };
        match record {
            Record::Layer {
                layer,
                below,
                generation,
            } => {
                if (layer, below, generation) != (BASE_LAYER, None, BASE_GENERATION) {
                    return Err("a layer that this program does not know");
                }
                self.layers += 1;
            }
            Record::Full {
                layer,
                chunk,
                count,
                slot,
                generation,
            }
            | Record::Zero {
                layer,
                chunk,
                count,
                slot,
                generation,
            } => {
                check(layer, chunk, count)?;
                check_slots(slot, count, generation)?;
                let (valid, zero) = match record {
                    Record::Full { .. } => (Sectors::ALL, Sectors::NONE),
                    _ => (Sectors::NONE, Sectors::ALL),
                };
                for n in 0..count {
                    let entry = Entry {
                        slot: Slot(slot.0 + n),
                        generation,
                        valid,
                        zero,
                        lost: Sectors::NONE,
                    };
                    let chunk = Chunk(chunk.0 + n);
                    map.set(chunk, Some(entry));
                    self.unsettled.keep(chunk, valid);
                }
            }
            Record::Partial {
                layer,
                chunk,
                entry,
            } => {
                check(layer, chunk, 1)?;
                check_slots(entry.slot, 1, entry.generation)?;
                map.set(chunk, Some(entry));
                self.unsettled.keep(chunk, entry.valid);
            }
            Record::Unmap {
                layer,
                chunk,
                count,
            } => {
                check(layer, chunk, count)?;
                let end = Chunk(chunk.0 + count);
                let mut at = chunk;
                while let Some(mapped) = map.next_mapped(at, end) {
                    map.set(mapped, None);
                    self.unsettled.keep(mapped, Sectors::NONE);
                    at = mapped.next();
                }
            }
            Record::Written {
                layer,
                chunk,
                generation,
                place,
                sums,
            } => {
                let sectors = place.sector as usize + sums.len();
                let count = u32::try_from(sectors.div_ceil(CHUNK_SECTORS as usize))
                    .map_err(|_| "a record of sectors that cannot be")?;
                check(layer, chunk, count)?;
                check_slots(place.slot, count, generation)?;
                let mut sums = sums.as_slice();
                let (mut chunk, mut place) = (chunk, place);
                while !sums.is_empty() {
                    let here = sums.len().min((CHUNK_SECTORS - place.sector) as usize);
                    let (now, later) = sums.split_at(here);
                    self.written(sequence, chunk, generation, place, now);
                    sums = later;
                    chunk = chunk.next();
                    place = Place {
                        slot: Slot(place.slot.0 + 1),
                        sector: 0,
                    };
                }
            }
            Record::Mark { sequence } => self.unsettled.settle(sequence),
        }
        Ok(())
    }

    /// Sectors of one chunk are in a slot.
    fn written(
        &mut self,
        sequence: u64,
        chunk: Chunk,
        generation: Generation,
        place: Place,
        sums: &[SectorSums],
    ) {
        let count = u32::try_from(sums.len()).expect("at most a chunk's");
        let sectors = Sectors::range(place.sector, count);
        let before = self.map.get(chunk).filter(|entry| entry.slot == place.slot);
        if before.is_none() {
            self.unsettled.keep(chunk, Sectors::NONE);
        }
        let known = before.map_or(Sectors::NONE, |entry| entry.valid);
        let was_lost = before.map_or(Sectors::NONE, |entry| entry.lost);
        let left = before.map(|entry| entry.without(sectors));
        let entry = Entry {
            slot: place.slot,
            generation,
            valid: known.with(sectors),
            zero: left.map_or(Sectors::NONE, |left| left.zero),
            lost: left.map_or(Sectors::NONE, |left| left.lost),
        };
        self.map.set(chunk, Some(entry));
        for (sector, sums) in (place.sector..).zip(sums) {
            let candidates = self.unsettled.0.get_mut(&chunk);
            match candidates.and_then(|sectors| sectors.get_mut(&sector)) {
                Some(candidate) => candidate.sums.push(*sums),
                // In a slot, and settled.
                None if known.contains(sector) => {}
                None => {
                    let candidate = Candidate {
                        first: sequence,
                        was_lost: was_lost.contains(sector),
                        sums: vec![*sums],
                    };
                    let sectors = self.unsettled.0.entry(chunk).or_default();
                    sectors.insert(sector, candidate);
                }
            }
        }
    }

    /// Compares what is not settled with what the slots have, and gives the map, with what is there.
    pub(super) fn finish<P: Protection>(
        self,
        store: &SlotFile<P>,
        file_len: u64,
    ) -> io::Result<Recovered> {
        let mut compared = Compared::Nothing;
        let mut dropped = Vec::new();
        let mut buf = vec![0; usize::try_from(CHUNK_LEN).expect("512 KiB")];
        let mut chunks: Vec<_> = self.unsettled.0.into_iter().collect();
        chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
        for (chunk, sectors) in chunks {
            let entry = self.map.get(chunk).expect("what is unsettled is in a slot");
            let first = *sectors.keys().next().expect("no chunk is kept without");
            let last = *sectors
                .keys()
                .next_back()
                .expect("no chunk is kept without");
            let place = Place {
                slot: entry.slot,
                sector: first,
            };
            // What is behind the end of the file was not written.
            let readable = file_len.saturating_sub(place.offset());
            let wanted = (last + 1 - first) as usize * SECTOR_LEN;
            let len = usize::try_from(readable).map_or(wanted, |len| len.min(wanted));
            let stored = &mut buf[..len - len % SECTOR_LEN];
            if !stored.is_empty() {
                store.read(place, stored)?;
            }
            let (mut lost, mut marked) = (Sectors::NONE, Sectors::NONE);
            for (sector, candidate) in sectors {
                let at = (sector - first) as usize * SECTOR_LEN;
                if !stored
                    .get(at..at + SECTOR_LEN)
                    .is_some_and(|stored| candidate.bears_out(stored))
                {
                    lost = lost.with(Sectors::range(sector, 1));
                    if candidate.was_lost {
                        marked = marked.with(Sectors::range(sector, 1));
                    }
                }
            }
            if lost.is_empty() {
                compared = compared.max(Compared::All);
                continue;
            }
            compared = Compared::Less;
            let left = Entry {
                valid: entry.valid.without(lost),
                // As they were before the write that is gone: not known, which is not zero.
                lost: entry.lost.with(marked),
                ..entry
            };
            self.map
                .set(chunk, Some(left).filter(|left| !left.is_empty()));
            dropped.push(chunk);
        }
        Ok(Recovered {
            map: self.map,
            compared,
            dropped,
        })
    }
}
