//! Who owns a slot: the entries of the owner table, and the header of the slot file. `FORMAT.md`, "Slots".
//!
//! The log says where each chunk is; the owner table says the same from the other side, slot by slot, so that a lost log
//! can be made again. An entry is written when its slot is taken, before the data, and cleared when the slot is freed. It
//! does not follow the sectors that are written later: which sectors a slot holds its own bytes say, since a slot is empty
//! when it is taken. What the bytes cannot say the entry does: which sectors hold something that is no longer the volume's.
//!
//! Pure: bytes in, bytes out. Numbers are little endian.

use crypto::mac::MacKey;

use crate::{
    VolumeId,
    geometry::{CHUNK_LEN, Chunk, Generation, LayerId, SECTOR_LEN, Sectors, Slot},
};

/// Length of an entry of the table. Four of them lie in what a disk writes whole.
pub(crate) const OWNER_LEN: usize = 128;
const OWNER_MAGIC: [u8; 4] = *b"SGOE";
const OWNER_FORMAT: u16 = 1;

/// Length of the slot file's header.
pub(crate) const HEADER_LEN: usize = 128;
const HEADER_MAGIC: [u8; 8] = *b"SGVOLSLT";
const HEADER_FORMAT: u16 = 1;
const FLAG_SEALED: u16 = 1;
const FLAG_CLOSED: u16 = 2;

/// Where the MAC begins, of both.
const MAC_AT: usize = 96;

/// A slot's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) layer: LayerId,
    pub(crate) chunk: Chunk,
    pub(crate) generation: Generation,
    /// Counts the slots that were ever taken in the file: of two that claim one chunk, the one with the greater number
    /// was taken later.
    pub(crate) sequence: u64,
    /// Sectors that were in the slot, and synced, when this was written.
    pub(crate) valid: Sectors,
    /// Sectors of whose bytes in the slot it was not known, when this was written, that they are the volume's: they were
    /// trimmed or zeroed, or the slot was not empty when it was taken. They may have been written since.
    pub(crate) stale: Sectors,
}

/// What stands in an entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Zeroes: the slot is free.
    None,
    Owner(Owner),
    /// Something else, or an entry of another volume or slot.
    Unreadable,
}

impl Owner {
    /// The bytes of the entry for a slot.
    pub(crate) fn encode(&self, key: &MacKey, volume: VolumeId, slot: Slot) -> [u8; OWNER_LEN] {
        let mut bytes = [0; OWNER_LEN];
        bytes[..4].copy_from_slice(&OWNER_MAGIC);
        bytes[4..6].copy_from_slice(&OWNER_FORMAT.to_le_bytes());
        bytes[8..24].copy_from_slice(&volume.to_bytes());
        bytes[24..28].copy_from_slice(&self.layer.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.chunk.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.generation.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&slot.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.valid.0.to_le_bytes());
        bytes[64..80].copy_from_slice(&self.stale.0.to_le_bytes());
        let tag = key.mac(&[&bytes[..MAC_AT]]);
        bytes[MAC_AT..].copy_from_slice(&tag);
        bytes
    }
}

impl Claim {
    /// Reads the entry of a slot.
    pub(crate) fn decode(
        bytes: &[u8; OWNER_LEN],
        key: &MacKey,
        volume: VolumeId,
        slot: Slot,
    ) -> Self {
        if *bytes == [0; OWNER_LEN] {
            return Self::None;
        }
        let known = bytes[..4] == OWNER_MAGIC
            && bytes[4..8] == u32::from(OWNER_FORMAT).to_le_bytes()
            && bytes[8..24] == volume.to_bytes()
            && number_32(bytes, 36) == slot.0
            && bytes[80..MAC_AT] == [0; MAC_AT - 80];
        let owner = Owner {
            layer: LayerId(number_32(bytes, 24)),
            chunk: Chunk(number_32(bytes, 28)),
            generation: Generation(number_32(bytes, 32)),
            sequence: number_64(bytes, 40),
            valid: Sectors(u128::from_le_bytes(array(bytes, 48))),
            stale: Sectors(u128::from_le_bytes(array(bytes, 64))),
        };
        let authentic = key.verify(&[&bytes[..MAC_AT]], &array(bytes, MAC_AT));
        if known && authentic.is_ok() && !owner.valid.overlaps(owner.stale) {
            Self::Owner(owner)
        } else {
            Self::Unreadable
        }
    }
}

/// The header of a slot file, which it has twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    pub(crate) volume: VolumeId,
    pub(crate) sealed: bool,
    pub(crate) layer: LayerId,
    /// Whether the volume was detached in order: the table has no owner of a slot that the log does not name.
    pub(crate) closed: bool,
    /// No slot was taken with this allocation sequence or a greater one.
    pub(crate) sequence: u64,
    /// The log's epoch, when this was written.
    pub(crate) log_epoch: u64,
    /// Up to which byte that log was durable; one that ends before has lost something.
    pub(crate) log_durable: u64,
    /// Of two headers the one with the greater number counts.
    pub(crate) revision: u64,
}

impl SlotHeader {
    /// Its bytes in the file.
    pub(crate) fn encode(&self, key: &MacKey) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let sealed = if self.sealed { FLAG_SEALED } else { 0 };
        let closed = if self.closed { FLAG_CLOSED } else { 0 };
        bytes[..8].copy_from_slice(&HEADER_MAGIC);
        bytes[8..10].copy_from_slice(&HEADER_FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&(sealed | closed).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.layer.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.volume.to_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.log_epoch.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.log_durable.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.revision.to_le_bytes());
        bytes[64..72].copy_from_slice(&CHUNK_LEN.to_le_bytes());
        bytes[72..80].copy_from_slice(&(SECTOR_LEN as u64).to_le_bytes());
        let tag = key.mac(&[&bytes[..MAC_AT]]);
        bytes[MAC_AT..].copy_from_slice(&tag);
        bytes
    }

    /// Reads one of the two.
    pub(crate) fn decode(bytes: &[u8; HEADER_LEN], key: &MacKey) -> Result<Self, &'static str> {
        if bytes[..8] != HEADER_MAGIC {
            return Err("not a slot file");
        }
        let version_and_flags = number_32(bytes, 8);
        let (version, flags) = (version_and_flags & 0xffff, version_and_flags >> 16);
        if version != u32::from(HEADER_FORMAT) {
            return Err("a format version that this program does not know");
        }
        if key
            .verify(&[&bytes[..MAC_AT]], &array(bytes, MAC_AT))
            .is_err()
        {
            return Err("the header of the slot file is not authentic");
        }
        if flags & !u32::from(FLAG_SEALED | FLAG_CLOSED) != 0
            || number_64(bytes, 64) != CHUNK_LEN
            || number_64(bytes, 72) != SECTOR_LEN as u64
            || bytes[80..MAC_AT] != [0; MAC_AT - 80]
        {
            return Err("the header of the slot file has values that this program does not know");
        }
        Ok(Self {
            volume: VolumeId::from_bytes(array(bytes, 16)).ok_or("no volume id")?,
            sealed: flags & u32::from(FLAG_SEALED) != 0,
            layer: LayerId(number_32(bytes, 12)),
            closed: flags & u32::from(FLAG_CLOSED) != 0,
            sequence: number_64(bytes, 32),
            log_epoch: number_64(bytes, 40),
            log_durable: number_64(bytes, 48),
            revision: number_64(bytes, 56),
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the range has that length")
}

fn number_32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn number_64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::tests::{golden, id};

    fn key() -> MacKey {
        MacKey::public("test")
    }

    fn owner() -> Owner {
        Owner {
            layer: LayerId(0),
            chunk: Chunk(77),
            generation: Generation(1),
            sequence: 1 << 40,
            valid: Sectors::range(3, 5),
            stale: Sectors::range(100, 2),
        }
    }

    fn header() -> SlotHeader {
        SlotHeader {
            volume: id(),
            sealed: true,
            layer: LayerId(0),
            closed: true,
            sequence: 1 << 32,
            log_epoch: 3,
            log_durable: 8192,
            revision: 9,
        }
    }

    #[test]
    fn the_golden_header_and_owner_read_and_are_written_the_same() {
        let written = [
            header().encode(&key()),
            owner().encode(&key(), id(), Slot(5)),
        ]
        .concat();
        let golden = golden("slots", &written);
        let (one, two) = golden.split_at(HEADER_LEN);
        let one = one.try_into().unwrap();
        assert_eq!(SlotHeader::decode(one, &key()).unwrap(), header());
        let two = two.try_into().unwrap();
        let claim = Claim::decode(two, &key(), id(), Slot(5));
        assert_eq!(claim, Claim::Owner(owner()));
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let (head, entry) = (
            header().encode(&key()),
            owner().encode(&key(), id(), Slot(5)),
        );
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = head;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SlotHeader::decode(&bad, &key()).is_err(), "bit {bit}");
            let mut bad = entry;
            bad[bit / 8] ^= 1 << (bit % 8);
            let claim = Claim::decode(&bad, &key(), id(), Slot(5));
            assert_eq!(claim, Claim::Unreadable, "bit {bit}");
        }
    }

    #[test]
    fn an_entry_speaks_of_its_own_slot_and_volume_alone() {
        let entry = owner().encode(&key(), id(), Slot(5));
        let other: VolumeId = "vol-0123456789abcdef1".parse().unwrap();
        for (volume, slot, key) in [
            (id(), Slot(6), key()),
            (other, Slot(5), key()),
            (id(), Slot(5), MacKey::public("another")),
        ] {
            let claim = Claim::decode(&entry, &key, volume, slot);
            assert_eq!(claim, Claim::Unreadable);
        }
        let none = Claim::decode(&[0; OWNER_LEN], &key(), id(), Slot(5));
        assert_eq!(none, Claim::None);
    }
}
