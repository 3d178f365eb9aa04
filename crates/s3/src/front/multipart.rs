//! Multipart uploads.
//!
//! The upload's envelope holds the object's key, wrapped as its creation asked;
//! every part is a chunk stream of its own under that key and a fresh salt, also
//! when a part is sent again.

use http::{HeaderMap, StatusCode};
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::*;

use super::answer::{self, ShowContext, checksum_fields};
use super::write::{CHUNK_ALGORITHM, check_key, has_md5_etag};
use super::{Front, attributes};
use crate::access::OnObject;
use crate::answered::Status;
use crate::checksum::{Algorithm, Plan, Value};
use crate::envelope::{self, PartPlace, Sealed, stream_place};
use crate::error::Error;
use crate::object_key::{Asked, Place, check_customer};
use crate::range::ByteRange;
use crate::request::Request;
use crate::sealing::{Plain, Seal, seal};
use crate::settle::to_the_end;
use crate::sse::{self, CustomerKey, Wanted};
use crate::store::{PART_NUMBER_MAX, PartRecord, UploadId};
use crate::vault::SeesUpload;

/// Reads a part number.
pub(super) fn part_number(text: &str) -> Result<u32, Error> {
    match text.parse() {
        Ok(number @ 1..=PART_NUMBER_MAX) => Ok(number),
        _ => Err(Error::invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive",
        )),
    }
}

fn upload_id(request: &Request) -> Result<UploadId, Error> {
    request
        .query
        .get("uploadId")
        .and_then(UploadId::parse)
        .ok_or_else(Error::no_such_upload)
}

/// An upload, opened.
pub(super) struct OpenUpload {
    pub(super) id: UploadId,
    pub(super) upload: envelope::Upload,
}

/// A part to be sealed, and the checksum its envelope keeps.
struct NewPart<P> {
    number: u32,
    plain: P,
    keep: Algorithm,
}

impl Front {
    pub(super) async fn create_multipart_upload(
        &self,
        request: &Request,
        input: CreateMultipartUploadInput,
    ) -> Result<S3Response<CreateMultipartUploadOutput>, Error> {
        let on =
            self.access
                .object::<action::PutObject>(request.caller(), &input.bucket, &input.key)?;
        check_key(&input.key)?;
        let wanted = sse::wanted(&request.headers, request.confidential())?;
        let customer_md5 = match &wanted {
            Wanted::Customer(customer) => answer::md5_of(Some(customer)),
            _ => None,
        };
        let plan = Plan::of_create(&request.headers)?;
        let attributes = attributes::of_request(&request.headers, input.metadata)?;
        let id = self.object_id();
        let key = self.new_key(&on, &id, wanted).await?;
        let upload = envelope::Upload {
            id,
            algorithm: CHUNK_ALGORITHM,
            protection: key.protection,
            attributes,
            plan,
        };
        let (bucket, key) = (on.resource().bucket_id()?, on.resource().key());
        let sealed = self.envelopes.seal_upload(bucket, key, &upload);
        let record = self
            .vault
            .create_upload(&on, sealed, self.clock.now())
            .await?;

        let mut headers = HeaderMap::new();
        let md5 = customer_md5.as_deref();
        answer::encryption(&mut headers, &upload.protection, md5, ShowContext::Yes);
        if plan.asked {
            answer::set(
                &mut headers,
                "x-amz-checksum-algorithm",
                plan.algorithm.name(),
            );
            answer::set(&mut headers, "x-amz-checksum-type", plan.coverage.name());
        }
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(record.id.to_string()),
            ..Default::default()
        };
        Ok(answer::with(output, headers))
    }

    pub(super) async fn upload_part(
        &self,
        request: &Request,
        input: UploadPartInput,
    ) -> Result<S3Response<UploadPartOutput>, Error> {
        let on =
            self.access
                .object::<action::PutObject>(request.caller(), &input.bucket, &input.key)?;
        let number = part_number(request.query.get("partNumber").unwrap_or_default())?;
        let customer = sse::customer_only(&request.headers, request.confidential())?;
        let customer_md5 = answer::md5_of(customer.as_ref());
        let open = self.open_upload(&on, request).await?;
        check_customer(&open.upload.protection, customer.as_ref(), Asked::Part)?;
        let mut body = request.take_body()?;
        let plan = open.upload.plan;
        let promised = body.promised().algorithm();
        if let Some(promised) = promised.filter(|p| plan.asked && *p != plan.algorithm) {
            return Err(Error::invalid_request(format!(
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                plan.algorithm.name().to_ascii_lowercase(),
                promised.name().to_ascii_lowercase()
            )));
        }
        body.want_checksum(plan.algorithm);
        if has_md5_etag(&open.upload.protection) {
            body.want_md5();
        }
        let new = NewPart {
            number,
            plain: body,
            keep: plan.algorithm,
        };
        let (part, shown, _) = self.write_part(&on, &open, new, customer, promised).await?;

        let mut headers = HeaderMap::new();
        let md5 = customer_md5.as_deref();
        answer::encryption(&mut headers, &open.upload.protection, md5, ShowContext::No);
        if let Some(value) = &shown {
            answer::part_checksum(&mut headers, value);
        }
        let etag = hex::encode(part.etag);
        let output = UploadPartOutput {
            e_tag: answer::etag(&etag),
            ..Default::default()
        };
        Ok(answer::with(output, headers))
    }

    pub(super) async fn upload_part_copy(
        &self,
        request: &Request,
        input: UploadPartCopyInput,
    ) -> Result<S3Response<UploadPartCopyOutput>, Error> {
        let on =
            self.access
                .object::<action::PutObject>(request.caller(), &input.bucket, &input.key)?;
        let number = part_number(request.query.get("partNumber").unwrap_or_default())?;
        let customer = sse::customer_only(&request.headers, request.confidential())?;
        let customer_md5 = answer::md5_of(customer.as_ref());
        let open = self.open_upload(&on, request).await?;
        check_customer(&open.upload.protection, customer.as_ref(), Asked::Part)?;
        let source = self.copy_source(request).await?;
        let size = source.open.object.size;
        let range = match request.header("x-amz-copy-source-range") {
            None => 0..size,
            Some(text) => ByteRange::parse_copy_source(text)
                .filter(|range| range.end <= size)
                .ok_or_else(|| {
                    Error::invalid_argument(format!(
                        "Range specified is not valid for source object of size: {size}"
                    ))
                })?,
        };
        if range.end - range.start > crate::guard::PLAIN_LEN_MAX {
            return Err(Error::invalid_request(
                "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
            ));
        }
        let plan = open.upload.plan;
        let md5 = has_md5_etag(&open.upload.protection);
        let share = request.room.for_copy(range.end - range.start, md5).await?;
        let plain = source.read(self, range, md5, plan.algorithm, share);
        let new = NewPart {
            number,
            plain,
            keep: plan.algorithm,
        };
        let (part, shown, record) = self.write_part(&on, &open, new, customer, None).await?;

        let mut headers = HeaderMap::new();
        let md5 = customer_md5.as_deref();
        answer::encryption(&mut headers, &open.upload.protection, md5, ShowContext::No);
        let mut result = CopyPartResult {
            e_tag: answer::etag(&hex::encode(part.etag)),
            last_modified: Some(record.modified.into()),
            ..Default::default()
        };
        if let Some(value) = &shown {
            checksum_fields!(result, value.algorithm, value.to_base64());
        }
        let output = UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..Default::default()
        };
        Ok(answer::with(output, headers))
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: &Request,
        input: AbortMultipartUploadInput,
    ) -> Result<S3Response<AbortMultipartUploadOutput>, Error> {
        let on = self.access.object::<action::AbortMultipartUpload>(
            request.caller(),
            &input.bucket,
            &input.key,
        )?;
        self.vault.abort_upload(&on, &upload_id(request)?).await?;
        let mut response = S3Response::new(AbortMultipartUploadOutput::default());
        response.extensions.insert(Status(StatusCode::NO_CONTENT));
        Ok(response)
    }

    pub(super) async fn open_upload<A: SeesUpload>(
        &self,
        on: &OnObject<A>,
        request: &Request,
    ) -> Result<OpenUpload, Error> {
        let id = upload_id(request)?;
        let record = self.vault.upload(on, &id).await?;
        let upload = self.envelopes.open_upload(
            on.resource().bucket_id()?,
            on.resource().key(),
            &record.envelope,
        )?;
        Ok(OpenUpload { id, upload })
    }

    pub(super) fn open_part(
        &self,
        upload: &envelope::Upload,
        record: &PartRecord,
    ) -> Result<envelope::Part, Error> {
        let at = PartPlace {
            object: upload.id,
            number: record.number,
        };
        let part = self.envelopes.open_part(&at, &record.envelope)?;
        if part.size != record.plain_len {
            return Err(Error::Integrity);
        }
        Ok(part)
    }

    /// Seals a part and commits it. Also gives the checksum to answer: the one
    /// promised, or else the one kept.
    async fn write_part<P: Plain>(
        &self,
        on: &OnObject<action::PutObject>,
        open: &OpenUpload,
        new: NewPart<P>,
        customer: Option<CustomerKey>,
        promised: Option<Algorithm>,
    ) -> Result<(envelope::Part, Option<Value>, PartRecord), Error> {
        let upload = &open.upload;
        let at = Place {
            bucket: on.resource().bucket(),
            key: on.resource().key(),
            id: &upload.id,
        };
        let key = self
            .keys
            .open(on.caller(), at, &upload.protection, customer)
            .await?;
        let mut sink = self
            .vault
            .begin_part(on, &open.id, new.number, new.plain.plain_len())
            .await?;
        let with = Seal {
            algorithm: upload.algorithm,
            key: &key,
            place: stream_place(on.resource().bucket(), on.resource().key(), new.number),
            random: &*self.random,
        };
        let sealed = seal(new.plain, &mut sink, with).await?;
        let etag = self.content_etag(&upload.protection, &sealed.received)?;
        let part = envelope::Part {
            salt: sealed.salt,
            size: sealed.received.len,
            etag,
            checksum: sealed.received.checksum(new.keep),
        };
        let at = PartPlace {
            object: upload.id,
            number: new.number,
        };
        let Sealed { envelope, sealing } = self.envelopes.seal_part(&at, &part);
        let modified = self.clock.now();
        let record = to_the_end(async move {
            let _until_it_is_known = sealing;
            sink.commit(envelope, modified).await
        })
        .await?;
        let shown = sealed.received.checksum(promised.unwrap_or(new.keep));
        Ok((part, shown, record))
    }
}
