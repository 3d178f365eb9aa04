//! A store in memory: the reference that others are compared with, and a quick twin for tests.
//!
//! Written to be obviously right, not fast: maps and filters under one lock. Durable for as long as
//! it lives; everything else is promised as [`ObjectStore`] says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crypto::chunk::{CHUNK_LEN, SealedBuf, TAG_LEN};
use crypto::random::Random;
use parking_lot::Mutex;

use super::list::common_prefix;
use super::order::ChunkOrder;
use super::{
    BucketRecord, Commit, Condition, ListEntry, ListQuery, ObjectRecord, ObjectStore,
    PART_NUMBER_MAX, Page, PartRecord, PartSeen, PartSink, PutSink, READ_CHUNKS_MAX, Resealed,
    SealedAt, SealedReader, SealedRow, StoreError, StoredChunks, UploadEntry, UploadId,
    UploadQuery, UploadRecord, check_envelope, check_key, check_part_order,
};

/// Keeps sealed objects in memory.
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    random: Arc<dyn Random>,
}

impl MemoryStore {
    /// An empty store; `random` is for upload ids.
    pub fn new(random: Arc<dyn Random>) -> Self {
        Self {
            state: Arc::default(),
            random,
        }
    }
}

#[derive(Default)]
struct State {
    sequence: u64,
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Default)]
struct Bucket {
    closed: bool,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<(String, UploadId), Upload>,
}

#[derive(Clone)]
struct Object {
    record: ObjectRecord,
    /// Its number, or that of the upload it was made from.
    content: u64,
    parts: Arc<Vec<Part>>,
}

struct Upload {
    record: UploadRecord,
    parts: BTreeMap<u32, Part>,
}

#[derive(Clone)]
struct Part {
    record: PartRecord,
    sealed: Arc<Sealed>,
}

#[derive(Default)]
struct Sealed {
    ciphertext: Vec<u8>,
    tags: Vec<[u8; TAG_LEN]>,
}

impl State {
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn bucket(&mut self, bucket: &str) -> Result<&mut Bucket, StoreError> {
        self.buckets
            .get_mut(bucket)
            .filter(|bucket| !bucket.closed)
            .ok_or(StoreError::NoSuchBucket)
    }

    /// A bucket, closed or not, that holds no objects.
    fn empty_bucket(&mut self, bucket: &str) -> Result<&mut Bucket, StoreError> {
        let bucket = self.buckets.get_mut(bucket);
        let bucket = bucket.ok_or(StoreError::NoSuchBucket)?;
        if bucket.objects.is_empty() {
            Ok(bucket)
        } else {
            Err(StoreError::BucketNotEmpty)
        }
    }

    /// Shows every sealed record.
    fn each_sealed(&mut self, mut show: impl FnMut(SealedAt, &mut Bytes)) {
        let part = |of, number| SealedAt::Part { of, number };
        for (id, bucket) in &mut self.buckets {
            for (key, object) in &mut bucket.objects {
                let at = SealedAt::Object {
                    bucket: id.clone(),
                    key: key.clone(),
                };
                show(at, &mut object.record.envelope);
                if object.record.part_count == 0 {
                    continue;
                }
                let mut parts = Vec::clone(&object.parts);
                for Part { record, .. } in &mut parts {
                    show(part(object.content, record.number), &mut record.envelope);
                }
                object.parts = Arc::new(parts);
            }
            for ((key, upload_id), upload) in &mut bucket.uploads {
                let number = upload_id.sequence();
                let at = SealedAt::Upload {
                    bucket: id.clone(),
                    key: key.clone(),
                    number,
                };
                show(at, &mut upload.record.envelope);
                for Part { record, .. } in upload.parts.values_mut() {
                    show(part(number, record.number), &mut record.envelope);
                }
            }
        }
    }

    fn upload(
        &mut self,
        bucket: &str,
        key: &str,
        id: &UploadId,
    ) -> Result<&mut Upload, StoreError> {
        self.bucket(bucket)?
            .uploads
            .get_mut(&(key.to_owned(), id.clone()))
            .ok_or(StoreError::NoSuchUpload)
    }

    fn check(&mut self, bucket: &str, key: &str, condition: Condition) -> Result<(), StoreError> {
        condition.check(
            self.bucket(bucket)?
                .objects
                .get(key)
                .map(|object| object.record.sequence),
        )
    }
}

fn page<T>(mut entries: Vec<T>, limit: usize) -> Page<T> {
    let truncated = limit > 0 && entries.len() > limit;
    entries.truncate(limit);
    Page { entries, truncated }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.buckets.entry(bucket.to_owned()).or_default().closed = false;
        Ok(())
    }

    async fn close_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        self.state.lock().empty_bucket(bucket)?.closed = true;
        Ok(())
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.empty_bucket(bucket)?;
        state.buckets.remove(bucket);
        Ok(())
    }

    async fn buckets(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<BucketRecord>, StoreError> {
        let state = self.state.lock();
        let all = state
            .buckets
            .iter()
            .filter(|(id, _)| after.is_none_or(|after| id.as_str() > after))
            .map(|(id, bucket)| BucketRecord {
                id: id.clone(),
                closed: bucket.closed,
            });
        Ok(page(all.collect(), limit))
    }

    async fn sealed(
        &self,
        after: Option<&SealedAt>,
        limit: usize,
    ) -> Result<Page<SealedRow>, StoreError> {
        let mut all = BTreeMap::new();
        self.state
            .lock()
            .each_sealed(|at, envelope| drop(all.insert(at, envelope.clone())));
        let wanted = all
            .into_iter()
            .filter(|(at, _)| after.is_none_or(|after| at > after))
            .map(|(at, envelope)| SealedRow { at, envelope });
        Ok(page(wanted.collect(), limit))
    }

    async fn reseal(&self, records: Vec<Resealed>) -> Result<u64, StoreError> {
        for record in &records {
            check_envelope(&record.envelope)?;
        }
        let mut new: BTreeMap<SealedAt, Resealed> = records
            .into_iter()
            .map(|record| (record.row.at.clone(), record))
            .collect();
        let mut replaced = 0;
        self.state.lock().each_sealed(|at, envelope| {
            if let Some(record) = new.remove(&at)
                && record.row.envelope == *envelope
            {
                *envelope = record.envelope;
                replaced += 1;
            }
        });
        Ok(replaced)
    }

    async fn begin_put(
        &self,
        bucket: &str,
        key: &str,
        _len: Option<u64>,
    ) -> Result<Box<dyn PutSink>, StoreError> {
        check_key(key)?;
        self.state.lock().bucket(bucket)?;
        let target = Target {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            part: None,
        };
        Ok(Box::new(MemorySink {
            state: self.state.clone(),
            target,
            intake: Intake::default(),
        }))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectRecord, StoreError> {
        let mut state = self.state.lock();
        let object = state
            .bucket(bucket)?
            .objects
            .get(key)
            .ok_or(StoreError::NoSuchKey)?;
        Ok(object.record.clone())
    }

    async fn open(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<(ObjectRecord, Arc<dyn SealedReader>), StoreError> {
        let mut state = self.state.lock();
        let Object { record, parts, .. } = state
            .bucket(bucket)?
            .objects
            .get(key)
            .ok_or(StoreError::NoSuchKey)?
            .clone();
        let records = parts.iter().map(|part| part.record.clone()).collect();
        Ok((record, Arc::new(MemoryReader { records, parts })))
    }

    async fn replace_envelope(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        envelope: Bytes,
    ) -> Result<ObjectRecord, StoreError> {
        check_envelope(&envelope)?;
        let mut state = self.state.lock();
        if !state.bucket(bucket)?.objects.contains_key(key) {
            return Err(StoreError::NoSuchKey);
        }
        state.check(bucket, key, Condition::Sequence(sequence))?;
        let sequence = state.next_sequence();
        let object = state
            .bucket(bucket)?
            .objects
            .get_mut(key)
            .ok_or(StoreError::NoSuchKey)?;
        object.record.sequence = sequence;
        object.record.envelope = envelope;
        Ok(object.record.clone())
    }

    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        state.check(bucket, key, condition)?;
        Ok(state.bucket(bucket)?.objects.remove(key).is_some())
    }

    async fn delete_many(
        &self,
        bucket: &str,
        keys: &[(String, Condition)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        self.state.lock().bucket(bucket)?;
        let mut results = Vec::new();
        for (key, condition) in keys {
            results.push(self.delete(bucket, key, *condition).await);
        }
        Ok(results)
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<Page<ListEntry>, StoreError> {
        let mut state = self.state.lock();
        let mut entries: Vec<ListEntry> = Vec::new();
        for (key, object) in &state.bucket(bucket)?.objects {
            if !key.starts_with(&query.prefix) {
                continue;
            }
            let entry = match common_prefix(key, &query.prefix, query.delimiter.as_deref()) {
                Some(rolled) => ListEntry::CommonPrefix(rolled.to_owned()),
                None => ListEntry::Object(object.record.clone()),
            };
            let again = entries
                .last()
                .is_some_and(|last| last.name() == entry.name());
            if !again
                && query
                    .after
                    .as_deref()
                    .is_none_or(|after| entry.name() > after)
            {
                entries.push(entry);
            }
        }
        Ok(page(entries, query.limit))
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        envelope: Bytes,
        initiated: SystemTime,
    ) -> Result<UploadRecord, StoreError> {
        check_key(key)?;
        check_envelope(&envelope)?;
        let mut random = [0; 16];
        self.random.fill(&mut random);
        let mut state = self.state.lock();
        state.bucket(bucket)?;
        let id = UploadId::new(state.next_sequence(), random);
        let record = UploadRecord {
            id: id.clone(),
            key: key.to_owned(),
            initiated,
            envelope,
        };
        let upload = Upload {
            record: record.clone(),
            parts: BTreeMap::new(),
        };
        state
            .bucket(bucket)?
            .uploads
            .insert((key.to_owned(), id), upload);
        Ok(record)
    }

    async fn upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
    ) -> Result<UploadRecord, StoreError> {
        Ok(self.state.lock().upload(bucket, key, id)?.record.clone())
    }

    async fn begin_part(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        number: u32,
        _plain_len: Option<u64>,
    ) -> Result<Box<dyn PartSink>, StoreError> {
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(StoreError::Misuse("a part number outside 1 to 10000"));
        }
        self.state.lock().upload(bucket, key, id)?;
        let target = Target {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            part: Some((id.clone(), number)),
        };
        Ok(Box::new(MemorySink {
            state: self.state.clone(),
            target,
            intake: Intake::default(),
        }))
    }

    async fn parts(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        after: u32,
        limit: usize,
    ) -> Result<Page<PartRecord>, StoreError> {
        let mut state = self.state.lock();
        let parts = &state.upload(bucket, key, id)?.parts;
        let above = parts
            .values()
            .map(|part| part.record.clone())
            .filter(|record| record.number > after);
        Ok(page(above.collect(), limit))
    }

    async fn uploads(
        &self,
        bucket: &str,
        query: &UploadQuery,
    ) -> Result<Page<UploadEntry>, StoreError> {
        let mut state = self.state.lock();
        let mut entries: Vec<UploadEntry> = Vec::new();
        for ((key, id), upload) in &state.bucket(bucket)?.uploads {
            if !key.starts_with(&query.prefix) {
                continue;
            }
            if let Some(rolled) = common_prefix(key, &query.prefix, query.delimiter.as_deref()) {
                let entry = UploadEntry::CommonPrefix(rolled.to_owned());
                if entries.last() != Some(&entry)
                    && query
                        .after_key
                        .as_deref()
                        .is_none_or(|after| rolled > after)
                {
                    entries.push(entry);
                }
                continue;
            }
            let listed = match (query.after_key.as_ref(), query.after_upload.as_ref()) {
                (None, _) => true,
                (Some(after), None) => key > after,
                (Some(after), Some(after_id)) => key > after || (key == after && id > after_id),
            };
            if listed {
                entries.push(UploadEntry::Upload(upload.record.clone()));
            }
        }
        Ok(page(entries, query.limit))
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        parts: &[PartSeen],
        commit: Commit,
    ) -> Result<ObjectRecord, StoreError> {
        check_envelope(&commit.envelope)?;
        check_part_order(parts)?;
        let mut state = self.state.lock();
        let there = &state.upload(bucket, key, id)?.parts;
        let mut chosen = Vec::new();
        for seen in parts {
            let part = there
                .get(&seen.number)
                .filter(|part| part.record.sequence == seen.sequence);
            chosen.push(
                part.ok_or(StoreError::InvalidPart {
                    number: seen.number,
                })?
                .clone(),
            );
        }
        state.check(bucket, key, commit.condition)?;
        let record = ObjectRecord {
            key: key.to_owned(),
            size: chosen.iter().map(|part| part.record.plain_len).sum(),
            modified: commit.modified,
            sequence: state.next_sequence(),
            part_count: u32::try_from(chosen.len()).expect("at most 10,000 parts"),
            envelope: commit.envelope,
        };
        let bucket = state.bucket(bucket)?;
        bucket.uploads.remove(&(key.to_owned(), id.clone()));
        bucket.objects.insert(
            key.to_owned(),
            Object {
                record: record.clone(),
                content: id.sequence(),
                parts: Arc::new(chosen),
            },
        );
        Ok(record)
    }

    async fn abort_upload(&self, bucket: &str, key: &str, id: &UploadId) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.upload(bucket, key, id)?;
        state
            .bucket(bucket)?
            .uploads
            .remove(&(key.to_owned(), id.clone()));
        Ok(())
    }
}

struct Target {
    bucket: String,
    key: String,
    part: Option<(UploadId, u32)>,
}

#[derive(Default)]
struct Intake {
    order: ChunkOrder,
    sealed: Sealed,
    failed: bool,
}

impl Intake {
    fn write(&mut self, buf: &SealedBuf) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Misuse("a sink is used after it failed"));
        }
        let accepted = self.order.accept(buf);
        self.failed = accepted.is_err();
        self.sealed.ciphertext.extend_from_slice(buf.ciphertext());
        self.sealed.tags.extend_from_slice(buf.tags());
        accepted
    }

    fn finish(self) -> Result<(u64, Arc<Sealed>), StoreError> {
        if self.failed {
            return Err(StoreError::Misuse("a sink is used after it failed"));
        }
        self.order.end()?;
        Ok((self.order.plain_len(), Arc::new(self.sealed)))
    }
}

struct MemorySink {
    state: Arc<Mutex<State>>,
    target: Target,
    intake: Intake,
}

#[async_trait]
impl PutSink for MemorySink {
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        self.intake.write(&sealed)
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<ObjectRecord, StoreError> {
        let Self {
            state,
            target: Target { bucket, key, .. },
            intake,
        } = *self;
        check_envelope(&commit.envelope)?;
        let (size, sealed) = intake.finish()?;
        let mut state = state.lock();
        state.check(&bucket, &key, commit.condition)?;
        let sequence = state.next_sequence();
        let modified = commit.modified;
        let record = ObjectRecord {
            key: key.clone(),
            size,
            modified,
            sequence,
            part_count: 0,
            envelope: commit.envelope,
        };
        let part = PartRecord {
            number: 1,
            plain_len: size,
            modified,
            sequence,
            envelope: Bytes::new(),
        };
        let parts = Arc::new(vec![Part {
            record: part,
            sealed,
        }]);
        state.bucket(&bucket)?.objects.insert(
            key,
            Object {
                record: record.clone(),
                content: sequence,
                parts,
            },
        );
        Ok(record)
    }
}

#[async_trait]
impl PartSink for MemorySink {
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        self.intake.write(&sealed)
    }

    async fn commit(
        self: Box<Self>,
        envelope: Bytes,
        modified: SystemTime,
    ) -> Result<PartRecord, StoreError> {
        let Self {
            state,
            target: Target { bucket, key, part },
            intake,
        } = *self;
        check_envelope(&envelope)?;
        let (plain_len, sealed) = intake.finish()?;
        let (id, number) = part.ok_or(StoreError::Misuse("a part without an upload"))?;
        let mut state = state.lock();
        state.upload(&bucket, &key, &id)?;
        let sequence = state.next_sequence();
        let record = PartRecord {
            number,
            plain_len,
            modified,
            sequence,
            envelope,
        };
        let part = Part {
            record: record.clone(),
            sealed,
        };
        state.upload(&bucket, &key, &id)?.parts.insert(number, part);
        Ok(record)
    }
}

struct MemoryReader {
    records: Vec<PartRecord>,
    parts: Arc<Vec<Part>>,
}

#[async_trait]
impl SealedReader for MemoryReader {
    fn parts(&self) -> &[PartRecord] {
        &self.records
    }

    async fn read(&self, part: usize, first: u64, count: u32) -> Result<StoredChunks, StoreError> {
        let part = self
            .parts
            .get(part)
            .ok_or(StoreError::Misuse("a read of a part that is not there"))?;
        let Sealed { ciphertext, tags } = &*part.sealed;
        let from = usize::try_from(first).unwrap_or(usize::MAX);
        if from >= tags.len() || count == 0 {
            return Err(StoreError::Misuse("a read outside a part"));
        }
        let until = (from + count.min(READ_CHUNKS_MAX) as usize).min(tags.len());
        let bytes = &ciphertext[from * CHUNK_LEN..(until * CHUNK_LEN).min(ciphertext.len())];
        Ok(StoredChunks::new(
            first,
            BytesMut::from(bytes),
            tags[from..until].to_vec(),
        ))
    }
}
