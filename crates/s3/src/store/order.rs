//! The rules every sink and every change checks, whatever the store.

use bytes::Bytes;
use crypto::chunk::{CHUNK_LEN, SealedBuf};

use super::{ENVELOPE_LEN_MAX, KEY_LEN_MAX, PartSeen, StoreError};

/// Watches that a stream of sealed chunks is whole: full chunks, one tag each, one last chunk.
#[derive(Debug, Default)]
pub(crate) struct ChunkOrder {
    plain_len: u64,
    ended: bool,
}

impl ChunkOrder {
    pub(crate) fn accept(&mut self, sealed: &SealedBuf) -> Result<(), StoreError> {
        let len = sealed.ciphertext().len();
        if self.ended {
            return Err(StoreError::Misuse("chunks after the last one"));
        }
        let chunks = if sealed.is_last() && self.plain_len + len as u64 == 0 {
            1
        } else {
            len.div_ceil(CHUNK_LEN)
        };
        if sealed.tags().len() != chunks || (!sealed.is_last() && !len.is_multiple_of(CHUNK_LEN)) {
            return Err(StoreError::Misuse(
                "a chunk that is not full before the last one",
            ));
        }
        self.plain_len += len as u64;
        self.ended = sealed.is_last();
        Ok(())
    }

    pub(crate) fn end(&self) -> Result<(), StoreError> {
        if self.ended {
            Ok(())
        } else {
            Err(StoreError::Misuse("a commit before the last chunk"))
        }
    }

    pub(crate) fn plain_len(&self) -> u64 {
        self.plain_len
    }
}

pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    match key.len() {
        0 => Err(StoreError::Misuse("an empty key")),
        1..=KEY_LEN_MAX => Ok(()),
        _ => Err(StoreError::KeyTooLong),
    }
}

pub(crate) fn check_envelope(envelope: &Bytes) -> Result<(), StoreError> {
    if envelope.len() > ENVELOPE_LEN_MAX {
        return Err(StoreError::Misuse(
            "an envelope or setting that is too long",
        ));
    }
    Ok(())
}

pub(crate) fn check_part_order(parts: &[PartSeen]) -> Result<(), StoreError> {
    let ascending = parts.windows(2).all(|pair| pair[0].number < pair[1].number);
    if parts.is_empty() || !ascending {
        Err(StoreError::InvalidPartOrder)
    } else {
        Ok(())
    }
}
