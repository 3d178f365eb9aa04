//! The slot file: sectors in, sectors out.
//!
//! A [`SlotFile`] takes what its volume's protection made and nothing else: for a sealed volume, sealed sectors.

use std::{io, marker::PhantomData, sync::Arc};

use host::File;

use crate::{
    geometry::{CHUNK_SECTORS, Chunk, SECTOR_LEN, Slot, SlotRun},
    protection::Protection,
};

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

    /// Takes space, by offset and length in the file.
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    /// Gives the space of slots back.
    pub(crate) fn punch(&self, run: SlotRun) -> io::Result<()> {
        let len = u64::from(run.count) * Slot(1).start();
        self.file.punch(run.first.start(), len)
    }

    /// Length of the file.
    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
