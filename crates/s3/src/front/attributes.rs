//! What clients give to keep with an object: content headers, user metadata,
//! tags.

use http::{HeaderMap, StatusCode};
use s3s::dto::Metadata;

use crate::envelope::Attributes;
use crate::error::Error;

/// Headers kept as they came and answered again.
const KEPT: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-website-redirect-location",
];

/// What an object without a type is.
pub(super) const DEFAULT_TYPE: &str = "binary/octet-stream";

/// Bytes of user metadata, names and values, as in S3.
const METADATA_LEN_MAX: usize = 2048;
/// Bytes of one kept header. Keeps envelopes well below what a store takes.
const HEADER_LEN_MAX: usize = 4096;
const TAGS_MAX: usize = 10;

/// From the headers of a PUT, COPY or CreateMultipartUpload.
pub(super) fn of_request(
    headers: &HeaderMap,
    metadata: Option<Metadata>,
) -> Result<Attributes, Error> {
    let mut kept = Vec::new();
    for name in KEPT {
        let Some(value) = headers.get(name) else {
            continue;
        };
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Error::invalid_argument(format!("The header {name} is not UTF-8.")))?;
        if value.len() > HEADER_LEN_MAX {
            return Err(Error::invalid_argument(format!(
                "The header {name} is too long."
            )));
        }
        // `aws-chunked` describes the transfer and is gone by now.
        let value = if name == "content-encoding" {
            without_aws_chunked(value)
        } else {
            value.to_owned()
        };
        if !value.is_empty() {
            kept.push((name.to_owned(), value));
        }
    }
    Ok(Attributes {
        headers: kept,
        metadata: sorted_metadata(metadata)?,
        tags: match headers.get("x-amz-tagging") {
            None => Vec::new(),
            Some(value) => parse_tagging(value.to_str().unwrap_or("\u{fffd}"))?,
        },
    })
}

fn without_aws_chunked(value: &str) -> String {
    let codings = value.split(',').map(str::trim);
    let kept: Vec<&str> = codings
        .filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    kept.join(",")
}

fn sorted_metadata(metadata: Option<Metadata>) -> Result<Vec<(String, String)>, Error> {
    let mut pairs: Vec<(String, String)> = metadata.unwrap_or_default().into_iter().collect();
    let len: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if len > METADATA_LEN_MAX {
        return Err(Error::client(
            StatusCode::BAD_REQUEST,
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
        ));
    }
    pairs.sort();
    Ok(pairs)
}

/// `x-amz-tagging`: pairs as in a URL's query.
fn parse_tagging(value: &str) -> Result<Vec<(String, String)>, Error> {
    let decode = |text: &str| {
        iam::uri::decode_form(text).ok_or_else(|| invalid_tag("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."))
    };
    let pairs = value
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
    checked_tags(pairs.collect::<Result<_, Error>>()?)
}

/// Sorts tags and holds S3's limits.
pub(super) fn checked_tags(
    mut tags: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, Error> {
    if tags.len() > TAGS_MAX {
        return Err(Error::client(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "Object tags cannot be greater than 10",
        ));
    }
    for (key, value) in &tags {
        if key.is_empty() || key.chars().count() > 128 {
            return Err(invalid_tag("The TagKey you have provided is invalid"));
        }
        if value.chars().count() > 256 {
            return Err(invalid_tag("The TagValue you have provided is invalid"));
        }
    }
    tags.sort();
    if tags.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(invalid_tag(
            "Cannot provide multiple Tags with the same key",
        ));
    }
    Ok(tags)
}

fn invalid_tag(message: &'static str) -> Error {
    Error::client(StatusCode::BAD_REQUEST, "InvalidTag", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transfer_coding_is_not_kept_and_others_are() {
        assert_eq!(without_aws_chunked("aws-chunked"), "");
        assert_eq!(without_aws_chunked("aws-chunked, gzip"), "gzip");
        assert_eq!(without_aws_chunked("gzip"), "gzip");
    }

    #[test]
    fn tags_are_sorted_and_bounded() {
        assert_eq!(
            parse_tagging("b=2&a=1+x%2By").unwrap(),
            [
                ("a".to_owned(), "1 x+y".to_owned()),
                ("b".to_owned(), "2".to_owned())
            ]
        );
        assert_eq!(parse_tagging("a=1&a=2").unwrap_err().code(), "InvalidTag");
        assert_eq!(parse_tagging("=1").unwrap_err().code(), "InvalidTag");
        let many: Vec<String> = (0..11).map(|n| format!("k{n}=v")).collect();
        assert_eq!(
            parse_tagging(&many.join("&")).unwrap_err().code(),
            "BadRequest"
        );
    }
}
