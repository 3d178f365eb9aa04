//! Buckets and their settings.

use http::{HeaderMap, StatusCode};
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::*;

use super::{Front, answer};
use crate::answered::Status;
use crate::bucket::Created;
use crate::bucket_default::BucketDefault;
use crate::error::Error;
use crate::request::Request;

/// The region that answers as "no constraint", for history's sake.
const CLASSIC_REGION: &str = "us-east-1";

#[expect(
    clippy::unused_async,
    reason = "the table of operations awaits each, and what is known by heart is not waited for"
)]
impl Front {
    pub(super) async fn list_buckets(
        &self,
        request: &Request,
        _input: ListBucketsInput,
    ) -> Result<S3Response<ListBucketsOutput>, Error> {
        let may = self
            .access
            .service::<action::ListAllMyBuckets>(request.caller())?;
        let prefix = request.query.get("prefix").unwrap_or_default();
        let after = match request.query.get("continuation-token") {
            Some(token) => Some(super::page_token::parse_token(token)?),
            None => None,
        };
        let limit = match request.query.get("max-buckets") {
            None => 10_000,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=10_000) => limit,
                _ => {
                    return Err(Error::invalid_argument(
                        "Argument max-buckets must be an integer between 1 and 10000",
                    ));
                }
            },
        };
        let region = request.query.get("bucket-region");
        let page = self
            .vault
            .buckets(&may, region, prefix, after.as_deref(), limit);
        let token = page.entries.last().filter(|_| page.truncated);
        let output = ListBucketsOutput {
            continuation_token: token.map(|(bucket, _)| super::page_token::token(bucket.name())),
            buckets: Some(
                page.entries
                    .into_iter()
                    .map(|(bucket, region)| Bucket {
                        bucket_region: Some(region),
                        creation_date: Some(bucket.created().into()),
                        name: Some(bucket.name().to_owned()),
                    })
                    .collect(),
            ),
            owner: Some(self.owner()),
            prefix: request.query.get("prefix").map(str::to_owned),
        };
        Ok(S3Response::new(output))
    }

    pub(super) async fn create_bucket(
        &self,
        request: &Request,
        input: CreateBucketInput,
    ) -> Result<S3Response<CreateBucketOutput>, Error> {
        let on = self
            .access
            .new_bucket::<action::CreateBucket>(request.caller(), &input.bucket)?;
        let wanted = input
            .create_bucket_configuration
            .and_then(|config| config.location_constraint)
            .map(|constraint| constraint.as_str().to_owned());
        let here = self.region.as_str();
        // Clients of the classic region send no constraint; some send it all the same.
        let region = wanted.as_deref().filter(|wanted| !wanted.is_empty());
        let region = region.unwrap_or(here);
        // The classic region alone makes buckets in others.
        let allowed = region == here || (here == CLASSIC_REGION && self.vault.serves(region));
        if !allowed {
            return Err(Error::client(
                StatusCode::BAD_REQUEST,
                "IllegalLocationConstraintException",
                format!(
                    "The {region} location constraint is incompatible for the region specific endpoint this request was sent to ({here})."
                ),
            ));
        }
        let now = self.clock.now();
        match self.vault.create_bucket(&on, region, now).await? {
            Created::New => {}
            Created::Ours if region == CLASSIC_REGION => {
                // What AWS does there: the owner may create a bucket again.
            }
            Created::Taken => {
                return Err(Error::client(
                    StatusCode::CONFLICT,
                    "BucketAlreadyExists",
                    "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.",
                ));
            }
            Created::Ours | Created::OursElsewhere => {
                return Err(Error::client(
                    StatusCode::CONFLICT,
                    "BucketAlreadyOwnedByYou",
                    "Your previous request to create the named bucket succeeded and you already own it.",
                ));
            }
        }
        let location = Some(format!("/{}", input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    pub(super) async fn head_bucket(
        &self,
        request: &Request,
        input: HeadBucketInput,
    ) -> Result<S3Response<HeadBucketOutput>, Error> {
        let on = self
            .access
            .bucket::<action::ListBucket>(request.caller(), &input.bucket)?;
        self.vault.bucket(&on)?;
        let mut headers = HeaderMap::new();
        answer::set(&mut headers, "x-amz-bucket-region", self.region.as_str());
        Ok(answer::with(HeadBucketOutput::default(), headers))
    }

    pub(super) async fn delete_bucket(
        &self,
        request: &Request,
        input: DeleteBucketInput,
    ) -> Result<S3Response<DeleteBucketOutput>, Error> {
        let on = self
            .access
            .bucket::<action::DeleteBucket>(request.caller(), &input.bucket)?;
        self.vault.delete_bucket(&on).await?;
        Ok(no_content(DeleteBucketOutput::default()))
    }

    pub(super) async fn get_bucket_location(
        &self,
        request: &Request,
        input: GetBucketLocationInput,
    ) -> Result<S3Response<GetBucketLocationOutput>, Error> {
        let on = self
            .access
            .bucket::<action::GetBucketLocation>(request.caller(), &input.bucket)?;
        self.vault.bucket(&on)?;
        let region = self.region.as_str();
        let location_constraint = (region != CLASSIC_REGION).then(|| region.to_owned().into());
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint,
        }))
    }

    /// Never set: no bucket has versions.
    pub(super) async fn get_bucket_versioning(
        &self,
        request: &Request,
        input: GetBucketVersioningInput,
    ) -> Result<S3Response<GetBucketVersioningOutput>, Error> {
        let on = self
            .access
            .bucket::<action::GetBucketVersioning>(request.caller(), &input.bucket)?;
        self.vault.bucket(&on)?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    pub(super) async fn get_bucket_encryption(
        &self,
        request: &Request,
        input: GetBucketEncryptionInput,
    ) -> Result<S3Response<GetBucketEncryptionOutput>, Error> {
        let on = self
            .access
            .bucket::<action::GetEncryptionConfiguration>(request.caller(), &input.bucket)?;
        let default = self.vault.default_encryption(&on)?;
        Ok(S3Response::new(GetBucketEncryptionOutput {
            server_side_encryption_configuration: Some(default.to_answer()),
        }))
    }

    pub(super) async fn put_bucket_encryption(
        &self,
        request: &Request,
        input: PutBucketEncryptionInput,
    ) -> Result<S3Response<PutBucketEncryptionOutput>, Error> {
        let on = self
            .access
            .bucket::<action::PutEncryptionConfiguration>(request.caller(), &input.bucket)?;
        let default = BucketDefault::of_request(input.server_side_encryption_configuration)?;
        self.vault.set_encryption(&on, Some(default)).await?;
        Ok(S3Response::new(PutBucketEncryptionOutput::default()))
    }

    pub(super) async fn delete_bucket_encryption(
        &self,
        request: &Request,
        input: DeleteBucketEncryptionInput,
    ) -> Result<S3Response<DeleteBucketEncryptionOutput>, Error> {
        let on = self
            .access
            .bucket::<action::PutEncryptionConfiguration>(request.caller(), &input.bucket)?;
        self.vault.set_encryption(&on, None).await?;
        Ok(no_content(DeleteBucketEncryptionOutput::default()))
    }

    /// The account, as lists show it.
    pub(super) fn owner(&self) -> Owner {
        Owner {
            display_name: None,
            id: Some(self.account.to_string()),
        }
    }
}

fn no_content<T>(output: T) -> S3Response<T> {
    let mut response = S3Response::new(output);
    response.extensions.insert(Status(StatusCode::NO_CONTENT));
    response
}
