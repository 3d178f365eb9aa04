//! The only holder of the inner store.
//!
//! Each method takes the permission for what it does instead of names; the
//! marker traits say which permissions suffice.

use std::sync::Arc;
use std::time::SystemTime;

use iam::action::s3 as action;
use iam::{Action, Authorized};

use crate::access::{Buckets, OnBucket, OnObject};
use crate::bucket::{Bucket, BucketId, Created, Neighbours, Registry};
use crate::bucket_default::BucketDefault;
use crate::bucket_trail::BucketTrail;
use crate::envelope::Sealed;
use crate::error::Error;
use crate::settle::to_the_end;
use crate::store::{
    Commit, Condition, ListEntry, ListQuery, ObjectRecord, ObjectStore, Page, PartRecord, PartSeen,
    PartSink, PutSink, SealedReader, StoreError, UploadEntry, UploadId, UploadQuery, UploadRecord,
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
    buckets: Arc<Registry>,
    neighbours: Arc<Neighbours>,
    trail: BucketTrail,
}

impl Vault {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        buckets: Arc<Registry>,
        neighbours: Arc<Neighbours>,
        trail: BucketTrail,
    ) -> Self {
        Self {
            store,
            buckets,
            neighbours,
            trail,
        }
    }

    /// The account's buckets in one region, or in all.
    pub(crate) fn buckets(
        &self,
        _may: &Authorized<action::ListAllMyBuckets, Buckets>,
        region: Option<&str>,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Page<(Arc<Bucket>, String)> {
        let account = &self.buckets.scope().account;
        self.neighbours.page(account, region, prefix, after, limit)
    }

    /// Whether buckets may be made in the region.
    pub(crate) fn serves(&self, region: &str) -> bool {
        let account = &self.buckets.scope().account;
        self.neighbours.of(account, region).is_some()
    }

    /// Makes a bucket in a region that is served.
    pub(crate) async fn create_bucket(
        &self,
        on: &OnBucket<action::CreateBucket>,
        region: &str,
        created: SystemTime,
    ) -> Result<Created, Error> {
        let account = &self.buckets.scope().account;
        let there = self.neighbours.of(account, region);
        let there = there.ok_or(Error::Internal("a region that is not served"))?;
        let scope = there.scope().clone();
        let name = on.resource().name().to_owned();
        let work = async move { there.create(&name, created).await };
        let name = on.resource().name();
        self.trail
            .recorded(
                "CreateBucket",
                on.caller(),
                &scope,
                name,
                work,
                |made| match made {
                    Created::New => "Success",
                    Created::Ours | Created::OursElsewhere => "BucketAlreadyOwnedByYou",
                    Created::Taken => "BucketAlreadyExists",
                },
            )
            .await
    }

    pub(crate) async fn delete_bucket(
        &self,
        on: &OnBucket<action::DeleteBucket>,
    ) -> Result<(), Error> {
        let (buckets, name) = (Arc::clone(&self.buckets), on.resource().name().to_owned());
        let work = async move { buckets.delete(&name).await };
        self.recorded("DeleteBucket", on, work).await
    }

    /// Makes a change of a bucket of ours and records it.
    async fn recorded<A: Action>(
        &self,
        operation: &'static str,
        on: &OnBucket<A>,
        work: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Error> {
        let (scope, name) = (self.buckets.scope(), on.resource().name());
        self.trail
            .recorded(operation, on.caller(), scope, name, work, |()| "Success")
            .await
    }

    /// Whether the bucket is there.
    pub(crate) fn bucket<A: SeesBucket>(&self, on: &OnBucket<A>) -> Result<(), Error> {
        on.resource().found()?;
        Ok(())
    }

    pub(crate) fn default_encryption(
        &self,
        on: &OnBucket<action::GetEncryptionConfiguration>,
    ) -> Result<BucketDefault, Error> {
        Ok(on.resource().found()?.default_encryption())
    }

    /// What a write applies: S3 itself reads the bucket's default encryption, which takes no permission of the
    /// writer's.
    pub(crate) fn default_for_write(
        &self,
        on: &OnObject<action::PutObject>,
    ) -> Result<BucketDefault, Error> {
        Ok(on.resource().found()?.default_encryption())
    }

    pub(crate) async fn set_encryption(
        &self,
        on: &OnBucket<action::PutEncryptionConfiguration>,
        encryption: Option<BucketDefault>,
    ) -> Result<(), Error> {
        let operation = match encryption {
            Some(_) => "PutBucketEncryption",
            None => "DeleteBucketEncryption",
        };
        let (buckets, name) = (Arc::clone(&self.buckets), on.resource().name().to_owned());
        let work = async move { buckets.set_encryption(&name, encryption).await };
        self.recorded(operation, on, work).await
    }

    pub(crate) async fn begin_put(
        &self,
        on: &OnObject<action::PutObject>,
        plain_len: u64,
    ) -> Result<Box<dyn PutSink>, Error> {
        Ok(self
            .store
            .begin_put(
                on.resource().bucket_id()?.as_str(),
                on.resource().key(),
                Some(plain_len),
            )
            .await?)
    }

    pub(crate) async fn head<A: SeesRecord>(
        &self,
        on: &OnObject<A>,
    ) -> Result<ObjectRecord, Error> {
        Ok(self
            .store
            .head(on.resource().bucket_id()?.as_str(), on.resource().key())
            .await?)
    }

    pub(crate) async fn open<A: SeesParts>(
        &self,
        on: &OnObject<A>,
    ) -> Result<(ObjectRecord, Arc<dyn SealedReader>), Error> {
        Ok(self
            .store
            .open(on.resource().bucket_id()?.as_str(), on.resource().key())
            .await?)
    }

    pub(crate) async fn replace_envelope<A: ReplacesEnvelope>(
        &self,
        on: &OnObject<A>,
        sequence: u64,
        sealed: Sealed,
    ) -> Result<ObjectRecord, StoreError> {
        let (store, bucket, key) = self.target(on)?;
        let Sealed { envelope, sealing } = sealed;
        to_the_end(async move {
            let _until_it_is_known = sealing;
            store
                .replace_envelope(bucket.as_str(), &key, sequence, envelope)
                .await
        })
        .await
    }

    /// The store, bucket and key for a change that outlives its request.
    #[allow(clippy::type_complexity)]
    fn target<A: Action>(
        &self,
        on: &OnObject<A>,
    ) -> Result<(Arc<dyn ObjectStore>, BucketId, String), StoreError> {
        let bucket = on.resource().bucket_id()?.clone();
        let key = on.resource().key().to_owned();
        Ok((Arc::clone(&self.store), bucket, key))
    }

    pub(crate) async fn delete(
        &self,
        on: &OnObject<action::DeleteObject>,
        condition: Condition,
    ) -> Result<bool, StoreError> {
        self.store
            .delete(
                on.resource().bucket_id()?.as_str(),
                on.resource().key(),
                condition,
            )
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
        let found = self.buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        Ok(self.store.delete_many(found.id.as_str(), &keys).await?)
    }

    pub(crate) async fn list(
        &self,
        on: &OnBucket<action::ListBucket>,
        query: &ListQuery,
    ) -> Result<Page<ListEntry>, Error> {
        Ok(self.store.list(on.resource().id()?.as_str(), query).await?)
    }

    pub(crate) async fn create_upload(
        &self,
        on: &OnObject<action::PutObject>,
        sealed: Sealed,
        initiated: SystemTime,
    ) -> Result<UploadRecord, StoreError> {
        let (store, bucket, key) = self.target(on)?;
        let Sealed { envelope, sealing } = sealed;
        to_the_end(async move {
            let _until_it_is_known = sealing;
            store
                .create_upload(bucket.as_str(), &key, envelope, initiated)
                .await
        })
        .await
    }

    pub(crate) async fn upload<A: SeesUpload>(
        &self,
        on: &OnObject<A>,
        id: &UploadId,
    ) -> Result<UploadRecord, Error> {
        Ok(self
            .store
            .upload(on.resource().bucket_id()?.as_str(), on.resource().key(), id)
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
                on.resource().bucket_id()?.as_str(),
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
                on.resource().bucket_id()?.as_str(),
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
        Ok(self
            .store
            .uploads(on.resource().id()?.as_str(), query)
            .await?)
    }

    /// `sealing` is that of the envelope in `commit`.
    pub(crate) async fn complete_upload(
        &self,
        on: &OnObject<action::PutObject>,
        id: &UploadId,
        parts: Vec<PartSeen>,
        commit: Commit,
        sealing: root::Sealing,
    ) -> Result<ObjectRecord, StoreError> {
        let (store, bucket, key) = self.target(on)?;
        let id = id.clone();
        to_the_end(async move {
            let _until_it_is_known = sealing;
            store
                .complete_upload(bucket.as_str(), &key, &id, &parts, commit)
                .await
        })
        .await
    }

    pub(crate) async fn abort_upload(
        &self,
        on: &OnObject<action::AbortMultipartUpload>,
        id: &UploadId,
    ) -> Result<(), Error> {
        Ok(self
            .store
            .abort_upload(on.resource().bucket_id()?.as_str(), on.resource().key(), id)
            .await?)
    }
}
