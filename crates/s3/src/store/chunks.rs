//! Chunks as they come back from a store: untrusted, good for opening only.

use bytes::BytesMut;
use crypto::CryptoError;
use crypto::chunk::{CHUNK_LEN, ChunkOpener, TAG_LEN};

/// Consecutive sealed chunks of one part, read back from a store.
///
/// Nothing vouches for these bytes until an opener has accepted them, so there is no way to look
/// at them: [`open`](Self::open) is all one can do.
pub struct StoredChunks {
    first: u64,
    ciphertext: BytesMut,
    tags: Vec<[u8; TAG_LEN]>,
}

impl StoredChunks {
    /// For implementations of a store: `ciphertext` is whole chunks from number `first` on, the
    /// stream's last one may be shorter; one tag a chunk.
    pub fn new(first: u64, ciphertext: BytesMut, tags: Vec<[u8; TAG_LEN]>) -> Self {
        Self {
            first,
            ciphertext,
            tags,
        }
    }

    /// Number of the first chunk within its part.
    pub fn first_chunk(&self) -> u64 {
        self.first
    }

    /// How many chunks these are.
    pub fn chunk_count(&self) -> usize {
        self.tags.len()
    }

    /// Length of the ciphertext in bytes, which is that of the plaintext.
    pub fn len(&self) -> usize {
        self.ciphertext.len()
    }

    /// Whether there is no ciphertext; the one chunk of an empty part still has a tag to check.
    pub fn is_empty(&self) -> bool {
        self.ciphertext.is_empty()
    }

    /// Opens every chunk in place, and hands out the plaintext only if all of them are authentic.
    ///
    /// # Errors
    /// If one chunk is not what was sealed at this place; none of the plaintext is handed out then.
    pub fn open(mut self, opener: &ChunkOpener) -> Result<BytesMut, CryptoError> {
        let mut chunks = self.ciphertext.chunks_mut(CHUNK_LEN);
        for (index, tag) in (self.first..).zip(&self.tags) {
            opener.open(index, chunks.next().unwrap_or_default(), tag)?;
        }
        Ok(self.ciphertext)
    }
}

impl std::fmt::Debug for StoredChunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "StoredChunks({} from {}, {} bytes)",
            self.tags.len(),
            self.first,
            self.ciphertext.len()
        )
    }
}
