//! Trimming and zeroing: changes of the map, with no data written but for parts of sectors at the ends.
//!
//! Whole leaves of the map that hold nothing are skipped, so the work is bounded by what is mapped, and what is logged by
//! runs. A change is put in the log under the lock of its chunk, and the log is written out at the end. The space of a freed
//! slot goes back in the background, when the change that freed it is durable.

use super::{
    BASE_GENERATION, BASE_LAYER, Engine,
    journal::{Need, Ticket},
};
use crate::{
    VolumeError,
    geometry::{CHUNK_LEN, CHUNK_SECTORS, Chunk, SECTOR_LEN, Sectors, Slot, SlotRun},
    log::{Record, frame::FRAME_OVERHEAD, record::RECORD_LEN_MAX},
    map::Entry,
    protection::Protection,
    slot_file::Place,
};

/// Most bytes in the log of one change.
const CHANGE_LEN_MAX: usize = RECORD_LEN_MAX + 2 * FRAME_OVERHEAD;

/// Runs of freed slots that are let go together.
const FREED_MAX: usize = 1024;

/// Slots that a request has freed and not let go of.
#[derive(Default)]
struct Freed(Vec<SlotRun>);

impl Freed {
    fn push(&mut self, slot: Slot) {
        match self.0.last_mut() {
            Some(last) if last.first.0 + last.count == slot.0 => last.count += 1,
            _ => self.0.push(SlotRun {
                first: slot,
                count: 1,
            }),
        }
    }
}

impl<P: Protection> Engine<P> {
    /// The range reads as zeroes and its space is given back, as far as whole chunks can be.
    pub(crate) fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), VolumeError> {
        self.write_zeroes(offset, len, false, fua)
    }

    /// The range reads as zeroes; with `no_hole` every chunk it touches has a slot afterwards, with space.
    pub(crate) fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        no_hole: bool,
        fua: bool,
    ) -> Result<(), VolumeError> {
        self.check(offset, len)?;
        if len > 0 {
            self.zero(offset, len, no_hole)?;
        }
        if fua { self.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, keep: bool) -> Result<(), VolumeError> {
        let end = offset + len;
        let sector_len = SECTOR_LEN as u64;
        let (first, last) = (offset.next_multiple_of(sector_len), end - end % sector_len);
        if first > last {
            // Within one sector.
            return self.zero_part(offset, len);
        }
        if offset < first {
            self.zero_part(offset, first - offset)?;
        }
        if last < end {
            self.zero_part(last, end - last)?;
        }
        self.zero_sectors(first, last, keep)
    }

    /// Part of one sector. One that is not in a slot is zero already.
    fn zero_part(&self, offset: u64, len: u64) -> Result<(), VolumeError> {
        let chunk = Chunk::at(offset);
        let _held = self.ranges.write(chunk, chunk);
        let sector = chunk.sector_at(offset);
        match self.map.get(chunk) {
            Some(entry) if entry.valid.with(entry.lost).contains(sector) => {
                let zeroes = [0; SECTOR_LEN];
                self.write_part(
                    offset,
                    &zeroes[..usize::try_from(len).expect("less than a sector")],
                )
            }
            _ => Ok(()),
        }
    }

    /// Whole sectors, from byte to byte.
    fn zero_sectors(&self, start: u64, end: u64, keep: bool) -> Result<(), VolumeError> {
        let mut last = None;
        let mut freed = Freed::default();
        let outcome = self.zero_chunks(start, end, keep, &mut last, &mut freed);
        let outcome = outcome.and(self.free(&mut freed));
        // What was zeroed before something failed is zeroed.
        match last {
            Some(ticket) => self.log(ticket).and(outcome),
            None => outcome,
        }
    }

    /// `last` is the last change that was put in the log.
    fn zero_chunks(
        &self,
        start: u64,
        end: u64,
        keep: bool,
        last: &mut Option<Ticket>,
        freed: &mut Freed,
    ) -> Result<(), VolumeError> {
        let mut at = start;
        let mut near = None;
        while at < end {
            let mut chunk = Chunk::at(at);
            if !keep && at == chunk.start() {
                match self.map.next_mapped(chunk, Chunk::at(end - 1).next()) {
                    Some(mapped) => chunk = mapped,
                    None => return Ok(()),
                }
                at = chunk.start();
            }
            let piece_end = (chunk.start() + CHUNK_LEN).min(end);
            let first = chunk.sector_at(at);
            let count = chunk.sector_at(piece_end - 1) + 1 - first;
            let sectors = Sectors::range(first, count);
            let ticket = if keep {
                self.zero_keeping(chunk, sectors, &mut near)?
            } else {
                self.zero_freeing(chunk, sectors, freed)?
            };
            if freed.0.len() >= FREED_MAX {
                self.free(freed)?;
            }
            *last = ticket.or(*last);
            if let Some(ticket) = ticket.filter(|ticket| ticket.long) {
                self.log(ticket)?;
            }
            at = piece_end;
        }
        Ok(())
    }

    /// Some sectors of a chunk become zero; if nothing is left of it, its slot is freed.
    fn zero_freeing(
        &self,
        chunk: Chunk,
        sectors: Sectors,
        freed: &mut Freed,
    ) -> Result<Option<Ticket>, VolumeError> {
        let _held = self.ranges.write(chunk, chunk);
        let Some(entry) = self.map.get(chunk) else {
            return Ok(None);
        };
        let left = entry.without(sectors);
        if left == entry {
            return Ok(None);
        }
        let claim = self.claim(CHANGE_LEN_MAX, Need::NoSpace)?;
        if !left.is_empty() {
            self.amend(chunk, &entry, sectors)?;
        }
        let left = Some(left).filter(|left| !left.is_empty());
        let ticket = self.put_entry(chunk, left);
        drop(claim);
        if left.is_none() {
            // After the record was queued: a flush lets go of the slots that are retired before it writes the queue.
            freed.push(entry.slot);
        }
        Ok(Some(ticket))
    }

    /// Lets slots go that the map does not name any more. Their owners go first: once a slot is retired, another request
    /// may get it.
    fn free(&self, freed: &mut Freed) -> Result<(), VolumeError> {
        let mut outcome = Ok(());
        for run in std::mem::take(&mut freed.0) {
            outcome = outcome.and(self.disown(run));
            self.slots.retire(run);
        }
        outcome
    }

    /// Some sectors of a chunk become zero; it gets a slot if it has none, behind `near`, which that slot then is.
    fn zero_keeping(
        &self,
        chunk: Chunk,
        sectors: Sectors,
        near: &mut Option<Slot>,
    ) -> Result<Option<Ticket>, VolumeError> {
        debug_assert!(sectors.end() <= CHUNK_SECTORS);
        let _held = self.ranges.write(chunk, chunk);
        let before = self.map.get(chunk);
        let need = match before {
            Some(_) => Need::NoSpace,
            None => Need::Space,
        };
        let claim = self.claim(CHANGE_LEN_MAX, need)?;
        let entry = match before {
            Some(entry) => Entry {
                zero: entry.zero.with(sectors),
                ..entry.without(sectors)
            },
            None => self.new_zeroes(chunk, sectors, near.and_then(Slot::next))?,
        };
        *near = Some(entry.slot);
        if before == Some(entry) {
            return Ok(None);
        }
        if let Some(before) = &before {
            self.keep_space(entry.slot, sectors)?;
            self.amend(chunk, before, sectors)?;
        }
        let ticket = self.put_entry(chunk, Some(entry));
        drop(claim);
        Ok(Some(ticket))
    }

    /// A slot for a chunk that has none, with space for these sectors, which are zero.
    fn new_zeroes(
        &self,
        chunk: Chunk,
        sectors: Sectors,
        near: Option<Slot>,
    ) -> Result<Entry, VolumeError> {
        // Whole chunks come in a row; a part of one takes its own space.
        let taken = self.take_slot(near, sectors == Sectors::ALL)?;
        let kept = match taken.spaced {
            true => Ok(()),
            false => self.keep_space(taken.slot, sectors),
        };
        if let Err(error) = kept {
            self.slots.give_back(taken);
            return Err(error);
        }
        if let Err(error) = self.own([(taken, chunk, BASE_GENERATION)].into_iter()) {
            self.housekeeping.punch(vec![SlotRun {
                first: taken.slot,
                count: 1,
            }]);
            return Err(error);
        }
        Ok(Entry {
            slot: taken.slot,
            generation: BASE_GENERATION,
            valid: Sectors::NONE,
            zero: sectors,
            lost: Sectors::NONE,
        })
    }

    /// Takes the space of some sectors of a slot, so that writing them does not run out of it.
    fn keep_space(&self, slot: Slot, sectors: Sectors) -> Result<(), VolumeError> {
        let place = Place {
            slot,
            sector: sectors.first(),
        };
        match self
            .store
            .allocate_sectors(place, sectors.end() - sectors.first())
        {
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(()),
            taken => {
                taken.map_err(|error| VolumeError::from_io("taking space in the slot file", error))
            }
        }
    }

    /// Changes what the map has of a chunk, under its lock, with a record.
    fn put_entry(&self, chunk: Chunk, entry: Option<Entry>) -> Ticket {
        let ticket = self
            .journal
            .put(|batch| batch.push(Record::of(BASE_LAYER, chunk, entry)));
        self.map.set(chunk, entry);
        ticket
    }
}
