//! GetObject, HeadObject and GetObjectAttributes.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode};
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::{
    GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts, GetObjectInput,
    GetObjectOutput, HeadObjectInput, HeadObjectOutput, Metadata, ObjectPart, StorageClass,
};

use super::answer::{self, ShowContext, checksum_fields};
use super::{Front, attributes};
use crate::access::OnObject;
use crate::answered::{Answer, Status};
use crate::condition::{ReadConditions, range_holds};
use crate::dates::http_date;
use crate::envelope::{Object, PartPlace};
use crate::error::Error;
use crate::object_key::{Asked, Place, check_customer};
use crate::opening::OpenObject;
use crate::range::ByteRange;
use crate::request::Request;
use crate::sse::{self, CustomerKey};
use crate::store::{ObjectRecord, SealedReader};

/// The query parameters that replace headers of the answer.
const OVERRIDES: [(&str, &str); 6] = [
    ("response-content-type", "content-type"),
    ("response-content-language", "content-language"),
    ("response-expires", "expires"),
    ("response-cache-control", "cache-control"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
];

/// What of an object is asked for.
struct Selection {
    range: Range<u64>,
    /// Set where the answer is partial.
    content_range: Option<String>,
    /// `x-amz-mp-parts-count`, where a part of an object of parts is asked for.
    parts_count: Option<u32>,
}

impl Front {
    pub(super) async fn get_object(
        &self,
        request: &Request,
        input: GetObjectInput,
    ) -> Result<S3Response<GetObjectOutput>, Error> {
        let on =
            self.access
                .object::<action::GetObject>(request.caller(), &input.bucket, &input.key)?;
        let customer = sse::customer_only(&request.headers, request.confidential())?;
        let customer_md5 = answer::md5_of(customer.as_ref());
        let open = self.open_for(&on, request, customer.as_ref()).await?;
        let selection = select(request, &open.object, open.record.modified, |number| {
            let parts = open.parts().len();
            Some((
                open.part_range(number)?,
                u32::try_from(parts).ok().filter(|n| *n > 0),
            ))
        })?;
        let md5 = customer_md5.as_deref();
        let headers = object_headers(request, &open.record, &open.object, md5, &selection)?;

        let metadata = metadata(&open.object);
        let len = selection.range.end - selection.range.start;
        let key = self.unlock(&on, &open.object, customer).await?;
        let share = request.room.for_download(len).await?;
        let mut stream = open.stream(key, selection.range.clone());
        // The first piece before the first byte of the answer: what is not
        // authentic is a 500 then, and not an answer cut off.
        let stream = match stream.next().await {
            None => stream,
            Some(first) => Box::pin(futures::stream::iter([Ok(first?)]).chain(stream)),
        };
        // Given back when the last piece has gone to the connection, or the connection has gone.
        let stream = Box::pin(stream.inspect(move |_| _ = &share));
        let output = GetObjectOutput {
            content_length: Some(answer::signed(len)?),
            content_range: selection.content_range,
            metadata,
            ..Default::default()
        };
        let mut response = answer::with(output, headers);
        response.extensions.insert(Answer::new(stream, len));
        Ok(response)
    }

    pub(super) async fn head_object(
        &self,
        request: &Request,
        input: HeadObjectInput,
    ) -> Result<S3Response<HeadObjectOutput>, Error> {
        let on =
            self.access
                .object::<action::GetObject>(request.caller(), &input.bucket, &input.key)?;
        let customer = sse::customer_only(&request.headers, request.confidential())?;
        let customer_md5 = answer::md5_of(customer.as_ref());
        // Only a part's place needs the parts.
        let (record, object, parts) = if request.query.get("partNumber").is_some() {
            let open = self.open_for(&on, request, customer.as_ref()).await?;
            (open.record.clone(), open.object.clone(), Some(open))
        } else {
            let record = self.vault.head(&on).await?;
            let object = self.object_of(&on, &record)?;
            check_customer(&object.protection, customer.as_ref(), Asked::Read)?;
            ReadConditions::of_read(&request.headers).check_read(&object.etag, record.modified)?;
            (record, object, None)
        };
        let selection = select(request, &object, record.modified, |number| {
            let open = parts.as_ref()?;
            let count = u32::try_from(open.parts().len()).ok().filter(|n| *n > 0);
            Some((open.part_range(number)?, count))
        })?;
        let md5 = customer_md5.as_deref();
        let headers = object_headers(request, &record, &object, md5, &selection)?;
        if shows_checksum(request, &object, &selection) {
            self.unlock(&on, &object, customer).await?;
        }
        let partial = selection.content_range.is_some();
        let output = HeadObjectOutput {
            content_length: Some(answer::signed(selection.range.end - selection.range.start)?),
            content_range: selection.content_range,
            metadata: metadata(&object),
            ..Default::default()
        };
        let mut response = answer::with(output, headers);
        if partial {
            response
                .extensions
                .insert(Status(StatusCode::PARTIAL_CONTENT));
        }
        Ok(response)
    }

    pub(super) async fn get_object_attributes(
        &self,
        request: &Request,
        input: GetObjectAttributesInput,
    ) -> Result<S3Response<GetObjectAttributesOutput>, Error> {
        let on = self.access.object::<action::GetObjectAttributes>(
            request.caller(),
            &input.bucket,
            &input.key,
        )?;
        let customer = sse::customer_only(&request.headers, request.confidential())?;
        let (record, reader) = self.vault.open(&on).await?;
        let open = self.opened(&on, record, reader)?;
        check_customer(&open.object.protection, customer.as_ref(), Asked::Read)?;
        let asked = |name: &str| {
            let lines = request.headers.get_all("x-amz-object-attributes").iter();
            lines
                .filter_map(|line| line.to_str().ok())
                .flat_map(|line| line.split(','))
                .any(|attribute| attribute.trim() == name)
        };
        let parts_too = asked("ObjectParts") && !open.parts().is_empty();
        if (asked("Checksum") && open.object.checksum.is_some()) || parts_too {
            self.unlock(&on, &open.object, customer).await?;
        }
        let mut output = GetObjectAttributesOutput {
            last_modified: Some(open.record.modified.into()),
            ..Default::default()
        };
        if asked("ETag") {
            output.e_tag = answer::etag(&open.object.etag);
        }
        if asked("ObjectSize") {
            output.object_size = Some(answer::signed(open.object.size)?);
        }
        if asked("StorageClass") {
            output.storage_class = Some(StorageClass::from_static(StorageClass::STANDARD));
        }
        if let (true, Some(checksum)) = (asked("Checksum"), &open.object.checksum) {
            let mut dto = s3s::dto::Checksum::default();
            checksum_fields!(dto, checksum.value.algorithm, checksum.text());
            dto.checksum_type = Some(checksum.coverage.name().to_owned().into());
            output.checksum = Some(dto);
        }
        if parts_too {
            output.object_parts = Some(self.attribute_parts(request, &open)?);
        }
        Ok(S3Response::new(output))
    }

    fn attribute_parts(
        &self,
        request: &Request,
        open: &OpenObject,
    ) -> Result<GetObjectAttributesParts, Error> {
        let number = |name: &str| -> Option<i32> { request.header(name)?.trim().parse().ok() };
        let max = number("x-amz-max-parts").unwrap_or(1000).clamp(1, 1000);
        let marker = number("x-amz-part-number-marker").unwrap_or(0).max(0);
        let after = marker.unsigned_abs();
        let mut parts = Vec::new();
        let mut truncated = false;
        for record in open.parts().iter().filter(|part| part.number > after) {
            if parts.len() == max.unsigned_abs() as usize {
                truncated = true;
                break;
            }
            let at = PartPlace {
                object: open.object.id,
                number: record.number,
            };
            let part = self.envelopes.open_part(&at, &record.envelope)?;
            let mut dto = ObjectPart {
                part_number: i32::try_from(record.number).ok(),
                size: Some(answer::signed(part.size)?),
                ..Default::default()
            };
            if let Some(value) = &part.checksum {
                checksum_fields!(dto, value.algorithm, value.to_base64());
            }
            parts.push(dto);
        }
        Ok(GetObjectAttributesParts {
            is_truncated: Some(truncated),
            max_parts: Some(max),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            part_number_marker: Some(marker),
            parts: Some(parts),
            total_parts_count: i32::try_from(open.parts().len()).ok(),
        })
    }

    /// Opens an object's record and checks what a read asks of it.
    async fn open_for(
        &self,
        on: &OnObject<action::GetObject>,
        request: &Request,
        customer: Option<&CustomerKey>,
    ) -> Result<OpenObject, Error> {
        let (record, reader) = self.vault.open(on).await?;
        let open = self.opened(on, record, reader)?;
        check_customer(&open.object.protection, customer, Asked::Read)?;
        let conditions = ReadConditions::of_read(&request.headers);
        conditions.check_read(&open.object.etag, open.record.modified)?;
        Ok(open)
    }

    /// An object as the vault gave it, checked against its envelope.
    pub(super) fn opened<A: iam::Action>(
        &self,
        on: &OnObject<A>,
        record: ObjectRecord,
        reader: Arc<dyn SealedReader>,
    ) -> Result<OpenObject, Error> {
        let object = on.resource();
        let bucket = (object.bucket(), object.bucket_id()?);
        OpenObject::new(&self.envelopes, bucket, record, reader)
    }

    /// The envelope of an object that is looked at without its data.
    pub(super) fn object_of<A: iam::Action>(
        &self,
        on: &OnObject<A>,
        record: &ObjectRecord,
    ) -> Result<Object, Error> {
        let object = self.envelopes.open_object(
            on.resource().bucket_id()?,
            on.resource().key(),
            &record.envelope,
        )?;
        if object.size != record.size {
            return Err(Error::Integrity);
        }
        Ok(object)
    }

    /// The key to an object's data, which whoever sees a checksum of that data needs too: a digest of a guessed plaintext
    /// tells whether the guess is right.
    pub(super) async fn unlock<A: iam::Action>(
        &self,
        on: &OnObject<A>,
        object: &Object,
        customer: Option<CustomerKey>,
    ) -> Result<Arc<crypto::chunk::ObjectKey>, Error> {
        let at = Place {
            bucket: on.resource().bucket(),
            key: on.resource().key(),
            id: &object.id,
        };
        self.keys
            .open(on.caller(), at, &object.protection, customer)
            .await
    }
}

/// Which bytes: all, a range or a part.
fn select(
    request: &Request,
    object: &Object,
    modified: SystemTime,
    part: impl FnOnce(u32) -> Option<(Range<u64>, Option<u32>)>,
) -> Result<Selection, Error> {
    let size = object.size;
    let content_range = |range: &Range<u64>| {
        (range.start < range.end).then(|| format!("bytes {}-{}/{size}", range.start, range.end - 1))
    };
    let range = request
        .header("range")
        .filter(|_| range_holds(&request.headers, &object.etag, modified))
        .and_then(ByteRange::parse);
    if let Some(number) = request.query.get("partNumber") {
        if range.is_some() {
            return Err(Error::invalid_request(
                "Cannot specify both Range header and partNumber query parameter",
            ));
        }
        let number = super::multipart::part_number(number)?;
        let (range, parts_count) = part(number).ok_or_else(|| {
            Error::client(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "InvalidPartNumber",
                "The requested partnumber is not satisfiable",
            )
        })?;
        return Ok(Selection {
            content_range: content_range(&range),
            range,
            parts_count,
        });
    }
    match range {
        None => Ok(Selection {
            range: 0..size,
            content_range: None,
            parts_count: None,
        }),
        Some(range) => {
            let range = range
                .resolve(size)
                .map_err(|_| Error::InvalidRange { size })?;
            Ok(Selection {
                content_range: content_range(&range),
                range,
                parts_count: None,
            })
        }
    }
}

/// User metadata; s3s writes the headers, encoding what is not ASCII.
fn metadata(object: &Object) -> Option<Metadata> {
    (!object.attributes.metadata.is_empty())
        .then(|| object.attributes.metadata.iter().cloned().collect())
}

/// Every header an answer about an object has, but its length and range.
fn object_headers(
    request: &Request,
    record: &ObjectRecord,
    object: &Object,
    customer_md5: Option<&str>,
    selection: &Selection,
) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    answer::set(&mut headers, "content-type", attributes::DEFAULT_TYPE);
    for (name, value) in &object.attributes.headers {
        answer::set(&mut headers, name, value);
    }
    for (parameter, name) in OVERRIDES {
        if let Some(value) = request.query.get(parameter) {
            let value = HeaderValue::from_str(value).map_err(|_| {
                Error::invalid_argument(format!("{parameter} is not a header's value."))
            })?;
            headers.insert(name, value);
        }
    }
    answer::set(&mut headers, "accept-ranges", "bytes");
    answer::set(&mut headers, "etag", &format!("\"{}\"", object.etag));
    headers.insert(http::header::LAST_MODIFIED, http_date(record.modified));
    if !object.attributes.tags.is_empty() {
        headers.insert(
            "x-amz-tagging-count",
            HeaderValue::from(object.attributes.tags.len()),
        );
    }
    if let Some(count) = selection.parts_count {
        headers.insert("x-amz-mp-parts-count", HeaderValue::from(count));
    }
    answer::encryption(
        &mut headers,
        &object.protection,
        customer_md5,
        ShowContext::No,
    );
    if shows_checksum(request, object, selection)
        && let Some(checksum) = &object.checksum
    {
        answer::checksum(&mut headers, checksum);
    }
    Ok(headers)
}

/// Whether an answer has the object's checksum: asked for, and with the whole object, whose it is.
fn shows_checksum(request: &Request, object: &Object, selection: &Selection) -> bool {
    let whole = selection.range == (0..object.size);
    let asked = request
        .header("x-amz-checksum-mode")
        .is_some_and(|mode| mode.eq_ignore_ascii_case("enabled"));
    whole && asked && object.checksum.is_some()
}
