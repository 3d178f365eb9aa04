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

/// The media type of a body, in lower case and without its parameters; `None` if there is not exactly
/// one.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let media_type = value.to_str().ok()?.split(';').next()?;
    Some(media_type.trim().to_ascii_lowercase())
}
