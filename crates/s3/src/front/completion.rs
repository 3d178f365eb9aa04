//! CompleteMultipartUpload: parts become one object, whose envelope has a
//! digest over all of them; no data is touched.

use http::{HeaderMap, StatusCode};
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::*;

use super::Front;
use super::answer::{self, ShowContext, checksum_fields};
use super::multipart::OpenUpload;
use super::write::{commit_error, has_md5_etag};
use crate::access::OnObject;
use crate::checksum::{Algorithm, Coverage, Value};
use crate::envelope::{self, Layout, Sealed, parts_digest};
use crate::error::Error;
use crate::object_key::{Asked, check_customer};
use crate::request::Request;
use crate::sse;
use crate::store::{Commit, PART_NUMBER_MAX, PartRecord, PartSeen};

/// Smallest part but the last: 5 MiB, as in S3.
const PART_LEN_MIN: u64 = 5 << 20;
/// Largest object: 5 TiB, as in S3.
const OBJECT_LEN_MAX: u64 = 5 << 40;
/// Parts read from the store at a time.
const PARTS_PAGE: usize = 1000;

impl Front {
    pub(super) async fn complete_multipart_upload(
        &self,
        request: &Request,
        input: CompleteMultipartUploadInput,
    ) -> Result<S3Response<CompleteMultipartUploadOutput>, Error> {
        let on =
            self.access
                .object::<action::PutObject>(request.caller(), &input.bucket, &input.key)?;
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
                digest: parts_digest(&records)?,
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
        let Sealed { envelope, sealing } = self.seal_object(&on, &object)?;
        let commit = Commit {
            envelope,
            modified: self.clock.now(),
            condition,
        };
        self.vault
            .complete_upload(&on, &open.id, seen, commit, sealing)
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
                let part = self.open_part(&open.upload, &record)?;
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

fn invalid_part() -> Error {
    Error::client(
        StatusCode::BAD_REQUEST,
        "InvalidPart",
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
    )
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
    let scheme = if request.context.secure_transport {
        "https"
    } else {
        "http"
    };
    let host = request.header("host").unwrap_or("localhost");
    format!("{scheme}://{host}/{bucket}/{}", crate::url::encode_key(key))
}
