//! Making a volume's files, and reading them back.

use std::{io, path::Path, sync::Arc};

use parking_lot::Mutex;

use super::{
    BASE_LAYER, Engine, Media, Shape, checkpoint,
    chores::Chores,
    journal::{Journal, Need},
    owners::{self, InSlots},
    recovery::{Compared, Recovered, Recovery},
    rounds::Rounds,
    table::Owners,
    unsettled::Unsettled,
};
use crate::{
    VolumeError,
    geometry::{CHUNK_LEN, CHUNKS_MAX, Chunk, SECTOR_LEN, Slot, SlotRun},
    log::{
        Batch, Record,
        folder::{LOG_NAME, LogFolder},
        frame::{FRAME_OVERHEAD, FileHeader},
        record::RECORD_LEN_MAX,
        replay::{ReplayError, Replayed, replay},
        writer::{LogFile, RESERVE_LEN},
    },
    map::Map,
    protection::Protection,
    ranges::Ranges,
    slot_file::{SLOTS_NAME, SlotFile},
    slots::Slots,
};

/// Most bytes in the log of one chunk that is put right.
const CORRECTION_LEN_MAX: usize = RECORD_LEN_MAX + 2 * FRAME_OVERHEAD;

/// Writes the log of a new, empty volume, and the header of its slots.
pub(crate) fn create<P: Protection>(
    media: &Media,
    shape: Shape,
    protection: &P,
) -> Result<(), VolumeError> {
    let key = protection.log_key();
    let write = || {
        let slots: SlotFile<P> = SlotFile::new(Arc::clone(&media.slots));
        slots.write_header(protection.owner_key(), &owners::new_header::<P>(shape))?;
        slots.sync()?;
        let mut log = LogFile::create(media.log.create_next()?, key, header::<P>(shape));
        let mut batch = Batch::default();
        batch.push(checkpoint::first_record());
        log.append(key, &batch.finish())?;
        // From the beginning, so that a volume which fills the disk can be flushed and trimmed.
        log.prepare(0, RESERVE_LEN)?;
        log.finish(key)?;
        media.log.publish_next()?;
        media
            .log
            .copy_checkpoint(&*log.file(), log.header().checkpoint_end)
    };
    write().map_err(|error| VolumeError::from_io("writing the files of a volume", error))
}

pub(super) fn header<P: Protection>(shape: Shape) -> FileHeader {
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
        let reading = |error| VolumeError::from_io("reading the metadata log", error);
        media.log.discard_next();
        let store = SlotFile::new(media.slots);
        let slots = owners::read_header(&store, &protection, shape)
            .map_err(|error| VolumeError::from_io("reading the slot file", error))?
            .map_err(|why| damaged_slots(0, why))?;
        let Read {
            replayed,
            map,
            compared,
            dropped,
        } = read(&store, &media.log, shape, &protection, false)?;
        let (log_header, log_end) = (*replayed.log.header(), replayed.log.end());
        owners::contradicts(&slots, &log_header, log_end).map_err(|why| damaged(log_end, why))?;
        // What was read may be in the page cache alone, if the process and not the machine went down in the middle of a
        // flush. Slots that it frees are about to be used again, so it must be on disk.
        // As final as any other failed sync: the next one would say that all is well.
        let synced = replayed.log.file().sync_data();
        synced
            .inspect_err(|_| (media.on_failed)())
            .map_err(reading)?;

        let len = store
            .len()
            .map_err(|error| VolumeError::from_io("reading the slot file", error))?;
        let in_slots = in_slots(&map, len).map_err(|why| damaged_slots(len, why))?;
        let begun = Owners::begin(&store, &protection, slots).and_then(|owners| {
            if !slots.closed || compared == Compared::Less {
                let done = owners::reconcile(&owners, &store, &protection, (&map, &in_slots, &dropped))?;
                tracing::debug!(volume = %shape.volume, ?done, "the owners of slots were looked at");
            }
            // Before any slot is taken: no two may be taken with one sequence.
            store.sync().inspect_err(|_| (media.on_failed)())?;
            Ok(owners)
        });
        let owners =
            begun.map_err(|error| VolumeError::from_io("writing the owners of slots", error))?;
        let engine = Self {
            shape,
            protection,
            store,
            slots: Slots::new(u32::try_from(in_slots.len()).expect("slots are counted so")),
            owners,
            map,
            ranges: Ranges::new(),
            // A process that died may have left answered writes in the page cache; the first flush covers them too.
            unsynced: true.into(),
            unsettled: Unsettled::new(),
            journal: Journal::new(
                replayed.log,
                checkpoint::checkpoint_at(log_header.checkpoint_end),
            ),
            log_folder: media.log,
            commit: Rounds::new(),
            checkpointing: Mutex::new(()),
            switching: Mutex::new(()),
            housekeeping: Chores::new(),
            failed: std::sync::OnceLock::new(),
            on_failed: media.on_failed,
        };
        engine.housekeeping.punch(free_runs(&in_slots));
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
            engine.settle_what_was_read(replayed.torn, &dropped)?;
        } else if compared == Compared::All {
            // What was found must not get lost any more, and from here on nothing is compared.
            engine.flush()?;
        }
        engine.mend_copies(replayed.mended);
        Ok(engine)
    }

    /// Writes what was read to a new log, so that what was dropped cannot come back. On a full disk to this one: it has
    /// room kept for that.
    fn settle_what_was_read(&self, torn: bool, dropped: &[Chunk]) -> Result<(), VolumeError> {
        match self.checkpoint() {
            Err(VolumeError::NoSpace) => {}
            other => return other,
        }
        tracing::info!(volume = %self.shape.volume, "no space for a new metadata log: the old one goes on");
        let appending = |error| self.fail("mending the metadata log", &error);
        if torn {
            // Durable before anything is appended: what is torn must not be taken for what comes after.
            self.journal.file().log.clear_tail().map_err(appending)?;
        }
        for chunk in dropped {
            let entry = self.map.get(*chunk);
            let claim = self.claim(CORRECTION_LEN_MAX, Need::Correction)?;
            let record = Record::of(BASE_LAYER, *chunk, entry);
            let ticket = self.journal.put(|batch| batch.push(record));
            drop(claim);
            if ticket.long {
                self.log(ticket)?;
            }
        }
        self.flush()
    }

    /// Writes again what there should be two of and is not, as soon as there is time: of the checkpoint, both if the log's own
    /// was damaged.
    fn mend_copies(&self, mended: bool) {
        if mended {
            tracing::warn!(volume = %self.shape.volume, "a part of the map was damaged and read from its copy; both are written again");
            self.housekeeping.checkpoint();
        } else if !self.has_checkpoint_copy() {
            self.housekeeping.copy_checkpoint();
        }
    }
}

/// A map as its log and its slots have it.
pub(super) struct Read {
    pub(super) replayed: Replayed,
    pub(super) map: Map,
    pub(super) compared: Compared,
    pub(super) dropped: Vec<Chunk>,
}

/// Reads the log, and compares with the slots what was not flushed. Changes nothing; with `peek` it makes nothing durable
/// either, and the log is not for appending.
pub(super) fn read<P: Protection>(
    store: &SlotFile<P>,
    folder: &LogFolder,
    shape: Shape,
    protection: &P,
    peek: bool,
) -> Result<Read, VolumeError> {
    let reading = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => damaged(0, "it is missing"),
        _ => VolumeError::from_io("reading the metadata log", error),
    };
    let chunks = u32::try_from(shape.size / CHUNK_LEN)
        .ok()
        .filter(|chunks| *chunks <= CHUNKS_MAX && shape.size.is_multiple_of(CHUNK_LEN))
        .ok_or_else(|| damaged(0, "the size of the volume is out of bounds"))?;
    let mut recovery = Recovery::new(Map::new(chunks));
    let file = match peek {
        true => folder.peek_current(),
        false => folder.open_current(),
    };
    let file = file.map_err(reading)?;
    let copy = folder.open_copy().map_err(reading)?;
    let replayed = replay(
        file,
        copy,
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
    let len = store
        .len()
        .map_err(|error| VolumeError::from_io("reading the slot file", error))?;
    let Recovered {
        map,
        compared,
        dropped,
    } = recovery
        .finish(store, len)
        .map_err(|error| VolumeError::from_io("checking what was not flushed", error))?;
    Ok(Read {
        replayed,
        map,
        compared,
        dropped,
    })
}

fn damaged(at: u64, why: &'static str) -> VolumeError {
    VolumeError::Damaged {
        file: Path::new(LOG_NAME).to_owned(),
        at,
        why,
    }
}

pub(super) fn damaged_slots(at: u64, why: &'static str) -> VolumeError {
    VolumeError::Damaged {
        file: Path::new(SLOTS_NAME).to_owned(),
        at,
        why,
    }
}

/// Which chunk each slot is of, of all slots that the file has or the map names. No two chunks may be in one slot, and
/// what is said to be in a slot must be within the file.
pub(super) fn in_slots(map: &Map, file_len: u64) -> Result<InSlots, &'static str> {
    let end = Slot::count_in(file_len).ok_or("the slot file is longer than any can be")?;
    let mut in_slots: InSlots = vec![None; end as usize];
    let end = Chunk(map.chunks());
    let mut at = Chunk(0);
    while let Some(chunk) = map.next_mapped(at, end) {
        at = chunk.next();
        let Some(entry) = map.get(chunk) else {
            continue;
        };
        let data_end = entry.slot.start() + u64::from(entry.valid.end()) * SECTOR_LEN as u64;
        if !entry.valid.is_empty() && data_end > file_len {
            return Err("the slot file is shorter than the map says");
        }
        let slot = entry.slot.0 as usize;
        if in_slots.len() <= slot {
            in_slots.resize(slot + 1, None);
        }
        if in_slots[slot].replace(chunk).is_some() {
            return Err("two chunks are in one slot");
        }
    }
    Ok(in_slots)
}

/// The slots that no chunk is in.
fn free_runs(in_slots: &InSlots) -> Vec<SlotRun> {
    let mut free: Vec<SlotRun> = Vec::new();
    for (slot, chunk) in (0..).zip(in_slots) {
        if chunk.is_some() {
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
    free
}
