//! How much memory each kind of request buffers in, taken from the one limit of the process before it does.

use std::sync::Arc;

use crypto::chunk::CHUNK_LEN;
use host::memory::{Account, Exhausted, Memory, Share};

use crate::error::Error;

/// Chunks sealed and written at a time: 1 MiB, which is where large writes
/// stop getting cheaper.
pub(crate) const BATCH_LEN: usize = 16 * CHUNK_LEN;
/// Chunks a read: 512 KiB, two of which are in memory for each request.
pub(crate) const READ_CHUNKS: u32 = 8;
/// Reads under way at a time, the one being sent included.
pub(crate) const READS_AHEAD: usize = 2;
/// Batches of a body that are in memory at a time: one is received, one sealed and handed over, one written, and the
/// store has a buffer for another.
const BATCHES: u64 = 4;
/// Batches that wait to be hashed, or are being, where an MD5 is made.
const BATCHES_HASHED: u64 = 2;
/// Tags of an open data file: 16 bytes a chunk, kept up to this.
const TAGS_LEN_MAX: u64 = 128 << 10;

/// Where a request gets its memory.
#[derive(Clone)]
pub(crate) struct Room {
    memory: Arc<Memory>,
    account: Arc<Account>,
}

impl From<Exhausted> for Error {
    fn from(_: Exhausted) -> Self {
        Self::Busy
    }
}

impl Room {
    /// What `account` holds is part of `memory`.
    pub(crate) fn new(memory: Arc<Memory>, account: Arc<Account>) -> Self {
        Self { memory, account }
    }

    /// For a body of `len` bytes on its way into the store.
    pub(crate) async fn for_upload(&self, len: u64, md5: bool) -> Result<Share, Error> {
        self.take(upload_len(len, md5)).await
    }

    /// For `len` bytes of an object on their way out.
    pub(crate) async fn for_download(&self, len: u64) -> Result<Share, Error> {
        self.take(download_len(len)).await
    }

    /// For `len` bytes of an object on their way into another one.
    pub(crate) async fn for_copy(&self, len: u64, md5: bool) -> Result<Share, Error> {
        self.take(download_len(len) + upload_len(len, md5)).await
    }

    /// For a document of `len` bytes, and what it is read into.
    pub(crate) async fn for_document(&self, len: u64) -> Result<Share, Error> {
        self.take(2 * len).await
    }

    async fn take(&self, len: u64) -> Result<Share, Error> {
        Ok(self.memory.take(&self.account, len).await?)
    }
}

fn upload_len(len: u64, md5: bool) -> u64 {
    let batches = BATCHES + if md5 { BATCHES_HASHED } else { 0 };
    len.min(BATCH_LEN as u64) * batches
}

fn download_len(len: u64) -> u64 {
    let read = u64::from(READ_CHUNKS) * CHUNK_LEN as u64;
    let tags = (len / 4096).min(TAGS_LEN_MAX);
    len.next_multiple_of(4096).min(read) * READS_AHEAD as u64 + tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_takes_more_than_a_few_mebibytes_however_long_it_is() {
        assert_eq!(upload_len(u64::MAX, true), 6 << 20);
        assert_eq!(upload_len(u64::MAX, false), 4 << 20);
        assert_eq!(download_len(5 << 40), (1 << 20) + TAGS_LEN_MAX);
        assert_eq!(download_len(1), 8192);
        assert_eq!(upload_len(1, true), 6);
    }
}
