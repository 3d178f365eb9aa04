//! The slot file: sectors in, sectors out.
//!
//! A [`SlotFile`] takes what its volume's protection made and nothing else: for a sealed volume, sealed sectors.

use std::{io, marker::PhantomData, sync::Arc};

use crypto::mac::MacKey;
use host::File;

use crate::{
    VolumeId,
    geometry::{CHUNK_LEN, CHUNK_SECTORS, Chunk, GROUP_SLOTS, SECTOR_LEN, Sectors, Slot, SlotRun},
    owner::{Claim, HEADER_LEN, OWNER_LEN, Owner, SlotHeader},
    protection::Protection,
};

/// Name of the slot file in a volume's folder.
pub(crate) const SLOTS_NAME: &str = "slots";
/// Where the header stands, twice: far enough apart that no page has both.
const HEADERS_AT: [u64; 2] = [0, CHUNK_LEN / 2];
/// Owners are cleared by writing zeroes up to this length, and by a hole beyond it.
const CLEAR_LEN_MAX: usize = 4096;

/// A place in the slot file: a slot, and a sector of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: Slot,
    pub(crate) sector: u32,
}

impl Place {
    /// The byte offset in the slot file.
    pub(crate) fn offset(self) -> u64 {
        self.slot.start() + u64::from(self.sector) * SECTOR_LEN as u64
    }
}

/// The slot file of a volume under protection `P`.
pub(crate) struct SlotFile<P> {
    file: Arc<dyn File>,
    protection: PhantomData<fn(P)>,
}

impl<P: Protection> SlotFile<P> {
    pub(crate) fn new(file: Arc<dyn File>) -> Self {
        Self {
            file,
            protection: PhantomData,
        }
    }

    /// Writes whole sectors; they may run on through neighbouring slots. `chunk` is the chunk the place's slot belongs to.
    pub(crate) fn write(
        &self,
        chunk: Chunk,
        place: Place,
        sectors: &P::Outgoing<'_>,
    ) -> io::Result<()> {
        debug_assert!(place.sector < CHUNK_SECTORS);
        assert_eq!(
            P::first(sectors),
            chunk.first_sector() + u64::from(place.sector),
            "sectors are written where they were sealed for"
        );
        self.file.write_at(place.offset(), P::bytes(sectors))
    }

    /// Reads whole sectors, to be opened; they may run on through neighbouring slots.
    pub(crate) fn read(&self, place: Place, buf: &mut [u8]) -> io::Result<()> {
        debug_assert!(place.sector < CHUNK_SECTORS && buf.len().is_multiple_of(SECTOR_LEN));
        self.file.read_at(place.offset(), buf)
    }

    /// Makes durable what was written before.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Sees to it that the next sync makes the file's length durable, even if an earlier sync has failed to.
    pub(crate) fn renew_len(&self) -> io::Result<()> {
        let len = self.file.len()?;
        self.file.set_len(len + 1)?;
        self.file.set_len(len)
    }

    /// Takes the space of slots.
    pub(crate) fn allocate(&self, run: SlotRun) -> io::Result<()> {
        for run in run.by_group() {
            let len = u64::from(run.count) * CHUNK_LEN;
            self.file.allocate(run.first.start(), len)?;
        }
        Ok(())
    }

    /// Whether so many sectors may be written that take their space by being written.
    pub(crate) fn may_take_sectors(&self, count: u32) -> io::Result<()> {
        self.file.may_take(u64::from(count) * SECTOR_LEN as u64)
    }

    /// Takes the space of some neighbouring sectors of a slot.
    pub(crate) fn allocate_sectors(&self, place: Place, count: u32) -> io::Result<()> {
        let len = u64::from(count) * SECTOR_LEN as u64;
        self.file.allocate(place.offset(), len)
    }

    /// Gives the space of slots back.
    pub(crate) fn punch(&self, run: SlotRun) -> io::Result<()> {
        for run in run.by_group() {
            let len = u64::from(run.count) * CHUNK_LEN;
            self.file.punch(run.first.start(), len)?;
        }
        Ok(())
    }

    /// Length of the file.
    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// Fills `buf`; what lies behind the end of the file is zero.
    fn read_zeroes_behind(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let there = self.file.len()?.saturating_sub(offset);
        let there = usize::try_from(there).map_or(buf.len(), |there| there.min(buf.len()));
        let (now, behind) = buf.split_at_mut(there);
        behind.fill(0);
        if now.is_empty() {
            return Ok(());
        }
        self.file.read_at(offset, now)
    }

    /// A slot's bytes, those of all its sectors.
    pub(crate) fn read_slot(&self, slot: Slot, buf: &mut [u8]) -> io::Result<()> {
        debug_assert_eq!(buf.len() as u64, CHUNK_LEN);
        self.read_zeroes_behind(slot.start(), buf)
    }

    /// The headers, each by itself.
    pub(crate) fn headers(
        &self,
        key: &MacKey,
    ) -> io::Result<[Result<SlotHeader, &'static str>; 2]> {
        let mut found = [Err(""), Err("")];
        for (found, at) in found.iter_mut().zip(HEADERS_AT) {
            let mut bytes = [0; HEADER_LEN];
            self.read_zeroes_behind(at, &mut bytes)?;
            *found = SlotHeader::decode(&bytes, key);
        }
        Ok(found)
    }

    /// The header that counts.
    pub(crate) fn header(&self, key: &MacKey) -> io::Result<Result<SlotHeader, &'static str>> {
        Ok(match self.headers(key)? {
            [Ok(one), Ok(two)] if two.revision > one.revision => Ok(two),
            [Ok(one), _] => Ok(one),
            [_, two] => two,
        })
    }

    /// Writes the header, both times.
    pub(crate) fn write_header(&self, key: &MacKey, header: &SlotHeader) -> io::Result<()> {
        let bytes = header.encode(key);
        for at in HEADERS_AT {
            self.file.write_at(at, &bytes)?;
        }
        Ok(())
    }

    /// What the table says of a slot.
    pub(crate) fn claim(&self, key: &MacKey, volume: VolumeId, slot: Slot) -> io::Result<Claim> {
        let mut bytes = [0; OWNER_LEN];
        self.read_zeroes_behind(owner_at(slot), &mut bytes)?;
        Ok(Claim::decode(&bytes, key, volume, slot))
    }

    /// The entries of neighbouring slots of one group.
    pub(crate) fn read_owners(&self, run: SlotRun) -> io::Result<Vec<u8>> {
        debug_assert!(run.first.within_group() + run.count <= GROUP_SLOTS);
        let mut bytes = vec![0; run.count as usize * OWNER_LEN];
        self.read_zeroes_behind(owner_at(run.first), &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the owners of neighbouring slots of one group.
    pub(crate) fn write_owners(
        &self,
        key: &MacKey,
        volume: VolumeId,
        first: Slot,
        owners: &[Owner],
    ) -> io::Result<()> {
        let slots = first.0..;
        let entries: Vec<_> = slots
            .zip(owners)
            .map(|(slot, owner)| owner.encode(key, volume, Slot(slot)))
            .collect();
        self.file.write_at(owner_at(first), entries.as_flattened())
    }

    /// The slots have no owner any more.
    pub(crate) fn clear_owners(&self, run: SlotRun) -> io::Result<()> {
        // What no file has needs no clearing, and must not make the file longer.
        let end = self.file.len()?;
        for run in run.by_group() {
            let at = owner_at(run.first);
            let there = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let len = (run.count as usize * OWNER_LEN).min(there);
            if len > CLEAR_LEN_MAX {
                match self.file.punch(at, len as u64) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                    punched => {
                        punched?;
                        continue;
                    }
                }
            }
            if len > 0 {
                self.file.write_at(at, &vec![0; len])?;
            }
        }
        Ok(())
    }
}

/// Where a slot's owner stands.
fn owner_at(slot: Slot) -> u64 {
    slot.table_start() + u64::from(slot.within_group()) * OWNER_LEN as u64
}

/// Which sectors of a slot are not all zeroes, and which of these have a piece of 512 bytes that is: a disk may leave such
/// a sector when the power fails.
pub(crate) fn looks(slot: &[u8]) -> (Sectors, Sectors) {
    const PIECE: usize = 512;
    let is_zero = |bytes: &[u8]| *bytes == [0; SECTOR_LEN][..bytes.len()];
    let (mut written, mut torn) = (Sectors::NONE, Sectors::NONE);
    for (n, sector) in (0..).zip(slot.chunks(SECTOR_LEN)) {
        if is_zero(sector) {
            continue;
        }
        written = written.with(Sectors::range(n, 1));
        if sector.chunks(PIECE).any(is_zero) {
            torn = torn.with(Sectors::range(n, 1));
        }
    }
    (written, torn)
}
