//! Repair: a map made again from the owner table, and all that there should be two of written again.
//!
//! What is believed: of two slots that claim a chunk, the one taken later. Of a slot's sectors, its bytes: a slot is empty
//! when it is taken, so what is not all zeroes was written there. What the power left half of (a piece of 512 bytes is zero,
//! which no sealed sector has) was not flushed, and is as before it was written. What the owner calls stale may have been
//! written since or not: that is not known, and such sectors are marked.
//!
//! The order is that of a checkpoint: owners and slots are synced before the new log takes its place. A repair that is cut
//! off is begun again.

use std::{collections::HashMap, io};

use super::{
    BASE_GENERATION, BASE_LAYER, Media, Shape, checkpoint,
    open::{Read, damaged_slots, header, in_slots, read},
    owners::{self, owns},
    recovery::Compared,
    table::Owners,
};
use crate::{
    VolumeError,
    geometry::{CHUNK_LEN, CHUNKS_MAX, Chunk, GROUP_SLOTS, SECTOR_LEN, Sectors, Slot, SlotRun},
    log::{Batch, Record, folder::LOG_NAME, frame::FileHeader, replay, writer::LogFile},
    map::{Entry, Map},
    owner::{Claim, OWNER_LEN, Owner, SlotHeader},
    protection::Protection,
    slot_file::{SLOTS_NAME, SlotFile, looks},
};

/// What is wrong with a volume's files, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which of them.
    pub file: &'static str,
    /// Where in it, in bytes.
    pub at: u64,
    /// What did not hold.
    pub what: String,
}

/// What was found of a volume's files.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// What is damaged. None of it: the volume is sound.
    pub findings: Vec<Finding>,
    /// Chunks of 512 KiB that hold anything, as far as the map reads.
    pub chunks: u64,
    /// Ranges of the volume that an earlier repair has marked, by byte and length.
    pub marked: Vec<(u64, u64)>,
}

/// Where a repair had the map from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapSource {
    /// The log, and the copy of its checkpoint: nothing is lost.
    Log,
    /// The owner table of the slots.
    Owners,
}

/// What a repair did.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// What was damaged before.
    pub found: Vec<Finding>,
    /// Where the map is from.
    pub map_from: MapSource,
    /// Chunks of 512 KiB that hold anything.
    pub chunks: u64,
    /// Ranges of the volume that are marked, by byte and length: what they held is not known, and reading them is an error
    /// until they are written or trimmed.
    pub marked: Vec<(u64, u64)>,
    /// Slots whose claim to a chunk was older than another's.
    pub superseded: u64,
    /// Slots whose owner does not read: what they held is in no chunk any more.
    pub unreadable: u64,
}

/// Looks at all of a volume's files and changes nothing. Nobody has the volume attached meanwhile.
pub(crate) fn check<P: Protection>(
    media: &Media,
    shape: Shape,
    protection: &P,
) -> Result<Checked, VolumeError> {
    let store = SlotFile::<P>::new(media.slots.clone());
    let mut checked = Checked::default();
    check_files(&store, media, shape, protection, &mut checked)
        .map_err(|error| VolumeError::from_io("checking a volume", error))?;
    Ok(checked)
}

impl Checked {
    fn find(&mut self, file: &'static str, at: u64, what: impl Into<String>) {
        self.findings.push(Finding {
            file,
            at,
            what: what.into(),
        });
    }
}

fn check_files<P: Protection>(
    store: &SlotFile<P>,
    media: &Media,
    shape: Shape,
    protection: &P,
    checked: &mut Checked,
) -> io::Result<()> {
    for (at, found) in [0, CHUNK_LEN / 2]
        .into_iter()
        .zip(store.headers(protection.owner_key())?)
    {
        if let Err(why) = found {
            checked.find(SLOTS_NAME, at, why);
        }
    }
    let slots = owners::read_header(store, protection, shape)?;
    let Read {
        replayed,
        map,
        compared,
        dropped,
    } = match read(store, &media.log, shape, protection, true) {
        Ok(read) => read,
        Err(VolumeError::Damaged { at, why, .. }) => {
            checked.find(LOG_NAME, at, why);
            return Ok(());
        }
        Err(VolumeError::Io { source, .. }) => {
            return Err(io::Error::new(source.kind(), source.to_string()));
        }
        Err(other) => return Err(io::Error::other(other.to_string())),
    };
    let (log, end) = (*replayed.log.header(), replayed.log.end());
    if replayed.mended {
        checked.find(
            LOG_NAME,
            0,
            "a part of the checkpoint is damaged; its copy has it",
        );
    }
    match media.log.open_copy()? {
        None => checked.find(crate::log::folder::COPY_NAME, 0, "it is missing"),
        Some(copy) => match replay::check_copy(&*copy, protection.log_key(), &log) {
            Ok(()) => {}
            Err(replay::ReplayError::Io(error)) => return Err(error),
            Err(replay::ReplayError::Damaged { at, why }) => {
                checked.find(crate::log::folder::COPY_NAME, at, why);
            }
        },
    }
    if let Ok(slots) = &slots
        && let Err(why) = owners::contradicts(slots, &log, end)
    {
        checked.find(LOG_NAME, end, why);
    }
    let in_slots = match in_slots(&map, store.len()?) {
        Ok(in_slots) => in_slots,
        Err(why) => {
            checked.find(SLOTS_NAME, store.len()?, why);
            return Ok(());
        }
    };
    // After a crash the table may be ahead of the log or behind it, until the volume is attached again.
    let settled = compared == Compared::Nothing
        && dropped.is_empty()
        && slots.is_ok_and(|slots| slots.closed);
    each_claim(store, shape, protection, |slot, claim, at| {
        let chunk = in_slots.get(slot.0 as usize).copied().flatten();
        let held = chunk.and_then(|chunk| Some((chunk, map.get(chunk)?)));
        match (claim, held) {
            (Claim::Unreadable, _) => {
                checked.find(SLOTS_NAME, at, "the owner of a slot does not read")
            }
            (Claim::Owner(owner), Some((chunk, held))) if !owns(&owner, chunk, &held) => {
                checked.find(
                    SLOTS_NAME,
                    at,
                    "the owner of a slot is not the one that the map has",
                );
            }
            (Claim::None, Some(_)) if settled => {
                checked.find(SLOTS_NAME, at, "a slot has no owner")
            }
            (Claim::Owner(_), None) if settled => {
                checked.find(SLOTS_NAME, at, "a free slot has an owner");
            }
            _ => {}
        }
        Ok(())
    })?;
    let (chunks, marked) = tally(&map);
    (checked.chunks, checked.marked) = (chunks, marked);
    Ok(())
}

/// How many chunks hold anything, and the ranges that are marked.
fn tally(map: &Map) -> (u64, Vec<(u64, u64)>) {
    let (mut chunks, mut marked) = (0, Vec::<(u64, u64)>::new());
    let end = Chunk(map.chunks());
    let mut at = Chunk(0);
    while let Some(chunk) = map.next_mapped(at, end) {
        at = chunk.next();
        let Some(entry) = map.get(chunk) else {
            continue;
        };
        chunks += 1;
        for sector in 0..entry.lost.end() {
            if !entry.lost.contains(sector) {
                continue;
            }
            let offset = (chunk.first_sector() + u64::from(sector)) * SECTOR_LEN as u64;
            match marked.last_mut() {
                Some((start, len)) if *start + *len == offset => *len += SECTOR_LEN as u64,
                _ => marked.push((offset, SECTOR_LEN as u64)),
            }
        }
    }
    (chunks, marked)
}

/// Calls `each` with every slot that the file has a table for, what the table says of it, and where that stands.
fn each_claim<P: Protection>(
    store: &SlotFile<P>,
    shape: Shape,
    protection: &P,
    mut each: impl FnMut(Slot, Claim, u64) -> io::Result<()>,
) -> io::Result<()> {
    let len = store.len()?;
    let mut first = Slot(0);
    while first.table_start() < len {
        let bytes = store.read_owners(SlotRun {
            first,
            count: GROUP_SLOTS,
        })?;
        let (entries, _) = bytes.as_chunks::<OWNER_LEN>();
        for (slot, entry) in (first.0..).zip(entries) {
            let slot = Slot(slot);
            let claim = Claim::decode(entry, protection.owner_key(), shape.volume, slot);
            let within = u64::from(slot.within_group()) * OWNER_LEN as u64;
            each(slot, claim, slot.table_start() + within)?;
        }
        match first.0.checked_add(GROUP_SLOTS) {
            Some(next) => first = Slot(next),
            None => break,
        }
    }
    Ok(())
}

/// Makes a volume whole again as far as that can be. Nobody has it attached meanwhile. Fails, with nothing changed, if the
/// map is lost and so are owners of slots, unless `accept_loss`: which chunks these held is not known. Likewise if the slot
/// file is shorter than the map says, or another volume's.
pub(crate) fn repair<P: Protection>(
    media: &Media,
    shape: Shape,
    protection: &P,
    accept_loss: bool,
) -> Result<Repaired, VolumeError> {
    let repairing = |error| VolumeError::from_io("repairing a volume", error);
    let store = SlotFile::<P>::new(media.slots.clone());
    let found = check(media, shape, protection)?.findings;
    let slots = owners::read_header(&store, protection, shape).map_err(repairing)?;
    let len = store.len().map_err(repairing)?;
    let believed = read(&store, &media.log, shape, protection, true)
        .ok()
        .filter(|read| {
            let (log, end) = (read.replayed.log.header(), read.replayed.log.end());
            // Without the header nothing says whether the log was cut: it is believed, as it proves itself otherwise.
            slots
                .as_ref()
                .is_ok_and(|slots| owners::contradicts(slots, log, end).is_ok())
                || slots.is_err()
        });
    let whole = match believed {
        // The log is right and knows what is gone: a map of what is left would be a loss that nobody is told of.
        Some(read) if in_slots(&read.map, len).is_err() && !accept_loss => {
            return Err(damaged_slots(
                len,
                "it is shorter than the metadata log says: restore it from a backup (`--accept-loss` goes on without what it held)",
            ));
        }
        read => read.filter(|read| in_slots(&read.map, len).is_ok()),
    };
    let claims = Claims::gather(&store, shape, protection).map_err(repairing)?;
    if slots.is_err() && claims.owners.is_empty() && claims.unreadable > 0 && !accept_loss {
        return Err(damaged_slots(
            len,
            "neither its headers nor any owner in it are this volume's: put back the one that is (`--accept-loss` takes it as it is)",
        ));
    }
    let (map, map_from, dropped) = match whole {
        Some(read) => (read.map, MapSource::Log, read.dropped),
        None if claims.unreadable > 0 && !accept_loss => {
            return Err(VolumeError::CannotRepair {
                slots: claims.unreadable,
            });
        }
        None => {
            let map = claims.to_map(&store, shape).map_err(repairing)?;
            (map, MapSource::Owners, Vec::new())
        }
    };
    let in_slots = in_slots(&map, len).map_err(|why| damaged_slots(len, why))?;
    let epoch = log_epoch(media, protection).max(slots.map_or(0, |slots| slots.log_epoch)) + 1;
    let begun = slots.unwrap_or(SlotHeader {
        sequence: claims.next,
        ..owners::new_header::<P>(shape)
    });
    let write = || {
        let owners = Owners::begin(
            &store,
            protection,
            SlotHeader {
                sequence: begun.sequence.max(claims.next),
                ..begun
            },
        )?;
        let mut suspect: Vec<Chunk> = match map_from {
            MapSource::Log => dropped,
            // Each owner is to say what is known now.
            MapSource::Owners => in_slots.iter().copied().flatten().collect(),
        };
        suspect.sort_unstable();
        store.sync()?;
        owners::reconcile(&owners, &store, protection, (&map, &in_slots, &suspect))?;
        for slot in claims.beyond(in_slots.len()) {
            store.clear_owners(SlotRun {
                first: slot,
                count: 1,
            })?;
        }
        store.sync()?;
        let new = write_log(media, shape, protection, &map, epoch)?;
        if map_from == MapSource::Owners {
            media.log.set_current_aside()?;
        }
        media.log.publish_next()?;
        let log = *new.header();
        media
            .log
            .copy_checkpoint(&*new.file(), log.checkpoint_end)?;
        owners.end(&store, protection, log.epoch, new.end())?;
        store.sync()
    };
    // Some of it may be a sync that failed, after which what is read here need not be on the disk.
    write()
        .inspect_err(|_| (media.on_failed)())
        .map_err(repairing)?;
    let (chunks, marked) = tally(&map);
    Ok(Repaired {
        found,
        map_from,
        chunks,
        marked,
        superseded: claims.superseded,
        unreadable: match map_from {
            MapSource::Log => 0,
            MapSource::Owners => claims.unreadable,
        },
    })
}

/// The epoch of the log that there is, if its header reads, or that of the copy.
fn log_epoch<P: Protection>(media: &Media, protection: &P) -> u64 {
    let epoch = |file: io::Result<Option<std::sync::Arc<dyn host::File>>>| {
        let file = file.ok()??;
        let header = replay::read_header(&*file, protection.log_key()).ok()?;
        Some(header.epoch)
    };
    let log = epoch(media.log.peek_current().map(Some));
    let copy = epoch(media.log.open_copy());
    log.max(copy).unwrap_or(0)
}

/// The map as a new log, durable under the name of the next one.
fn write_log<P: Protection>(
    media: &Media,
    shape: Shape,
    protection: &P,
    map: &Map,
    epoch: u64,
) -> io::Result<LogFile> {
    let key = protection.log_key();
    let header = FileHeader {
        epoch,
        ..header::<P>(shape)
    };
    let mut new = LogFile::create(media.log.create_next()?, key, header);
    let mut batch = Batch::default();
    batch.push(checkpoint::first_record());
    let end = Chunk(map.chunks());
    let mut at = Chunk(0);
    while let Some(chunk) = map.next_mapped(at, end) {
        at = chunk.next();
        batch.push(Record::of(BASE_LAYER, chunk, map.get(chunk)));
        let full = batch.take_full();
        if !full.is_empty() {
            new.append(key, &full)?;
        }
    }
    new.append(key, &batch.finish())?;
    new.prepare(0, 0)?;
    new.finish(key)?;
    Ok(new)
}

/// Who owns which slot, as the table says.
struct Claims {
    /// The newest claim of each chunk.
    owners: HashMap<Chunk, (Slot, Owner)>,
    superseded: u64,
    unreadable: u64,
    /// A sequence that no claim has, nor a greater one.
    next: u64,
    /// The last slot of which the table says anything.
    last: Option<Slot>,
}

impl Claims {
    fn gather<P: Protection>(
        store: &SlotFile<P>,
        shape: Shape,
        protection: &P,
    ) -> io::Result<Self> {
        let mut claims = Self {
            owners: HashMap::new(),
            superseded: 0,
            unreadable: 0,
            next: 1,
            last: None,
        };
        let chunks = shape.size / CHUNK_LEN;
        each_claim(store, shape, protection, |slot, claim, _| {
            if claim != Claim::None {
                claims.last = Some(slot);
            }
            let owner = match claim {
                Claim::None => return Ok(()),
                Claim::Owner(owner)
                    if owner.layer == BASE_LAYER
                        && owner.generation == BASE_GENERATION
                        && u64::from(owner.chunk.0) < chunks =>
                {
                    owner
                }
                _ => {
                    claims.unreadable += 1;
                    return Ok(());
                }
            };
            claims.next = claims.next.max(owner.sequence + 1);
            let newest = claims.owners.entry(owner.chunk).or_insert((slot, owner));
            if newest.0 != slot {
                claims.superseded += 1;
                if newest.1.sequence < owner.sequence {
                    *newest = (slot, owner);
                }
            }
            Ok(())
        })?;
        Ok(claims)
    }

    /// The map that the claims make, with what the slots hold.
    fn to_map<P: Protection>(&self, store: &SlotFile<P>, shape: Shape) -> io::Result<Map> {
        let chunks = u32::try_from(shape.size / CHUNK_LEN)
            .ok()
            .filter(|chunks| *chunks <= CHUNKS_MAX)
            .ok_or_else(|| io::Error::other("the size of the volume is out of bounds"))?;
        let map = Map::new(chunks);
        let mut bytes = vec![0; usize::try_from(CHUNK_LEN).expect("512 KiB")];
        let mut claims: Vec<_> = self.owners.values().copied().collect();
        claims.sort_unstable_by_key(|(slot, _)| *slot);
        let len = store.len()?;
        for (slot, owner) in claims {
            store.read_slot(slot, &mut bytes)?;
            // The power may have cut the file within a sector: then it was not flushed.
            let whole = len.saturating_sub(slot.start()).min(CHUNK_LEN) / SECTOR_LEN as u64;
            let whole = usize::try_from(whole).expect("128 at most") * SECTOR_LEN;
            bytes[whole..].fill(0);
            let entry = entry_of::<P>(slot, &owner, &bytes);
            if !entry.is_empty() {
                map.set(owner.chunk, Some(entry));
            }
        }
        Ok(map)
    }

    /// Slots of which the table says something, from one on.
    fn beyond(&self, from: usize) -> impl Iterator<Item = Slot> + use<> {
        let end = self.last.map_or(0, |last| last.0 as usize + 1);
        (from..end).map(|slot| Slot(u32::try_from(slot).expect("a slot's number")))
    }
}

/// What a chunk has, from its slot's owner and bytes.
fn entry_of<P: Protection>(slot: Slot, owner: &Owner, bytes: &[u8]) -> Entry {
    let (written, torn) = looks(bytes);
    // A sealed sector has no zero piece; of an unencrypted one it is part of the content.
    let torn = if P::SEALED { torn } else { Sectors::NONE };
    let there = written.without(torn);
    let unknown = there.and(owner.stale);
    // Of what was there once and settled, nothing is. Zeroes of an unencrypted volume may be just that.
    let gone = if P::SEALED {
        owner.valid.without(there)
    } else {
        Sectors::NONE
    };
    Entry {
        slot,
        generation: owner.generation,
        valid: there.without(unknown),
        zero: Sectors::NONE,
        lost: unknown.with(gone),
    }
}
