//! Sectors, chunks, slots: how a volume's bytes are counted.
//!
//! A volume is cut into chunks of 512 KiB (one block of EBS direct). A chunk that holds anything lives in a slot of the
//! same length in the slot file. Both are 128 sectors of 4096 bytes; a sector is what is sealed, and what is written
//! whole or not at all.

/// Bytes of a sector: the data unit of XTS, and the unit that a crash leaves old or new.
pub(crate) const SECTOR_LEN: usize = 4096;
/// Sectors of a chunk.
pub(crate) const CHUNK_SECTORS: u32 = 128;
/// Bytes of a chunk, and of a slot.
pub(crate) const CHUNK_LEN: u64 = SECTOR_LEN as u64 * CHUNK_SECTORS as u64;
/// Most chunks of a volume: 64 TiB.
pub(crate) const CHUNKS_MAX: u32 = 1 << 27;
/// Bytes under one sector key: IEEE 1619 advises at most 2^36 blocks of 16 bytes, which is 1 TiB.
pub(crate) const REGION_LEN: u64 = 1 << 40;

/// Which chunk of the volume, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Chunk(pub(crate) u32);

impl Chunk {
    /// The chunk that holds a byte. The offset has been checked against the volume's size.
    pub(crate) fn at(offset: u64) -> Self {
        Self(u32::try_from(offset / CHUNK_LEN).expect("offsets are below 64 TiB"))
    }

    /// The chunk behind it.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Its first byte's offset in the volume.
    pub(crate) fn start(self) -> u64 {
        u64::from(self.0) * CHUNK_LEN
    }

    /// Its first byte's offset, divided: which sector of the volume it begins with.
    pub(crate) fn first_sector(self) -> u64 {
        u64::from(self.0) * u64::from(CHUNK_SECTORS)
    }

    /// Which of its sectors holds a byte of it.
    pub(crate) fn sector_at(self, offset: u64) -> u32 {
        u32::try_from((offset - self.start()) / SECTOR_LEN as u64).expect("a byte of the chunk")
    }
}

/// Where in its sector a byte is.
pub(crate) fn within_sector(offset: u64) -> usize {
    usize::try_from(offset % SECTOR_LEN as u64).expect("below SECTOR_LEN")
}

/// Which slot of the slot file, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    /// Its first byte's offset in the slot file.
    pub(crate) fn start(self) -> u64 {
        u64::from(self.0) * CHUNK_LEN
    }

    /// The slot behind it.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// A layer of a volume: sectors that it does not hold come from the one below. One layer a volume, for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LayerId(pub(crate) u32);

/// Under which derivation of the data key a layer's sectors are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(pub(crate) u32);

/// A run of neighbouring slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotRun {
    pub(crate) first: Slot,
    pub(crate) count: u32,
}

/// Some of a chunk's 128 sectors; bit *n* is sector *n*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sectors(pub(crate) u128);

impl Sectors {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(u128::MAX);

    /// `count` sectors from `first` on.
    pub(crate) fn range(first: u32, count: u32) -> Self {
        debug_assert!(count >= 1 && first + count <= CHUNK_SECTORS);
        Self((u128::MAX >> (CHUNK_SECTORS - count)) << first)
    }

    pub(crate) fn contains(self, sector: u32) -> bool {
        self.0 >> sector & 1 == 1
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// How many sectors from `from` on are alike, all in or all out, up to `end`.
    pub(crate) fn run(self, from: u32, end: u32) -> u32 {
        debug_assert!(from < end && end <= CHUNK_SECTORS);
        let rest = if self.contains(from) {
            !self.0 >> from
        } else {
            self.0 >> from
        };
        rest.trailing_zeros().min(end - from)
    }

    /// The first sector in it; 128 if there is none.
    pub(crate) fn first(self) -> u32 {
        self.0.trailing_zeros()
    }

    /// One past the last sector in it; 0 if there is none.
    pub(crate) fn end(self) -> u32 {
        CHUNK_SECTORS - self.0.leading_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_sectors_has_exactly_those() {
        for first in 0..CHUNK_SECTORS {
            for count in 1..=CHUNK_SECTORS - first {
                let range = Sectors::range(first, count);
                assert_eq!(range.0.count_ones(), count);
                assert_eq!(range.first(), first);
                assert_eq!(range.end(), first + count);
            }
        }
        assert_eq!(Sectors::range(0, 128), Sectors::ALL);
        assert_eq!(Sectors::NONE.end(), 0);
    }

    #[test]
    fn runs_of_alike_sectors_add_up() {
        let set = Sectors::range(3, 5).with(Sectors::range(127, 1));
        let mut at = 0;
        let mut runs = Vec::new();
        while at < CHUNK_SECTORS {
            let run = set.run(at, CHUNK_SECTORS);
            runs.push((set.contains(at), run));
            at += run;
        }
        assert_eq!(runs, [(false, 3), (true, 5), (false, 119), (true, 1)]);
        assert_eq!(set.run(4, 6), 2);
        assert_eq!(Sectors::ALL.run(1, 128), 127);
    }
}
