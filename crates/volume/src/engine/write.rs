//! Writing: whole sectors are sealed in the caller's buffer and go to their slots in runs as long as these lie together;
//! part of a sector is read, changed, sealed and written, under the range lock.
//!
//! A sector becomes valid in the map after it was written, and the map's change is logged after the slot file was
//! synced. A slot that was not in the map before belongs to this request alone until then.

use zeroize::Zeroizing;

use super::{Engine, read::split, sector_of};
use crate::{
    VolumeError,
    geometry::{CHUNK_SECTORS, Chunk, Generation, SECTOR_LEN, Sectors, Slot, within_sector},
    map::Entry,
    protection::Protection,
    ranges::{WINDOW_CHUNKS, windows},
    slot_file::Place,
};

use super::BASE_GENERATION;

/// Some sectors of one chunk, and where they go.
#[derive(Clone, Copy)]
struct Piece {
    chunk: Chunk,
    slot: Slot,
    generation: Generation,
    /// Whether the slot was taken by this request.
    fresh: bool,
    first: u32,
    count: u32,
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
        let mut rest = buf;
        let mut at = offset;
        let mut todo = &pieces.pieces[..pieces.len];
        while let Some(&Some(first)) = todo.first() {
            // How many pieces lie together.
            let together = 1 + todo
                .windows(2)
                .take_while(|pair| match pair {
                    [Some(a), Some(b)] => {
                        a.slot.next() == Some(b.slot)
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
            let outcome = self.store.write(first.chunk, place, &sealed);
            self.written();
            if let Err(error) = outcome {
                self.give_back(todo.iter().flatten());
                return Err(VolumeError::from_io("writing the slot file", error));
            }
            for piece in now.iter().flatten() {
                self.now_valid(piece);
            }
            at += u64::from(sectors) * SECTOR_LEN as u64;
            rest = behind;
            todo = later;
        }
        Ok(())
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
        let mut before = None;
        while sector < end {
            let chunk = Chunk::at(sector * SECTOR_LEN as u64);
            let first = chunk.sector_at(sector * SECTOR_LEN as u64);
            let left = u32::try_from(end - sector).expect("a window's");
            let count = left.min(CHUNK_SECTORS - first);
            let (slot, generation, fresh) = match self.map.get(chunk) {
                Some(entry) => (entry.slot, entry.generation, false),
                None => {
                    let near = before.or_else(|| self.map.slot_before(chunk));
                    match self.take_slot(near.and_then(Slot::next)) {
                        Ok(slot) => (slot, BASE_GENERATION, true),
                        Err(error) => {
                            self.give_back(pieces.iter());
                            return Err(error);
                        }
                    }
                }
            };
            pieces.push(Piece {
                chunk,
                slot,
                generation,
                fresh,
                first,
                count,
            });
            before = Some(slot);
            sector += u64::from(count);
        }
        Ok(pieces)
    }

    fn give_back<'a>(&self, pieces: impl Iterator<Item = &'a Piece>) {
        for piece in pieces.filter(|piece| piece.fresh) {
            self.slots.give_back(piece.slot);
        }
    }

    /// The sectors of a piece are in its slot.
    fn now_valid(&self, piece: &Piece) {
        let sectors = Sectors::range(piece.first, piece.count);
        let entry = match self.map.get(piece.chunk) {
            Some(entry) if entry.valid.contains_all(sectors) => return,
            Some(entry) => Entry {
                valid: entry.valid.with(sectors),
                zero: entry.zero.without(sectors),
                ..entry
            },
            None => Entry {
                slot: piece.slot,
                generation: piece.generation,
                valid: sectors,
                zero: Sectors::NONE,
            },
        };
        self.map.set(piece.chunk, Some(entry));
        self.map.mark(piece.chunk);
    }
}
