//! Writing: whole sectors are sealed in the caller's buffer and go to their slots in runs as long as these lie together;
//! part of a sector is read, changed, sealed and written, under the range lock.
//!
//! A sector that was in no slot is written, then its record is put in the log with checksums of what was written, then the
//! sector becomes valid in the map; before the answer the log is written out. If the process dies in between, the sector
//! holds what it held. A slot that was not in the map before belongs to this request alone until then.
//!
//! A sector that is in its slot is overwritten there, with no record once it is settled (`unsettled`). Until then the record
//! comes first: from when it is written both contents count as right after a crash, and the sector may be in the middle
//! between them.

use std::ops::Range;

use zeroize::Zeroizing;

use super::{
    BASE_LAYER, Engine,
    journal::{Claim, Need, Ticket},
    read::split,
    sector_of,
};
use crate::{
    VolumeError,
    geometry::{
        CHUNK_SECTORS, Chunk, Generation, SECTOR_LEN, Sectors, Slot, SlotRun, within_sector,
    },
    log::{record::written_len_max, sums::SectorSums},
    map::Entry,
    protection::Protection,
    ranges::{WINDOW_CHUNKS, windows},
    slot_file::Place,
    slots::Taken,
};

use super::BASE_GENERATION;

/// A slot of which so many sectors are written gets the space of the others.
const DENSE_SECTORS: u32 = 16;

/// Some sectors of one chunk, and where they go.
#[derive(Clone, Copy)]
struct Piece {
    chunk: Chunk,
    slot: Slot,
    generation: Generation,
    /// If the slot was taken by this request.
    taken: Option<Taken>,
    first: u32,
    count: u32,
    /// Of these, those that are in no slot.
    new: Sectors,
    /// And those that are in the slot, but not settled.
    again: Sectors,
}

/// Pieces that lie together, sealed.
struct Run<'a> {
    pieces: &'a [Option<Piece>],
    first: Piece,
    bytes: &'a [u8],
}

impl Run<'_> {
    /// Its sectors, counted from the first one, with whether they are new and whether they are in the slot unsettled.
    fn sectors(&self) -> impl Iterator<Item = (u32, bool, bool)> {
        let pieces = self.pieces.iter().flatten();
        let sectors = pieces.flat_map(|piece| {
            (piece.first..piece.first + piece.count)
                .map(|sector| (piece.new.contains(sector), piece.again.contains(sector)))
        });
        (0..).zip(sectors).map(|(n, (new, again))| (n, new, again))
    }

    /// From the first to the last new sector. What lies between is written by then, so that one record can say all.
    fn new_sectors(&self) -> Option<Range<u32>> {
        let (mut range, mut at) = (None, 0);
        for piece in self.pieces.iter().flatten() {
            if !piece.new.is_empty() {
                let start = at + piece.new.first() - piece.first;
                let end = at + piece.new.end() - piece.first;
                range = Some(range.map_or(start, |range: Range<u32>| range.start)..end);
            }
            at += piece.count;
        }
        range
    }

    /// The unsettled sectors, in ranges without any new ones: a record that comes before the data must not speak of these,
    /// since a mark might follow that says that the data is there.
    fn unsettled_sectors(&self) -> impl Iterator<Item = Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        if self
            .pieces
            .iter()
            .flatten()
            .all(|piece| piece.again.is_empty())
        {
            return ranges.into_iter();
        }
        let mut open = false;
        for (n, new, again) in self.sectors() {
            match ranges.last_mut() {
                Some(last) if again && open => last.end = n + 1,
                _ if again => ranges.push(n..n + 1),
                _ => {}
            }
            open = !new && (open || again);
        }
        ranges.into_iter()
    }
}

/// The pieces of one window, without an allocation.
struct Pieces {
    pieces: [Option<Piece>; WINDOW_CHUNKS as usize],
    len: usize,
}

impl Pieces {
    fn push(&mut self, piece: Piece) {
        self.pieces[self.len] = Some(piece);
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.pieces[..self.len].iter().flatten()
    }
}

impl<P: Protection> Engine<P> {
    /// Writes `buf` at `offset` and destroys its content.
    pub(crate) fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), VolumeError> {
        self.check(offset, buf.len() as u64)?;
        let mut rest = buf;
        for (at, len) in windows(offset, rest.len() as u64) {
            let (now, later) =
                rest.split_at_mut(usize::try_from(len).expect("at most what is left"));
            self.write_window(at, now)?;
            rest = later;
        }
        if fua { self.flush() } else { Ok(()) }
    }

    fn write_window(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let last = Chunk::at(offset + buf.len() as u64 - 1);
        let _held = self.ranges.write(Chunk::at(offset), last);
        let (head, body, tail) = split(offset, buf);
        if !head.is_empty() {
            self.write_part(offset, head)?;
        }
        let at = offset + head.len() as u64;
        if !body.is_empty() {
            self.write_sectors(at, body)?;
        }
        if !tail.is_empty() {
            self.write_part(at + body.len() as u64, tail)?;
        }
        Ok(())
    }

    /// Whole sectors of one window, under its locks.
    fn write_sectors(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let pieces = self.place(offset, buf.len())?;
        let claim = match self.claim_for(&pieces, buf.len() / SECTOR_LEN) {
            Ok(claim) => claim,
            Err(error) => {
                self.give_back(pieces.iter());
                return Err(error);
            }
        };
        let owned = pieces.iter().filter_map(|piece| {
            let taken = piece.taken?;
            Some((taken, piece.chunk, piece.generation))
        });
        if let Err(error) = self.own(owned) {
            self.discard(pieces.iter());
            return Err(error);
        }
        let mut last = None;
        let outcome = self.write_pieces(&pieces, offset, buf, &mut last);
        drop(claim);
        // What was written before something failed is in the map.
        match last {
            Some(ticket) => self.log(ticket).and(outcome),
            None => outcome,
        }
    }

    /// Sets aside space in the log for what the pieces need.
    fn claim_for(&self, pieces: &Pieces, sectors: usize) -> Result<Option<Claim<'_>>, VolumeError> {
        let any = |of: fn(&Piece) -> Sectors| pieces.iter().any(|piece| !of(piece).is_empty());
        let (new, again) = (any(|piece| piece.new), any(|piece| piece.again));
        if !new && !again {
            return Ok(None);
        }
        let need = if new { Need::Space } else { Need::NoSpace };
        // Of those in the slot there may be many runs, cut by those that are in none.
        let len = match (new, again) {
            (true, true) => written_len_max(2 * sectors, pieces.len + sectors),
            _ => written_len_max(sectors, pieces.len),
        };
        self.claim(len, need).map(Some)
    }

    /// Writes the pieces in runs. `last` is the last change that was put in the log.
    fn write_pieces(
        &self,
        pieces: &Pieces,
        offset: u64,
        buf: &mut [u8],
        last: &mut Option<Ticket>,
    ) -> Result<(), VolumeError> {
        let mut rest = buf;
        let mut at = offset;
        let mut todo = &pieces.pieces[..pieces.len];
        while let Some(&Some(first)) = todo.first() {
            // How many pieces lie together.
            let together = 1 + todo
                .windows(2)
                .take_while(|pair| match pair {
                    [Some(a), Some(b)] => {
                        a.slot.is_followed_by(b.slot)
                            && a.first + a.count == CHUNK_SECTORS
                            && b.first == 0
                            && a.generation == b.generation
                    }
                    _ => false,
                })
                .count();
            let (now, later) = todo.split_at(together);
            let sectors: u32 = now.iter().flatten().map(|piece| piece.count).sum();
            let (run, behind) = rest.split_at_mut(sectors as usize * SECTOR_LEN);
            let place = Place {
                slot: first.slot,
                sector: first.first,
            };
            let sealed = self.protection.seal(first.generation, sector_of(at), run);
            let run = Run {
                pieces: now,
                first,
                bytes: P::bytes(&sealed),
            };
            let again = run.unsettled_sectors();
            let before = match again.map(|range| self.put_written(&run, range)).last() {
                Some(ticket) => self.log(ticket),
                None => Ok(()),
            };
            let outcome = before.and_then(|()| {
                let outcome = self.store.write(first.chunk, place, &sealed);
                self.written();
                outcome.map_err(|error| VolumeError::from_io("writing the slot file", error))
            });
            if let Err(error) = outcome {
                self.discard(todo.iter().flatten());
                return Err(error);
            }
            if let Some(range) = run.new_sectors() {
                let ticket = self.put_written(&run, range);
                *last = Some(ticket);
                for piece in now.iter().flatten() {
                    self.now_valid(piece, ticket.epoch);
                }
            }
            at += u64::from(sectors) * SECTOR_LEN as u64;
            rest = behind;
            todo = later;
        }
        Ok(())
    }

    /// Puts a record in the log of some sectors of a run, counted from its first one.
    fn put_written(&self, run: &Run<'_>, Range { start, end }: Range<u32>) -> Ticket {
        let bytes = &run.bytes[start as usize * SECTOR_LEN..end as usize * SECTOR_LEN];
        let sums = bytes.chunks(SECTOR_LEN).map(SectorSums::of).collect();
        let first = run.first.first + start;
        let chunks = first / CHUNK_SECTORS;
        let place = Place {
            slot: Slot(run.first.slot.0 + chunks),
            sector: first % CHUNK_SECTORS,
        };
        let chunk = Chunk(run.first.chunk.0 + chunks);
        let generation = run.first.generation;
        self.journal
            .put(|batch| batch.push_written(BASE_LAYER, chunk, generation, place, sums))
    }

    /// Part of one sector, under its lock.
    pub(super) fn write_part(&self, offset: u64, bytes: &[u8]) -> Result<(), VolumeError> {
        let mut sector = Zeroizing::new([0; SECTOR_LEN]);
        let within = within_sector(offset);
        let start = offset - within as u64;
        self.read_sectors(start, &mut sector[..])?;
        sector[within..within + bytes.len()].copy_from_slice(bytes);
        self.write_sectors(start, &mut sector[..])
    }

    /// Where whole sectors go; takes slots for chunks that have none.
    fn place(&self, offset: u64, len: usize) -> Result<Pieces, VolumeError> {
        let mut pieces = Pieces {
            pieces: [None; WINDOW_CHUNKS as usize],
            len: 0,
        };
        let mut sector = sector_of(offset);
        let end = sector + (len / SECTOR_LEN) as u64;
        let mut before: Option<Slot> = None;
        while sector < end {
            let chunk = Chunk::at(sector * SECTOR_LEN as u64);
            let first = chunk.sector_at(sector * SECTOR_LEN as u64);
            let left = u32::try_from(end - sector).expect("a window's");
            let count = left.min(CHUNK_SECTORS - first);
            let sectors = Sectors::range(first, count);
            let entry = self.map.get(chunk);
            let valid = entry.map_or(Sectors::NONE, |entry| entry.valid);
            let new = sectors.without(valid);
            let again = sectors.without(new).and(self.unsettled.of(chunk));
            // What is written in order gets its space ahead; anything else when there is enough of it.
            let in_order = before.is_some() || self.map.is_full_before(chunk);
            let (slot, generation, taken) = match entry {
                Some(entry) => (entry.slot, entry.generation, None),
                None => {
                    let near = before.or_else(|| self.map.slot_before(chunk));
                    match self.take_slot(near.and_then(Slot::next), in_order) {
                        Ok(taken) => (taken.slot, BASE_GENERATION, Some(taken)),
                        Err(error) => {
                            self.give_back(pieces.iter());
                            return Err(error);
                        }
                    }
                }
            };
            if !new.is_empty() && !in_order && taken.is_none_or(|taken| !taken.spaced) {
                // What is zero by a request that asked for its space has it.
                let taking = new.without(entry.map_or(Sectors::NONE, |entry| entry.zero));
                let may = match taking.is_empty() {
                    true => Ok(()),
                    false => self.store.may_take_sectors(taking.count()),
                };
                if let Err(error) = may {
                    if let Some(taken) = taken {
                        self.slots.give_back(taken);
                    }
                    self.give_back(pieces.iter());
                    let what = "taking space in the slot file";
                    return Err(VolumeError::from_io(what, error));
                }
                self.space_if_dense(slot, valid.count(), valid.with(new).count());
            }
            pieces.push(Piece {
                chunk,
                slot,
                generation,
                taken,
                first,
                count,
                new,
                again,
            });
            before = Some(slot);
            sector += u64::from(count);
        }
        Ok(pieces)
    }

    /// Takes the rest of a slot's space when so many of its sectors are written that it is not wasted.
    fn space_if_dense(&self, slot: Slot, before: u32, after: u32) {
        if before >= DENSE_SECTORS || after < DENSE_SECTORS {
            return;
        }
        // Nothing depends on it: without, the space is taken by what is written.
        let _ = self.store.allocate(SlotRun {
            first: slot,
            count: 1,
        });
    }

    /// Returns slots in which nothing was written.
    fn give_back<'a>(&self, pieces: impl Iterator<Item = &'a Piece>) {
        for taken in pieces.filter_map(|piece| piece.taken) {
            self.slots.give_back(taken);
        }
    }

    /// Returns slots that never came into the map, and may have an owner, and bytes.
    fn discard<'a>(&self, pieces: impl Iterator<Item = &'a Piece>) {
        let taken = pieces.filter_map(|piece| piece.taken);
        let runs = taken.map(|taken| SlotRun {
            first: taken.slot,
            count: 1,
        });
        self.housekeeping.punch(runs.collect());
    }

    /// The sectors of a piece are in its slot, and a record of that epoch says so.
    fn now_valid(&self, piece: &Piece, epoch: u64) {
        if piece.new.is_empty() {
            return;
        }
        let entry = match self.map.get(piece.chunk) {
            Some(entry) => Entry {
                valid: entry.valid.with(piece.new),
                ..entry.without(piece.new)
            },
            None => Entry {
                slot: piece.slot,
                generation: piece.generation,
                valid: piece.new,
                zero: Sectors::NONE,
                lost: Sectors::NONE,
            },
        };
        self.map.set(piece.chunk, Some(entry));
        self.unsettled.add(piece.chunk, piece.new, epoch);
    }
}
