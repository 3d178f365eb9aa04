//! The only holder of the inner store.
//!
//! Each method takes the permission for what it does instead of names; the
//! marker traits say which permissions suffice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use iam::action::s3 as action;
use iam::{Action, Authorized};

use crate::access::{Buckets, OnBucket, OnObject};
use crate::error::Error;
use crate::store::{
    BucketRecord, Commit, Condition, ListEntry, ListQuery, ObjectRecord, ObjectStore, Page,
    PartRecord, PartSeen, PartSink, PutSink, SealedReader, StoreError, UploadEntry, UploadId,
    UploadQuery, UploadRecord,
};

/// Permissions with which an object's record may be read. A write reads it for
/// its conditions.
pub(crate) trait SeesRecord: Action {}
impl SeesRecord for action::GetObject {}
impl SeesRecord for action::GetObjectAttributes {}
impl SeesRecord for action::GetObjectTagging {}
impl SeesRecord for action::PutObjectTagging {}
impl SeesRecord for action::DeleteObjectTagging {}
impl SeesRecord for action::PutObject {}
impl SeesRecord for action::DeleteObject {}

/// Permissions with which an object's parts may be seen.
pub(crate) trait SeesParts: Action {}
impl SeesParts for action::GetObject {}
impl SeesParts for action::GetObjectAttributes {}

/// Permissions with which an upload may be looked at.
pub(crate) trait SeesUpload: Action {}
impl SeesUpload for action::PutObject {}
impl SeesUpload for action::ListMultipartUploadParts {}
impl SeesUpload for action::AbortMultipartUpload {}

/// Permissions with which an object's envelope may be replaced.
pub(crate) trait ReplacesEnvelope: Action {}
impl ReplacesEnvelope for action::PutObjectTagging {}
impl ReplacesEnvelope for action::DeleteObjectTagging {}

/// Permissions with which a bucket's existence and date may be seen.
pub(crate) trait SeesBucket: Action {}
impl SeesBucket for action::ListBucket {}
impl SeesBucket for action::GetBucketLocation {}
impl SeesBucket for action::GetBucketVersioning {}
impl SeesBucket for action::CreateBucket {}

/// The store behind permissions.
pub(crate) struct Vault {
    store: Arc<dyn ObjectStore>,
}

impl Vault {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    pub(crate) async fn buckets(
        &self,
        _may: &Authorized<action::ListAllMyBuckets, Buckets>,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<BucketRecord>, Error> {
        Ok(self.store.buckets(prefix, after, limit).await?)
    }

    pub(crate) async fn create_bucket(
        &self,
        on: &OnBucket<action::CreateBucket>,
        created: SystemTime,
    ) -> Result<BucketRecord, StoreError> {
        self.store
            .create_bucket(on.resource().name(), created)
            .await
    }

    pub(crate) async fn delete_bucket(
        &self,
        on: &OnBucket<action::DeleteBucket>,
    ) -> Result<(), Error> {
        Ok(self.store.delete_bucket(on.resource().name()).await?)
    }

    pub(crate) async fn bucket<A: SeesBucket>(
        &self,
        on: &OnBucket<A>,
    ) -> Result<BucketRecord, Error> {
        Ok(self.store.bucket(on.resource().name()).await?)
    }

    pub(crate) async fn settings(
        &self,
        on: &OnBucket<action::GetEncryptionConfiguration>,
    ) -> Result<BTreeMap<String, Bytes>, Error> {
        Ok(self.store.bucket_settings(on.resource().name()).await?)
    }

    /// The settings a write applies: S3 itself reads the bucket's default
    /// encryption, which takes no permission of the writer's.
    pub(crate) async fn settings_for_write(
        &self,
        on: &OnObject<action::PutObject>,
    ) -> Result<BTreeMap<String, Bytes>, Error> {
        Ok(self.store.bucket_settings(on.resource().bucket()).await?)
    }

    pub(crate) async fn set_setting(
        &self,
        on: &OnBucket<action::PutEncryptionConfiguration>,
        name: &str,
        value: Option<Bytes>,
    ) -> Result<(), Error> {
        Ok(self
            .store
            .set_bucket_setting(on.resource().name(), name, value)
            .await?)
    }

    pub(crate) async fn begin_put(
        &self,
        on: &OnObject<action::PutObject>,
        plain_len: u64,
    ) -> Result<Box<dyn PutSink>, Error> {
        Ok(self
            .store
            .begin_put(on.resource().bucket(), on.resource().key(), Some(plain_len))
            .await?)
    }

    pub(crate) async fn head<A: SeesRecord>(
        &self,
        on: &OnObject<A>,
    ) -> Result<ObjectRecord, Error> {
        Ok(self
            .store
            .head(on.resource().bucket(), on.resource().key())
            .await?)
    }

    pub(crate) async fn open<A: SeesParts>(
        &self,
        on: &OnObject<A>,
    ) -> Result<(ObjectRecord, Arc<dyn SealedReader>), Error> {
        Ok(self
            .store
            .open(on.resource().bucket(), on.resource().key())
            .await?)
    }

    pub(crate) async fn replace_envelope<A: ReplacesEnvelope>(
        &self,
        on: &OnObject<A>,
        sequence: u64,
        envelope: Bytes,
    ) -> Result<ObjectRecord, StoreError> {
        self.store
            .replace_envelope(
                on.resource().bucket(),
                on.resource().key(),
                sequence,
                envelope,
            )
            .await
    }

    pub(crate) async fn delete(
        &self,
        on: &OnObject<action::DeleteObject>,
        condition: Condition,
    ) -> Result<bool, StoreError> {
        self.store
            .delete(on.resource().bucket(), on.resource().key(), condition)
            .await
    }

    /// Deletes several objects of one bucket, in order.
    pub(crate) async fn delete_many(
        &self,
        bucket: &str,
        objects: &[(OnObject<action::DeleteObject>, Condition)],
    ) -> Result<Vec<Result<bool, StoreError>>, Error> {
        let keys: Vec<(String, Condition)> = objects
            .iter()
            .map(|(on, condition)| {
                assert_eq!(
                    on.resource().bucket(),
                    bucket,
                    "permissions are for this bucket"
                );
                (on.resource().key().to_owned(), *condition)
            })
            .collect();
        Ok(self.store.delete_many(bucket, &keys).await?)
    }

    pub(crate) async fn list(
        &self,
        on: &OnBucket<action::ListBucket>,
        query: &ListQuery,
    ) -> Result<Page<ListEntry>, Error> {
        Ok(self.store.list(on.resource().name(), query).await?)
    }

    pub(crate) async fn create_upload(
        &self,
        on: &OnObject<action::PutObject>,
        envelope: Bytes,
        initiated: SystemTime,
    ) -> Result<UploadRecord, Error> {
        Ok(self
            .store
            .create_upload(
                on.resource().bucket(),
                on.resource().key(),
                envelope,
                initiated,
            )
            .await?)
    }

    pub(crate) async fn upload<A: SeesUpload>(
        &self,
        on: &OnObject<A>,
        id: &UploadId,
    ) -> Result<UploadRecord, Error> {
        Ok(self
            .store
            .upload(on.resource().bucket(), on.resource().key(), id)
            .await?)
    }

    pub(crate) async fn begin_part(
        &self,
        on: &OnObject<action::PutObject>,
        id: &UploadId,
        number: u32,
        plain_len: u64,
    ) -> Result<Box<dyn PartSink>, Error> {
        Ok(self
            .store
            .begin_part(
                on.resource().bucket(),
                on.resource().key(),
                id,
                number,
                Some(plain_len),
            )
            .await?)
    }

    pub(crate) async fn parts<A: SeesUpload>(
        &self,
        on: &OnObject<A>,
        id: &UploadId,
        after: u32,
        limit: usize,
    ) -> Result<Page<PartRecord>, Error> {
        Ok(self
            .store
            .parts(
                on.resource().bucket(),
                on.resource().key(),
                id,
                after,
                limit,
            )
            .await?)
    }

    pub(crate) async fn uploads(
        &self,
        on: &OnBucket<action::ListBucketMultipartUploads>,
        query: &UploadQuery,
    ) -> Result<Page<UploadEntry>, Error> {
        Ok(self.store.uploads(on.resource().name(), query).await?)
    }

    pub(crate) async fn complete_upload(
        &self,
        on: &OnObject<action::PutObject>,
        id: &UploadId,
        parts: &[PartSeen],
        commit: Commit,
    ) -> Result<ObjectRecord, StoreError> {
        self.store
            .complete_upload(
                on.resource().bucket(),
                on.resource().key(),
                id,
                parts,
                commit,
            )
            .await
    }

    pub(crate) async fn abort_upload(
        &self,
        on: &OnObject<action::AbortMultipartUpload>,
        id: &UploadId,
    ) -> Result<(), Error> {
        Ok(self
            .store
            .abort_upload(on.resource().bucket(), on.resource().key(), id)
            .await?)
    }
}
