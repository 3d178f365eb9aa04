//! Records of the metadata log, and batches of them.
//!
//! Most records say all that a layer has of a chunk, or of a run of chunks. A *written* record says which sectors were
//! added, with checksums of what is in the slots: it is written before these are synced. A *mark* says up to where the
//! slots were synced since; what stands before it needs no checking.
//!
//! Numbers are little endian. Each record is a multiple of 8 bytes long and begins with a byte that is not zero.

use crate::{
    geometry::{CHUNK_SECTORS, Chunk, Generation, LayerId, Sectors, Slot},
    log::{
        frame::{FRAME_OVERHEAD, PAYLOAD_LEN_MAX, Payload},
        sums::{SUMS_LEN, SectorSums},
    },
    map::Entry,
    slot_file::Place,
};

/// The number that stands for "no layer below".
const NONE: u32 = u32::MAX;
/// Longest record but a written one, in bytes.
pub(crate) const RECORD_LEN_MAX: usize = 56;
/// Length of a written record without its checksums.
const WRITTEN_LEN: usize = 32;
/// Most sectors of a written record: two of them fit a frame.
const WRITTEN_SECTORS_MAX: usize = (PAYLOAD_LEN_MAX / 2 - WRITTEN_LEN) / SUMS_LEN;

/// A change of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A layer begins. First in every file; one a file, for now.
    Layer {
        layer: LayerId,
        /// The layer below.
        below: Option<LayerId>,
        /// What its sectors are sealed under.
        generation: Generation,
    },
    /// Chunks in neighbouring slots, all sectors written.
    Full {
        layer: LayerId,
        chunk: Chunk,
        count: u32,
        slot: Slot,
        generation: Generation,
    },
    /// Chunks in neighbouring slots, all sectors zero without being written.
    Zero {
        layer: LayerId,
        chunk: Chunk,
        count: u32,
        slot: Slot,
        generation: Generation,
    },
    /// A chunk, sector by sector.
    Partial {
        layer: LayerId,
        chunk: Chunk,
        entry: Entry,
    },
    /// Chunks of which the layer has nothing.
    Unmap {
        layer: LayerId,
        chunk: Chunk,
        count: u32,
    },
    /// Sectors that are in their slots, from one of a chunk on and through neighbouring chunks in neighbouring slots. What
    /// else a chunk has stays, unless it was in another slot.
    Written {
        layer: LayerId,
        chunk: Chunk,
        generation: Generation,
        /// Of the first sector.
        place: Place,
        /// Of each sector, as it was written.
        sums: Vec<SectorSums>,
    },
    /// The slots were synced after all frames with lower sequences were written.
    Mark { sequence: u64 },
}

const KIND_LAYER: u8 = 1;
const KIND_FULL: u8 = 2;
const KIND_ZERO: u8 = 3;
const KIND_PARTIAL: u8 = 4;
const KIND_UNMAP: u8 = 5;
const KIND_WRITTEN: u8 = 6;
const KIND_MARK: u8 = 7;

impl Record {
    /// What a layer has of one chunk.
    pub(crate) fn of(layer: LayerId, chunk: Chunk, entry: Option<Entry>) -> Self {
        match entry {
            None => Self::Unmap {
                layer,
                chunk,
                count: 1,
            },
            Some(entry) if entry.valid == Sectors::ALL => Self::Full {
                layer,
                chunk,
                count: 1,
                slot: entry.slot,
                generation: entry.generation,
            },
            Some(entry) if entry.zero == Sectors::ALL => Self::Zero {
                layer,
                chunk,
                count: 1,
                slot: entry.slot,
                generation: entry.generation,
            },
            Some(entry) => Self::Partial {
                layer,
                chunk,
                entry,
            },
        }
    }

    /// Takes in the record of the chunk behind, if one record can say both.
    fn join(&mut self, next: &Self) -> bool {
        match (self, next) {
            (
                Self::Unmap {
                    layer,
                    chunk,
                    count,
                },
                Self::Unmap {
                    layer: next_layer,
                    chunk: next_chunk,
                    count: next_count,
                },
            ) if layer == next_layer && chunk.0 + *count == next_chunk.0 => {
                *count += next_count;
                true
            }
            (
                Self::Full {
                    layer,
                    chunk,
                    count,
                    slot,
                    generation,
                },
                Self::Full {
                    layer: next_layer,
                    chunk: next_chunk,
                    count: next_count,
                    slot: next_slot,
                    generation: next_generation,
                },
            )
            | (
                Self::Zero {
                    layer,
                    chunk,
                    count,
                    slot,
                    generation,
                },
                Self::Zero {
                    layer: next_layer,
                    chunk: next_chunk,
                    count: next_count,
                    slot: next_slot,
                    generation: next_generation,
                },
            ) if layer == next_layer
                && generation == next_generation
                && chunk.0 + *count == next_chunk.0
                && slot.0 + *count == next_slot.0 =>
            {
                *count += next_count;
                true
            }
            _ => false,
        }
    }

    /// Length in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Layer { .. } | Self::Unmap { .. } | Self::Mark { .. } => 16,
            Self::Full { .. } | Self::Zero { .. } => 24,
            Self::Partial { .. } => RECORD_LEN_MAX,
            Self::Written { sums, .. } => WRITTEN_LEN + sums.len() * SUMS_LEN,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind: u8, numbers: &[u32]| {
            out.extend_from_slice(&[kind, 0, 0, 0]);
            for number in numbers {
                out.extend_from_slice(&number.to_le_bytes());
            }
        };
        match self {
            &Self::Layer {
                layer,
                below,
                generation,
            } => head(
                out,
                KIND_LAYER,
                &[layer.0, below.map_or(NONE, |below| below.0), generation.0],
            ),
            &Self::Full {
                layer,
                chunk,
                count,
                slot,
                generation,
            } => head(
                out,
                KIND_FULL,
                &[layer.0, chunk.0, count, slot.0, generation.0],
            ),
            &Self::Zero {
                layer,
                chunk,
                count,
                slot,
                generation,
            } => head(
                out,
                KIND_ZERO,
                &[layer.0, chunk.0, count, slot.0, generation.0],
            ),
            &Self::Partial {
                layer,
                chunk,
                entry,
            } => {
                head(
                    out,
                    KIND_PARTIAL,
                    &[layer.0, chunk.0, entry.slot.0, entry.generation.0, 0],
                );
                let (valid, zero) = entry.masks();
                out.extend_from_slice(&valid.0.to_le_bytes());
                out.extend_from_slice(&zero.0.to_le_bytes());
            }
            &Self::Unmap {
                layer,
                chunk,
                count,
            } => head(out, KIND_UNMAP, &[layer.0, chunk.0, count]),
            Self::Written {
                layer,
                chunk,
                generation,
                place,
                sums,
            } => {
                let count = u32::try_from(sums.len()).expect("bounded by the frame");
                let slot = place.slot.0;
                let numbers = [layer.0, chunk.0, place.sector, count, slot, generation.0, 0];
                head(out, KIND_WRITTEN, &numbers);
                for sums in sums {
                    sums.encode(out);
                }
            }
            Self::Mark { sequence } => {
                head(out, KIND_MARK, &[0]);
                out.extend_from_slice(&sequence.to_le_bytes());
            }
        }
    }

    /// Takes one record off the front of `bytes`. Whether its numbers make sense for the volume is the caller's to check.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader(bytes);
        let [kind, pad @ ..] = reader.take::<4>()?;
        if pad != [0; 3] {
            return Err("a record's padding is not zero");
        }
        let layer = LayerId(reader.number()?);
        let record = match kind {
            KIND_LAYER => Self::Layer {
                layer,
                below: match reader.number()? {
                    NONE => None,
                    below => Some(LayerId(below)),
                },
                generation: Generation(reader.number()?),
            },
            KIND_FULL | KIND_ZERO => {
                let chunk = Chunk(reader.number()?);
                let count = reader.number()?;
                let slot = Slot(reader.number()?);
                let generation = Generation(reader.number()?);
                if kind == KIND_FULL {
                    Self::Full {
                        layer,
                        chunk,
                        count,
                        slot,
                        generation,
                    }
                } else {
                    Self::Zero {
                        layer,
                        chunk,
                        count,
                        slot,
                        generation,
                    }
                }
            }
            KIND_PARTIAL => {
                let chunk = Chunk(reader.number()?);
                let slot = Slot(reader.number()?);
                let generation = Generation(reader.number()?);
                if reader.number()? != 0 {
                    return Err("a record's padding is not zero");
                }
                let valid = Sectors(u128::from_le_bytes(reader.take()?));
                let zero = Sectors(u128::from_le_bytes(reader.take()?));
                let entry = Entry::from_masks(slot, generation, (valid, zero));
                if entry.is_empty() {
                    return Err("a record's masks are empty");
                }
                Self::Partial {
                    layer,
                    chunk,
                    entry,
                }
            }
            KIND_UNMAP => Self::Unmap {
                layer,
                chunk: Chunk(reader.number()?),
                count: reader.number()?,
            },
            KIND_WRITTEN => {
                let chunk = Chunk(reader.number()?);
                let sector = reader.number()?;
                let count = reader.number()? as usize;
                let slot = Slot(reader.number()?);
                let generation = Generation(reader.number()?);
                if reader.number()? != 0 {
                    return Err("a record's padding is not zero");
                }
                if sector >= CHUNK_SECTORS || !(1..=WRITTEN_SECTORS_MAX).contains(&count) {
                    return Err("a record of sectors that cannot be");
                }
                let mut sums = Vec::with_capacity(count);
                for _ in 0..count {
                    sums.push(SectorSums::decode(&reader.take()?));
                }
                Self::Written {
                    layer,
                    chunk,
                    generation,
                    place: Place { slot, sector },
                    sums,
                }
            }
            KIND_MARK if layer == LayerId(0) => Self::Mark {
                sequence: u64::from_le_bytes(reader.take()?),
            },
            _ => return Err("a record is of an unknown kind"),
        };
        *bytes = reader.0;
        Ok(record)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or("a record is cut short")?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.take()?))
    }
}

/// Records that are written together, gathered into payloads of frames. Runs of chunks join into one record.
#[derive(Default)]
pub(crate) struct Batch {
    full: Vec<Payload>,
    /// Bytes of the frames of `full`.
    full_len: usize,
    open: Payload,
    last: Option<Record>,
}

impl Batch {
    pub(crate) fn push(&mut self, record: Record) {
        if let Some(last) = &mut self.last
            && last.join(&record)
        {
            return;
        }
        if let Some(last) = self.last.replace(record) {
            self.put(&last);
        }
    }

    /// Appends what was written of sectors that lie together, from `place` on.
    pub(crate) fn push_written(
        &mut self,
        layer: LayerId,
        chunk: Chunk,
        generation: Generation,
        place: Place,
        sums: Vec<SectorSums>,
    ) {
        if sums.len() <= WRITTEN_SECTORS_MAX {
            self.push(Record::Written {
                layer,
                chunk,
                generation,
                place,
                sums,
            });
            return;
        }
        let mut sector = place.sector;
        for sums in sums.chunks(WRITTEN_SECTORS_MAX) {
            let chunks = sector / CHUNK_SECTORS;
            self.push(Record::Written {
                layer,
                chunk: Chunk(chunk.0 + chunks),
                generation,
                place: Place {
                    slot: Slot(place.slot.0 + chunks),
                    sector: sector % CHUNK_SECTORS,
                },
                sums: sums.to_vec(),
            });
            sector += u32::try_from(sums.len()).expect("a window's");
        }
    }

    fn put(&mut self, record: &Record) {
        if self.open.bytes.len() + record.len() > PAYLOAD_LEN_MAX {
            self.full_len += FRAME_OVERHEAD + self.open.bytes.len();
            self.full.push(std::mem::take(&mut self.open));
        }
        record.encode(&mut self.open.bytes);
        self.open.count += 1;
    }

    /// Most bytes that its frames will have.
    pub(crate) fn len(&self) -> usize {
        let last = match &self.last {
            Some(last) => last.len(),
            None if self.open.count == 0 => return self.full_len,
            None => 0,
        };
        self.full_len + 2 * FRAME_OVERHEAD + self.open.bytes.len() + last
    }

    /// The payloads that are full by now, so that a long batch need not be held whole.
    pub(crate) fn take_full(&mut self) -> Vec<Payload> {
        self.full_len = 0;
        std::mem::take(&mut self.full)
    }

    /// All payloads.
    pub(crate) fn finish(mut self) -> Vec<Payload> {
        if let Some(last) = self.last.take() {
            self.put(&last);
        }
        if self.open.count > 0 {
            self.full.push(self.open);
        }
        self.full
    }
}

/// Most bytes of the frames of written records of that many sectors in that many runs.
pub(crate) fn written_len_max(sectors: usize, runs: usize) -> usize {
    let records = runs + sectors / WRITTEN_SECTORS_MAX;
    sectors * SUMS_LEN + records * (WRITTEN_LEN + FRAME_OVERHEAD) + 2 * FRAME_OVERHEAD
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const LAYER: LayerId = LayerId(0);

    pub(crate) fn one_of_each() -> Vec<Record> {
        let generation = Generation(1);
        vec![
            Record::Layer {
                layer: LAYER,
                below: None,
                generation,
            },
            Record::Full {
                layer: LAYER,
                chunk: Chunk(1),
                count: 3,
                slot: Slot(10),
                generation,
            },
            Record::Zero {
                layer: LAYER,
                chunk: Chunk(7),
                count: 1,
                slot: Slot(4),
                generation,
            },
            Record::Partial {
                layer: LAYER,
                chunk: Chunk(9),
                entry: Entry {
                    slot: Slot(5),
                    generation,
                    valid: Sectors::range(1, 2),
                    zero: Sectors::range(127, 1),
                    lost: Sectors::range(50, 1),
                },
            },
            Record::Unmap {
                layer: LAYER,
                chunk: Chunk(100),
                count: 50,
            },
            Record::Written {
                layer: LAYER,
                chunk: Chunk(10),
                generation,
                place: Place {
                    slot: Slot(6),
                    sector: 127,
                },
                sums: vec![SectorSums::of(&[1; 4096]), SectorSums::of(&[2; 4096])],
            },
            Record::Mark { sequence: 1 },
        ]
    }

    pub(crate) fn decode_all(payloads: &[Payload]) -> Vec<Record> {
        let mut records = Vec::new();
        for payload in payloads {
            let mut bytes = payload.bytes.as_slice();
            for _ in 0..payload.count {
                records.push(Record::decode(&mut bytes).unwrap());
            }
            assert!(bytes.is_empty());
        }
        records
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let mut batch = Batch::default();
        for record in one_of_each() {
            batch.push(record);
        }
        assert_eq!(decode_all(&batch.finish()), one_of_each());
    }

    #[test]
    fn runs_of_chunks_become_one_record() {
        let full = |chunk: u32, slot: u32| {
            Record::of(
                LAYER,
                Chunk(chunk),
                Some(Entry {
                    slot: Slot(slot),
                    generation: Generation(1),
                    valid: Sectors::ALL,
                    zero: Sectors::NONE,
                    lost: Sectors::NONE,
                }),
            )
        };
        let mut batch = Batch::default();
        for n in 0..1000 {
            batch.push(full(n, n + 5));
        }
        batch.push(full(1000, 7));
        for n in 2000..3000 {
            batch.push(Record::of(LAYER, Chunk(n), None));
        }
        let records = decode_all(&batch.finish());
        assert_eq!(records.len(), 3);
        assert!(matches!(records[0], Record::Full { count: 1000, .. }));
        assert!(matches!(records[2], Record::Unmap { count: 1000, .. }));
    }

    #[test]
    fn a_long_batch_is_cut_into_frames() {
        let mut batch = Batch::default();
        for n in 0..10_000 {
            batch.push(Record::of(LAYER, Chunk(2 * n), None));
        }
        let payloads = batch.finish();
        assert!(payloads.len() > 1);
        assert!(payloads.iter().all(|p| p.bytes.len() <= PAYLOAD_LEN_MAX));
        assert_eq!(decode_all(&payloads).len(), 10_000);
    }

    #[test]
    fn a_long_written_run_is_cut_into_records_and_no_batch_is_longer_than_it_says() {
        let sums: Vec<_> = (0..2048_u32)
            .map(|n| SectorSums::of(&n.to_le_bytes().repeat(1024)))
            .collect();
        for count in [1, 500, 511, 1023, 2048] {
            let mut batch = Batch::default();
            let place = Place {
                slot: Slot(50),
                sector: 100,
            };
            let some = sums[..count].to_vec();
            batch.push_written(LAYER, Chunk(7), Generation(1), place, some);
            let most = batch.len();
            assert!(most <= written_len_max(count, 1));
            let payloads = batch.finish();
            let len: usize = payloads.iter().map(super::super::frame::len_of).sum();
            assert!(len <= most);
            let mut at = 100;
            let mut back = Vec::new();
            for record in decode_all(&payloads) {
                let Record::Written {
                    chunk, place, sums, ..
                } = record
                else {
                    panic!("{record:?}");
                };
                assert_eq!(chunk.0 - 7, place.slot.0 - 50);
                assert_eq!((chunk.0 - 7) * CHUNK_SECTORS + place.sector, at);
                at += u32::try_from(sums.len()).unwrap();
                back.extend(sums);
            }
            assert_eq!(back, sums[..count]);
        }
    }

    #[test]
    fn malformed_records_are_refused_and_none_panics() {
        for record in one_of_each() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            for cut in 0..bytes.len() {
                assert!(Record::decode(&mut &bytes[..cut]).is_err());
            }
            bytes[1] = 1;
            assert!(Record::decode(&mut bytes.as_slice()).is_err());
            bytes[0..2].copy_from_slice(&[99, 0]);
            assert!(Record::decode(&mut bytes.as_slice()).is_err());
        }
    }
}
