//! Where sealed objects are kept: a narrow trait, and the stores behind it.
//!
//! # What for
//! The front (HTTP, S3 semantics, sealing) speaks to [`ObjectStore`] and to nothing else below it.
//! A store takes sealed chunks ([`SealedBuf`], which only `crypto`'s sealer makes) and opaque
//! envelopes, and gives back [`StoredChunks`], which can only be opened. Passing plaintext does not
//! compile:
//!
//! ```compile_fail,E0308
//! async fn leak(sink: &mut dyn s3::store::PutSink) {
//!     sink.write(b"plaintext".to_vec()).await.ok();
//! }
//! ```
//!
//! # What every store promises
//! - **Atomic**: a put, a completion, a delete or a new envelope happens whole or not at all, and
//!   is checked against its [`Condition`] in the same step. Until then, and if it fails, what was
//!   there stays. A sink that is dropped leaves nothing behind.
//! - **Durable**: when a call that changes something returns `Ok`, the change outlives a crash or a
//!   power cut, as far as the disk keeps its promises. When it returns an error other than
//!   [`StoreError::Unknown`], the change did not happen.
//! - **Pinned reads**: an opened [`SealedReader`] reads the object it was opened for, also after
//!   that has been replaced or deleted. The space is given back when the last reader goes.
//! - **Any key**: UTF-8 of 1 to [`KEY_LEN_MAX`] bytes, taken as bytes: `a`, `a/`, `a/b`, `A` and `..`
//!   are five objects. Lists are in byte order.
//!
//! # Buckets
//! Which buckets exist, what they are called and how they are set up, the catalogue decides. A store knows a bucket by
//! the id that the catalogue gave it, a text which is never used for another one, and whether it is open. That is the
//! fence for deleting one: a bucket is closed only while it is empty, in the same step, and nothing is committed into
//! one that is not open.
//!
//! # What it does not
//! It does not look into bucket ids, does not know entity tags, and does not
//! authenticate: ids, keys, sizes and dates in its index are as trustworthy as the disk. Content and
//! envelopes are authenticated by those who open them, bound to bucket and key by their AAD.
//!
//! # Cancellation
//! Dropping the future of a call that changes something leaves it unknown whether the change
//! happened; it is still atomic. Reads are cancel-safe.

mod chunks;
mod error;
pub mod faulty;
mod list;
pub mod local;
pub mod memory;
mod order;
mod record;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use crypto::chunk::SealedBuf;

pub use chunks::StoredChunks;
pub use error::StoreError;
pub(crate) use order::{check_envelope, check_key, check_part_order};

pub use list::{ListEntry, ListQuery, Page, UploadEntry, UploadQuery};
pub use record::{
    BucketRecord, Commit, Condition, ObjectRecord, PartRecord, PartSeen, Resealed, SealedAt,
    SealedRow, UploadId, UploadRecord,
};

/// Longest key in bytes, as in S3.
pub const KEY_LEN_MAX: usize = 1024;
/// Longest envelope in bytes, of an object, a part or an upload.
pub const ENVELOPE_LEN_MAX: usize = 64 * 1024;
/// Highest part number, as in S3.
pub const PART_NUMBER_MAX: u32 = 10_000;
/// Most chunks that one [`SealedReader::read`] gives: 4 MiB.
pub const READ_CHUNKS_MAX: u32 = 64;

/// Keeps sealed objects. See the [module](self) for what every implementation promises.
///
/// Every call fails with [`StoreError::NoSuchBucket`] where the bucket is missing, with
/// [`StoreError::KeyTooLong`] or [`StoreError::Misuse`] for a key outside 1 to [`KEY_LEN_MAX`] bytes where
/// it would be written (where it is only looked up, such a key is just not there), and with the
/// errors of the machine. Further errors are said with each call.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Creates a bucket, or opens one that was closed, with the uploads that it has. No error where it is open.
    async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError>;

    /// Closes a bucket: from now on every other call but [`delete_bucket`](Self::delete_bucket) answers as if it were
    /// not there, those whose sink was begun before included. [`StoreError::BucketNotEmpty`] if it holds objects;
    /// uploads do not count, and stay. No error where it is closed.
    async fn close_bucket(&self, bucket: &str) -> Result<(), StoreError>;

    /// Deletes a bucket, closed or not, with the uploads in progress in it.
    /// [`StoreError::BucketNotEmpty`] if it holds objects.
    async fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError>;

    /// Lists buckets by id, closed ones too: those that come after `after`.
    async fn buckets(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<BucketRecord>, StoreError>;

    /// Lists the sealed records of everything there is, in closed buckets too: objects, then uploads (each by the
    /// bucket's id, then by key), then parts; those that come after `after`. Objects put in a single piece have no
    /// record for their one part.
    async fn sealed(
        &self,
        after: Option<&SealedAt>,
        limit: usize,
    ) -> Result<Page<SealedRow>, StoreError>;

    /// Puts records that were sealed anew in the place of those they were made from, where these still stand;
    /// sequences, dates and data stay. Says how many; returns when that is durable.
    async fn reseal(&self, records: Vec<Resealed>) -> Result<u64, StoreError>;

    /// Begins an object. `plain_len` is the length to expect, where the client has said one: a
    /// disk too full for it shows here already, and room may be reserved. It is not a limit.
    async fn begin_put(
        &self,
        bucket: &str,
        key: &str,
        plain_len: Option<u64>,
    ) -> Result<Box<dyn PutSink>, StoreError>;

    /// Looks an object up. [`StoreError::NoSuchKey`].
    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectRecord, StoreError>;

    /// Opens an object for reading: its record and a reader pinned to that very content.
    /// [`StoreError::NoSuchKey`].
    async fn open(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<(ObjectRecord, Arc<dyn SealedReader>), StoreError>;

    /// Replaces the envelope of the object that has `sequence`, moving no data; date and parts
    /// stay, the sequence is a new one. [`StoreError::NoSuchKey`], [`StoreError::PreconditionFailed`].
    async fn replace_envelope(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        envelope: Bytes,
    ) -> Result<ObjectRecord, StoreError>;

    /// Deletes an object. Says whether there was one: deleting what is not there is no error
    /// (unless the condition asked for it).
    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<bool, StoreError>;

    /// Deletes several objects, each by itself; the results are in the order of `keys`. The outer
    /// error is for what fails all of them, such as a missing bucket.
    async fn delete_many(
        &self,
        bucket: &str,
        keys: &[(String, Condition)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError>;

    /// Lists objects; costs are by entries given, not by keys passed over.
    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<Page<ListEntry>, StoreError>;

    /// Begins a multipart upload.
    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        envelope: Bytes,
        initiated: SystemTime,
    ) -> Result<UploadRecord, StoreError>;

    /// Looks an upload up. [`StoreError::NoSuchUpload`].
    async fn upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
    ) -> Result<UploadRecord, StoreError>;

    /// Begins a part, number 1 to [`PART_NUMBER_MAX`]; when committed it replaces the one that has
    /// the number. `plain_len` as in [`begin_put`](Self::begin_put). [`StoreError::NoSuchUpload`].
    async fn begin_part(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        number: u32,
        plain_len: Option<u64>,
    ) -> Result<Box<dyn PartSink>, StoreError>;

    /// Lists the parts of an upload with numbers above `after`. [`StoreError::NoSuchUpload`].
    async fn parts(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        after: u32,
        limit: usize,
    ) -> Result<Page<PartRecord>, StoreError>;

    /// Lists the uploads in progress in a bucket.
    async fn uploads(
        &self,
        bucket: &str,
        query: &UploadQuery,
    ) -> Result<Page<UploadEntry>, StoreError>;

    /// Makes an object from parts of an upload, rewriting no data; parts not named are dropped,
    /// the upload is gone. [`StoreError::NoSuchUpload`], [`StoreError::InvalidPartOrder`],
    /// [`StoreError::InvalidPart`], [`StoreError::PreconditionFailed`]; the upload stays then.
    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        parts: &[PartSeen],
        commit: Commit,
    ) -> Result<ObjectRecord, StoreError>;

    /// Drops an upload and its parts. [`StoreError::NoSuchUpload`].
    async fn abort_upload(&self, bucket: &str, key: &str, id: &UploadId) -> Result<(), StoreError>;
}

/// Takes the sealed chunks of an object, in order. Dropping it aborts.
#[async_trait]
pub trait PutSink: Send {
    /// Appends chunks. [`StoreError::Misuse`] after the last one; after any error the sink can only
    /// be dropped.
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError>;

    /// Makes the object. The stream's last chunk must have been written.
    /// [`StoreError::NoSuchBucket`] (deleted meanwhile), [`StoreError::PreconditionFailed`].
    async fn commit(self: Box<Self>, commit: Commit) -> Result<ObjectRecord, StoreError>;
}

/// Takes the sealed chunks of a part, in order. Dropping it aborts.
#[async_trait]
pub trait PartSink: Send {
    /// Appends chunks, as [`PutSink::write`].
    async fn write(&mut self, sealed: SealedBuf) -> Result<(), StoreError>;

    /// Makes the part. The stream's last chunk must have been written.
    /// [`StoreError::NoSuchUpload`] if it was completed or aborted meanwhile.
    async fn commit(
        self: Box<Self>,
        envelope: Bytes,
        modified: SystemTime,
    ) -> Result<PartRecord, StoreError>;
}

/// Reads one object, pinned to the content it was opened for.
#[async_trait]
pub trait SealedReader: Send + Sync {
    /// The parts in order; one with number 1 for an object put in a single piece.
    fn parts(&self) -> &[PartRecord];

    /// Reads chunks of the part at `part` in [`parts`](Self::parts), from chunk `first` on: `count`
    /// of them, or fewer where the part ends or a store prefers to give less at a time (at most
    /// [`READ_CHUNKS_MAX`]), but at least one. [`StoreError::Misuse`] outside the part,
    /// [`StoreError::Corrupt`] if bytes are missing.
    async fn read(&self, part: usize, first: u64, count: u32) -> Result<StoredChunks, StoreError>;
}
