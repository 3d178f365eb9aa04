//! XTS data units (IEEE 1619): how long one is, and its number. Public as those of [`sector`](crate::sector).

/// Length of the XTS data unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectorSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes: what volumes use.
    B4096,
}

impl SectorSize {
    /// In bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// Number of an encryption sector on its volume, from 0. As 16 bytes, little
/// endian, it is the XTS tweak (IEEE 1619, 5.1).
///
/// Not the guest's block address: a guest with 512-byte blocks may sit on
/// 4096-byte sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectorIndex(u128);

impl SectorIndex {
    /// The sector with this number.
    pub const fn new(index: u128) -> Self {
        Self(index)
    }

    /// The sector that holds the byte at `offset` of the volume.
    pub const fn containing(offset: u64, size: SectorSize) -> Self {
        Self((offset / size.bytes() as u64) as u128)
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }
}
