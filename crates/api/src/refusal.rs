//! Each protocol's status, code and words for what goes wrong before a front has the request: a
//! signature that is not believed, a body that does not come, a service that is not served.
//!
//! | | S3 | JSON | Query | EC2 |
//! |---|---|---|---|---|
//! | no signature | 403 `AccessDenied` | 400 `MissingAuthenticationTokenException` | 403 `MissingAuthenticationToken` | as Query |
//! | wrong signature | 403 `SignatureDoesNotMatch` | 400 `InvalidSignatureException` | 403 `SignatureDoesNotMatch` | 401 `AuthFailure` |
//! | unknown access key | 403 `InvalidAccessKeyId` | 400 `UnrecognizedClientException` | 403 `InvalidClientTokenId` | 401 `AuthFailure` |
//!
//! The rest is in the code. Sources: "Common Errors" of the KMS and STS API references, "Error
//! responses" of S3's, "Error codes" of EC2's.
use http::StatusCode;
use iam::sigv4::{Form, SigV4Error};

use crate::Protocol;

/// Why a request gets no further than the endpoint. The client's fault, all but the last two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The signature is missing, malformed or wrong.
    Signature(SigV4Error),
    /// The body is longer than the endpoint reads.
    BodyTooLong,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The body ended before it should have.
    BodyBroken,
    /// There is no room for the request now; another try may succeed.
    Busy,
    /// The signature is right and names a service that is not served here.
    NotServed(String),
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The status of the answer.
    pub status: StatusCode,
    /// The error's code, in the protocol's own words.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl From<SigV4Error> for Refusal {
    fn from(error: SigV4Error) -> Self {
        Self::Signature(error)
    }
}

impl Refusal {
    /// The refusal as `protocol` tells it.
    pub fn words(&self, protocol: Protocol) -> Words {
        let words = |status, code, message: &str| Words {
            status,
            code,
            message: message.to_owned(),
        };
        match self {
            Self::Signature(error) => {
                let (status, code) = match protocol {
                    Protocol::S3 => s3(error),
                    Protocol::Json => (StatusCode::BAD_REQUEST, json(error)),
                    Protocol::Query => query(error),
                    Protocol::Ec2 => ec2(error),
                };
                words(status, code, &sentence(error, protocol))
            }
            Self::BodyTooLong => words(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                "Request is larger than this endpoint takes",
            ),
            Self::BodyTooSlow => words(
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                "The request body did not arrive in time",
            ),
            Self::BodyBroken => words(
                StatusCode::BAD_REQUEST,
                "IncompleteBody",
                "The request body terminated unexpectedly",
            ),
            Self::Busy => {
                let (status, code) = match protocol {
                    Protocol::S3 => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
                    Protocol::Json => (StatusCode::BAD_REQUEST, "ThrottlingException"),
                    Protocol::Query => (StatusCode::BAD_REQUEST, "Throttling"),
                    Protocol::Ec2 => (StatusCode::SERVICE_UNAVAILABLE, "RequestLimitExceeded"),
                };
                words(status, code, "Please reduce your request rate.")
            }
            Self::NotServed(service) => words(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                &format!("Service {service} is not served here"),
            ),
        }
    }
}

/// What is said of a signature.
fn sentence(error: &SigV4Error, protocol: Protocol) -> String {
    match (error, protocol) {
        (SigV4Error::Missing, Protocol::S3) => "Access Denied".to_owned(),
        (SigV4Error::Missing, _) => "Request is missing Authentication Token".to_owned(),
        (
            SigV4Error::WrongRegion {
                form,
                expected,
                found,
            },
            Protocol::S3,
        ) => match form {
            Form::Header => format!("The authorization header is malformed; {error}"),
            Form::Presigned => format!(
                "Error parsing the X-Amz-Credential parameter; the region '{found}' is wrong; \
                 expecting '{expected}'"
            ),
        },
        (
            SigV4Error::WrongRegion {
                expected, found, ..
            },
            _,
        ) => format!(
            "Credential should be scoped to a valid region. The region '{found}' is wrong; \
             expecting '{expected}'."
        ),
        (SigV4Error::UnknownAccessKey(_) | SigV4Error::Token, Protocol::Json | Protocol::Query) => {
            "The security token included in the request is invalid.".to_owned()
        }
        (
            SigV4Error::UnknownAccessKey(_) | SigV4Error::Token | SigV4Error::Mismatch,
            Protocol::Ec2,
        ) => "AWS was not able to validate the provided access credentials".to_owned(),
        (SigV4Error::Skewed { signed_at }, Protocol::Json | Protocol::Query) => format!(
            "Signature expired or not yet current: {signed_at} is more than 15 min. from the \
             time of this server."
        ),
        (SigV4Error::Skewed { .. }, Protocol::Ec2) => "Request has expired.".to_owned(),
        _ => error.to_string(),
    }
}

fn s3(error: &SigV4Error) -> (StatusCode, &'static str) {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
    match error {
        SigV4Error::Missing
        | SigV4Error::Date(_)
        | SigV4Error::Expired
        | SigV4Error::NotYetValid
        | SigV4Error::NotSigned(_) => (FORBIDDEN, "AccessDenied"),
        SigV4Error::Unsupported | SigV4Error::MissingContentSha256 => (BAD, "InvalidRequest"),
        SigV4Error::Header(_)
        | SigV4Error::WrongRegion {
            form: Form::Header, ..
        } => (BAD, "AuthorizationHeaderMalformed"),
        SigV4Error::Query(_)
        | SigV4Error::WrongRegion {
            form: Form::Presigned,
            ..
        } => (BAD, "AuthorizationQueryParametersError"),
        SigV4Error::Uri => (BAD, "InvalidURI"),
        SigV4Error::Ambiguous(_) | SigV4Error::InvalidContentSha256 => (BAD, "InvalidArgument"),
        SigV4Error::UnknownAccessKey(_) => (FORBIDDEN, "InvalidAccessKeyId"),
        SigV4Error::Token => (BAD, "InvalidToken"),
        SigV4Error::Mismatch => (FORBIDDEN, "SignatureDoesNotMatch"),
        SigV4Error::Skewed { .. } => (FORBIDDEN, "RequestTimeTooSkewed"),
        SigV4Error::ContentSha256Mismatch => (BAD, "XAmzContentSHA256Mismatch"),
    }
}

fn json(error: &SigV4Error) -> &'static str {
    match error {
        SigV4Error::Missing => "MissingAuthenticationTokenException",
        SigV4Error::Unsupported
        | SigV4Error::Header(_)
        | SigV4Error::Query(_)
        | SigV4Error::Date(_)
        | SigV4Error::Uri
        | SigV4Error::Ambiguous(_) => "IncompleteSignatureException",
        SigV4Error::UnknownAccessKey(_) | SigV4Error::Token => "UnrecognizedClientException",
        SigV4Error::Mismatch
        | SigV4Error::WrongRegion { .. }
        | SigV4Error::Skewed { .. }
        | SigV4Error::Expired
        | SigV4Error::NotYetValid
        | SigV4Error::NotSigned(_)
        | SigV4Error::MissingContentSha256
        | SigV4Error::InvalidContentSha256
        | SigV4Error::ContentSha256Mismatch => "InvalidSignatureException",
    }
}

fn query(error: &SigV4Error) -> (StatusCode, &'static str) {
    match json(error) {
        "MissingAuthenticationTokenException" => {
            (StatusCode::FORBIDDEN, "MissingAuthenticationToken")
        }
        "IncompleteSignatureException" => (StatusCode::BAD_REQUEST, "IncompleteSignature"),
        "UnrecognizedClientException" => (StatusCode::FORBIDDEN, "InvalidClientTokenId"),
        _ => (StatusCode::FORBIDDEN, "SignatureDoesNotMatch"),
    }
}

fn ec2(error: &SigV4Error) -> (StatusCode, &'static str) {
    match error {
        SigV4Error::Skewed { .. } | SigV4Error::Expired | SigV4Error::NotYetValid => {
            (StatusCode::BAD_REQUEST, "RequestExpired")
        }
        SigV4Error::Missing => (StatusCode::FORBIDDEN, "MissingAuthenticationToken"),
        _ if json(error) == "IncompleteSignatureException" => {
            (StatusCode::BAD_REQUEST, "IncompleteSignature")
        }
        _ => (StatusCode::UNAUTHORIZED, "AuthFailure"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOLS: [Protocol; 4] = [Protocol::S3, Protocol::Json, Protocol::Query, Protocol::Ec2];

    /// Status and code in S3, JSON, Query, EC2.
    type Row = [(u16, &'static str); 4];

    fn row(refusal: &Refusal) -> Row {
        PROTOCOLS.map(|protocol| {
            let words = refusal.words(protocol);
            (words.status.as_u16(), words.code)
        })
    }

    #[test]
    fn each_protocol_has_its_own_words_for_every_refusal() {
        let region = |form| SigV4Error::WrongRegion {
            form,
            expected: "eu-west-1".parse().unwrap(),
            found: "us-east-1".to_owned(),
        };
        let incomplete = |s3| -> Row {
            [
                s3,
                (400, "IncompleteSignatureException"),
                (400, "IncompleteSignature"),
                (400, "IncompleteSignature"),
            ]
        };
        let unknown = |s3| -> Row {
            [
                s3,
                (400, "UnrecognizedClientException"),
                (403, "InvalidClientTokenId"),
                (401, "AuthFailure"),
            ]
        };
        let wrong = |s3, ec2| -> Row {
            [
                s3,
                (400, "InvalidSignatureException"),
                (403, "SignatureDoesNotMatch"),
                ec2,
            ]
        };
        let (failed, expired) = ((401, "AuthFailure"), (400, "RequestExpired"));
        let denied = (403, "AccessDenied");
        let missing = [
            denied,
            (400, "MissingAuthenticationTokenException"),
            (403, "MissingAuthenticationToken"),
            (403, "MissingAuthenticationToken"),
        ];
        let header = (400, "AuthorizationHeaderMalformed");
        let in_query = (400, "AuthorizationQueryParametersError");
        let argument = (400, "InvalidArgument");
        let skewed = SigV4Error::Skewed {
            signed_at: "20130524T000000Z".to_owned(),
        };
        for (error, expected) in [
            (SigV4Error::Missing, missing),
            (SigV4Error::Unsupported, incomplete((400, "InvalidRequest"))),
            (SigV4Error::Header("x".to_owned()), incomplete(header)),
            (SigV4Error::Query("x".to_owned()), incomplete(in_query)),
            (SigV4Error::Date("x"), incomplete(denied)),
            (SigV4Error::Uri, incomplete((400, "InvalidURI"))),
            (SigV4Error::Ambiguous("x"), incomplete(argument)),
            (region(Form::Header), wrong(header, failed)),
            (region(Form::Presigned), wrong(in_query, failed)),
            (
                SigV4Error::UnknownAccessKey("AK".to_owned()),
                unknown((403, "InvalidAccessKeyId")),
            ),
            (SigV4Error::Token, unknown((400, "InvalidToken"))),
            (
                SigV4Error::Mismatch,
                wrong((403, "SignatureDoesNotMatch"), failed),
            ),
            (skewed, wrong((403, "RequestTimeTooSkewed"), expired)),
            (SigV4Error::Expired, wrong(denied, expired)),
            (SigV4Error::NotYetValid, wrong(denied, expired)),
            (
                SigV4Error::NotSigned("host".to_owned()),
                wrong(denied, failed),
            ),
            (
                SigV4Error::MissingContentSha256,
                wrong((400, "InvalidRequest"), failed),
            ),
            (SigV4Error::InvalidContentSha256, wrong(argument, failed)),
            (
                SigV4Error::ContentSha256Mismatch,
                wrong((400, "XAmzContentSHA256Mismatch"), failed),
            ),
        ] {
            assert_eq!(
                row(&Refusal::Signature(error.clone())),
                expected,
                "{error:?}"
            );
        }
        for (refusal, expected) in [
            (Refusal::BodyTooLong, (413, "RequestEntityTooLarge")),
            (Refusal::BodyTooSlow, (408, "RequestTimeout")),
            (Refusal::BodyBroken, (400, "IncompleteBody")),
            (
                Refusal::NotServed("sqs".to_owned()),
                (501, "NotImplemented"),
            ),
        ] {
            assert_eq!(row(&refusal), [expected; 4]);
        }
    }

    #[test]
    fn each_protocol_has_words_for_a_lack_of_room_that_its_clients_retry() {
        let expected: Row = [
            (503, "SlowDown"),
            (400, "ThrottlingException"),
            (400, "Throttling"),
            (503, "RequestLimitExceeded"),
        ];
        assert_eq!(row(&Refusal::Busy), expected);
    }

    #[test]
    fn a_wrong_region_is_named_with_the_right_one() {
        let error = |form| {
            Refusal::Signature(SigV4Error::WrongRegion {
                form,
                expected: "eu-west-1".parse().unwrap(),
                found: "us-east-1".to_owned(),
            })
        };
        let said = |form, protocol| error(form).words(protocol).message;
        assert_eq!(
            said(Form::Header, Protocol::S3),
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting \
             'eu-west-1'"
        );
        assert_eq!(
            said(Form::Presigned, Protocol::S3),
            "Error parsing the X-Amz-Credential parameter; the region 'us-east-1' is wrong; \
             expecting 'eu-west-1'"
        );
        assert!(said(Form::Header, Protocol::Json).starts_with("Credential should be scoped"));
    }

    #[test]
    fn no_protocol_repeats_an_access_key() {
        let unknown = Refusal::Signature(SigV4Error::UnknownAccessKey("AKIDEXAMPLE".to_owned()));
        for protocol in PROTOCOLS {
            assert!(!unknown.words(protocol).message.contains("AKIDEXAMPLE"));
        }
    }
}
