//! The protocols of the services.
use http::{HeaderMap, header};

/// The protocol in which a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// S3's REST and XML.
    S3,
    /// JSON 1.1, as KMS, Secrets Manager and SSM speak it.
    Json,
    /// Query, as STS and IAM speak it.
    Query,
    /// Query as EC2 speaks it, with an envelope and codes of its own.
    Ec2,
}

/// Whether that is the media type of a body, in whatever case and with whatever parameters. `expected` is in lower case.
pub(crate) fn is_media_type(headers: &HeaderMap, expected: &str) -> bool {
    the_media_type(headers).is_some_and(|found| found.eq_ignore_ascii_case(expected))
}

/// The media type of a body, in lower case and without its parameters; `None` if there is not exactly
/// one.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    the_media_type(headers).map(str::to_ascii_lowercase)
}

fn the_media_type(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let media_type = value.to_str().ok()?.split(';').next()?;
    Some(media_type.trim())
}
