//! Why a request is not believed. No HTTP here: each protocol's status, code and words for these
//! are the fronts' business (`api::Refusal`).
use super::authorization::Form;
use crate::identity::Region;

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
