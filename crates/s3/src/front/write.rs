//! PutObject, and what every write of an object has in common.

use crypto::chunk::Algorithm;
use http::HeaderMap;
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::{PutObjectInput, PutObjectOutput};

use super::answer::{self, ShowContext};
use super::{Front, attributes};
use crate::access::OnObject;
use crate::checksum::{Algorithm as ChecksumAlgorithm, Checksum, Coverage};
use crate::condition::WriteCondition;
use crate::envelope::{Attributes, Layout, Object, ObjectId, Protection, Sealed, stream_place};
use crate::error::Error;
use crate::guard::Received;
use crate::object_key::{NewKey, Place};
use crate::request::Request;
use crate::sealing::{Plain, Seal, seal};
use crate::settle::to_the_end;
use crate::sse::{self, Wanted};
use crate::store::{Commit, Condition, ObjectRecord, StoreError};

/// New objects' chunks; the envelope says which, so that it can change.
pub(super) const CHUNK_ALGORITHM: Algorithm = Algorithm::Aes256Gcm;
/// What is computed where the client promises no checksum: AWS's own default.
pub(super) const DEFAULT_CHECKSUM: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

/// A new object, as far as it is known before its data.
pub(super) struct NewObject {
    pub(super) id: ObjectId,
    pub(super) key: NewKey,
    pub(super) attributes: Attributes,
    pub(super) checksum: ChecksumAlgorithm,
    pub(super) condition: Condition,
}

/// Whether an object's entity tag is the MD5 of its content.
pub(super) fn has_md5_etag(protection: &Protection) -> bool {
    matches!(protection, Protection::Owned { .. })
}

impl Front {
    pub(super) async fn put_object(
        &self,
        request: &Request,
        input: PutObjectInput,
    ) -> Result<S3Response<PutObjectOutput>, Error> {
        let on =
            self.access
                .object::<action::PutObject>(request.caller(), &input.bucket, &input.key)?;
        check_key(&input.key)?;
        let wanted = sse::wanted(&request.headers, request.confidential())?;
        let customer_md5 = match &wanted {
            Wanted::Customer(customer) => answer::md5_of(Some(customer)),
            _ => None,
        };
        let attributes = attributes::of_request(&request.headers, input.metadata)?;
        let mut body = request.take_body()?;
        let condition = self.write_condition(&on, request).await?;
        let id = self.object_id();
        let key = self.new_key(&on, &id, wanted).await?;
        let checksum = body.promised().algorithm().unwrap_or(DEFAULT_CHECKSUM);
        body.want_checksum(checksum);
        if has_md5_etag(&key.protection) {
            body.want_md5();
        }
        let new = NewObject {
            id,
            key,
            attributes,
            checksum,
            condition,
        };
        let (object, _) = self.write_object(&on, new, body).await?;

        let mut headers = HeaderMap::new();
        let md5 = customer_md5.as_deref();
        answer::encryption(&mut headers, &object.protection, md5, ShowContext::Yes);
        if let Some(checksum) = &object.checksum {
            answer::checksum(&mut headers, checksum);
        }
        let output = PutObjectOutput {
            e_tag: answer::etag(&object.etag),
            ..Default::default()
        };
        Ok(answer::with(output, headers))
    }

    /// Seals `plain` and makes it the object. The plaintext must compute the
    /// checksum `new` names, and the MD5 if the entity tag is one.
    pub(super) async fn write_object<P: Plain>(
        &self,
        on: &OnObject<action::PutObject>,
        new: NewObject,
        plain: P,
    ) -> Result<(Object, ObjectRecord), Error> {
        let mut sink = self.vault.begin_put(on, plain.plain_len()).await?;
        let with = Seal {
            algorithm: CHUNK_ALGORITHM,
            key: &new.key.key,
            place: stream_place(on.resource().bucket(), on.resource().key(), 0),
            random: &*self.random,
        };
        let sealed = seal(plain, &mut sink, with).await?;
        let value = sealed
            .received
            .checksum(new.checksum)
            .ok_or(Error::Internal("the checksum was not computed"))?;
        let etag = self.content_etag(&new.key.protection, &sealed.received)?;
        let object = Object {
            id: new.id,
            size: sealed.received.len,
            etag: hex::encode(etag),
            algorithm: CHUNK_ALGORITHM,
            layout: Layout::Single { salt: sealed.salt },
            protection: new.key.protection,
            attributes: new.attributes,
            checksum: Some(Checksum {
                value,
                coverage: Coverage::FullObject,
                parts: 0,
            }),
        };
        let Sealed { envelope, sealing } = self.seal_object(on, &object)?;
        let commit = Commit {
            envelope,
            modified: self.clock.now(),
            condition: new.condition,
        };
        let committed = to_the_end(async move {
            let _until_it_is_known = sealing;
            sink.commit(commit).await
        });
        let record = committed
            .await
            .map_err(|e| commit_error(e, new.condition))?;
        Ok((object, record))
    }

    /// What the commit must find, from the request's conditions and the object
    /// as it is now.
    pub(super) async fn write_condition(
        &self,
        on: &OnObject<action::PutObject>,
        request: &Request,
    ) -> Result<Condition, Error> {
        let condition = WriteCondition::of_write(&request.headers)?;
        if condition.is_always() {
            return Ok(Condition::Always);
        }
        let (sequence, etag) = match self.vault.head(on).await {
            Ok(record) => {
                let object = self.envelopes.open_object(
                    on.resource().bucket_id()?,
                    on.resource().key(),
                    &record.envelope,
                )?;
                (Some(record.sequence), Some(object.etag))
            }
            Err(Error::Store(StoreError::NoSuchKey)) => (None, None),
            Err(error) => return Err(error),
        };
        condition.check(etag.as_deref())?;
        Ok(sequence.map_or(Condition::Absent, Condition::Sequence))
    }

    /// A key for a new object, as the request or the bucket wants it.
    pub(super) async fn new_key(
        &self,
        on: &OnObject<action::PutObject>,
        id: &ObjectId,
        wanted: Wanted,
    ) -> Result<NewKey, Error> {
        let default = self.vault.default_for_write(on)?;
        let at = Place {
            bucket: on.resource().bucket(),
            key: on.resource().key(),
            id,
        };
        self.keys.create(on.caller(), at, wanted, &default).await
    }

    pub(super) fn object_id(&self) -> ObjectId {
        let mut id = [0; 16];
        self.random.fill(&mut id);
        id
    }

    /// The entity tag of content that was received whole.
    pub(super) fn content_etag(
        &self,
        protection: &Protection,
        received: &Received,
    ) -> Result<[u8; 16], Error> {
        if has_md5_etag(protection) {
            let md5 = received.md5;
            md5.ok_or(Error::Internal("the MD5 was not computed"))
        } else {
            Ok(self.opaque_etag())
        }
    }

    /// An entity tag that says nothing about the content.
    pub(super) fn opaque_etag(&self) -> [u8; 16] {
        let mut etag = [0; 16];
        self.random.fill(&mut etag);
        etag
    }

    /// Seals an object's envelope for where it belongs.
    pub(super) fn seal_object<A: iam::Action>(
        &self,
        on: &OnObject<A>,
        object: &Object,
    ) -> Result<Sealed, Error> {
        let bucket = on.resource().bucket_id()?;
        Ok(self
            .envelopes
            .seal_object(bucket, on.resource().key(), object))
    }
}

/// A condition that held before the data came and no longer does.
pub(super) fn commit_error(error: StoreError, condition: Condition) -> Error {
    match (error, condition) {
        (StoreError::PreconditionFailed { .. }, Condition::Sequence(_)) => Error::client(
            http::StatusCode::CONFLICT,
            "ConditionalRequestConflict",
            "The conditional request cannot succeed due to a conflicting operation against this resource.",
        ),
        (error, _) => Error::Store(error),
    }
}

/// S3's limit on keys, before anything is made for one.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    if key.len() > crate::store::KEY_LEN_MAX {
        return Err(Error::Store(StoreError::KeyTooLong));
    }
    Ok(())
}
