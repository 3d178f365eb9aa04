//! The owner table, kept true: who owns a slot is written before the slot is, and cleared before it is let go.
//!
//! Nothing here is synced by itself: the table is in the slot file, whose sync each flush begins with. So after a flush
//! the table says what the log says. After a crash it may say more or less than that of what was not flushed, and is
//! brought in line when the volume is opened, unless it was closed in order.
//!
//! Writing sectors of a chunk that has its slot costs nothing here. Trimming or zeroing a part of one does: the entry notes
//! which sectors' bytes are not to be believed any more.

use std::{io, sync::atomic::Ordering::SeqCst};

use super::{BASE_LAYER, Engine, Shape, table::Owners};
use crate::{
    VolumeError,
    geometry::{CHUNK_LEN, Chunk, GROUP_SLOTS, Generation, Sectors, Slot, SlotRun},
    log::frame::FileHeader,
    map::{Entry, Map},
    owner::{Claim, OWNER_LEN, Owner, SlotHeader},
    protection::Protection,
    slot_file::{SlotFile, looks},
    slots::Taken,
};

/// The header says up to where the log is durable when that is so much more than it said before.
const LOG_NOTED_LEN: u64 = 64 << 10;

/// The header of a new slot file.
pub(super) fn new_header<P: Protection>(shape: Shape) -> SlotHeader {
    SlotHeader {
        volume: shape.volume,
        sealed: P::SEALED,
        layer: BASE_LAYER,
        closed: true,
        sequence: 1,
        log_epoch: 1,
        log_durable: 0,
        revision: 1,
    }
}

/// The header of a slot file that is this volume's, if it is.
pub(super) fn read_header<P: Protection>(
    store: &SlotFile<P>,
    protection: &P,
    shape: Shape,
) -> io::Result<Result<SlotHeader, &'static str>> {
    let header = store.header(protection.owner_key())?;
    Ok(header.and_then(|header| {
        let expected = (shape.volume, P::SEALED, BASE_LAYER);
        if (header.volume, header.sealed, header.layer) == expected {
            Ok(header)
        } else {
            Err("the slots of another volume")
        }
    }))
}

/// What is wrong with a log that was read up to `end`, seen from the header of the slots.
pub(super) fn contradicts(
    slots: &SlotHeader,
    log: &FileHeader,
    end: u64,
) -> Result<(), &'static str> {
    if log.epoch < slots.log_epoch {
        return Err("the log is older than the slots");
    }
    if log.epoch == slots.log_epoch && end < slots.log_durable {
        return Err("the log ends before what was durable");
    }
    Ok(())
}

/// Which chunk each slot is of, as the map says; `None` for the free ones.
pub(super) type InSlots = Vec<Option<Chunk>>;

/// Brings the table in line with a map that was read back: owners of free slots are cleared, chunks whose slots say
/// something else get their owner. `suspect` chunks get theirs in any case, in order.
pub(super) fn reconcile<P: Protection>(
    owners: &Owners,
    store: &SlotFile<P>,
    protection: &P,
    (map, in_slots, suspect): (&Map, &InSlots, &[Chunk]),
) -> io::Result<Reconciled> {
    let (key, volume) = (protection.owner_key(), owners.header.lock().volume);
    let mut done = Reconciled::default();
    // A slot that was taken at the end of the file, and has an owner but not a byte yet, is not among them.
    let beyond = u32::try_from(in_slots.len()).expect("slots are counted so");
    store.clear_owners(SlotRun {
        first: Slot(beyond),
        count: GROUP_SLOTS - beyond % GROUP_SLOTS,
    })?;
    let groups = in_slots.chunks(GROUP_SLOTS as usize);
    for (first, group) in (0..).step_by(GROUP_SLOTS as usize).zip(groups) {
        let count = u32::try_from(group.len()).expect("a group's");
        let run = |first: u32, count| SlotRun {
            first: Slot(first),
            count,
        };
        let bytes = store.read_owners(run(first, count))?;
        let (entries, _) = bytes.as_chunks::<OWNER_LEN>();
        for ((slot, chunk), entry) in (first..).zip(group).zip(entries) {
            let slot = Slot(slot);
            let claim = Claim::decode(entry, key, volume, slot);
            let Some(chunk) = *chunk else {
                if claim != Claim::None {
                    store.clear_owners(run(slot.0, 1))?;
                    done.cleared += 1;
                }
                continue;
            };
            let held = map.get(chunk).expect("the map has it in a slot");
            let right = match claim {
                Claim::Owner(owner) => {
                    owns(&owner, chunk, &held) && !owner.stale.overlaps(held.valid)
                }
                _ => false,
            };
            if right && suspect.binary_search(&chunk).is_err() {
                continue;
            }
            let sequence = match claim {
                Claim::Owner(owner) if owns(&owner, chunk, &held) => owner.sequence,
                _ => owners.next()?,
            };
            let owner = owner_by_content(store, chunk, &held, sequence)?;
            store.write_owners(key, volume, slot, &[owner])?;
            done.written += 1;
        }
    }
    Ok(done)
}

/// How much of the table was not as the map says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reconciled {
    pub(super) cleared: u64,
    pub(super) written: u64,
}

/// Whether an owner is that of a chunk.
pub(super) fn owns(owner: &Owner, chunk: Chunk, entry: &Entry) -> bool {
    (owner.layer, owner.chunk, owner.generation) == (BASE_LAYER, chunk, entry.generation)
}

/// The owner of a slot whose map is known, and all of whose sectors are synced: what else is in the slot is stale.
pub(super) fn owner_by_content<P: Protection>(
    store: &SlotFile<P>,
    chunk: Chunk,
    entry: &Entry,
    sequence: u64,
) -> io::Result<Owner> {
    let mut bytes = vec![0; usize::try_from(CHUNK_LEN).expect("512 KiB")];
    store.read_slot(entry.slot, &mut bytes)?;
    let (written, _) = looks(&bytes);
    Ok(Owner {
        layer: BASE_LAYER,
        chunk,
        generation: entry.generation,
        sequence,
        valid: entry.valid,
        stale: written.without(entry.valid),
    })
}

impl<P: Protection> Engine<P> {
    /// Writes who owns slots that were taken, before anything else is written there. Neighbours are written together.
    pub(super) fn own(
        &self,
        taken: impl Iterator<Item = (Taken, Chunk, Generation)>,
    ) -> Result<(), VolumeError> {
        let write = |first: Slot, owners: &[Owner]| {
            self.store
                .write_owners(
                    self.protection.owner_key(),
                    self.shape.volume,
                    first,
                    owners,
                )
                .inspect(|()| self.written())
        };
        let all = || {
            let mut first = None;
            let mut owners: Vec<Owner> = Vec::new();
            let mut last = None::<Slot>;
            for (taken, chunk, generation) in taken {
                if last.is_some_and(|last| !last.is_followed_by(taken.slot))
                    && let Some(first) = first.take()
                {
                    write(first, &owners)?;
                    owners.clear();
                }
                first = first.or(Some(taken.slot));
                last = Some(taken.slot);
                owners.push(Owner {
                    layer: BASE_LAYER,
                    chunk,
                    generation,
                    sequence: self.owners.next()?,
                    valid: Sectors::NONE,
                    stale: match taken.empty {
                        true => Sectors::NONE,
                        false => Sectors::ALL,
                    },
                });
            }
            first.map_or(Ok(()), |first| write(first, &owners))
        };
        all().map_err(|error| VolumeError::from_io("writing the owner of a slot", error))
    }

    /// Clears the owners of slots that the map does not name any more.
    pub(super) fn disown(&self, run: SlotRun) -> Result<(), VolumeError> {
        self.written();
        self.store.clear_owners(run).map_err(|error| {
            self.owners.unclear.store(true, SeqCst);
            VolumeError::from_io("clearing the owner of a slot", error)
        })
    }

    /// Notes that some sectors of a chunk are about to be trimmed or zeroed, of which the slot keeps the bytes. `before`: what
    /// the map has of the chunk. Hold its range lock for writing.
    pub(super) fn amend(
        &self,
        chunk: Chunk,
        before: &Entry,
        sectors: Sectors,
    ) -> Result<(), VolumeError> {
        let removed = before.valid.with(before.lost).and(sectors);
        if removed.is_empty() {
            return Ok(());
        }
        let (key, volume) = (self.protection.owner_key(), self.shape.volume);
        // What is not settled may turn out not to be in the slot.
        let settled = before.valid.without(self.unsettled.of(chunk));
        let write = || {
            let (sequence, stale) = match self.store.claim(key, volume, before.slot)? {
                Claim::Owner(owner) if owns(&owner, chunk, before) => (owner.sequence, owner.stale),
                // Damaged. The slot may hold anything where it is not valid.
                _ => (self.owners.next()?, Sectors::ALL),
            };
            let owner = Owner {
                layer: BASE_LAYER,
                chunk,
                generation: before.generation,
                sequence,
                valid: settled.without(sectors),
                stale: stale.without(settled).with(removed),
            };
            self.written();
            self.store.write_owners(key, volume, before.slot, &[owner])
        };
        write().map_err(|error| VolumeError::from_io("writing the owner of a slot", error))
    }

    /// Says in the slot file up to where the log is durable, now and then.
    pub(super) fn note_log(&self, epoch: u64, durable: u64) -> io::Result<()> {
        let mut header = self.owners.header.lock();
        if epoch == header.log_epoch && durable < header.log_durable + LOG_NOTED_LEN {
            return Ok(());
        }
        let noted = SlotHeader {
            log_epoch: epoch,
            log_durable: durable,
            revision: header.revision + 1,
            ..*header
        };
        self.store
            .write_header(self.protection.owner_key(), &noted)?;
        *header = noted;
        Ok(())
    }

    /// Flushes, and says in the slot file that the volume was detached in order.
    pub(crate) fn close(&self) -> Result<(), VolumeError> {
        self.flush()?;
        let (epoch, durable, all) = {
            let log = &self.journal.file().log;
            (log.header().epoch, log.end(), log.is_durable())
        };
        if !all || self.owners.unclear.load(SeqCst) {
            return Ok(());
        }
        self.owners
            .end(&self.store, &self.protection, epoch, durable)
            .map_err(|error| VolumeError::from_io("closing the slot file", error))
    }
}
