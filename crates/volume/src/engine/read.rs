//! Reading: stored sectors go straight into the caller's buffer, in runs as long as they lie together, and are opened
//! there; what was never written is zeroed without I/O.

use zeroize::Zeroizing;

use super::{Engine, sector_of};
use crate::{
    VolumeError,
    geometry::{CHUNK_LEN, CHUNK_SECTORS, Chunk, Generation, SECTOR_LEN, Sectors, within_sector},
    protection::Protection,
    ranges::windows,
    slot_file::Place,
};

/// Stored sectors that lie together, in the file and in the buffer.
struct Run {
    place: Place,
    generation: Generation,
    /// In the buffer, in bytes.
    start: usize,
    len: usize,
}

impl<P: Protection> Engine<P> {
    /// Fills `buf` from `offset`.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        self.check(offset, buf.len() as u64)?;
        let mut rest = buf;
        for (at, len) in windows(offset, rest.len() as u64) {
            let (now, later) =
                rest.split_at_mut(usize::try_from(len).expect("at most what is left"));
            self.read_window(at, now)?;
            rest = later;
        }
        Ok(())
    }

    fn read_window(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let last = Chunk::at(offset + buf.len() as u64 - 1);
        let _held = self.ranges.read(Chunk::at(offset), last);
        let (head, body, tail) = split(offset, buf);
        if !head.is_empty() {
            self.read_part(offset, head)?;
        }
        let body_at = offset + head.len() as u64;
        if !tail.is_empty() {
            self.read_part(body_at + body.len() as u64, tail)?;
        }
        self.read_sectors(body_at, body)
    }

    /// Whole sectors of one window, under its locks.
    pub(super) fn read_sectors(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let mut run: Option<Run> = None;
        let mut at = 0;
        while at < buf.len() {
            let position = offset + at as u64;
            let chunk = Chunk::at(position);
            let first = chunk.sector_at(position);
            let left = u32::try_from((buf.len() - at) / SECTOR_LEN).expect("a window's");
            let end = CHUNK_SECTORS.min(first.saturating_add(left));
            let Some(entry) = self.map.get(chunk) else {
                let len = (end - first) as usize * SECTOR_LEN;
                buf[at..at + len].fill(0);
                at += len;
                continue;
            };
            if !entry.lost.is_empty() {
                let marked = entry.lost.and(Sectors::range(first, end - first));
                if !marked.is_empty() {
                    let sector = chunk.first_sector() + u64::from(marked.first());
                    let offset = sector * SECTOR_LEN as u64;
                    return Err(VolumeError::Marked { offset });
                }
            }
            let mut sector = first;
            while sector < end {
                let count = entry.valid.run(sector, end);
                let len = count as usize * SECTOR_LEN;
                if entry.valid.contains(sector) {
                    let place = Place {
                        slot: entry.slot,
                        sector,
                    };
                    match &mut run {
                        Some(run)
                            if run.start + run.len == at
                                && run.generation == entry.generation
                                && run.place.offset() + run.len as u64 == place.offset() =>
                        {
                            run.len += len;
                        }
                        _ => {
                            let next = Run {
                                place,
                                generation: entry.generation,
                                start: at,
                                len,
                            };
                            if let Some(done) = run.replace(next) {
                                self.read_run(offset, buf, &done)?;
                            }
                        }
                    }
                } else {
                    buf[at..at + len].fill(0);
                }
                at += len;
                sector += count;
            }
        }
        match run {
            Some(run) => self.read_run(offset, buf, &run),
            None => Ok(()),
        }
    }

    fn read_run(&self, offset: u64, buf: &mut [u8], run: &Run) -> Result<(), VolumeError> {
        let buf = &mut buf[run.start..run.start + run.len];
        self.store
            .read(run.place, buf)
            .map_err(|error| VolumeError::from_io("reading the slot file", error))?;
        let first = sector_of(offset + run.start as u64);
        self.protection.open(run.generation, first, buf);
        Ok(())
    }

    /// Part of one sector, under its lock.
    fn read_part(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let mut sector = Zeroizing::new([0; SECTOR_LEN]);
        let within = within_sector(offset);
        self.read_sectors(offset - within as u64, &mut sector[..])?;
        buf.copy_from_slice(&sector[within..within + buf.len()]);
        Ok(())
    }
}

/// Cuts a buffer at `offset` into the part of a first sector, whole sectors, and the part of a last one; what there is
/// none of is empty.
pub(super) fn split(offset: u64, buf: &mut [u8]) -> (&mut [u8], &mut [u8], &mut [u8]) {
    const { assert!(CHUNK_LEN.is_multiple_of(SECTOR_LEN as u64)) };
    let within = within_sector(offset);
    let head = match within {
        0 => 0,
        _ => (SECTOR_LEN - within).min(buf.len()),
    };
    let (head, rest) = buf.split_at_mut(head);
    let body = rest.len() - rest.len() % SECTOR_LEN;
    let (body, tail) = rest.split_at_mut(body);
    (head, body, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_cut_at_sector_bounds() {
        let lens = |offset, len| {
            let mut buf = vec![0; len];
            let (head, body, tail) = split(offset, &mut buf);
            (head.len(), body.len(), tail.len())
        };
        assert_eq!(lens(0, 4096), (0, 4096, 0));
        assert_eq!(lens(0, 4095), (0, 0, 4095));
        assert_eq!(lens(1, 5), (5, 0, 0));
        assert_eq!(lens(1, 4096), (4095, 0, 1));
        assert_eq!(lens(4095, 8194), (1, 8192, 1));
        assert_eq!(lens(4096, 0), (0, 0, 0));
    }
}
