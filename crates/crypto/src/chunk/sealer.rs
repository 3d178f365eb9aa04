//! The sealing direction, and the types only it can make.

use super::{Algorithm, CHUNK_LEN, OneUseKey, StreamAad, StreamCipher, TAG_LEN};
use crate::CryptoError;

/// Seals one stream, chunk after chunk, until the last.
pub struct ChunkSealer {
    cipher: StreamCipher,
    next: u64,
    ended: bool,
}

impl ChunkSealer {
    /// Spends `key` on one stream.
    pub fn new(algorithm: Algorithm, key: OneUseKey, aad: StreamAad) -> Self {
        Self {
            cipher: StreamCipher::new(algorithm, &key.0, aad),
            next: 0,
            ended: false,
        }
    }

    /// Seals the next chunk in place: exactly [`CHUNK_LEN`] bytes, unless it is
    /// the last, which has at most that many and is empty only in an empty
    /// stream.
    ///
    /// Fails, with the buffer untouched, on another length and after the last.
    pub fn seal<'a>(
        &mut self,
        buf: &'a mut [u8],
        last: bool,
    ) -> Result<SealedChunk<'a>, CryptoError> {
        let tag = self.seal_next(buf, last)?;
        Ok(SealedChunk {
            ciphertext: buf,
            tag,
        })
    }

    /// As [`seal`](Self::seal), with the tag behind the ciphertext: the last
    /// [`TAG_LEN`] bytes of `buf` are room for it.
    pub fn seal_inline<'a>(
        &mut self,
        buf: &'a mut [u8],
        last: bool,
    ) -> Result<SealedInline<'a>, CryptoError> {
        let len = buf.len();
        let (plain, room) =
            buf.split_last_chunk_mut::<TAG_LEN>()
                .ok_or(CryptoError::ChunkLength {
                    len,
                    expected: CHUNK_LEN + TAG_LEN,
                })?;
        *room = self.seal_next(plain, last)?;
        Ok(SealedInline(buf))
    }

    /// Seals several chunks at once, taking the buffer over: whole chunks, then,
    /// if `last`, the last chunk. A `last` buffer may be empty only as the whole
    /// of an empty stream.
    ///
    /// Fails on any other length and after the last; the buffer is then lost.
    pub fn seal_vec(&mut self, mut buf: Vec<u8>, last: bool) -> Result<SealedBuf, CryptoError> {
        let bytes = buf.as_mut_slice();
        let len = bytes.len();
        let mut tags = Vec::with_capacity(len.div_ceil(CHUNK_LEN).max(1));
        if last {
            let head = len.saturating_sub(1) / CHUNK_LEN * CHUNK_LEN;
            let (head, tail) = bytes.split_at_mut(head);
            // Checked first, so that a refused call has not used up a nonce.
            self.check(
                tail.len(),
                true,
                self.next + (head.len() / CHUNK_LEN) as u64,
            )?;
            for chunk in head.chunks_mut(CHUNK_LEN) {
                tags.push(self.seal_next(chunk, false)?);
            }
            tags.push(self.seal_next(tail, true)?);
        } else {
            if len == 0 || !len.is_multiple_of(CHUNK_LEN) {
                return Err(CryptoError::ChunkLength {
                    len,
                    expected: len.div_ceil(CHUNK_LEN).max(1) * CHUNK_LEN,
                });
            }
            for chunk in bytes.chunks_mut(CHUNK_LEN) {
                tags.push(self.seal_next(chunk, false)?);
            }
        }
        Ok(SealedBuf {
            ciphertext: buf,
            tags,
            last,
        })
    }

    /// Whether the last chunk has been sealed: only then is the stream whole.
    pub fn is_finished(&self) -> bool {
        self.ended
    }

    fn check(&self, len: usize, last: bool, index: u64) -> Result<(), CryptoError> {
        if self.ended {
            return Err(CryptoError::StreamEnded);
        }
        // An empty last chunk behind others would give one plaintext two sealed
        // lengths.
        let fits = if last {
            len <= CHUNK_LEN && (len > 0 || index == 0)
        } else {
            len == CHUNK_LEN
        };
        if !fits {
            return Err(CryptoError::ChunkLength {
                len,
                expected: CHUNK_LEN,
            });
        }
        Ok(())
    }

    fn seal_next(&mut self, buf: &mut [u8], last: bool) -> Result<[u8; TAG_LEN], CryptoError> {
        self.check(buf.len(), last, self.next)?;
        let tag = self.cipher.seal(self.next, last, buf)?;
        self.next += 1;
        self.ended = last;
        Ok(tag)
    }
}

impl std::fmt::Debug for ChunkSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkSealer")
            .field("next", &self.next)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// One sealed chunk in the caller's buffer. Only the sealer makes one.
#[derive(Debug)]
pub struct SealedChunk<'a> {
    ciphertext: &'a [u8],
    tag: [u8; TAG_LEN],
}

impl SealedChunk<'_> {
    /// As long as the plaintext was.
    pub fn ciphertext(&self) -> &[u8] {
        self.ciphertext
    }

    /// The chunk's tag.
    pub fn tag(&self) -> &[u8; TAG_LEN] {
        &self.tag
    }
}

/// One sealed chunk with its tag behind it. Only the sealer makes one.
#[derive(Debug)]
pub struct SealedInline<'a>(&'a [u8]);

impl SealedInline<'_> {
    /// Ciphertext, then tag.
    pub fn as_bytes(&self) -> &[u8] {
        self.0
    }
}

/// Sealed chunks that own their buffer: what stores take. Only the sealer makes
/// one.
pub struct SealedBuf {
    ciphertext: Vec<u8>,
    tags: Vec<[u8; TAG_LEN]>,
    last: bool,
}

impl SealedBuf {
    /// The chunks' ciphertext, back to back; as long as the plaintext was.
    pub fn ciphertext(&self) -> &[u8] {
        &self.ciphertext
    }

    /// One tag a chunk, in order.
    pub fn tags(&self) -> &[[u8; TAG_LEN]] {
        &self.tags
    }

    /// Whether the stream ends with this buffer.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// Each chunk with its tag, for stores that keep the tags inline.
    pub fn chunks(&self) -> impl Iterator<Item = (&[u8], &[u8; TAG_LEN])> {
        let bytes = self.ciphertext();
        self.tags.iter().enumerate().map(move |(i, tag)| {
            let start = i * CHUNK_LEN;
            (&bytes[start..bytes.len().min(start + CHUNK_LEN)], tag)
        })
    }

    /// Takes ciphertext and tags apart, for writing.
    pub fn into_parts(self) -> (Vec<u8>, Vec<[u8; TAG_LEN]>) {
        (self.ciphertext, self.tags)
    }
}

impl std::fmt::Debug for SealedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedBuf")
            .field("len", &self.ciphertext().len())
            .field("chunks", &self.tags.len())
            .field("last", &self.last)
            .finish()
    }
}
