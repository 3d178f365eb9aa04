//! Sectors: whole data units of a volume, in three types.
//!
//! [`PlainSectors`] is what a guest wrote, [`SealedSectors`] what a store may
//! keep (only [`SectorKey::seal`] makes one), [`StoredSectors`] what a store gave
//! back (untrusted; it can only be opened). All three are views over the caller's
//! buffer: sealing and opening happen in place and copy nothing.
//!
//! XTS keeps the length and hides the content. It does not authenticate: an
//! altered sector opens to noise, 16 bytes at a time, and an old one put back in
//! its place opens to what it was. The buffer belongs to the caller, who wipes
//! it if it must be wiped.

use crate::CryptoError;
use crate::xts::XtsKey;

pub use crate::data_unit::{SectorIndex, SectorSize};

fn whole_sectors(bytes: &[u8], size: SectorSize) -> Result<(), CryptoError> {
    if bytes.len().is_multiple_of(size.bytes()) {
        Ok(())
    } else {
        Err(CryptoError::NotWholeSectors {
            len: bytes.len(),
            sector_size: size.bytes(),
        })
    }
}

/// Plaintext sectors in memory. Not `Clone`, and no store takes them.
pub struct PlainSectors<'a> {
    bytes: &'a mut [u8],
    size: SectorSize,
}

impl<'a> PlainSectors<'a> {
    /// Takes a buffer of whole sectors; fails on any other length.
    pub fn new(bytes: &'a mut [u8], size: SectorSize) -> Result<Self, CryptoError> {
        whole_sectors(bytes, size)?;
        Ok(Self { bytes, size })
    }

    /// The plaintext.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The plaintext, to be changed in place.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Gives the buffer back.
    pub fn into_bytes(self) -> &'a mut [u8] {
        self.bytes
    }

    /// Size of a sector.
    pub fn sector_size(&self) -> SectorSize {
        self.size
    }
}

impl std::fmt::Debug for PlainSectors<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlainSectors({} bytes redacted)", self.bytes.len())
    }
}

/// Sealed sectors on their way to a store. Only [`SectorKey::seal`] makes one.
#[derive(Debug)]
pub struct SealedSectors<'a> {
    bytes: &'a mut [u8],
    size: SectorSize,
    first: SectorIndex,
}

impl SealedSectors<'_> {
    /// The ciphertext, as long as the plaintext was.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Size of a sector.
    pub fn sector_size(&self) -> SectorSize {
        self.size
    }

    /// The sector the ciphertext begins with, so that a store can assert that
    /// it writes it where it was sealed for.
    pub fn first(&self) -> SectorIndex {
        self.first
    }
}

/// Sectors a store gave back: untrusted, good for opening and nothing else.
#[derive(Debug)]
pub struct StoredSectors<'a> {
    bytes: &'a mut [u8],
    size: SectorSize,
}

impl<'a> StoredSectors<'a> {
    /// Takes a buffer of whole sectors; fails on any other length.
    pub fn new(bytes: &'a mut [u8], size: SectorSize) -> Result<Self, CryptoError> {
        whole_sectors(bytes, size)?;
        Ok(Self { bytes, size })
    }
}

/// The XTS key of one region of one generation of one volume, for its sector size.
#[derive(Debug)]
pub struct SectorKey {
    xts: XtsKey,
    region: u32,
    size: SectorSize,
}

/// log2 of the bytes sealed under one [`SectorKey`]: 1 TiB is 2^36 blocks, the
/// most IEEE 1619 (D.4.3) advises for one key.
pub const REGION_SHIFT: u32 = 40;

impl SectorKey {
    pub(crate) fn new(xts: XtsKey, region: u32, size: SectorSize) -> Self {
        Self { xts, region, size }
    }

    /// The 1 TiB region that holds a sector, counted from 0; `None` past the
    /// last one a volume can have.
    pub fn region_of(index: SectorIndex, size: SectorSize) -> Option<u32> {
        let byte = index.get().checked_mul(size.bytes() as u128)?;
        u32::try_from(byte >> REGION_SHIFT).ok()
    }

    /// Seals in place: `sectors` begin at `first`.
    ///
    /// # Panics
    /// If a sector lies outside this key's region or is of another size: sealing it
    /// would write what nobody can ever open.
    pub fn seal<'a>(&self, sectors: PlainSectors<'a>, first: SectorIndex) -> SealedSectors<'a> {
        let PlainSectors { bytes, size } = sectors;
        self.assert_covers(bytes.len(), size, first);
        self.xts.seal(bytes, size, first);
        SealedSectors { bytes, size, first }
    }

    /// Opens in place: `sectors` begin at `first`.
    ///
    /// # Panics
    /// If a sector lies outside this key's region or is of another size.
    pub fn open<'a>(&self, sectors: StoredSectors<'a>, first: SectorIndex) -> PlainSectors<'a> {
        let StoredSectors { bytes, size } = sectors;
        self.assert_covers(bytes.len(), size, first);
        self.xts.open(bytes, size, first);
        PlainSectors { bytes, size }
    }

    fn assert_covers(&self, len: usize, size: SectorSize, first: SectorIndex) {
        assert_eq!(size, self.size, "the key is for sectors of another size");
        let count = (len / size.bytes()) as u128;
        let last = SectorIndex::new(first.get().saturating_add(count.saturating_sub(1)));
        for index in [first, last] {
            assert_eq!(
                Self::region_of(index, size),
                Some(self.region),
                "sector {} is outside the region of this key",
                index.get()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretBytes;

    fn key() -> SectorKey {
        let bytes = SecretBytes::init_with(|k| k.iter_mut().zip(0..).for_each(|(b, i)| *b = i));
        SectorKey::new(XtsKey::new(&bytes).unwrap(), 0, SectorSize::B4096)
    }

    #[test]
    fn sectors_come_back_in_place_and_do_not_open_elsewhere() {
        let mut buf: Vec<u8> = (0..8192u32).map(|i| i.to_le_bytes()[0]).collect();
        let plain = buf.clone();
        let sealed = key().seal(
            PlainSectors::new(&mut buf, SectorSize::B4096).unwrap(),
            SectorIndex::new(5),
        );
        assert_ne!(sealed.as_bytes(), plain);
        let mut moved = buf.clone();
        let opened = key().open(
            StoredSectors::new(&mut buf, SectorSize::B4096).unwrap(),
            SectorIndex::new(5),
        );
        assert_eq!(opened.as_bytes(), plain);
        let opened = key().open(
            StoredSectors::new(&mut moved, SectorSize::B4096).unwrap(),
            SectorIndex::new(6),
        );
        assert_ne!(opened.as_bytes(), plain);
    }

    #[test]
    fn part_of_a_sector_is_refused() {
        assert!(PlainSectors::new(&mut [0; 4095], SectorSize::B4096).is_err());
        assert!(StoredSectors::new(&mut [0; 513], SectorSize::B512).is_err());
    }

    #[test]
    #[should_panic(expected = "another size")]
    fn sealing_sectors_of_another_size_panics() {
        let mut buf = vec![0; 4096];
        let sectors = PlainSectors::new(&mut buf, SectorSize::B512).unwrap();
        key().seal(sectors, SectorIndex::new(0));
    }

    #[test]
    #[should_panic(expected = "outside the region")]
    fn sealing_across_the_end_of_a_region_panics() {
        let mut buf = vec![0; 8192];
        let last = SectorIndex::containing((1 << REGION_SHIFT) - 1, SectorSize::B4096);
        key().seal(
            PlainSectors::new(&mut buf, SectorSize::B4096).unwrap(),
            last,
        );
    }
}
