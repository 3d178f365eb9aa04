//! Checksums of sealed sectors, by which replay tells what of an unsynced write reached the disk.
//!
//! One for each 512 bytes, since that is what a disk writes whole: after a crash a sector may be made of several writes.
//! CRC-64/NVME: it finds torn and missing writes, and is not meant to find forged ones. XTS sectors are not authenticated
//! in any case, and whoever can forge a sector can do so after it was checked.

use crypto::hash::Crc64Nvme;

use crate::{geometry::SECTOR_LEN, log::frame::BLOCK_LEN};

/// Pieces of a sector.
const PIECES: usize = SECTOR_LEN / BLOCK_LEN;
/// Bytes of a sector's checksums.
pub(crate) const SUMS_LEN: usize = PIECES * 8;

/// The checksums of one sector's pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SectorSums([u64; PIECES]);

impl SectorSums {
    /// Of a sector as the store has it.
    pub(crate) fn of(sector: &[u8]) -> Self {
        debug_assert_eq!(sector.len(), SECTOR_LEN);
        let mut sums = [0; PIECES];
        for (sum, piece) in sums.iter_mut().zip(sector.chunks(BLOCK_LEN)) {
            *sum = Crc64Nvme::digest(piece);
        }
        Self(sums)
    }

    /// Bit *n*: whether piece *n* is alike.
    pub(crate) fn alike(&self, other: &Self) -> u8 {
        let pieces = self.0.iter().zip(&other.0).enumerate();
        pieces.fold(0, |alike, (n, (one, two))| {
            alike | u8::from(one == two) << n
        })
    }

    /// Appends them, little endian.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for sum in &self.0 {
            out.extend_from_slice(&sum.to_le_bytes());
        }
    }

    /// The inverse.
    pub(crate) fn decode(bytes: &[u8; SUMS_LEN]) -> Self {
        let (sums, _) = bytes.as_chunks::<8>();
        let mut out = [0; PIECES];
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = u64::from_le_bytes(*sum);
        }
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_piece_is_told_from_the_others() {
        let mut sector = [7; SECTOR_LEN];
        let sums = SectorSums::of(&sector);
        assert_eq!(sums.alike(&SectorSums::of(&sector)), 0xff);
        sector[3 * BLOCK_LEN] ^= 1;
        assert_eq!(sums.alike(&SectorSums::of(&sector)), 0xff ^ 1 << 3);
        let mut bytes = Vec::new();
        sums.encode(&mut bytes);
        assert_eq!(
            SectorSums::decode(bytes.as_slice().try_into().unwrap()),
            sums
        );
    }
}
