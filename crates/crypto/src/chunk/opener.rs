//! The opening direction: any chunk, in any order.

use super::{
    Algorithm, OpenKey, StreamAad, StreamCipher, TAG_LEN, chunk_count, chunk_plain_len, sealed_len,
};
use crate::CryptoError;

/// Opens the chunks of one stream, by number.
///
/// It is told how long the plaintext is and so knows which chunk is last. If
/// that length is wrong, by design of the stream the chunk at its end does not
/// open: a reader that opens every chunk up to [`chunk_count`](Self::chunk_count)
/// has the whole stream and nothing else.
pub struct ChunkOpener {
    cipher: StreamCipher,
    plain_len: u64,
}

impl ChunkOpener {
    /// An opener for a stream of `plain_len` bytes.
    pub fn new(algorithm: Algorithm, key: OpenKey, aad: StreamAad, plain_len: u64) -> Self {
        Self {
            cipher: StreamCipher::new(algorithm, &key.0, aad),
            plain_len,
        }
    }

    /// Length of the plaintext in bytes, as given to [`new`](Self::new).
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// How many chunks the stream has: at least one.
    pub fn chunk_count(&self) -> u64 {
        chunk_count(self.plain_len)
    }

    /// Opens chunk `index` in place. `buf` holds its ciphertext, exactly.
    ///
    /// Fails with [`CryptoError::StreamEnded`] past the last chunk,
    /// [`CryptoError::ChunkLength`] on another length, and
    /// [`CryptoError::Unauthentic`] on all else, `buf` then being wiped.
    pub fn open<'a>(
        &self,
        index: u64,
        buf: &'a mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<&'a [u8], CryptoError> {
        if sealed_len(self.plain_len).is_none() {
            return Err(CryptoError::StreamTooLong);
        }
        let expected = chunk_plain_len(self.plain_len, index).ok_or(CryptoError::StreamEnded)?;
        if buf.len() != expected {
            return Err(CryptoError::ChunkLength {
                len: buf.len(),
                expected,
            });
        }
        let last = index + 1 == self.chunk_count();
        self.cipher.open(index, last, buf, tag)?;
        Ok(buf)
    }

    /// As [`open`](Self::open), with the tag in the last [`TAG_LEN`] bytes.
    pub fn open_inline<'a>(&self, index: u64, buf: &'a mut [u8]) -> Result<&'a [u8], CryptoError> {
        let len = buf.len();
        let (ciphertext, tag) =
            buf.split_last_chunk_mut::<TAG_LEN>()
                .ok_or(CryptoError::ChunkLength {
                    len,
                    expected: TAG_LEN,
                })?;
        self.open(index, ciphertext, tag)
    }
}

impl std::fmt::Debug for ChunkOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkOpener")
            .field("plain_len", &self.plain_len)
            .finish_non_exhaustive()
    }
}
