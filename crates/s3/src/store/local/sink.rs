//! Taking in sealed chunks: small objects are held until commit, large ones go to a data file.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use crypto::chunk::{CHUNK_LEN, SealedBuf};
use tokio::task::JoinHandle;

use super::change::{self, Body, NewPart};
use super::data_file::{Published, Writer};
use super::lanes::{BULK, blocking, joined};
use super::layout::FileId;
use super::shared::Shared;
use crate::store::order::ChunkOrder;
use crate::store::{
    Commit, ObjectRecord, PartRecord, PartSink, PutSink, StoreError, UploadId, check_envelope,
};

/// Sealed bytes handed to a blocking thread at a time; as much again may be on its way to disk.
const HAND_OVER_LEN: usize = 1 << 20;

/// The file that chunks go to.
enum Target {
    Begun(Writer),
    New(FileId),
}

/// What both sinks have in common: everything up to the commit.
struct Intake {
    shared: Arc<Shared>,
    expected_len: Option<u64>,
    inline_len_max: u64,
    order: ChunkOrder,
    pending: Vec<SealedBuf>,
    pending_len: usize,
    /// The writer, while a blocking thread has it; from the first hand-over on there is one here.
    in_flight: Option<JoinHandle<Result<Writer, StoreError>>>,
    /// An error was reported, or the file has been taken out: only good for dropping.
    spent: bool,
}

impl Intake {
    fn new(shared: Arc<Shared>, expected_len: Option<u64>, inline_len_max: u64) -> Self {
        Self {
            shared,
            expected_len,
            inline_len_max,
            order: ChunkOrder::default(),
            pending: Vec::new(),
            pending_len: 0,
            in_flight: None,
            spent: false,
        }
    }

    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        if self.spent {
            return Err(StoreError::Misuse("a sink is used after it failed"));
        }
        if let Err(misuse) = self.order.accept(&sealed) {
            self.spent = true;
            return Err(misuse);
        }
        self.pending_len += sealed.ciphertext().len();
        self.pending.push(sealed);
        let may_be_inline =
            self.in_flight.is_none() && self.order.plain_len() <= self.inline_len_max;
        if may_be_inline || self.pending_len < HAND_OVER_LEN {
            return Ok(());
        }
        let result = self.hand_over().await;
        self.spent |= result.is_err();
        result
    }

    /// Waits for the writer to come back, then sends it off with what is pending.
    async fn hand_over(&mut self) -> Result<(), StoreError> {
        let work = self.work().await?;
        let started = BULK.start(work).await;
        self.in_flight = Some(started.map_err(|_| StoreError::Closed)?);
        Ok(())
    }

    /// The next thing to do with the writer, on a blocking thread.
    async fn work(
        &mut self,
    ) -> Result<impl FnOnce() -> Result<Writer, StoreError> + Send + 'static, StoreError> {
        let writer = match &mut self.in_flight {
            Some(handle) => {
                let back = handle.await;
                self.in_flight = None;
                Some(joined(back)?)
            }
            None => None,
        };
        let pending = std::mem::take(&mut self.pending);
        self.pending_len = 0;
        let (shared, expected_len) = (self.shared.clone(), self.expected_len);
        let target = match writer {
            Some(writer) => Target::Begun(writer),
            None => Target::New(shared.file_id().await?),
        };
        Ok(move || {
            let mut writer = match target {
                Target::Begun(writer) => writer,
                Target::New(id) => shared.new_file(id, expected_len)?,
            };
            for sealed in pending {
                writer.append(&sealed)?;
            }
            Ok(writer)
        })
    }

    /// Ends the stream: every chunk is durable in a file, or in hand if they are few.
    async fn finish(&mut self) -> Result<Body, StoreError> {
        if self.spent {
            return Err(StoreError::Misuse("a sink is used after it failed"));
        }
        self.order.end()?;
        self.spent = true;
        if self.in_flight.is_none() && self.order.plain_len() <= self.inline_len_max {
            let mut sealed =
                Vec::with_capacity(self.pending_len + 16 * (1 + self.pending_len / CHUNK_LEN));
            self.pending
                .iter()
                .for_each(|buf| sealed.extend_from_slice(buf.ciphertext()));
            self.pending
                .iter()
                .for_each(|buf| sealed.extend(buf.tags().iter().flatten()));
            return Ok(Body::Inline(sealed));
        }
        Ok(Body::File(self.publish().await?))
    }

    async fn publish(&mut self) -> Result<Published, StoreError> {
        let work = self.work().await?;
        let life = self.shared.life.clone();
        blocking(move || work()?.publish(&life)).await
    }
}

pub(super) struct LocalPut {
    intake: Intake,
    bucket: String,
    key: String,
}

impl LocalPut {
    pub(super) fn new(
        shared: Arc<Shared>,
        bucket: &str,
        key: &str,
        expected_len: Option<u64>,
    ) -> Self {
        let inline_len_max = shared.inline_len_max;
        Self {
            intake: Intake::new(shared, expected_len, inline_len_max),
            bucket: bucket.into(),
            key: key.into(),
        }
    }
}

#[async_trait]
impl PutSink for LocalPut {
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        self.intake.write(sealed).await
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<ObjectRecord, StoreError> {
        let Self {
            mut intake,
            bucket,
            key,
        } = *self;
        check_envelope(&commit.envelope)?;
        let body = intake.finish().await?;
        let size = intake.order.plain_len();
        intake
            .shared
            .writer
            .submit(move |batch| change::put(batch, &bucket, key, size, body, commit))
            .await
    }
}

pub(super) struct LocalPart {
    intake: Intake,
    bucket: String,
    key: String,
    id: UploadId,
    number: u32,
}

impl LocalPart {
    pub(super) fn new(
        shared: Arc<Shared>,
        bucket: &str,
        key: &str,
        id: &UploadId,
        number: u32,
        expected_len: Option<u64>,
    ) -> Self {
        // A part is never inline: a reader would have to load ten thousand of them to pin an object.
        let intake = Intake {
            inline_len_max: 0,
            ..Intake::new(shared, expected_len, 0)
        };
        Self {
            intake,
            bucket: bucket.into(),
            key: key.into(),
            id: id.clone(),
            number,
        }
    }
}

#[async_trait]
impl PartSink for LocalPart {
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        self.intake.write(sealed).await
    }

    async fn commit(
        self: Box<Self>,
        envelope: Bytes,
        modified: SystemTime,
    ) -> Result<PartRecord, StoreError> {
        let Self {
            mut intake,
            bucket,
            key,
            id,
            number,
        } = *self;
        check_envelope(&envelope)?;
        let file = match intake.finish().await? {
            Body::File(file) => file,
            // Nothing at all was sent; it is still a file.
            Body::Inline(_) => intake.publish().await?,
        };
        let part = NewPart {
            number,
            plain_len: intake.order.plain_len(),
            modified,
            envelope,
            file,
        };
        intake
            .shared
            .writer
            .submit(move |batch| change::put_part(batch, &bucket, &key, &id, part))
            .await
    }
}
