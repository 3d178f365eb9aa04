//! A store around a store that fails and dawdles, by a seed.
//!
//! Every call of the trait, its sinks and its readers passes here first. What it may do is what the
//! trait allows a store to do: fail *before* anything happened, or (for changes) do it and answer
//! [`StoreError::Unknown`], after which nobody knows; and take its time. Equal seeds and equal orders of
//! calls give equal faults.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use crypto::chunk::SealedBuf;
use host::Entropy;

use super::{
    BucketRecord, Commit, Condition, ListEntry, ListQuery, ObjectRecord, ObjectStore, Page,
    PartRecord, PartSeen, PartSink, PutSink, Resealed, SealedAt, SealedReader, SealedRow,
    StoreError, StoredChunks, UploadEntry, UploadId, UploadQuery, UploadRecord,
};

/// How often what goes wrong; the chances are in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Calls that fail with an I/O error or a full disk and do nothing.
    pub fail_per_mille: u16,
    /// Changes that happen and are answered with [`StoreError::Unknown`].
    pub lose_answer_per_mille: u16,
    /// Calls that are delayed.
    pub delay_per_mille: u16,
    /// The longest delay.
    pub delay_max: Duration,
}

struct Dice {
    faults: Faults,
    entropy: Arc<dyn Entropy>,
}

enum Fate {
    Go,
    LoseAnswer,
}

impl Dice {
    fn hits(&self, per_mille: u16) -> bool {
        self.entropy.number() % 1000 < u64::from(per_mille)
    }

    async fn before(&self) -> Result<(), StoreError> {
        if self.hits(self.faults.delay_per_mille) {
            let longest = u64::try_from(self.faults.delay_max.as_micros())
                .unwrap_or(u64::MAX)
                .max(1);
            tokio::time::sleep(Duration::from_micros(self.entropy.number() % longest)).await;
        }
        if !self.hits(self.faults.fail_per_mille) {
            return Ok(());
        }
        if self.hits(500) {
            return Err(StoreError::NoSpace);
        }
        Err(StoreError::Io {
            what: "injected fault",
            source: io::Error::other("injected"),
        })
    }

    async fn before_change(&self) -> Result<Fate, StoreError> {
        self.before().await?;
        Ok(if self.hits(self.faults.lose_answer_per_mille) {
            Fate::LoseAnswer
        } else {
            Fate::Go
        })
    }
}

impl Fate {
    fn answer<T>(self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match self {
            Self::Go => result,
            Self::LoseAnswer => Err(StoreError::Unknown("the answer was lost".to_owned())),
        }
    }
}

/// Wraps a store with [`Faults`].
pub struct FaultyStore<S> {
    inner: S,
    dice: Arc<Dice>,
}

impl<S> FaultyStore<S> {
    /// Wraps `inner`; what goes wrong follows from `entropy`, whose seed a test prints with every failure.
    pub fn new(inner: S, faults: Faults, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            inner,
            dice: Arc::new(Dice { faults, entropy }),
        }
    }

    /// The store inside, which does not fail.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

/// One line a method: a read fails before, a change also after.
macro_rules! read {
    ($this:ident . $method:ident ( $($arg:expr),* )) => {{
        $this.dice.before().await?;
        $this.inner.$method($($arg),*).await
    }};
}
macro_rules! change {
    ($this:ident . $method:ident ( $($arg:expr),* )) => {{
        let fate = $this.dice.before_change().await?;
        fate.answer($this.inner.$method($($arg),*).await)
    }};
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for FaultyStore<S> {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        change!(self.create_bucket(bucket))
    }

    async fn close_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        change!(self.close_bucket(bucket))
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        change!(self.delete_bucket(bucket))
    }

    async fn buckets(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<BucketRecord>, StoreError> {
        read!(self.buckets(after, limit))
    }

    async fn sealed(
        &self,
        after: Option<&SealedAt>,
        limit: usize,
    ) -> Result<Page<SealedRow>, StoreError> {
        read!(self.sealed(after, limit))
    }

    async fn reseal(&self, records: Vec<Resealed>) -> Result<u64, StoreError> {
        change!(self.reseal(records))
    }

    async fn begin_put(
        &self,
        bucket: &str,
        key: &str,
        plain_len: Option<u64>,
    ) -> Result<Box<dyn PutSink>, StoreError> {
        let inner = read!(self.begin_put(bucket, key, plain_len))?;
        Ok(Box::new(FaultySink {
            inner,
            dice: self.dice.clone(),
        }))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectRecord, StoreError> {
        read!(self.head(bucket, key))
    }

    async fn open(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<(ObjectRecord, Arc<dyn SealedReader>), StoreError> {
        let (record, inner) = read!(self.open(bucket, key))?;
        Ok((
            record,
            Arc::new(FaultyReader {
                inner,
                dice: self.dice.clone(),
            }),
        ))
    }

    async fn replace_envelope(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        envelope: Bytes,
    ) -> Result<ObjectRecord, StoreError> {
        change!(self.replace_envelope(bucket, key, sequence, envelope))
    }

    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<bool, StoreError> {
        change!(self.delete(bucket, key, condition))
    }

    async fn delete_many(
        &self,
        bucket: &str,
        keys: &[(String, Condition)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        change!(self.delete_many(bucket, keys))
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<Page<ListEntry>, StoreError> {
        read!(self.list(bucket, query))
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        envelope: Bytes,
        initiated: SystemTime,
    ) -> Result<UploadRecord, StoreError> {
        change!(self.create_upload(bucket, key, envelope, initiated))
    }

    async fn upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
    ) -> Result<UploadRecord, StoreError> {
        read!(self.upload(bucket, key, id))
    }

    async fn begin_part(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        number: u32,
        plain_len: Option<u64>,
    ) -> Result<Box<dyn PartSink>, StoreError> {
        let inner = read!(self.begin_part(bucket, key, id, number, plain_len))?;
        Ok(Box::new(FaultySink {
            inner,
            dice: self.dice.clone(),
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
        read!(self.parts(bucket, key, id, after, limit))
    }

    async fn uploads(
        &self,
        bucket: &str,
        query: &UploadQuery,
    ) -> Result<Page<UploadEntry>, StoreError> {
        read!(self.uploads(bucket, query))
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        parts: &[PartSeen],
        commit: Commit,
    ) -> Result<ObjectRecord, StoreError> {
        change!(self.complete_upload(bucket, key, id, parts, commit))
    }

    async fn abort_upload(&self, bucket: &str, key: &str, id: &UploadId) -> Result<(), StoreError> {
        change!(self.abort_upload(bucket, key, id))
    }
}

struct FaultySink<S: ?Sized> {
    dice: Arc<Dice>,
    inner: Box<S>,
}

#[async_trait]
impl PutSink for FaultySink<dyn PutSink> {
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        read!(self.write(sealed))
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<ObjectRecord, StoreError> {
        change!(self.commit(commit))
    }
}

#[async_trait]
impl PartSink for FaultySink<dyn PartSink> {
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        read!(self.write(sealed))
    }

    async fn commit(
        self: Box<Self>,
        envelope: Bytes,
        modified: SystemTime,
    ) -> Result<PartRecord, StoreError> {
        change!(self.commit(envelope, modified))
    }
}

struct FaultyReader {
    inner: Arc<dyn SealedReader>,
    dice: Arc<Dice>,
}

#[async_trait]
impl SealedReader for FaultyReader {
    fn parts(&self) -> &[PartRecord] {
        self.inner.parts()
    }

    async fn read(&self, part: usize, first: u64, count: u32) -> Result<StoredChunks, StoreError> {
        read!(self.read(part, first, count))
    }
}
