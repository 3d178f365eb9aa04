//! Key blobs: what the key service hands out as ciphertext.
//!
//! Self-describing (the header names the key and the material, so opening needs
//! no key id), key-committing, and bound to the encryption context in its
//! canonical form. The header can be read before it is authenticated, to find
//! the key: trust nothing in it until [`KeyBlobRef::open`] has succeeded.
//! Layout: `FORMAT.md`.

use crate::CryptoError;
use crate::committing;
use crate::random::Random;
use crate::secret::{SecretVec, secret_key};

pub use crate::context::{CONTEXT_LEN_MAX, EncryptionContext};

/// Longest plaintext a blob takes, in bytes (KMS `Encrypt`).
pub const PLAINTEXT_LEN_MAX: usize = 4096;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = 24;
/// What sealing adds to a plaintext, in bytes.
pub const BLOB_OVERHEAD: usize = HEADER_LEN + committing::OVERHEAD;

const VERSION: u8 = 1;
const ALGORITHM_AES_256_GCM_SIV: u8 = 1;
const FLAG_MULTI_REGION: u8 = 1;
const LABEL: &[u8] = b"sealgate key blob v1";

secret_key! {
    /// One material of a key: what actually wraps. Never leaves the keyring.
    BackingKey
}

/// What a blob says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHeader {
    /// The key's id, as the 16 bytes of its UUID.
    pub key_id: [u8; 16],
    /// Whether the id is written `mrk-…`.
    pub multi_region: bool,
    /// Which material of the key sealed the blob.
    pub material: u32,
}

impl BlobHeader {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = VERSION;
        out[1] = ALGORITHM_AES_256_GCM_SIV;
        out[2] = if self.multi_region {
            FLAG_MULTI_REGION
        } else {
            0
        };
        out[4..20].copy_from_slice(&self.key_id);
        out[20..24].copy_from_slice(&self.material.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let [VERSION, ALGORITHM_AES_256_GCM_SIV, flags, 0, rest @ ..] = bytes else {
            return None;
        };
        let multi_region = match *flags {
            0 => false,
            FLAG_MULTI_REGION => true,
            _ => return None,
        };
        Some(Self {
            key_id: *rest.first_chunk()?,
            multi_region,
            material: u32::from_be_bytes(*rest.last_chunk()?),
        })
    }
}

/// The codec of key blobs.
#[derive(Debug, Clone, Copy)]
pub struct KeyBlob;

impl KeyBlob {
    /// Seals 1 to [`PLAINTEXT_LEN_MAX`] bytes under one material of a key.
    pub fn seal(
        key: &BackingKey,
        header: BlobHeader,
        context: &EncryptionContext,
        plaintext: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, CryptoError> {
        if plaintext.is_empty() || plaintext.len() > PLAINTEXT_LEN_MAX {
            return Err(CryptoError::PlaintextLength {
                len: plaintext.len(),
                min: 1,
                max: PLAINTEXT_LEN_MAX,
            });
        }
        let header = header.encode();
        let mut out = Vec::with_capacity(BLOB_OVERHEAD + plaintext.len());
        out.extend_from_slice(&header);
        let aad = aad(&header, context);
        committing::seal_onto(
            &mut out,
            key.secret(),
            LABEL,
            &header,
            &aad,
            plaintext,
            random,
        );
        Ok(out)
    }

    /// Reads the header. Fails with [`CryptoError::Malformed`] on anything that
    /// no `seal` could have made.
    pub fn parse(bytes: &[u8]) -> Result<KeyBlobRef<'_>, CryptoError> {
        const NOT_A_BLOB: CryptoError = CryptoError::Malformed { what: "key blob" };
        let (raw_header, sealed) = bytes.split_first_chunk().ok_or(NOT_A_BLOB)?;
        let header = BlobHeader::decode(raw_header).ok_or(NOT_A_BLOB)?;
        let plaintext_len = sealed
            .len()
            .checked_sub(committing::OVERHEAD)
            .ok_or(NOT_A_BLOB)?;
        if plaintext_len == 0 || plaintext_len > PLAINTEXT_LEN_MAX {
            return Err(NOT_A_BLOB);
        }
        Ok(KeyBlobRef {
            header,
            raw_header,
            sealed,
        })
    }
}

/// A blob whose header has been read and nothing has been authenticated.
#[derive(Debug, Clone, Copy)]
pub struct KeyBlobRef<'a> {
    header: BlobHeader,
    raw_header: &'a [u8; HEADER_LEN],
    sealed: &'a [u8],
}

impl KeyBlobRef<'_> {
    /// What the blob claims; true only once [`open`](Self::open) has succeeded.
    pub fn header(&self) -> &BlobHeader {
        &self.header
    }

    /// Authenticates header, context and ciphertext, and opens. There is one
    /// error for every reason to fail, [`CryptoError::Unauthentic`].
    pub fn open(
        &self,
        key: &BackingKey,
        context: &EncryptionContext,
    ) -> Result<SecretVec, CryptoError> {
        let aad = aad(self.raw_header, context);
        committing::open(key.secret(), LABEL, self.raw_header, &aad, self.sealed)
    }
}

fn aad(header: &[u8; HEADER_LEN], context: &EncryptionContext) -> Vec<u8> {
    let mut aad = header.to_vec();
    aad.extend_from_slice(&context.canonical());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use crate::secret::SecretBytes;

    const HEADER: BlobHeader = BlobHeader {
        key_id: *b"0123456789abcdef",
        multi_region: false,
        material: 3,
    };

    fn key(byte: u8) -> BackingKey {
        BackingKey::from_secret(SecretBytes::init_with(|k| k.fill(byte)))
    }

    fn context(name: &str, value: &str) -> EncryptionContext {
        EncryptionContext::from_pairs([(name, value)]).unwrap()
    }

    fn blob() -> Vec<u8> {
        KeyBlob::seal(
            &key(1),
            HEADER,
            &context("a", "bc"),
            b"data key",
            &SeededRandom::new(9),
        )
        .unwrap()
    }

    #[test]
    fn a_blob_names_its_key_and_opens_under_it() {
        let blob = blob();
        assert_eq!(blob.len(), BLOB_OVERHEAD + 8);
        let parsed = KeyBlob::parse(&blob).unwrap();
        assert_eq!(*parsed.header(), HEADER);
        let opened = parsed.open(&key(1), &context("a", "bc")).unwrap();
        assert_eq!(opened.expose(), b"data key");
    }

    #[test]
    fn another_key_or_context_is_refused_with_one_error() {
        let blob = blob();
        let parsed = KeyBlob::parse(&blob).unwrap();
        for refused in [
            parsed.open(&key(2), &context("a", "bc")),
            parsed.open(&key(1), &context("ab", "c")),
            parsed.open(&key(1), &context("A", "bc")),
            parsed.open(&key(1), &EncryptionContext::new()),
        ] {
            assert_eq!(refused.unwrap_err(), CryptoError::Unauthentic);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_blob_is_refused() {
        let blob = blob();
        for bit in 0..blob.len() * 8 {
            let mut bad = blob.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let opened = KeyBlob::parse(&bad).and_then(|b| b.open(&key(1), &context("a", "bc")));
            assert!(opened.is_err(), "bit {bit} may be flipped");
        }
    }

    #[test]
    fn a_cut_or_extended_blob_is_refused() {
        let blob = blob();
        for len in 0..blob.len() {
            let opened =
                KeyBlob::parse(&blob[..len]).and_then(|b| b.open(&key(1), &context("a", "bc")));
            assert!(opened.is_err(), "cut to {len}");
        }
        let longer = [&blob[..], &[0]].concat();
        let opened = KeyBlob::parse(&longer).and_then(|b| b.open(&key(1), &context("a", "bc")));
        assert!(opened.is_err());
    }

    #[test]
    fn an_empty_or_oversized_plaintext_is_refused() {
        for len in [0, PLAINTEXT_LEN_MAX + 1] {
            let sealed = KeyBlob::seal(
                &key(1),
                HEADER,
                &EncryptionContext::new(),
                &vec![0; len],
                &SeededRandom::new(1),
            );
            assert!(matches!(sealed, Err(CryptoError::PlaintextLength { .. })));
        }
    }

    #[test]
    fn two_blobs_of_one_plaintext_share_nothing() {
        let random = SeededRandom::new(1);
        let seal = || {
            KeyBlob::seal(
                &key(1),
                HEADER,
                &EncryptionContext::new(),
                b"data key",
                &random,
            )
            .unwrap()
        };
        assert_ne!(
            seal()[HEADER_LEN..HEADER_LEN + 32],
            seal()[HEADER_LEN..HEADER_LEN + 32]
        );
    }
}
