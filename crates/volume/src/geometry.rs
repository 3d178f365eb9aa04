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

/// Slots whose owners stand in one table, which lies before them and is as long as a slot.
pub(crate) const GROUP_SLOTS: u32 = 4096;
/// Bytes of the slot file before the first table: its header, twice.
pub(crate) const SLOT_HEADER_LEN: u64 = CHUNK_LEN;
/// Bytes of a table and the slots behind it.
const GROUP_LEN: u64 = (GROUP_SLOTS as u64 + 1) * CHUNK_LEN;

impl Slot {
    /// Its first byte's offset in the slot file.
    pub(crate) fn start(self) -> u64 {
        self.table_start() + (1 + u64::from(self.within_group())) * CHUNK_LEN
    }

    /// Where the table begins that has its owner.
    pub(crate) fn table_start(self) -> u64 {
        SLOT_HEADER_LEN + u64::from(self.0 / GROUP_SLOTS) * GROUP_LEN
    }

    /// Which slot of its group it is.
    pub(crate) fn within_group(self) -> u32 {
        self.0 % GROUP_SLOTS
    }

    /// Whether the other slot's bytes follow its own.
    pub(crate) fn is_followed_by(self, other: Self) -> bool {
        self.next() == Some(other) && other.within_group() != 0
    }

    /// How many slots a file of that length has, the last one perhaps in part; `None` if no file is that long.
    pub(crate) fn count_in(file_len: u64) -> Option<u32> {
        let len = file_len.saturating_sub(SLOT_HEADER_LEN);
        let within = (len % GROUP_LEN).div_ceil(CHUNK_LEN).saturating_sub(1);
        let count = len / GROUP_LEN * u64::from(GROUP_SLOTS) + within;
        u32::try_from(count).ok().filter(|count| *count < u32::MAX)
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

impl SlotRun {
    /// Cuts the run where a group ends, so that the bytes of each part lie together.
    pub(crate) fn by_group(self) -> impl Iterator<Item = Self> {
        let mut rest = self;
        std::iter::from_fn(move || {
            if rest.count == 0 {
                return None;
            }
            let count = rest.count.min(GROUP_SLOTS - rest.first.within_group());
            let part = Self { count, ..rest };
            rest.first.0 += count;
            rest.count -= count;
            Some(part)
        })
    }
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

    /// How many.
    pub(crate) fn count(self) -> u32 {
        self.0.count_ones()
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
    fn slots_lie_behind_the_table_of_their_group_and_are_counted_from_the_length() {
        assert_eq!(Slot(0).table_start(), CHUNK_LEN);
        assert_eq!(Slot(0).start(), 2 * CHUNK_LEN);
        assert_eq!(Slot(4095).start(), 4097 * CHUNK_LEN);
        assert_eq!(Slot(4096).table_start(), 4098 * CHUNK_LEN);
        assert_eq!(Slot(4096).start(), 4099 * CHUNK_LEN);
        assert!(Slot(0).is_followed_by(Slot(1)) && !Slot(4095).is_followed_by(Slot(4096)));
        assert_eq!(Slot::count_in(0), Some(0));
        assert_eq!(Slot::count_in(Slot(0).start()), Some(0));
        for slot in [0, 1, 4094, 4095, 4096, 10_000] {
            assert_eq!(Slot::count_in(Slot(slot).start() + 1), Some(slot + 1));
            assert_eq!(
                Slot::count_in(Slot(slot).start() + CHUNK_LEN),
                Some(slot + 1)
            );
        }
        let run = SlotRun {
            first: Slot(4090),
            count: 5000,
        };
        let parts: Vec<_> = run.by_group().map(|run| (run.first.0, run.count)).collect();
        assert_eq!(parts, [(4090, 6), (4096, 4096), (8192, 898)]);
    }

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
