//! Chunk streams: an object or part, sealed 64 KiB at a time.
//!
//! The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015) under a
//! one-use key: the nonce is a chunk counter and a final flag, the AAD says where
//! the stream belongs. So a chunk altered, moved, repeated or taken from another
//! stream does not open, and a stream cut or extended at a chunk boundary does
//! not either, since the last chunk alone carries the flag. The sealed length
//! follows from the plain length ([`sealed_len`]). Layout: `FORMAT.md`.
//!
//! Tags stand apart from the ciphertext, so that a store can keep ciphertext in
//! aligned 64 KiB units; [`ChunkSealer::seal_inline`] puts each behind its chunk.
//! Everything happens in the caller's buffer. A chunk that fails to open is
//! wiped: not a byte of it is handed out.

mod opener;
mod sealer;

pub use opener::ChunkOpener;
pub use sealer::{ChunkSealer, SealedBuf, SealedChunk, SealedInline};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::CryptoError;
use crate::derive::{hkdf_sha256, push_prefixed};
use crate::gcm_siv::GcmSivKey;
use crate::random::Random;
use crate::secret::{SecretBytes, secret_key, wipe};

/// Plaintext bytes in every chunk but the last.
pub const CHUNK_LEN: usize = 65536;
/// Bytes of a chunk's tag.
pub const TAG_LEN: usize = 16;
/// Bytes of the salt that a stream's key is derived with.
pub const SALT_LEN: usize = 32;
/// Chunks a stream may have: the counter is 32 bits wide. 256 TiB.
const CHUNKS_MAX: u64 = 1 << 32;

/// The AEAD under a stream; its number is part of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// AES-256-GCM (SP 800-38D), from AWS-LC.
    Aes256Gcm = 1,
    /// AES-256-GCM-SIV (RFC 8452).
    Aes256GcmSiv = 2,
}

impl Algorithm {
    /// The algorithm with this number in an envelope.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::Aes256GcmSiv),
            _ => None,
        }
    }

    /// Its number in an envelope.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Chunks of a stream of `plain_len` bytes. The empty stream has one, empty.
pub const fn chunk_count(plain_len: u64) -> u64 {
    let chunks = plain_len.div_ceil(CHUNK_LEN as u64);
    if chunks == 0 { 1 } else { chunks }
}

/// Sealed length, tags included, of a stream of `plain_len` bytes; `None` if it
/// has more chunks than the nonce can count.
pub const fn sealed_len(plain_len: u64) -> Option<u64> {
    let chunks = chunk_count(plain_len);
    if chunks > CHUNKS_MAX {
        return None;
    }
    Some(plain_len + chunks * TAG_LEN as u64)
}

/// Plain length of a stream of `sealed_len` bytes, tags included; `None` if no
/// stream has that length.
pub const fn plain_len(sealed_len: u64) -> Option<u64> {
    const SEALED_CHUNK: u64 = (CHUNK_LEN + TAG_LEN) as u64;
    let chunks = sealed_len.div_ceil(SEALED_CHUNK);
    if chunks > CHUNKS_MAX {
        return None;
    }
    let Some(plain) = sealed_len.checked_sub(chunks * TAG_LEN as u64) else {
        return None;
    };
    if chunks > 0 && chunk_count(plain) == chunks {
        Some(plain)
    } else {
        None
    }
}

/// Plaintext bytes in chunk `index` of a stream of `plain_len` bytes; `None`
/// past the last.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what the last chunk holds is at most CHUNK_LEN"
)]
pub const fn chunk_plain_len(plain_len: u64, index: u64) -> Option<usize> {
    let last = chunk_count(plain_len) - 1;
    if index < last {
        Some(CHUNK_LEN)
    } else if index == last {
        Some((plain_len - last * CHUNK_LEN as u64) as usize)
    } else {
        None
    }
}

secret_key! {
    /// The key of one object: from a key service, or under a bucket key.
    ObjectKey
}

impl ObjectKey {
    /// A key that seals one stream, and the salt it was derived with, to be kept
    /// beside the stream. The salt is drawn here, so that no two streams share a
    /// key, also when a part is sent again.
    pub fn part_key(&self, random: &dyn Random) -> (OneUseKey, [u8; SALT_LEN]) {
        let mut salt = [0; SALT_LEN];
        random.fill(&mut salt);
        (OneUseKey(self.stream_secret(&salt)), salt)
    }

    /// As [`part_key`](Self::part_key) with a given salt, for golden files.
    #[cfg(any(test, feature = "test-util"))]
    pub fn part_key_with_salt(&self, salt: &[u8; SALT_LEN]) -> OneUseKey {
        OneUseKey(self.stream_secret(salt))
    }

    /// The key that opens the stream sealed under this salt.
    pub fn open_key(&self, salt: &[u8; SALT_LEN]) -> OpenKey {
        OpenKey(self.stream_secret(salt))
    }

    /// A value that says whether a customer's key is the right one and nothing
    /// else. `salt` is random and kept beside it. Compare in constant time.
    pub fn verifier(&self, salt: &[u8; 32]) -> [u8; 32] {
        let mut verifier = [0; 32];
        hkdf_sha256(
            salt,
            self.0.expose(),
            &[b"sealgate key verifier v1"],
            &mut verifier,
        );
        verifier
    }

    fn stream_secret(&self, salt: &[u8; SALT_LEN]) -> SecretBytes<32> {
        SecretBytes::init_with(|secret| {
            hkdf_sha256(
                salt,
                self.0.expose(),
                &[b"sealgate chunk stream v1"],
                secret,
            );
        })
    }
}

/// Seals one stream: taken by value by the sealer, and made with a salt that is
/// drawn with it, so a second stream under the same key and nonces does not compile.
#[derive(Debug)]
pub struct OneUseKey(SecretBytes<32>);

/// Opens one stream.
#[derive(Debug)]
pub struct OpenKey(SecretBytes<32>);

/// Where a stream belongs. Fields are length-prefixed, so no boundary between
/// them can be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAad(Vec<u8>);

impl StreamAad {
    /// Binds to fields in this order: bucket, key, part and the like.
    pub fn new<F: AsRef<[u8]>>(fields: impl IntoIterator<Item = F>) -> Self {
        let mut aad = Vec::new();
        for field in fields {
            push_prefixed(&mut aad, field.as_ref());
        }
        Self(aad)
    }
}

/// The AEAD of one stream, with the AAD and the nonces in one place for both
/// directions.
struct StreamCipher {
    aead: Aead,
    aad: Vec<u8>,
}

enum Aead {
    Gcm(Box<LessSafeKey>),
    GcmSiv(GcmSivKey),
}

impl StreamCipher {
    fn new(algorithm: Algorithm, key: &SecretBytes<32>, aad: StreamAad) -> Self {
        let aead = match algorithm {
            Algorithm::Aes256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 bytes are a key");
                Aead::Gcm(Box::new(LessSafeKey::new(key)))
            }
            Algorithm::Aes256GcmSiv => Aead::GcmSiv(GcmSivKey::new(key)),
        };
        let mut bound = vec![1, algorithm.number()];
        bound.extend_from_slice(&aad.0);
        Self { aead, aad: bound }
    }

    fn seal(&self, index: u64, last: bool, buf: &mut [u8]) -> Result<[u8; TAG_LEN], CryptoError> {
        let nonce = nonce(index, last)?;
        match &self.aead {
            Aead::Gcm(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&self.aad), buf)
                    .expect("a chunk is far below GCM's limit");
                let mut tag = [0; TAG_LEN];
                tag.copy_from_slice(sealed.as_ref());
                Ok(tag)
            }
            Aead::GcmSiv(key) => key.seal(&nonce, &self.aad, buf),
        }
    }

    /// Wipes `buf` if the chunk is not authentic.
    fn open(
        &self,
        index: u64,
        last: bool,
        buf: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), CryptoError> {
        let nonce = nonce(index, last)?;
        match &self.aead {
            Aead::Gcm(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let opened = key.open_in_place_separate_tag(nonce, Aad::from(&self.aad), tag, buf);
                if opened.is_err() {
                    wipe(buf);
                    return Err(CryptoError::Unauthentic);
                }
                Ok(())
            }
            // Wipes by itself.
            Aead::GcmSiv(key) => key.open(&nonce, &self.aad, buf, tag),
        }
    }
}

/// Seven zero bytes, the chunk's number as 32 bits big endian, the final flag.
fn nonce(index: u64, last: bool) -> Result<[u8; 12], CryptoError> {
    let counter = u32::try_from(index).map_err(|_| CryptoError::StreamTooLong)?;
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&counter.to_be_bytes());
    nonce[11] = u8::from(last);
    Ok(nonce)
}

#[cfg(test)]
mod tests;
