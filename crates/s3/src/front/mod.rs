//! The S3 operations, called by s3s once it has parsed a request.
//!
//! Every operation has the same beginning: [`Request::of`] finds what the
//! gateway kept of the request and refuses one that s3s dispatched elsewhere
//! than [`route`](crate::route) did; then [`Access`] gives the permission that
//! the [`Vault`] wants to see.

mod answer;
mod attributes;
mod bucket;
mod completion;
mod copy;
mod delete;
mod listing;
mod multipart;
mod page_token;
mod read;
mod tagging;
mod uploads;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use crypto::random::Random;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::access::Access;
use crate::bucket::{Following, Registry, RegistryOptions, follow};
use crate::bucket_key::BucketKeys;
use crate::bucket_trail::BucketTrail;
use crate::envelope::Envelopes;
use crate::error::Error;
use crate::md5::Md5Group;
use crate::object_key::ObjectKeys;
use crate::options::Options;
use crate::request::Request;
use crate::route::Operation;
use crate::vault::Vault;

/// Buckets of an account, as AWS has it unless asked for more.
const BUCKETS_MAX: usize = 10_000;

/// Everything the operations share.
pub(crate) struct Front {
    access: Access,
    vault: Vault,
    keys: ObjectKeys,
    envelopes: Envelopes,
    _following: Following,
    clock: Arc<dyn host::Clock>,
    random: Arc<dyn Random>,
    account: iam::AccountId,
    region: iam::Region,
    md5s: Arc<Md5Group>,
}

impl Front {
    /// Reads what buckets there are.
    pub(crate) async fn open(options: Options, md5s: Arc<Md5Group>) -> Result<Self, Error> {
        let envelopes = Envelopes::new(&options.store_key, Arc::clone(&options.random));
        let buckets = Registry::open(RegistryOptions {
            catalogue: options.catalogue,
            store_key: &options.store_key,
            scope: catalogue::Scope {
                account: options.account.to_string(),
                region: options.region.to_string(),
            },
            random: Arc::clone(&options.random),
            store: Arc::clone(&options.store),
            buckets_max: BUCKETS_MAX,
        })
        .await?;
        let bucket_keys = BucketKeys::new(
            Arc::clone(&options.keyring),
            Arc::clone(&options.clock),
            options.observer,
            options.bucket_keys,
        );
        options.neighbours.join(&buckets);
        Ok(Self {
            access: Access::new(
                options.authorizer,
                Arc::clone(&buckets),
                Arc::clone(&options.neighbours),
            ),
            _following: follow(&buckets),
            vault: Vault::new(
                options.store,
                buckets,
                options.neighbours,
                BucketTrail::new(options.audit, Arc::clone(&options.clock)),
            ),
            keys: ObjectKeys::new(options.keyring, bucket_keys, Arc::clone(&options.random)),
            envelopes,
            clock: options.clock,
            random: options.random,
            account: options.account,
            region: options.region,
            md5s,
        })
    }

    /// What holds for every request, whatever it does.
    fn check_common(&self, request: &Request) -> Result<(), Error> {
        for name in [
            "x-amz-expected-bucket-owner",
            "x-amz-source-expected-bucket-owner",
        ] {
            if request
                .headers
                .get(name)
                .is_some_and(|owner| owner != self.account.as_str())
            {
                return Err(Error::Denied);
            }
        }
        // Access control lists are off, as for every new bucket of AWS's.
        let acl = request
            .headers
            .get("x-amz-acl")
            .is_some_and(|acl| acl != "private" && acl != "bucket-owner-full-control");
        let grants = request
            .headers
            .keys()
            .any(|name| name.as_str().starts_with("x-amz-grant-"));
        if acl || grants {
            return Err(Error::client(
                http::StatusCode::BAD_REQUEST,
                "AccessControlListNotSupported",
                "The bucket does not allow ACLs",
            ));
        }
        if request
            .header("x-amz-storage-class")
            .is_some_and(|class| class != "STANDARD")
        {
            return Err(Error::client(
                http::StatusCode::BAD_REQUEST,
                "InvalidStorageClass",
                "The storage class you specified is not valid",
            ));
        }
        // No bucket has versions: the one there is, is called "null".
        if request
            .query
            .get("versionId")
            .is_some_and(|version| version != "null")
        {
            return Err(no_such_version());
        }
        Ok(())
    }
}

/// A continuation token, for the fuzz targets: what is read is written the same.
#[cfg(any(fuzzing, test))]
pub(crate) fn check_token(text: &str) {
    if let Ok(name) = page_token::parse_token(text) {
        assert_eq!(
            page_token::parse_token(&page_token::token(&name)).ok(),
            Some(name)
        );
    }
}

fn no_such_version() -> Error {
    Error::client(
        http::StatusCode::NOT_FOUND,
        "NoSuchVersion",
        "The specified version does not exist.",
    )
}

macro_rules! operations {
    ($($method:ident, $operation:ident, $input:ident => $output:ident;)*) => {
        #[async_trait]
        impl S3 for Front {
            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                let found = match Request::of(&request, Operation::$operation) {
                    Ok(found) => found,
                    Err(error) => return Err(error.into_s3s("")),
                };
                let answer = async {
                    self.check_common(&found)?;
                    Front::$method(self, &found, request.input).await
                };
                answer.await.map_err(|error: Error| {
                    found.fail(&error);
                    error.into_s3s(found.context.request_id())
                })
            })*
        }
    };
}

operations! {
    list_buckets, ListBuckets, ListBucketsInput => ListBucketsOutput;
    create_bucket, CreateBucket, CreateBucketInput => CreateBucketOutput;
    head_bucket, HeadBucket, HeadBucketInput => HeadBucketOutput;
    delete_bucket, DeleteBucket, DeleteBucketInput => DeleteBucketOutput;
    get_bucket_location, GetBucketLocation, GetBucketLocationInput => GetBucketLocationOutput;
    get_bucket_versioning, GetBucketVersioning, GetBucketVersioningInput => GetBucketVersioningOutput;
    get_bucket_encryption, GetBucketEncryption, GetBucketEncryptionInput => GetBucketEncryptionOutput;
    put_bucket_encryption, PutBucketEncryption, PutBucketEncryptionInput => PutBucketEncryptionOutput;
    delete_bucket_encryption, DeleteBucketEncryption, DeleteBucketEncryptionInput => DeleteBucketEncryptionOutput;
    list_objects, ListObjects, ListObjectsInput => ListObjectsOutput;
    list_objects_v2, ListObjectsV2, ListObjectsV2Input => ListObjectsV2Output;
    put_object, PutObject, PutObjectInput => PutObjectOutput;
    copy_object, CopyObject, CopyObjectInput => CopyObjectOutput;
    get_object, GetObject, GetObjectInput => GetObjectOutput;
    head_object, HeadObject, HeadObjectInput => HeadObjectOutput;
    get_object_attributes, GetObjectAttributes, GetObjectAttributesInput => GetObjectAttributesOutput;
    delete_object, DeleteObject, DeleteObjectInput => DeleteObjectOutput;
    delete_objects, DeleteObjects, DeleteObjectsInput => DeleteObjectsOutput;
    get_object_tagging, GetObjectTagging, GetObjectTaggingInput => GetObjectTaggingOutput;
    put_object_tagging, PutObjectTagging, PutObjectTaggingInput => PutObjectTaggingOutput;
    delete_object_tagging, DeleteObjectTagging, DeleteObjectTaggingInput => DeleteObjectTaggingOutput;
    create_multipart_upload, CreateMultipartUpload, CreateMultipartUploadInput => CreateMultipartUploadOutput;
    upload_part, UploadPart, UploadPartInput => UploadPartOutput;
    upload_part_copy, UploadPartCopy, UploadPartCopyInput => UploadPartCopyOutput;
    complete_multipart_upload, CompleteMultipartUpload, CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
    abort_multipart_upload, AbortMultipartUpload, AbortMultipartUploadInput => AbortMultipartUploadOutput;
    list_parts, ListParts, ListPartsInput => ListPartsOutput;
    list_multipart_uploads, ListMultipartUploads, ListMultipartUploadsInput => ListMultipartUploadsOutput;
}
