//! The header's codec. `FORMAT.md` has the fields.

use crypto::{random::Random, store_key::GenerationKey};
use sha2::{Digest as _, Sha256};

use crate::{
    id::{RootKeyId, StoreId},
    provider::{Kind, Wrapped},
};

const MAGIC: &[u8; 8] = b"SGROOTHD";
const VERSION: u16 = 1;
/// Two generations, each under two root keys.
const WRAPS_MAX: usize = 4;
const FIXED_LEN: usize = 48;
const WRAP_FIXED_LEN: usize = 26;
const MAC_LEN: usize = 32;
const CHECK_LEN: usize = 32;
/// Longest header, in bytes.
pub(crate) const LEN_MAX: usize = FIXED_LEN
    + WRAPS_MAX * (WRAP_FIXED_LEN + Wrapped::PARAMETERS_LEN_MAX + Wrapped::CIPHERTEXT_LEN_MAX)
    + MAC_LEN
    + CHECK_LEN;

/// One wrapped generation of the store key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrap {
    pub(crate) generation: u32,
    pub(crate) wrapped: Wrapped,
}

/// The header's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) store: StoreId,
    /// How often it was written, from 1.
    pub(crate) sequence: u64,
    /// The generation that seals, from 1.
    pub(crate) current: u32,
    /// The one before it, while records sealed under it are left.
    pub(crate) previous: Option<u32>,
    /// Every live generation, each under every root key that opens the store. Never empty.
    pub(crate) wraps: Vec<Wrap>,
}

/// A header as it was read: whole, and not yet authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadHeader {
    pub(crate) header: Header,
    /// The file's bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHeader {
    Damaged(&'static str),
    Newer(u16),
}

impl Header {
    /// The header of a new store, without its wraps.
    pub(crate) fn new(random: &dyn Random) -> Self {
        Self {
            store: StoreId::random(random),
            sequence: 0,
            current: 1,
            previous: None,
            wraps: Vec::new(),
        }
    }

    /// What a wrapped store key is bound to: it opens in no other store and as no other generation.
    pub(crate) fn aad(store: StoreId, generation: u32) -> Vec<u8> {
        let mut aad = store.as_bytes().to_vec();
        aad.extend_from_slice(&generation.to_be_bytes());
        aad
    }

    /// The live generations, the current one first.
    pub(crate) fn generations(&self) -> impl Iterator<Item = u32> {
        [Some(self.current), self.previous].into_iter().flatten()
    }

    /// The bytes to store, authenticated under `current`, the key of the current generation.
    pub(crate) fn encode(&self, current: &GenerationKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        let wraps = u16::try_from(self.wraps.len()).expect("at most WRAPS_MAX");
        out.extend_from_slice(&wraps.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.current.to_be_bytes());
        out.extend_from_slice(&self.previous.unwrap_or(0).to_be_bytes());
        for wrap in &self.wraps {
            let len = |bytes: &[u8]| {
                u16::try_from(bytes.len())
                    .expect("far below 64 KiB")
                    .to_be_bytes()
            };
            let wrapped = &wrap.wrapped;
            out.extend_from_slice(&wrap.generation.to_be_bytes());
            out.extend_from_slice(&[wrapped.kind.to_byte(), 0]);
            out.extend_from_slice(wrapped.root_key.as_bytes());
            out.extend_from_slice(&len(&wrapped.parameters));
            out.extend_from_slice(&len(&wrapped.ciphertext));
            out.extend_from_slice(&wrapped.parameters);
            out.extend_from_slice(&wrapped.ciphertext);
        }
        let mac = current.header_mac().mac(&[&out]);
        out.extend_from_slice(&mac);
        let check = Sha256::digest(&out);
        out.extend_from_slice(&check);
        debug_assert!(Self::decode(&out).is_ok());
        out
    }

    /// Reads `bytes` and checks that they are whole. Who wrote them says [`ReadHeader::authenticates`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<ReadHeader, NoHeader> {
        let damaged = NoHeader::Damaged;
        if bytes.len() > LEN_MAX {
            return Err(damaged("it is too long"));
        }
        let mut fields = Fields(bytes);
        if fields.array::<8>() != Some(*MAGIC) {
            return Err(damaged("it does not begin as a root header does"));
        }
        match fields.array().map(u16::from_be_bytes) {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(NoHeader::Newer(newer)),
            _ => return Err(damaged("there is no such version")),
        }
        let checked = bytes
            .split_last_chunk::<CHECK_LEN>()
            .is_some_and(|(body, check)| Sha256::digest(body).as_slice() == check);
        if !checked {
            return Err(damaged("its checksum does not match"));
        }
        let header = fields
            .header()
            .filter(|_| fields.0.len() == MAC_LEN + CHECK_LEN)
            .ok_or(damaged("it contradicts itself"))?;
        Ok(ReadHeader {
            header,
            bytes: bytes.to_vec(),
        })
    }
}

impl ReadHeader {
    /// Whether it was written by who has `current`, the key of its current generation.
    pub(crate) fn authenticates(&self, current: &GenerationKey) -> bool {
        let Some((body, mac)) = self.bytes[..self.bytes.len() - CHECK_LEN].split_last_chunk()
        else {
            return false;
        };
        current.header_mac().verify(&[body], mac).is_ok()
    }
}

/// What is left to be read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn bytes(&mut self, len: usize) -> Option<Vec<u8>> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    /// All from the number of wraps to the last of them; `None` if anything is out of its range.
    fn header(&mut self) -> Option<Header> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if self.array()? != [0; 4] || count == 0 || count > WRAPS_MAX {
            return None;
        }
        let store = StoreId::from_bytes(self.array()?);
        let sequence = u64::from_be_bytes(self.array()?);
        let current = u32::from_be_bytes(self.array()?);
        let previous = Some(u32::from_be_bytes(self.array()?)).filter(|previous| *previous != 0);
        if sequence == 0 || current == 0 || previous.is_some_and(|previous| previous >= current) {
            return None;
        }
        let wraps: Vec<Wrap> = (0..count).map(|_| self.wrap()).collect::<Option<_>>()?;
        let header = Header {
            store,
            sequence,
            current,
            previous,
            wraps,
        };
        let live = |wrap: &Wrap| header.generations().any(|g| g == wrap.generation);
        let wrapped = |g: u32| header.wraps.iter().any(|wrap| wrap.generation == g);
        let whole = header.wraps.iter().all(live) && header.generations().all(wrapped);
        whole.then_some(header)
    }

    fn wrap(&mut self) -> Option<Wrap> {
        let generation = u32::from_be_bytes(self.array()?);
        let [kind, zero] = self.array()?;
        let root_key = RootKeyId::from_bytes(self.array()?);
        let parameters_len = usize::from(u16::from_be_bytes(self.array()?));
        let ciphertext_len = usize::from(u16::from_be_bytes(self.array()?));
        if zero != 0
            || parameters_len > Wrapped::PARAMETERS_LEN_MAX
            || ciphertext_len > Wrapped::CIPHERTEXT_LEN_MAX
        {
            return None;
        }
        Some(Wrap {
            generation,
            wrapped: Wrapped {
                kind: Kind::from_byte(kind)?,
                root_key,
                parameters: self.bytes(parameters_len)?,
                ciphertext: self.bytes(ciphertext_len)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use crypto::{random::SeededRandom, secret::SecretBytes, store_key::RootKey};

    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../golden/root.header");

    fn key(byte: u8) -> SecretBytes<32> {
        SecretBytes::init_with(|key| key.fill(byte))
    }

    fn current() -> GenerationKey {
        GenerationKey::from_secret(key(5))
    }

    /// A header in the middle of a rotation of the store key.
    fn sample() -> Header {
        let random = SeededRandom::new(9);
        let root = RootKey::from_secret(key(1));
        let mut header = Header {
            sequence: 7,
            current: 5,
            previous: Some(4),
            ..Header::new(&random)
        };
        for (generation, secret) in [(5, current()), (4, GenerationKey::from_secret(key(4)))] {
            let aad = Header::aad(header.store, generation);
            header.wraps.push(Wrap {
                generation,
                wrapped: Wrapped {
                    kind: Kind::File,
                    root_key: RootKeyId::from_bytes(root.id()),
                    parameters: vec![],
                    ciphertext: root.wrap(&secret, &aad, &random),
                },
            });
        }
        header
    }

    #[test]
    fn the_golden_header_is_read_and_written_the_same() {
        let header = sample();
        assert_eq!(header.encode(&current()), GOLDEN);
        let read = Header::decode(GOLDEN).unwrap();
        assert_eq!(read.header, header);
        assert!(read.authenticates(&current()));
        assert!(!read.authenticates(&GenerationKey::from_secret(key(4))));
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_byte_more_is_noticed_without_a_key() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bad = GOLDEN.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..GOLDEN.len() {
            assert!(Header::decode(&GOLDEN[..len]).is_err(), "cut to {len}");
        }
        assert!(Header::decode(&[GOLDEN, &[0]].concat()).is_err());
    }

    #[test]
    fn a_change_with_a_new_checksum_is_noticed_with_the_key() {
        let body = GOLDEN.len() - CHECK_LEN;
        for bit in 0..body * 8 {
            let mut bad = GOLDEN[..body].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let check = Sha256::digest(&bad);
            bad.extend_from_slice(&check);
            let taken = Header::decode(&bad).is_ok_and(|read| read.authenticates(&current()));
            assert!(!taken, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut newer = GOLDEN.to_vec();
        newer[9] = 2;
        assert_eq!(Header::decode(&newer), Err(NoHeader::Newer(2)));
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let refused = |change: fn(&mut Header)| {
            let mut header = sample();
            change(&mut header);
            let mut bytes = Vec::new();
            // `encode` asserts what it wrote, so the bytes are made as it makes them.
            bytes.extend_from_slice(&GOLDEN[..24]);
            bytes[10..12]
                .copy_from_slice(&u16::try_from(header.wraps.len()).unwrap().to_be_bytes());
            bytes.truncate(16);
            bytes.extend_from_slice(header.store.as_bytes());
            bytes.extend_from_slice(&header.sequence.to_be_bytes());
            bytes.extend_from_slice(&header.current.to_be_bytes());
            bytes.extend_from_slice(&header.previous.unwrap_or(0).to_be_bytes());
            let wraps_len = (GOLDEN.len() - FIXED_LEN - MAC_LEN - CHECK_LEN) / 2;
            for at in 0..header.wraps.len() {
                bytes.extend_from_slice(&GOLDEN[FIXED_LEN + at * wraps_len..][..wraps_len]);
            }
            bytes.extend_from_slice(&[0; MAC_LEN]);
            let check = Sha256::digest(&bytes);
            bytes.extend_from_slice(&check);
            Header::decode(&bytes) == Err(NoHeader::Damaged("it contradicts itself"))
        };
        assert!(!refused(|_| {}));
        assert!(refused(|header| header.sequence = 0));
        assert!(refused(|header| header.current = 0));
        assert!(refused(|header| header.previous = Some(5)));
        assert!(refused(|header| header.previous = None));
        assert!(refused(|header| header.previous = Some(3)));
        assert!(refused(|header| header.wraps.truncate(1)));
    }
}
