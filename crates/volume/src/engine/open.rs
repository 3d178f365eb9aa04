//! Making a volume's files, and reading them back.

use std::path::Path;

use super::{
    BASE_GENERATION, BASE_LAYER, Engine, Media, Shape, chores::Chores, commit, rounds::Rounds,
};
use crate::{
    VolumeError,
    geometry::{
        CHUNK_LEN, CHUNKS_MAX, Chunk, Generation, LayerId, SECTOR_LEN, Sectors, Slot, SlotRun,
    },
    log::{
        Batch, Record,
        folder::LOG_NAME,
        frame::{FileHeader, PAGE_LEN},
        replay::{ReplayError, replay},
        writer::LogFile,
    },
    map::{Entry, Map},
    protection::Protection,
    ranges::Ranges,
    slot_file::SlotFile,
    slots::Slots,
};

/// Writes the log of a new, empty volume. Its slot file is empty.
pub(crate) fn create<P: Protection>(
    media: &Media,
    shape: Shape,
    protection: &P,
) -> Result<(), VolumeError> {
    let key = protection.log_key();
    let write = || {
        let mut log = LogFile::create(media.log.create_next()?, key, header::<P>(shape));
        let mut batch = Batch::default();
        batch.push(commit::first_record());
        log.append(key, PAGE_LEN as u64, &batch.finish())?;
        log.finish(key)?;
        media.log.publish_next()
    };
    write().map_err(|error| VolumeError::from_io("writing the metadata log", error))
}

fn header<P: Protection>(shape: Shape) -> FileHeader {
    FileHeader {
        volume: shape.volume,
        sealed: P::SEALED,
        size: shape.size,
        epoch: 1,
        checkpoint_end: 0,
    }
}

impl<P: Protection> Engine<P> {
    /// Reads the map back. What a crash left behind the last durable point is dropped; if anything was there, a new log
    /// is written first, so that it cannot come back.
    pub(crate) fn open(media: Media, shape: Shape, protection: P) -> Result<Self, VolumeError> {
        let damaged = |at, why| VolumeError::Damaged {
            file: Path::new(LOG_NAME).to_owned(),
            at,
            why,
        };
        let reading = |error| VolumeError::from_io("reading the metadata log", error);
        media.log.discard_next();
        let chunks = u32::try_from(shape.size / CHUNK_LEN)
            .ok()
            .filter(|chunks| *chunks <= CHUNKS_MAX && shape.size.is_multiple_of(CHUNK_LEN))
            .ok_or_else(|| damaged(0, "the size of the volume is out of bounds"))?;
        let map = Map::new(chunks);
        let mut layers = 0;
        let replayed = replay(
            media.log.open_current().map_err(reading)?,
            protection.log_key(),
            &header::<P>(shape),
            |record| apply(&map, &mut layers, record),
        )
        .map_err(|error| match error {
            ReplayError::Io(error) => reading(error),
            ReplayError::Damaged { at, why } => damaged(at, why),
        })?;
        if layers == 0 {
            return Err(damaged(0, "the log has no layer"));
        }

        let store = SlotFile::new(media.slots);
        let len = store
            .len()
            .map_err(|error| VolumeError::from_io("reading the slot file", error))?;
        let (end, free) = free_slots(&map, len).map_err(|why| damaged(replayed.log.end(), why))?;
        let checkpoint_len = replayed.log.header().checkpoint_end;
        let engine = Self {
            shape,
            protection,
            store,
            slots: Slots::new(end),
            map,
            ranges: Ranges::new(),
            // A process that died may have left answered writes in the page cache; the first flush covers them too.
            unsynced: true.into(),
            log: replayed.log.into(),
            log_folder: media.log,
            commit: Rounds::new(checkpoint_len),
            housekeeping: Chores::new(),
            failed: std::sync::OnceLock::new(),
            on_failed: media.on_failed,
        };
        engine.housekeeping.punch(free);
        if replayed.torn {
            tracing::info!(volume = %shape.volume, "a torn tail of the metadata log was dropped");
            engine.checkpoint()?;
        }
        Ok(engine)
    }
}

/// Does to the map what a record says, if that can be.
fn apply(map: &Map, layers: &mut u32, record: Record) -> Result<(), &'static str> {
    if (*layers == 0) != matches!(record, Record::Layer { .. }) {
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
            *layers += 1;
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
                };
                map.set(Chunk(chunk.0 + n), Some(entry));
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
                at = mapped.next();
            }
        }
    }
    Ok(())
}

/// How many slots the file has, and which of them no chunk is in. No two chunks may be in one slot, and what is said to
/// be in a slot must be within the file.
fn free_slots(map: &Map, file_len: u64) -> Result<(u32, Vec<SlotRun>), &'static str> {
    let file_slots = u32::try_from(file_len.div_ceil(CHUNK_LEN))
        .ok()
        .filter(|slots| *slots < u32::MAX)
        .ok_or("the slot file is longer than any can be")?;
    let mut end = file_slots;
    each_entry(map, |entry| {
        end = end.max(entry.slot.0 + 1);
        let data_end = entry.slot.start() + u64::from(entry.valid.end()) * SECTOR_LEN as u64;
        if !entry.valid.is_empty() && data_end > file_len {
            return Err("the slot file is shorter than the map says");
        }
        Ok(())
    })?;
    let mut used = vec![0_u64; (end as usize).div_ceil(64)];
    each_entry(map, |entry| {
        let (word, bit) = (entry.slot.0 as usize / 64, 1 << (entry.slot.0 % 64));
        if used[word] & bit != 0 {
            return Err("two chunks are in one slot");
        }
        used[word] |= bit;
        Ok(())
    })?;
    let mut free: Vec<SlotRun> = Vec::new();
    for slot in 0..end {
        if used[slot as usize / 64] >> (slot % 64) & 1 == 1 {
            continue;
        }
        match free.last_mut() {
            Some(run) if run.first.0 + run.count == slot => run.count += 1,
            _ => free.push(SlotRun {
                first: Slot(slot),
                count: 1,
            }),
        }
    }
    Ok((end, free))
}

fn each_entry(
    map: &Map,
    mut each: impl FnMut(Entry) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let end = Chunk(map.chunks());
    let mut at = Chunk(0);
    while let Some(chunk) = map.next_mapped(at, end) {
        if let Some(entry) = map.get(chunk) {
            each(entry)?;
        }
        at = chunk.next();
    }
    Ok(())
}
