//! CopyObject and the source side of UploadPartCopy.
//!
//! A copy is opened and sealed anew, under a key of its own and bound to its
//! new place: the source's mode, key and context are never inherited, and a
//! ciphertext is never moved.

use std::ops::Range;
use std::sync::Arc;

use crypto::chunk::ObjectKey;
use host::memory::Share;
use http::HeaderMap;
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::{CopyObjectInput, CopyObjectOutput, CopyObjectResult};

use super::answer::{self, ShowContext, checksum_fields};
use super::write::{DEFAULT_CHECKSUM, NewObject, check_key, has_md5_etag};
use super::{Front, attributes};
use crate::access::OnObject;
use crate::checksum::Algorithm;
use crate::condition::ReadConditions;
use crate::envelope::Attributes;
use crate::error::Error;
use crate::guard::PLAIN_LEN_MAX;
use crate::object_key::{Asked, check_customer};
use crate::opening::{CopySource, OpenObject};
use crate::request::Request;
use crate::sse::{self, Wanted};
use crate::url::split_copy_source;

/// A source that may be read and whose key is at hand.
pub(super) struct Source {
    pub(super) on: OnObject<action::GetObject>,
    pub(super) open: OpenObject,
    key: Arc<ObjectKey>,
}

impl Source {
    /// Its plaintext, computing what the copy's envelope needs.
    pub(super) fn read(
        self,
        front: &Front,
        range: Range<u64>,
        md5: bool,
        checksum: Algorithm,
        share: Share,
    ) -> CopySource {
        let len = range.end - range.start;
        CopySource::new(
            self.open.stream(self.key, range),
            len,
            md5.then(|| front.md5s.begin(len)),
            checksum,
            share,
        )
    }
}

/// `x-amz-metadata-directive` and its sibling for tags.
fn replaces(request: &Request, name: &str) -> Result<bool, Error> {
    match request.header(name) {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(Error::invalid_argument(format!("Unknown value of {name}."))),
    }
}

impl Front {
    pub(super) async fn copy_object(
        &self,
        request: &Request,
        input: CopyObjectInput,
    ) -> Result<S3Response<CopyObjectOutput>, Error> {
        let on =
            self.access
                .object::<action::PutObject>(request.caller(), &input.bucket, &input.key)?;
        check_key(&input.key)?;
        let wanted = sse::wanted(&request.headers, request.confidential())?;
        let customer_md5 = match &wanted {
            Wanted::Customer(customer) => answer::md5_of(Some(customer)),
            _ => None,
        };
        let replace = replaces(request, "x-amz-metadata-directive")?;
        let replace_tags = replaces(request, "x-amz-tagging-directive")?;
        let given = attributes::of_request(&request.headers, input.metadata)?;
        let source = self.copy_source(request).await?;
        let size = source.open.object.size;
        if size > PLAIN_LEN_MAX {
            return Err(Error::invalid_request(
                "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
            ));
        }
        let itself = source.on.resource().bucket() == on.resource().bucket()
            && source.on.resource().key() == on.resource().key();
        let same_encryption = matches!(wanted, Wanted::Default { bucket_key: None });
        if itself && !replace && !replace_tags && same_encryption {
            return Err(Error::invalid_request(
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.",
            ));
        }
        let found = &source.open.object;
        let kept = &found.attributes;
        let attributes = Attributes {
            headers: if replace {
                given.headers
            } else {
                kept.headers.clone()
            },
            metadata: if replace {
                given.metadata
            } else {
                kept.metadata.clone()
            },
            tags: if replace_tags {
                given.tags
            } else {
                kept.tags.clone()
            },
        };
        let checksum = match request.header("x-amz-checksum-algorithm") {
            Some(name) => Algorithm::parse(name)?,
            None => found
                .checksum
                .as_ref()
                .map_or(DEFAULT_CHECKSUM, |c| c.value.algorithm),
        };
        let condition = self.write_condition(&on, request).await?;
        let id = self.object_id();
        let key = self.new_key(&on, &id, wanted).await?;
        let md5 = has_md5_etag(&key.protection);
        let share = request.room.for_copy(size, md5).await?;
        let plain = source.read(self, 0..size, md5, checksum, share);
        let new = NewObject {
            id,
            key,
            attributes,
            checksum,
            condition,
        };
        let (object, record) = self.write_object(&on, new, plain).await?;

        let mut headers = HeaderMap::new();
        let md5 = customer_md5.as_deref();
        answer::encryption(&mut headers, &object.protection, md5, ShowContext::Yes);
        let mut result = CopyObjectResult {
            e_tag: answer::etag(&object.etag),
            last_modified: Some(record.modified.into()),
            ..Default::default()
        };
        if let Some(checksum) = &object.checksum {
            checksum_fields!(result, checksum.value.algorithm, checksum.text());
            result.checksum_type = Some(checksum.coverage.name().to_owned().into());
        }
        let output = CopyObjectOutput {
            copy_object_result: Some(result),
            ..Default::default()
        };
        Ok(answer::with(output, headers))
    }

    /// Opens what `x-amz-copy-source` names, if the caller may read it.
    pub(super) async fn copy_source(&self, request: &Request) -> Result<Source, Error> {
        let named = request
            .header("x-amz-copy-source")
            .and_then(split_copy_source);
        let Some((bucket, key, version)) = named else {
            return Err(Error::invalid_argument("Invalid copy source object key"));
        };
        if version.is_some_and(|version| version != "null") {
            return Err(super::no_such_version());
        }
        let on = self
            .access
            .object::<action::GetObject>(request.caller(), &bucket, &key)
            .map_err(|error| match error {
                // Sent to that region, the request would not find the bucket it copies to.
                Error::Elsewhere { .. } => Error::not_implemented(
                    "Copying from a bucket in another region is not implemented.",
                ),
                error => error,
            })?;
        let customer = sse::copy_source(&request.headers, request.confidential())?;
        let (record, reader) = self.vault.open(&on).await?;
        let open = self.opened(&on, record, reader)?;
        check_customer(&open.object.protection, customer.as_ref(), Asked::Read)?;
        let conditions = ReadConditions::of_copy_source(&request.headers);
        conditions.check_copy_source(&open.object.etag, open.record.modified)?;
        let key = self.unlock(&on, &open.object, customer).await?;
        Ok(Source { on, open, key })
    }
}
