//! Why a request is not believed, and each protocol's words for it.
use http::StatusCode;

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
         AWS4-HMAC-SHA256."
    )]
    Unsupported,
    /// The `Authorization` header does not parse.
    #[error("The authorization header is malformed; {0}")]
    Header(String),
    /// The presigned parameters do not parse.
    #[error("{0}")]
    Query(String),
    /// Part of the request is signed and part is not, or it carries two signatures.
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
    pub fn code(&self, _protocol: Protocol) -> &'static str {
        "AccessDenied"
    }

    /// The status that goes with it.
    pub fn status(&self, _protocol: Protocol) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}
