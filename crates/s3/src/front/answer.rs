//! Headers that answers about objects have in common.

use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::S3Response;
use s3s::dto::ETag;

use crate::checksum::{Checksum, Value};
use crate::envelope::Protection;
use crate::error::Error;
use crate::sse::{CustomerKey, context_header};

/// Sets a header; a value that is no header value is left out, which cannot
/// happen for what came in as one.
pub(super) fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
        headers.insert(name, value);
    }
}

/// Whether the encryption context is repeated: writes do, reads never.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ShowContext {
    Yes,
    No,
}

/// What an answer says about encryption. `customer_md5` is the MD5 of the key
/// the request brought.
pub(super) fn encryption(
    headers: &mut HeaderMap,
    protection: &Protection,
    customer_md5: Option<&str>,
    context: ShowContext,
) {
    const MODE: &str = "x-amz-server-side-encryption";
    let (key_arn, bucket_key, user_context) = match protection {
        Protection::Owned { .. } => {
            set(headers, MODE, "AES256");
            return;
        }
        Protection::Customer { .. } => {
            set(
                headers,
                "x-amz-server-side-encryption-customer-algorithm",
                "AES256",
            );
            if let Some(md5) = customer_md5 {
                set(
                    headers,
                    "x-amz-server-side-encryption-customer-key-md5",
                    md5,
                );
            }
            return;
        }
        Protection::Kms {
            key_arn, context, ..
        } => (key_arn, false, context),
        Protection::KmsBucketKey {
            key_arn, context, ..
        } => (key_arn, true, context),
    };
    set(headers, MODE, "aws:kms");
    set(
        headers,
        "x-amz-server-side-encryption-aws-kms-key-id",
        key_arn,
    );
    if bucket_key {
        set(
            headers,
            "x-amz-server-side-encryption-bucket-key-enabled",
            "true",
        );
    }
    if context == ShowContext::Yes
        && let Some(context) = context_header(user_context)
    {
        set(headers, "x-amz-server-side-encryption-context", &context);
    }
}

/// The MD5 to repeat of a customer key, before the key goes away.
pub(super) fn md5_of(customer: Option<&CustomerKey>) -> Option<String> {
    customer.map(|customer| customer.md5.clone())
}

/// A checksum's two headers.
pub(super) fn checksum(headers: &mut HeaderMap, checksum: &Checksum) {
    set(headers, checksum.value.algorithm.header(), &checksum.text());
    set(headers, "x-amz-checksum-type", checksum.coverage.name());
}

/// A part's checksum header.
pub(super) fn part_checksum(headers: &mut HeaderMap, value: &Value) {
    set(headers, value.algorithm.header(), &value.to_base64());
}

/// An entity tag for XML and headers.
pub(super) fn etag(value: &str) -> Option<ETag> {
    Some(ETag::Strong(value.to_owned()))
}

/// An answer with headers of ours.
pub(super) fn with<T>(output: T, headers: HeaderMap) -> S3Response<T> {
    S3Response::with_headers(output, headers)
}

/// A length as the DTOs have it.
pub(super) fn signed(len: u64) -> Result<i64, Error> {
    i64::try_from(len).map_err(|_| Error::Internal("a length beyond 2^63"))
}

/// Spreads a checksum over the fields the DTOs have for it.
macro_rules! checksum_fields {
    ($target:expr, $algorithm:expr, $text:expr) => {{
        let text = Some($text);
        match $algorithm {
            $crate::checksum::Algorithm::Crc32 => $target.checksum_crc32 = text,
            $crate::checksum::Algorithm::Crc32c => $target.checksum_crc32c = text,
            $crate::checksum::Algorithm::Crc64Nvme => $target.checksum_crc64nvme = text,
            $crate::checksum::Algorithm::Sha1 => $target.checksum_sha1 = text,
            $crate::checksum::Algorithm::Sha256 => $target.checksum_sha256 = text,
        }
    }};
}
pub(super) use checksum_fields;
