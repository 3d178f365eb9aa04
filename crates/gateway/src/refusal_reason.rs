//! Why a request or a client was refused, in a fixed set of words: labels of a metric and of a log line.

use api::Refusal;
use http::StatusCode;
use iam::sigv4::SigV4Error;

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// There was no signature.
    Unsigned,
    /// The signature, or what belongs to it, does not parse or is not whole.
    MalformedSignature,
    /// No such access key.
    UnknownAccessKey,
    /// A session token where none is valid.
    InvalidToken,
    /// The signature is not that of the access key's secret.
    WrongSignature,
    /// Signed too long ago, or in the future; a presigned request whose time is over or has not come.
    ClockSkew,
    /// Signed for another region.
    WrongRegion,
    /// Signed for a service that is not served.
    NotServed,
    /// The body is too long, broke off, came too slowly, or is not the one that was signed.
    Body,
    /// No such operation.
    UnknownOperation,
    /// An operation, or a parameter of one, that is not implemented.
    NotImplemented,
    /// A value is not valid.
    Validation,
    /// Not permitted.
    Denied,
    /// No such export, or none that a name means alone.
    UnknownExport,
    /// An export that cannot be had now.
    Unavailable,
    /// A client that broke the protocol.
    Protocol,
    /// A client that took too long over its handshake.
    TooSlow,
}

impl Reason {
    /// The word for it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::MalformedSignature => "malformed_signature",
            Self::UnknownAccessKey => "unknown_access_key",
            Self::InvalidToken => "invalid_token",
            Self::WrongSignature => "wrong_signature",
            Self::ClockSkew => "clock_skew",
            Self::WrongRegion => "wrong_region",
            Self::NotServed => "not_served",
            Self::Body => "body",
            Self::UnknownOperation => "unknown_operation",
            Self::NotImplemented => "not_implemented",
            Self::Validation => "validation",
            Self::Denied => "denied",
            Self::UnknownExport => "unknown_export",
            Self::Unavailable => "unavailable",
            Self::Protocol => "protocol",
            Self::TooSlow => "too_slow",
        }
    }

    /// Of a request that got no further than the endpoint.
    pub(crate) fn of_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Signature(error) => Self::of_signature(error),
            Refusal::BodyTooLong | Refusal::BodyTooSlow | Refusal::BodyBroken => Self::Body,
            Refusal::NotServed(_) => Self::NotServed,
            Refusal::Busy => Self::Unavailable,
        }
    }

    fn of_signature(error: &SigV4Error) -> Self {
        match error {
            SigV4Error::Missing => Self::Unsigned,
            SigV4Error::UnknownAccessKey(_) => Self::UnknownAccessKey,
            SigV4Error::Token => Self::InvalidToken,
            SigV4Error::Mismatch => Self::WrongSignature,
            SigV4Error::Skewed { .. } | SigV4Error::Expired | SigV4Error::NotYetValid => {
                Self::ClockSkew
            }
            SigV4Error::WrongRegion { .. } => Self::WrongRegion,
            SigV4Error::ContentSha256Mismatch => Self::Body,
            SigV4Error::Unsupported
            | SigV4Error::Header(_)
            | SigV4Error::Query(_)
            | SigV4Error::Date(_)
            | SigV4Error::Uri
            | SigV4Error::Ambiguous(_)
            | SigV4Error::NotSigned(_)
            | SigV4Error::MissingContentSha256
            | SigV4Error::InvalidContentSha256 => Self::MalformedSignature,
        }
    }

    /// Of an answer that a front gave to a request whose signature was right: `None` for one that says no more than how
    /// things are (there is no such object, a condition does not hold), and for what is our fault.
    pub(crate) fn of_answer(status: StatusCode, code: &str) -> Option<Self> {
        if status == StatusCode::NOT_IMPLEMENTED {
            return Some(Self::NotImplemented);
        }
        if !status.is_client_error() {
            return None;
        }
        match code {
            "UnknownOperationException" | "InvalidAction" | "MethodNotAllowed" => {
                Some(Self::UnknownOperation)
            }
            "UnsupportedOperation" | "UnsupportedOperationException" => Some(Self::NotImplemented),
            "SignatureDoesNotMatch" => Some(Self::WrongSignature),
            "BadDigest"
            | "InvalidDigest"
            | "IncompleteBody"
            | "RequestTimeout"
            | "XAmzContentSHA256Mismatch" => Some(Self::Body),
            "DryRunOperation" | "DryRunOperationException" => None,
            _ if says_how_things_are(code) => None,
            _ => match status {
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Some(Self::Denied),
                _ if code.starts_with("AccessDenied") => Some(Self::Denied),
                StatusCode::BAD_REQUEST
                | StatusCode::LENGTH_REQUIRED
                | StatusCode::PAYLOAD_TOO_LARGE => Some(Self::Validation),
                _ => None,
            },
        }
    }
}

/// Codes of status 400 that tell a state and blame no parameter.
fn says_how_things_are(code: &str) -> bool {
    let states = [
        "NotFound",
        "NotFoundException",
        "AlreadyExistsException",
        "DisabledException",
        "InvalidStateException",
        "KMSInvalidStateException",
        "ConflictException",
        "LimitExceededException",
        "LimitExceeded",
        "VolumeInUse",
        "IncorrectState",
        "InvalidState",
        "TooManyBuckets",
        "EntityTooSmall",
        "InvalidPart",
    ];
    states.iter().any(|state| code.ends_with(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_refusal_or_says_how_things_are() {
        for (status, code, expected) in [
            (400, "ValidationException", Some(Reason::Validation)),
            (400, "SerializationException", Some(Reason::Validation)),
            (400, "InvalidParameterValue", Some(Reason::Validation)),
            (
                400,
                "UnknownOperationException",
                Some(Reason::UnknownOperation),
            ),
            (
                404,
                "UnknownOperationException",
                Some(Reason::UnknownOperation),
            ),
            (400, "InvalidAction", Some(Reason::UnknownOperation)),
            (405, "MethodNotAllowed", Some(Reason::UnknownOperation)),
            (501, "NotImplemented", Some(Reason::NotImplemented)),
            (400, "AccessDeniedException", Some(Reason::Denied)),
            (403, "UnauthorizedOperation", Some(Reason::Denied)),
            (403, "AccessDenied", Some(Reason::Denied)),
            (403, "SignatureDoesNotMatch", Some(Reason::WrongSignature)),
            (400, "BadDigest", Some(Reason::Body)),
            (404, "NoSuchKey", None),
            (412, "PreconditionFailed", None),
            (409, "BucketNotEmpty", None),
            (400, "NotFoundException", None),
            (400, "InvalidVolume.NotFound", None),
            (400, "DisabledException", None),
            (412, "DryRunOperation", None),
            (500, "InternalError", None),
            (200, "Success", None),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Reason::of_answer(status, code), expected, "{status} {code}");
        }
    }
}
