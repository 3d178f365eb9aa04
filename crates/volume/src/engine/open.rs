//! Making a volume's files, and reading them back.

use std::path::Path;

use parking_lot::Mutex;

use super::{
    Engine, Media, Shape, checkpoint,
    chores::Chores,
    journal::Journal,
    recovery::{Compared, Recovery},
    rounds::Rounds,
    unsettled::Unsettled,
};
use crate::{
    VolumeError,
    geometry::{CHUNK_LEN, CHUNKS_MAX, Chunk, SECTOR_LEN, Slot, SlotRun},
    log::{
        Batch,
        folder::LOG_NAME,
        frame::FileHeader,
        replay::{ReplayError, replay},
        writer::{LogFile, RESERVE_LEN},
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
        batch.push(checkpoint::first_record());
        log.append(key, &batch.finish())?;
        // From the beginning, so that a volume which fills the disk can be flushed and trimmed.
        log.prepare(0, RESERVE_LEN)?;
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
    /// Reads the map back. Changes behind the last mark are kept as far as the slots have what they speak of; if anything
    /// had to be dropped, or stands torn behind the end, a new log is written first, so that it cannot come back. What was
    /// found is durable before the volume is used.
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
        let mut recovery = Recovery::new(Map::new(chunks));
        let replayed = replay(
            media.log.open_current().map_err(reading)?,
            protection.log_key(),
            &header::<P>(shape),
            |sequence, record| recovery.apply(sequence, record),
        )
        .map_err(|error| match error {
            ReplayError::Io(error) => reading(error),
            ReplayError::Damaged { at, why } => damaged(at, why),
        })?;
        if !recovery.has_layer() {
            return Err(damaged(0, "the log has no layer"));
        }

        let store = SlotFile::new(media.slots);
        let len = store
            .len()
            .map_err(|error| VolumeError::from_io("reading the slot file", error))?;
        let (map, compared) = recovery
            .finish(&store, len)
            .map_err(|error| VolumeError::from_io("checking what was not flushed", error))?;
        let (end, free) = free_slots(&map, len).map_err(|why| damaged(replayed.log.end(), why))?;
        let checkpoint_at = checkpoint::checkpoint_at(replayed.log.header().checkpoint_end);
        let engine = Self {
            shape,
            protection,
            store,
            slots: Slots::new(end),
            map,
            ranges: Ranges::new(),
            // A process that died may have left answered writes in the page cache; the first flush covers them too.
            unsynced: true.into(),
            unsettled: Unsettled::new(),
            journal: Journal::new(replayed.log, checkpoint_at),
            log_folder: media.log,
            commit: Rounds::new(),
            checkpointing: Mutex::new(()),
            switching: Mutex::new(()),
            housekeeping: Chores::new(),
            failed: std::sync::OnceLock::new(),
            on_failed: media.on_failed,
        };
        engine.housekeeping.punch(free);
        if replayed.torn {
            tracing::info!(volume = %shape.volume, "a torn tail of the metadata log was dropped");
        }
        if compared != Compared::Nothing {
            engine
                .store
                .renew_len()
                .map_err(|error| VolumeError::from_io("growing the slot file", error))?;
        }
        if replayed.torn || compared == Compared::Less {
            engine.checkpoint()?;
        } else if compared == Compared::All {
            // What was found must not get lost any more, and from here on nothing is compared.
            engine.flush()?;
        }
        Ok(engine)
    }
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
