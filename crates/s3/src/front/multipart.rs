//! Multipart uploads.
//!
//! The upload's envelope holds the object's key, wrapped as its creation asked;
//! every part is a chunk stream of its own under that key and a fresh salt, also
//! when a part is sent again. Completion makes the parts one object without
//! touching their data; its envelope has a digest over all of them.

use http::{HeaderMap, StatusCode};
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::*;

use super::answer::{self, ShowContext, checksum_fields};
use super::listing::{Encoding, count, some};
use super::write::{CHUNK_ALGORITHM, check_key, commit_error, has_md5_etag};
use super::{Front, attributes};
use crate::access::OnObject;
use crate::checksum::{Algorithm, Coverage, Plan, Value};
use crate::envelope::{self, Layout, PartPlace, parts_digest, stream_place};
use crate::error::Error;
use crate::gateway::Status;
use crate::object_key::{Asked, Place, check_customer};
use crate::range::ByteRange;
use crate::request::Request;
use crate::sealing::{Plain, Seal, seal};
use crate::sse::{self, CustomerKey, Wanted};
use crate::store::{
    Commit, PART_NUMBER_MAX, PartRecord, PartSeen, UploadEntry, UploadId, UploadQuery, UploadRecord,
};
use crate::vault::SeesUpload;

/// Smallest part but the last: 5 MiB, as in S3.
const PART_LEN_MIN: u64 = 5 << 20;
/// Largest object: 5 TiB, as in S3.
const OBJECT_LEN_MAX: u64 = 5 << 40;
/// Parts read from the store at a time.
const PARTS_PAGE: usize = 1000;

/// Reads a part number.
pub(super) fn part_number(text: &str) -> Result<u32, Error> {
    match text.parse() {
        Ok(number @ 1..=PART_NUMBER_MAX) => Ok(number),
        _ => Err(Error::invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive",
        )),
    }
}

fn invalid_part() -> Error {
    Error::client(
        StatusCode::BAD_REQUEST,
        "InvalidPart",
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
    )
}

fn upload_id(request: &Request) -> Result<UploadId, Error> {
    request
        .query
        .get("uploadId")
        .and_then(UploadId::parse)
        .ok_or_else(Error::no_such_upload)
}

/// An upload, opened.
struct OpenUpload {
    id: UploadId,
    upload: envelope::Upload,
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
                .object::<action::PutObject>(&request.caller, &input.bucket, &input.key)?;
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
        let sealed = self
            .envelopes
            .seal_upload(on.bucket(), on.key(), &upload, &*self.random)
            .into();
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
                .object::<action::PutObject>(&request.caller, &input.bucket, &input.key)?;
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
                .object::<action::PutObject>(&request.caller, &input.bucket, &input.key)?;
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
        let plain = source.read(self, range, md5, plan.algorithm);
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

    pub(super) async fn complete_multipart_upload(
        &self,
        request: &Request,
        input: CompleteMultipartUploadInput,
    ) -> Result<S3Response<CompleteMultipartUploadOutput>, Error> {
        let on =
            self.access
                .object::<action::PutObject>(&request.caller, &input.bucket, &input.key)?;
        let customer = sse::customer_only(&request.headers, request.confidential())?;
        let open = self.open_upload(&on, request).await?;
        if customer.is_some() {
            check_customer(&open.upload.protection, customer.as_ref(), Asked::Part)?;
        }
        let wanted = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        let chosen = self.chosen_parts(&on, &open, wanted).await?;
        let parts: Vec<(Option<Value>, u64)> = chosen
            .iter()
            .map(|(_, part)| (part.checksum.clone(), part.size))
            .collect();
        let size: u64 = parts.iter().map(|(_, size)| size).sum();
        if size > OBJECT_LEN_MAX {
            return Err(Error::client(
                StatusCode::BAD_REQUEST,
                "EntityTooLarge",
                "Your proposed upload exceeds the maximum allowed object size.",
            ));
        }
        if let Some(announced) = request.header("x-amz-mp-object-size")
            && announced.trim().parse() != Ok(size)
        {
            return Err(Error::invalid_request(
                "The provided 'x-amz-mp-object-size' header does not match what was computed.",
            ));
        }
        let checksum = open.upload.plan.combine(&parts);
        check_announced(request, checksum.as_ref())?;

        let records: Vec<PartRecord> = chosen.iter().map(|(record, _)| record.clone()).collect();
        let object = envelope::Object {
            id: open.upload.id,
            size,
            etag: self.multipart_etag(&open.upload, &chosen),
            algorithm: open.upload.algorithm,
            layout: Layout::Parts {
                count: u32::try_from(records.len()).map_err(|_| Error::malformed_xml())?,
                digest: parts_digest(&records),
            },
            protection: open.upload.protection,
            attributes: open.upload.attributes,
            checksum,
        };
        let condition = self.write_condition(&on, request).await?;
        let seen: Vec<PartSeen> = records
            .iter()
            .map(|record| PartSeen {
                number: record.number,
                sequence: record.sequence,
            })
            .collect();
        let envelope = self
            .envelopes
            .seal_object(on.bucket(), on.key(), &object, &*self.random)
            .into();
        let commit = Commit {
            envelope,
            modified: self.clock.now(),
            condition,
        };
        self.vault
            .complete_upload(&on, &open.id, &seen, commit)
            .await
            .map_err(|error| commit_error(error, condition))?;

        let mut headers = HeaderMap::new();
        answer::encryption(&mut headers, &object.protection, None, ShowContext::No);
        let mut output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            e_tag: answer::etag(&object.etag),
            location: Some(location(request, &input.bucket, &input.key)),
            ..Default::default()
        };
        if let Some(checksum) = &object.checksum {
            checksum_fields!(output, checksum.value.algorithm, checksum.text());
            output.checksum_type = Some(checksum.coverage.name().to_owned().into());
        }
        Ok(answer::with(output, headers))
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: &Request,
        input: AbortMultipartUploadInput,
    ) -> Result<S3Response<AbortMultipartUploadOutput>, Error> {
        let on = self.access.object::<action::AbortMultipartUpload>(
            &request.caller,
            &input.bucket,
            &input.key,
        )?;
        self.vault.abort_upload(&on, &upload_id(request)?).await?;
        let mut response = S3Response::new(AbortMultipartUploadOutput::default());
        response.extensions.insert(Status(StatusCode::NO_CONTENT));
        Ok(response)
    }

    pub(super) async fn list_parts(
        &self,
        request: &Request,
        input: ListPartsInput,
    ) -> Result<S3Response<ListPartsOutput>, Error> {
        let on = self.access.object::<action::ListMultipartUploadParts>(
            &request.caller,
            &input.bucket,
            &input.key,
        )?;
        let max = count(request, "max-parts")?;
        let marker = request
            .query
            .get("part-number-marker")
            .filter(|text| !text.is_empty());
        let marker: u32 = match marker.map(str::parse) {
            None => 0,
            Some(Ok(marker)) => marker,
            Some(Err(_)) => {
                return Err(Error::invalid_argument(
                    "Argument part-number-marker must be an integer between 0 and 2147483647",
                ));
            }
        };
        let open = self.open_upload(&on, request).await?;
        let page = self.vault.parts(&on, &open.id, marker, max).await?;
        let mut parts = Vec::with_capacity(page.entries.len());
        for record in &page.entries {
            let part = self.open_part(&on, &open.upload, record)?;
            let mut dto = Part {
                e_tag: answer::etag(&hex::encode(part.etag)),
                last_modified: Some(record.modified.into()),
                part_number: i32::try_from(record.number).ok(),
                size: Some(answer::signed(part.size)?),
                ..Default::default()
            };
            if let Some(value) = &part.checksum {
                checksum_fields!(dto, value.algorithm, value.to_base64());
            }
            parts.push(dto);
        }
        let plan = open.upload.plan;
        let next = page.entries.last().filter(|_| page.truncated);
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(open.id.to_string()),
            checksum_algorithm: plan
                .asked
                .then(|| ChecksumAlgorithm::from_static(plan.algorithm.name())),
            checksum_type: plan
                .asked
                .then(|| ChecksumType::from_static(plan.coverage.name())),
            initiator: Some(Initiator {
                display_name: None,
                id: Some(self.account.to_string()),
            }),
            is_truncated: Some(page.truncated),
            max_parts: i32::try_from(max).ok(),
            next_part_number_marker: next.and_then(|part| i32::try_from(part.number).ok()),
            owner: Some(self.owner()),
            part_number_marker: i32::try_from(marker).ok(),
            parts: some(parts),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..Default::default()
        }))
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: &Request,
        input: ListMultipartUploadsInput,
    ) -> Result<S3Response<ListMultipartUploadsOutput>, Error> {
        let on = self
            .access
            .bucket::<action::ListBucketMultipartUploads>(&request.caller, &input.bucket)?;
        let encoding = Encoding::of(request)?;
        let max = count(request, "max-uploads")?;
        let given = |name: &str| request.query.get(name).filter(|text| !text.is_empty());
        let (after_key, after_upload) = (given("key-marker"), given("upload-id-marker"));
        let query = UploadQuery {
            prefix: given("prefix").unwrap_or_default().to_owned(),
            delimiter: given("delimiter").map(str::to_owned),
            after_key: after_key.map(str::to_owned),
            // Without a key marker it is ignored.
            after_upload: after_upload
                .filter(|_| after_key.is_some())
                .and_then(UploadId::parse),
            limit: max,
        };
        let page = self.vault.uploads(&on, &query).await?;
        let mut uploads = Vec::new();
        let mut prefixes = Vec::new();
        for entry in &page.entries {
            match entry {
                UploadEntry::CommonPrefix(prefix) => {
                    prefixes.push(CommonPrefix {
                        prefix: Some(encoding.apply(prefix)),
                    });
                }
                UploadEntry::Upload(record) => uploads.push(MultipartUpload {
                    initiated: Some(record.initiated.into()),
                    initiator: Some(Initiator {
                        display_name: None,
                        id: Some(self.account.to_string()),
                    }),
                    key: Some(encoding.apply(&record.key)),
                    owner: Some(self.owner()),
                    storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                    upload_id: Some(record.id.to_string()),
                    ..Default::default()
                }),
            }
        }
        let (next_key, next_upload) = match page.entries.last().filter(|_| page.truncated) {
            None => (None, None),
            Some(UploadEntry::CommonPrefix(prefix)) => (Some(encoding.apply(prefix)), None),
            Some(UploadEntry::Upload(UploadRecord { key, id, .. })) => {
                (Some(encoding.apply(key)), Some(id.to_string()))
            }
        };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            common_prefixes: some(prefixes),
            delimiter: given("delimiter").map(|d| encoding.apply(d)),
            encoding_type: encoding.dto(),
            is_truncated: Some(page.truncated),
            key_marker: Some(after_key.map(|key| encoding.apply(key)).unwrap_or_default()),
            max_uploads: i32::try_from(max).ok(),
            next_key_marker: next_key,
            next_upload_id_marker: next_upload,
            prefix: given("prefix").map(|prefix| encoding.apply(prefix)),
            request_charged: None,
            upload_id_marker: Some(after_upload.unwrap_or_default().to_owned()),
            uploads: some(uploads),
        }))
    }

    async fn open_upload<A: SeesUpload>(
        &self,
        on: &OnObject<A>,
        request: &Request,
    ) -> Result<OpenUpload, Error> {
        let id = upload_id(request)?;
        let record = self.vault.upload(on, &id).await?;
        let upload = self
            .envelopes
            .open_upload(on.bucket(), on.key(), &record.envelope)?;
        Ok(OpenUpload { id, upload })
    }

    fn open_part<A: iam::Action>(
        &self,
        on: &OnObject<A>,
        upload: &envelope::Upload,
        record: &PartRecord,
    ) -> Result<envelope::Part, Error> {
        let at = PartPlace {
            bucket: on.bucket(),
            key: on.key(),
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
            bucket: on.bucket(),
            key: on.key(),
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
            place: stream_place(on.bucket(), on.key(), new.number),
            random: &*self.random,
        };
        let sealed = seal(new.plain, &mut sink, with).await?;
        let etag = match sealed.received.md5 {
            Some(md5) if has_md5_etag(&upload.protection) => md5,
            _ => self.opaque_etag(),
        };
        let part = envelope::Part {
            salt: sealed.salt,
            size: sealed.received.len,
            etag,
            checksum: sealed.received.checksum(new.keep),
        };
        let at = PartPlace {
            bucket: on.bucket(),
            key: on.key(),
            object: upload.id,
            number: new.number,
        };
        let envelope = self.envelopes.seal_part(&at, &part, &*self.random).into();
        let record = sink.commit(envelope, self.clock.now()).await?;
        let shown = sealed.received.checksum(promised.unwrap_or(new.keep));
        Ok((part, shown, record))
    }

    /// The parts a completion names, in its order, each as it was named.
    async fn chosen_parts(
        &self,
        on: &OnObject<action::PutObject>,
        open: &OpenUpload,
        wanted: Vec<CompletedPart>,
    ) -> Result<Vec<(PartRecord, envelope::Part)>, Error> {
        if wanted.is_empty() || wanted.len() > PART_NUMBER_MAX as usize {
            return Err(Error::malformed_xml());
        }
        let mut numbers = Vec::with_capacity(wanted.len());
        for part in &wanted {
            let number = part
                .part_number
                .and_then(|number| u32::try_from(number).ok());
            numbers.push(number.filter(|n| *n > 0).ok_or_else(Error::malformed_xml)?);
        }
        if numbers.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::client(
                StatusCode::BAD_REQUEST,
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
            ));
        }
        let mut chosen = Vec::with_capacity(wanted.len());
        let mut next = numbers.iter().zip(wanted.iter()).peekable();
        let mut after = 0;
        'pages: loop {
            let page = self.vault.parts(on, &open.id, after, PARTS_PAGE).await?;
            for record in page.entries {
                after = record.number;
                let Some((number, named)) = next.peek() else {
                    break 'pages;
                };
                if record.number < **number {
                    continue;
                }
                if record.number > **number {
                    return Err(invalid_part());
                }
                let part = self.open_part(on, &open.upload, &record)?;
                check_named(&part, named)?;
                chosen.push((record, part));
                next.next();
            }
            if !page.truncated {
                break;
            }
        }
        if next.peek().is_some() {
            return Err(invalid_part());
        }
        let all_but_last = &chosen[..chosen.len() - 1];
        if all_but_last
            .iter()
            .any(|(_, part)| part.size < PART_LEN_MIN)
        {
            return Err(Error::client(
                StatusCode::BAD_REQUEST,
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
            ));
        }
        Ok(chosen)
    }

    /// `hex-N`: over the parts' MD5s where entity tags are MD5s, else random.
    fn multipart_etag(
        &self,
        upload: &envelope::Upload,
        parts: &[(PartRecord, envelope::Part)],
    ) -> String {
        let etag = if has_md5_etag(&upload.protection) {
            let mut md5 = crypto::hash::Md5::new();
            for (_, part) in parts {
                md5.update(&part.etag);
            }
            md5.finish()
        } else {
            self.opaque_etag()
        };
        format!("{}-{}", hex::encode(etag), parts.len())
    }
}

/// Whether a part is the one the completion names.
fn check_named(part: &envelope::Part, named: &CompletedPart) -> Result<(), Error> {
    let etag = named
        .e_tag
        .as_ref()
        .map(ETag::value)
        .ok_or_else(Error::malformed_xml)?;
    if etag.trim_matches('"') != hex::encode(part.etag) {
        return Err(invalid_part());
    }
    let Some(kept) = &part.checksum else {
        return Ok(());
    };
    let given = match kept.algorithm {
        Algorithm::Crc32 => &named.checksum_crc32,
        Algorithm::Crc32c => &named.checksum_crc32c,
        Algorithm::Crc64Nvme => &named.checksum_crc64nvme,
        Algorithm::Sha1 => &named.checksum_sha1,
        Algorithm::Sha256 => &named.checksum_sha256,
    };
    match given {
        Some(given) if *given != kept.to_base64() => Err(invalid_part()),
        _ => Ok(()),
    }
}

/// Compares the checksum the completion announces, if it does.
fn check_announced(
    request: &Request,
    computed: Option<&crate::checksum::Checksum>,
) -> Result<(), Error> {
    for algorithm in Algorithm::ALL {
        let Some(announced) = request.header(algorithm.header()) else {
            continue;
        };
        let equal = computed
            .filter(|c| c.value.algorithm == algorithm)
            .is_some_and(|checksum| {
                // A composite value is taken with or without the number of parts.
                announced == checksum.text()
                    || (checksum.coverage == Coverage::Composite
                        && announced == checksum.value.to_base64())
            });
        if !equal {
            return Err(Error::bad_digest(algorithm.name()));
        }
    }
    Ok(())
}

fn location(request: &Request, bucket: &str, key: &str) -> String {
    let scheme = if request.caller.secure_transport {
        "https"
    } else {
        "http"
    };
    let host = request.header("host").unwrap_or("localhost");
    format!("{scheme}://{host}/{bucket}/{}", crate::url::encode_key(key))
}
