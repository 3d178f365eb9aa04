//! Why a request is not believed, and each protocol's words for it.
use http::StatusCode;

use super::Form;
use crate::identity::Region;

/// The protocol an error has to be told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// S3's REST and XML.
    S3,
    /// JSON 1.1: KMS.
    Json,
    /// Query: STS and IAM.
    Query,
    /// Query as EC2 speaks it, with codes of its own.
    Ec2,
}

impl Protocol {
    /// The protocol of the service in a credential scope. What we do not know is answered as Query.
    pub fn of_service(service: &str) -> Self {
        match service {
            "s3" | "s3express" | "s3-object-lambda" => Self::S3,
            "kms" | "secretsmanager" | "ssm" => Self::Json,
            "ec2" => Self::Ec2,
            _ => Self::Query,
        }
    }
}

/// Why a request is not believed. All are the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigV4Error {
    /// There is no signature where one is needed.
    #[error("Missing Authentication Token")]
    Missing,
    /// Signature Version 2, or another scheme we do not take.
    #[error(
        "The authorization mechanism you have provided is not supported. Please use \
         AWS4-HMAC-SHA256 (Signature Version 4; presigned URLs too)."
    )]
    Unsupported,
    /// The `Authorization` header, or another that belongs to the signature, does not parse.
    #[error("The authorization header is malformed; {0}")]
    Header(String),
    /// The presigned parameters do not parse.
    #[error("{0}")]
    Query(String),
    /// There is no date, or not a date.
    #[error("{0}")]
    Date(&'static str),
    /// The path or the query does not decode.
    #[error("Couldn't parse the specified URI.")]
    Uri,
    /// The credential scope names another region.
    #[error("the region '{found}' is wrong; expecting '{expected}'")]
    WrongRegion {
        /// Where the signature stood.
        form: Form,
        /// Ours.
        expected: Region,
        /// The request's.
        found: String,
    },
    /// The request says one thing twice and differently, or carries two signatures.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// The access key is not known.
    #[error("The AWS Access Key Id you provided does not exist in our records.")]
    UnknownAccessKey(String),
    /// A session token, where none was ever issued.
    #[error("The provided token is malformed or otherwise invalid.")]
    Token,
    /// The signature is not right.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check \
         your AWS Secret Access Key and signing method. Consult the service documentation for \
         details."
    )]
    Mismatch,
    /// The request was signed too long ago, or is from the future.
    #[error("The difference between the request time and the current time is too large.")]
    Skewed {
        /// When the client says it signed, `20130524T000000Z`.
        signed_at: String,
    },
    /// The presigned request's time is over.
    #[error("Request has expired")]
    Expired,
    /// The presigned request's time has not come.
    #[error("Request is not yet valid")]
    NotYetValid,
    /// A header that must be signed is not.
    #[error("There were headers present in the request which were not signed: {0}")]
    NotSigned(String),
    /// `x-amz-content-sha256` is missing where it is needed.
    #[error("Missing required header for this request: x-amz-content-sha256")]
    MissingContentSha256,
    /// `x-amz-content-sha256` is none of the values it may have.
    #[error(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
         STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-UNSIGNED-PAYLOAD-TRAILER, or a \
         valid sha256 value."
    )]
    InvalidContentSha256,
    /// The body is not the one `x-amz-content-sha256` was computed over.
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    ContentSha256Mismatch,
}

impl SigV4Error {
    /// The error code in `protocol`'s words.
    pub fn code(&self, protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::S3 => self.s3().0,
            Protocol::Json => self.json(),
            Protocol::Query => self.query().0,
            Protocol::Ec2 => self.ec2().0,
        }
    }

    /// The status that goes with it.
    pub fn status(&self, protocol: Protocol) -> StatusCode {
        match protocol {
            Protocol::S3 => self.s3().1,
            Protocol::Json => StatusCode::BAD_REQUEST,
            Protocol::Query => self.query().1,
            Protocol::Ec2 => self.ec2().1,
        }
    }

    /// The message in `protocol`'s words.
    pub fn message(&self, protocol: Protocol) -> String {
        match (self, protocol) {
            (Self::Missing, Protocol::S3) => "Access Denied".to_owned(),
            (Self::Missing, _) => "Request is missing Authentication Token".to_owned(),
            (
                Self::WrongRegion {
                    form,
                    expected,
                    found,
                },
                Protocol::S3,
            ) => match form {
                Form::Header => format!("The authorization header is malformed; {self}"),
                Form::Presigned => format!(
                    "Error parsing the X-Amz-Credential parameter; the region '{found}' is \
                     wrong; expecting '{expected}'"
                ),
            },
            (
                Self::WrongRegion {
                    expected, found, ..
                },
                _,
            ) => format!(
                "Credential should be scoped to a valid region. The region '{found}' is wrong; \
                 expecting '{expected}'."
            ),
            (Self::UnknownAccessKey(_) | Self::Token, Protocol::Json | Protocol::Query) => {
                "The security token included in the request is invalid.".to_owned()
            }
            (Self::UnknownAccessKey(_) | Self::Token | Self::Mismatch, Protocol::Ec2) => {
                "AWS was not able to validate the provided access credentials".to_owned()
            }
            (Self::Skewed { signed_at }, Protocol::Json | Protocol::Query) => format!(
                "Signature expired or not yet current: {signed_at} is more than 15 min. from the \
                 time of this server."
            ),
            (Self::Skewed { .. }, Protocol::Ec2) => "Request has expired.".to_owned(),
            _ => self.to_string(),
        }
    }

    fn s3(&self) -> (&'static str, StatusCode) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
        match self {
            Self::Missing
            | Self::Date(_)
            | Self::Expired
            | Self::NotYetValid
            | Self::NotSigned(_) => ("AccessDenied", FORBIDDEN),
            Self::Unsupported | Self::MissingContentSha256 => ("InvalidRequest", BAD),
            Self::Header(_)
            | Self::WrongRegion {
                form: Form::Header, ..
            } => ("AuthorizationHeaderMalformed", BAD),
            Self::Query(_)
            | Self::WrongRegion {
                form: Form::Presigned,
                ..
            } => ("AuthorizationQueryParametersError", BAD),
            Self::Uri => ("InvalidURI", BAD),
            Self::Ambiguous(_) | Self::InvalidContentSha256 => ("InvalidArgument", BAD),
            Self::UnknownAccessKey(_) => ("InvalidAccessKeyId", FORBIDDEN),
            Self::Token => ("InvalidToken", BAD),
            Self::Mismatch => ("SignatureDoesNotMatch", FORBIDDEN),
            Self::Skewed { .. } => ("RequestTimeTooSkewed", FORBIDDEN),
            Self::ContentSha256Mismatch => ("XAmzContentSHA256Mismatch", BAD),
        }
    }

    fn json(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Unsupported
            | Self::Header(_)
            | Self::Query(_)
            | Self::Date(_)
            | Self::Uri
            | Self::Ambiguous(_) => "IncompleteSignatureException",
            Self::UnknownAccessKey(_) | Self::Token => "UnrecognizedClientException",
            Self::Mismatch
            | Self::WrongRegion { .. }
            | Self::Skewed { .. }
            | Self::Expired
            | Self::NotYetValid
            | Self::NotSigned(_)
            | Self::MissingContentSha256
            | Self::InvalidContentSha256
            | Self::ContentSha256Mismatch => "InvalidSignatureException",
        }
    }

    fn query(&self) -> (&'static str, StatusCode) {
        match self.json() {
            "MissingAuthenticationTokenException" => {
                ("MissingAuthenticationToken", StatusCode::FORBIDDEN)
            }
            "IncompleteSignatureException" => ("IncompleteSignature", StatusCode::BAD_REQUEST),
            "UnrecognizedClientException" => ("InvalidClientTokenId", StatusCode::FORBIDDEN),
            _ => ("SignatureDoesNotMatch", StatusCode::FORBIDDEN),
        }
    }

    fn ec2(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Skewed { .. } | Self::Expired | Self::NotYetValid => {
                ("RequestExpired", StatusCode::BAD_REQUEST)
            }
            Self::Missing => ("MissingAuthenticationToken", StatusCode::FORBIDDEN),
            _ if self.json() == "IncompleteSignatureException" => {
                ("IncompleteSignature", StatusCode::BAD_REQUEST)
            }
            _ => ("AuthFailure", StatusCode::UNAUTHORIZED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_own_words_for_a_wrong_signature() {
        let codes =
            [Protocol::S3, Protocol::Json, Protocol::Query, Protocol::Ec2].map(|protocol| {
                (
                    SigV4Error::Mismatch.code(protocol),
                    SigV4Error::Mismatch.status(protocol).as_u16(),
                )
            });
        assert_eq!(
            codes,
            [
                ("SignatureDoesNotMatch", 403),
                ("InvalidSignatureException", 400),
                ("SignatureDoesNotMatch", 403),
                ("AuthFailure", 401),
            ]
        );
        let unknown = SigV4Error::UnknownAccessKey("AK".into());
        assert_eq!(unknown.code(Protocol::S3), "InvalidAccessKeyId");
        assert_eq!(unknown.code(Protocol::Json), "UnrecognizedClientException");
        assert_eq!(unknown.code(Protocol::Query), "InvalidClientTokenId");
        let skewed = SigV4Error::Skewed {
            signed_at: "20130524T000000Z".into(),
        };
        assert_eq!(skewed.code(Protocol::S3), "RequestTimeTooSkewed");
        assert_eq!(skewed.code(Protocol::Json), "InvalidSignatureException");
        assert_eq!(SigV4Error::Expired.code(Protocol::S3), "AccessDenied");
        assert_eq!(
            SigV4Error::Missing.code(Protocol::Json),
            "MissingAuthenticationTokenException"
        );
    }
}
