//! Small records at rest: sealed, and bound to the place and version they are in.
//!
//! A record copied into another row, another table, or under another label, or
//! put back to an earlier version does not open. What this does not notice is a
//! record put back together with the version that its store says it has; that
//! needs an anchor outside the store.
//!
//! Layouts: `FORMAT.md`.

use crate::CryptoError;
use crate::committing;
use crate::derive::{hkdf_sha256, push_prefixed};
use crate::random::Random;
use crate::secret::{SecretBytes, SecretVec};

/// What [`RecordKey::seal_at`] adds to a record, in bytes.
pub const PLACED_OVERHEAD: usize = PLACED_HEADER_LEN + committing::OVERHEAD;

/// Seals and opens the records of one kind.
#[derive(Debug)]
pub struct RecordKey(SecretBytes<32>);

impl RecordKey {
    /// The key that `key` gives for records of the kind `label`.
    pub(crate) fn derive(key: &SecretBytes<32>, label: &str) -> Self {
        let mut info = Vec::new();
        push_prefixed(&mut info, label.as_bytes());
        Self(SecretBytes::init_with(|out| {
            hkdf_sha256(b"", key.expose(), &[b"sealgate record key v1", &info], out);
        }))
    }
}

/// Where a record of the catalogue belongs. All of it is authenticated, so a record that was moved, or put back to an
/// earlier version of itself, does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The account that it belongs to; empty for what belongs to none.
    pub account: &'a str,
    /// The region that it belongs to; empty for what belongs to none.
    pub region: &'a str,
    /// Its id in the table.
    pub id: &'a [u8],
    /// How often it was written, this time included: from 1.
    pub version: u64,
}

/// A sealed record on its way to a store. [`RecordKey::seal_at`] alone makes one, so plaintext cannot be stored by
/// mistake:
/// ```compile_fail,E0603
/// let forged = crypto::record::SealedRecord(b"plaintext".to_vec());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord(Vec<u8>);

impl SealedRecord {
    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes to store.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// First byte of a record sealed for a [`Place`].
const PLACED_VERSION: u8 = 2;
const PLACED_LABEL: &[u8] = b"sealgate record v2";
/// Version byte and generation.
const PLACED_HEADER_LEN: usize = 5;

/// The generation of the key that a record was sealed under, which is in clear in front of it. Not authenticated
/// before the record is opened.
pub fn generation_of(sealed: &[u8]) -> Result<u32, CryptoError> {
    match sealed.first_chunk::<PLACED_HEADER_LEN>() {
        Some([PLACED_VERSION, generation @ ..]) => Ok(u32::from_be_bytes(*generation)),
        _ => Err(CryptoError::Unauthentic),
    }
}

impl RecordKey {
    /// Seals `plaintext` for `place` under this key, which is of `generation`. The result is
    /// [`PLACED_OVERHEAD`] bytes longer.
    pub fn seal_at(
        &self,
        place: &Place<'_>,
        generation: u32,
        plaintext: &[u8],
        random: &dyn Random,
    ) -> SealedRecord {
        let header = placed_header(generation);
        let mut out = Vec::with_capacity(PLACED_OVERHEAD + plaintext.len());
        out.extend_from_slice(&header);
        let aad = placed_aad(place);
        committing::seal_onto(
            &mut out,
            &self.0,
            PLACED_LABEL,
            &header,
            &aad,
            plaintext,
            random,
        );
        SealedRecord(out)
    }

    /// Opens what [`seal_at`](Self::seal_at) made for the same place; all else is [`CryptoError::Unauthentic`].
    /// Which generation's key to open it with says [`generation_of`].
    pub fn open_at(&self, place: &Place<'_>, sealed: &[u8]) -> Result<SecretVec, CryptoError> {
        let header = placed_header(generation_of(sealed)?);
        let sealed = &sealed[PLACED_HEADER_LEN..];
        committing::open(&self.0, PLACED_LABEL, &header, &placed_aad(place), sealed)
    }
}

fn placed_header(generation: u32) -> [u8; PLACED_HEADER_LEN] {
    let mut header = [PLACED_VERSION; PLACED_HEADER_LEN];
    header[1..].copy_from_slice(&generation.to_be_bytes());
    header
}

fn placed_aad(place: &Place<'_>) -> Vec<u8> {
    let mut aad = Vec::with_capacity(64 + place.id.len());
    for part in [
        place.table.as_bytes(),
        place.account.as_bytes(),
        place.region.as_bytes(),
        place.id,
    ] {
        push_prefixed(&mut aad, part);
    }
    aad.extend_from_slice(&place.version.to_be_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use crate::store_key::GenerationKey;

    fn key(label: &str) -> RecordKey {
        GenerationKey::from_secret(SecretBytes::init_with(|k| k.fill(7))).record_key(label)
    }

    const PLACE: Place<'_> = Place {
        table: "key",
        account: "123456789012",
        region: "us-east-1",
        id: b"row",
        version: 3,
    };

    #[test]
    fn a_record_opens_under_its_own_label_and_nothing_moves_between_fields() {
        let sealed = key("keys").seal_at(&PLACE, 1, b"secret", &SeededRandom::new(1));
        let sealed = sealed.as_bytes();
        assert!(key("keys").open_at(&PLACE, sealed).is_ok());
        let refused = key("keys2").open_at(&PLACE, sealed);
        assert_eq!(refused.unwrap_err(), CryptoError::Unauthentic);
        for elsewhere in [
            Place {
                region: "us-east-",
                id: b"1row",
                ..PLACE
            },
            Place {
                table: "key1",
                account: "23456789012",
                ..PLACE
            },
        ] {
            let refused = key("keys").open_at(&elsewhere, sealed);
            assert_eq!(refused.unwrap_err(), CryptoError::Unauthentic);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_refused() {
        let sealed = key("key").seal_at(&PLACE, 7, b"secret", &SeededRandom::new(4));
        let sealed = sealed.as_bytes();
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key("key").open_at(&PLACE, &bad).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            let cut = &sealed[..len];
            assert!(key("key").open_at(&PLACE, cut).is_err(), "cut to {len}");
        }
        let extended = [sealed, &[0]].concat();
        assert!(key("key").open_at(&PLACE, &extended).is_err());
    }

    #[test]
    fn a_placed_record_opens_in_its_own_place_and_version_alone() {
        let place = PLACE;
        let random = SeededRandom::new(4);
        let sealed = key("key").seal_at(&place, 7, b"secret", &random);
        assert_eq!(sealed.as_bytes().len(), 6 + PLACED_OVERHEAD);
        assert_eq!(generation_of(sealed.as_bytes()), Ok(7));
        let opened = key("key").open_at(&place, sealed.as_bytes()).unwrap();
        assert_eq!(opened.expose(), b"secret");
        for elsewhere in [
            Place {
                table: "alias",
                ..place
            },
            Place {
                account: "123456789013",
                ..place
            },
            Place {
                account: "",
                ..place
            },
            Place {
                region: "us-east-2",
                ..place
            },
            Place {
                id: b"rox",
                ..place
            },
            Place {
                version: 2,
                ..place
            },
        ] {
            let refused = key("key").open_at(&elsewhere, sealed.as_bytes());
            assert_eq!(
                refused.unwrap_err(),
                CryptoError::Unauthentic,
                "{elsewhere:?}"
            );
        }
    }
}
