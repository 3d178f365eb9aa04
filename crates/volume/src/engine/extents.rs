//! What is in a range, without reading it.

use super::{Engine, sector_of};
use crate::{
    Extent, ExtentKind, VolumeError,
    geometry::{CHUNK_SECTORS, Chunk, SECTOR_LEN},
    protection::Protection,
};

impl<P: Protection> Engine<P> {
    /// What the range holds, from `offset` on: at least one extent, at most `max`. A sector counts as a whole.
    pub(crate) fn extents(
        &self,
        offset: u64,
        len: u64,
        max: usize,
    ) -> Result<Vec<Extent>, VolumeError> {
        self.check(offset, len)?;
        let end = offset + len;
        let mut extents = Extents {
            done: Vec::new(),
            max: max.max(1),
        };
        let mut at = offset;
        while at < end {
            let chunk = Chunk::at(at);
            let Some(mapped) = self.map.next_mapped(chunk, Chunk::at(end - 1).next()) else {
                extents.push(ExtentKind::Hole, end - at);
                break;
            };
            if mapped > chunk {
                if !extents.push(ExtentKind::Hole, mapped.start() - at) {
                    break;
                }
                at = mapped.start();
            }
            let entry = {
                let _held = self.ranges.read(mapped, mapped);
                self.map.get(mapped)
            };
            let first = mapped.sector_at(at);
            let last =
                (sector_of(end - 1) - mapped.first_sector()).min(u64::from(CHUNK_SECTORS) - 1);
            let mut sector = first;
            while u64::from(sector) <= last {
                let (kind, count) = match &entry {
                    None => (ExtentKind::Hole, CHUNK_SECTORS - sector),
                    Some(entry) if entry.valid.contains(sector) => {
                        (ExtentKind::Data, entry.valid.run(sector, CHUNK_SECTORS))
                    }
                    // It must be read to be missed.
                    Some(entry) if entry.lost.contains(sector) => {
                        (ExtentKind::Data, entry.lost.run(sector, CHUNK_SECTORS))
                    }
                    Some(entry) if entry.zero.contains(sector) => {
                        (ExtentKind::Zero, entry.zero.run(sector, CHUNK_SECTORS))
                    }
                    Some(entry) => {
                        let written = entry.valid.with(entry.zero).with(entry.lost);
                        (ExtentKind::Hole, written.run(sector, CHUNK_SECTORS))
                    }
                };
                sector += count;
                let to = (mapped.start() + u64::from(sector) * SECTOR_LEN as u64).min(end);
                if !extents.push(kind, to - at) {
                    return Ok(extents.done);
                }
                at = to;
            }
        }
        Ok(extents.done)
    }
}

struct Extents {
    done: Vec<Extent>,
    max: usize,
}

impl Extents {
    /// Appends; false if that would be one too many.
    fn push(&mut self, kind: ExtentKind, len: u64) -> bool {
        let full = self.done.len() == self.max;
        match self.done.last_mut() {
            Some(last) if last.kind == kind => last.len += len,
            _ if full => return false,
            _ => self.done.push(Extent { len, kind }),
        }
        true
    }
}
