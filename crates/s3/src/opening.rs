//! From sealed chunks in a store to plaintext on its way out.
//!
//! Chunks are read several at a time and opened in place, in the buffer that
//! goes to the connection; one read is under way ahead of the one that is sent.
//! A chunk that is not authentic ends the stream with an error and not one byte
//! of it is given out, so a client never takes a short answer for a whole one.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use crypto::chunk::{CHUNK_LEN, ChunkOpener, ObjectKey, chunk_count};
use futures::{Stream, StreamExt};
use host::memory::Share;

use crate::bucket::BucketId;
use crate::checksum::{Algorithm as ChecksumAlgorithm, Hasher};
use crate::envelope::{Envelopes, Layout, Object, PartHead, parts_digest, stream_place};
use crate::error::Error;
use crate::guard::Received;
use crate::md5::BodyMd5;
use crate::room::{READ_CHUNKS, READS_AHEAD};
use crate::sealing::Plain;
use crate::store::{ObjectRecord, PartRecord, SealedReader};

const CHUNK: u64 = CHUNK_LEN as u64;

/// Plaintext, piece by piece.
pub(crate) type PlainStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// An object opened for reading: its record is authentic, its data not yet read.
pub(crate) struct OpenObject {
    /// The bucket's name.
    bucket: String,
    pub(crate) record: ObjectRecord,
    pub(crate) object: Object,
    reader: Arc<dyn SealedReader>,
}

impl OpenObject {
    /// Checks a record against its envelope: size, number of parts and, for an
    /// object of parts, every one of them.
    pub(crate) fn new(
        envelopes: &Envelopes,
        (bucket, id): (&str, &BucketId),
        record: ObjectRecord,
        reader: Arc<dyn SealedReader>,
    ) -> Result<Self, Error> {
        let object = envelopes.open_object(id, &record.key, &record.envelope)?;
        let parts = reader.parts();
        let sum = parts
            .iter()
            .try_fold(0u64, |sum, part| sum.checked_add(part.plain_len));
        let parts_fit = match object.layout {
            Layout::Single { .. } => parts.len() == 1,
            Layout::Parts { count, digest } => {
                parts.len() == count as usize && parts_digest(parts)? == digest
            }
        };
        if !parts_fit || sum != Some(object.size) || record.size != object.size {
            return Err(Error::Integrity);
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            record,
            object,
            reader,
        })
    }

    /// The parts, for an object of parts.
    pub(crate) fn parts(&self) -> &[PartRecord] {
        match self.object.layout {
            Layout::Single { .. } => &[],
            Layout::Parts { .. } => self.reader.parts(),
        }
    }

    /// The bytes of part `number`: for an object in one piece all of it is part 1.
    pub(crate) fn part_range(&self, number: u32) -> Option<Range<u64>> {
        let mut start = 0;
        for part in self.reader.parts() {
            let end = start + part.plain_len;
            if part.number == number {
                return Some(start..end);
            }
            start = end;
        }
        None
    }

    /// The plaintext of `range`, which lies within the object. An empty object
    /// still has its one chunk opened.
    pub(crate) fn stream(self, key: Arc<ObjectKey>, range: Range<u64>) -> PlainStream {
        let source = Arc::new(Source { open: self, key });
        let reads = Reads::new(Arc::clone(&source), range);
        let opened = futures::stream::iter(reads)
            .map(move |read| {
                let source = Arc::clone(&source);
                async move { source.read(read?).await }
            })
            .buffered(READS_AHEAD)
            .flat_map(|pieces| match pieces {
                Ok(pieces) => futures::stream::iter(pieces.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => futures::stream::iter(vec![Err(error)]),
            });
        Box::pin(opened)
    }
}

struct Source {
    open: OpenObject,
    key: Arc<ObjectKey>,
}

/// One read: chunks of one part, and which of their bytes are wanted.
struct Read {
    part: usize,
    opener: Arc<ChunkOpener>,
    first: u64,
    count: u32,
    /// Relative to the first byte of the first chunk.
    wanted: Range<u64>,
}

impl Source {
    fn opener(&self, part: usize) -> Result<ChunkOpener, Error> {
        let object = &self.open.object;
        let record = &self.open.reader.parts()[part];
        let (salt, number) = match object.layout {
            Layout::Single { salt } => (salt, 0),
            Layout::Parts { .. } => {
                // The object's digest vouches for head, number and length. What is sealed behind the head is not
                // needed, and may be under a key that is gone by the time a slow reader comes to this part.
                let (head, _) = PartHead::split(&record.envelope)?;
                (head.salt, record.number)
            }
        };
        let place = stream_place(&self.open.bucket, &self.open.record.key, number);
        let key = self.key.open_key(&salt);
        Ok(ChunkOpener::new(
            object.algorithm,
            key,
            place,
            record.plain_len,
        ))
    }

    /// Reads and opens; the store may give less than asked at a time.
    async fn read(&self, read: Read) -> Result<Vec<Bytes>, Error> {
        let mut pieces = Vec::with_capacity(1);
        let mut next = read.first;
        let end = read.first + u64::from(read.count);
        let mut offset = 0u64;
        while next < end {
            let want = u32::try_from(end - next).unwrap_or(u32::MAX);
            let stored = self.open.reader.read(read.part, next, want).await?;
            let got = stored.chunk_count() as u64;
            if stored.first_chunk() != next || got == 0 || got > end - next {
                return Err(Error::Integrity);
            }
            let plain: BytesMut = stored.open(&read.opener).map_err(|_| Error::Integrity)?;
            let plain = plain.freeze();
            let len = plain.len() as u64;
            let from = read.wanted.start.clamp(offset, offset + len) - offset;
            let to = read.wanted.end.clamp(offset, offset + len) - offset;
            if from < to {
                let within = |at| usize::try_from(at).expect("at most the buffer's length");
                pieces.push(plain.slice(within(from)..within(to)));
            }
            offset += len;
            next += got;
        }
        let sum: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if sum != read.wanted.end - read.wanted.start {
            return Err(Error::Integrity);
        }
        Ok(pieces)
    }
}

/// Splits a range into reads, part by part, lazily.
struct Reads {
    source: Arc<Source>,
    /// What is still wanted, by offset in the object.
    range: Range<u64>,
    part: usize,
    part_start: u64,
    opener: Option<Arc<ChunkOpener>>,
    done: bool,
}

impl Reads {
    fn new(source: Arc<Source>, range: Range<u64>) -> Self {
        // An empty part of an object that is not empty has nothing to read; an
        // empty object has one chunk, whose tag is checked.
        let done = range.is_empty() && source.open.object.size > 0;
        Self {
            source,
            range,
            part: 0,
            part_start: 0,
            opener: None,
            done,
        }
    }

    fn advance(&mut self) -> Result<Option<Read>, Error> {
        let parts = self.source.open.reader.parts();
        while let Some(part) = parts.get(self.part) {
            let part_end = self.part_start + part.plain_len;
            // The only chunk of an empty object is opened for its tag's sake.
            let empty_object = self.source.open.object.size == 0;
            if self.range.start < part_end || empty_object {
                break;
            }
            self.part += 1;
            self.part_start = part_end;
            self.opener = None;
        }
        let Some(part) = parts.get(self.part) else {
            return Err(Error::Integrity);
        };
        let opener = match &self.opener {
            Some(opener) => Arc::clone(opener),
            None => {
                let opener = Arc::new(self.source.opener(self.part)?);
                self.opener = Some(Arc::clone(&opener));
                opener
            }
        };
        let from = self.range.start - self.part_start;
        let to = (self.range.end - self.part_start).min(part.plain_len);
        let first = from / CHUNK;
        let chunks = to.div_ceil(CHUNK).max(first + 1) - first;
        let count = u32::try_from(chunks).unwrap_or(u32::MAX).min(READ_CHUNKS);
        debug_assert!(first + u64::from(count) <= chunk_count(part.plain_len));
        let to = to.min((first + u64::from(count)) * CHUNK);
        let base = first * CHUNK;
        self.range.start = self.part_start + to;
        self.done = self.range.start >= self.range.end;
        Ok(Some(Read {
            part: self.part,
            opener,
            first,
            count,
            wanted: from - base..to - base,
        }))
    }
}

impl Iterator for Reads {
    type Item = Result<Read, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.advance();
        self.done |= read.is_err();
        read.transpose()
    }
}

/// An object's plaintext on its way into another object.
pub(crate) struct CopySource {
    stream: PlainStream,
    len: u64,
    seen: u64,
    md5: Option<BodyMd5>,
    checksum: Hasher,
    share: Share,
}

impl CopySource {
    pub(crate) fn new(
        stream: PlainStream,
        len: u64,
        md5: Option<BodyMd5>,
        checksum: ChecksumAlgorithm,
        share: Share,
    ) -> Self {
        Self {
            stream,
            len,
            seen: 0,
            md5,
            checksum: Hasher::new(checksum),
            share,
        }
    }
}

impl Plain for CopySource {
    fn plain_len(&self) -> u64 {
        self.len
    }

    async fn next_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(md5) = &mut self.md5 {
            md5.room().await?;
        }
        let Some(bytes) = self.stream.next().await.transpose()? else {
            return Ok(None);
        };
        self.seen += bytes.len() as u64;
        if let Some(md5) = &mut self.md5 {
            md5.push(&bytes);
        }
        self.checksum.update(&bytes);
        Ok(Some(bytes))
    }

    async fn received(self) -> Result<Received, Error> {
        if self.seen != self.len {
            return Err(Error::Integrity);
        }
        let md5 = match self.md5 {
            Some(md5) => Some(md5.finish().await?),
            None => None,
        };
        Ok(Received {
            len: self.seen,
            md5,
            checksums: vec![self.checksum.finish()],
            share: Some(self.share),
        })
    }
}
