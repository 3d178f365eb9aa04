//! Reading one object, pinned.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crypto::chunk::{CHUNK_LEN, TAG_LEN};
use parking_lot::Mutex;

use super::data_file::PartFile;
use super::lanes::blocking;
use super::layout::{Directory, FileId, Shape};
use super::lifecycle::Pin;
use crate::store::{PartRecord, READ_CHUNKS_MAX, SealedReader, StoreError, StoredChunks};

/// The bytes of an opened object.
#[derive(Debug)]
pub(super) enum Bodies {
    /// Ciphertext, then tags; one part.
    Inline(Bytes),
    /// One file a part.
    Files(Vec<FileId>),
}

pub(super) struct LocalReader {
    parts: Vec<PartRecord>,
    bodies: Bodies,
    directory: Arc<Directory>,
    /// The file read last: objects are read front to back.
    recent: Mutex<Option<(usize, Arc<PartFile>)>>,
    _pin: Option<Pin>,
}

impl LocalReader {
    pub(super) fn new(
        parts: Vec<PartRecord>,
        bodies: Bodies,
        directory: Arc<Directory>,
        pin: Option<Pin>,
    ) -> Self {
        Self {
            parts,
            bodies,
            directory,
            recent: Mutex::new(None),
            _pin: pin,
        }
    }

    fn recent(&self, part: usize) -> Option<Arc<PartFile>> {
        self.recent
            .lock()
            .as_ref()
            .filter(|(at, _)| *at == part)
            .map(|(_, file)| file.clone())
    }

    async fn read_file(
        &self,
        part: usize,
        id: FileId,
        first: u64,
        count: u64,
    ) -> Result<StoredChunks, StoreError> {
        let open = self.recent(part);
        if let Some(cached) = open
            .as_ref()
            .and_then(|file| file.read_cached(first, count))
        {
            return Ok(cached);
        }
        let (directory, plain_len) = (self.directory.clone(), self.parts[part].plain_len);
        let (file, chunks) = blocking(move || {
            let file = match open {
                Some(file) => file,
                None => Arc::new(PartFile::open(&directory, id, plain_len)?),
            };
            let chunks = file.read(first, count)?;
            Ok((file, chunks))
        })
        .await?;
        *self.recent.lock() = Some((part, file));
        Ok(chunks)
    }
}

#[async_trait]
impl SealedReader for LocalReader {
    fn parts(&self) -> &[PartRecord] {
        &self.parts
    }

    async fn read(&self, part: usize, first: u64, count: u32) -> Result<StoredChunks, StoreError> {
        let record = self
            .parts
            .get(part)
            .ok_or(StoreError::Misuse("a read of a part that is not there"))?;
        let shape = Shape::of(record.plain_len);
        if first >= shape.chunks || count == 0 {
            return Err(StoreError::Misuse("a read outside a part"));
        }
        let count = u64::from(count.min(READ_CHUNKS_MAX)).min(shape.chunks - first);
        match &self.bodies {
            Bodies::Files(files) => self.read_file(part, files[part], first, count).await,
            Bodies::Inline(sealed) => {
                let expected = record.plain_len + shape.tags_len();
                if sealed.len() as u64 != expected {
                    return Err(StoreError::Corrupt(
                        "an inline object is not as long as its record says".into(),
                    ));
                }
                let address = |count| usize::try_from(count).expect("within what is in memory");
                let (data, tags) = sealed.split_at(address(record.plain_len));
                let (from, until) = (
                    address(first) * CHUNK_LEN,
                    address(first + count) * CHUNK_LEN,
                );
                let data = BytesMut::from(&data[from..until.min(data.len())]);
                let (tags, _) =
                    tags[address(first) * TAG_LEN..address(first + count) * TAG_LEN].as_chunks();
                Ok(StoredChunks::new(first, data, tags.to_vec()))
            }
        }
    }
}
