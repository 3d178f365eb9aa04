//! The AWS endpoint: one verifier, then the service that the credential scope names.
//!
//! S3 streams, so its requests go on with the body unread. Every other service's body is small, and is
//! read whole within a limit before the signature over it is compared.

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto::random::Random;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use iam::sigv4::{Body, Claim, Pending, Protocol, SigV4Error, Verified, Verifier, claim};
use iam::{Authorizer, Caller, Via};
use keyring::{Clock, Keyring};
use volume::Volumes;

use crate::metrics::{Front, Metrics, Outcome};

/// The largest body of a service that is not S3. KMS's largest request carries 6 KiB of ciphertext and
/// 8 KiB of context; a policy may be 32 KiB, and Query encoding triples it at worst.
const SMALL_BODY_LEN_MAX: usize = 256 * 1024;

/// And it has to be here by then: nobody has proved who he is before the whole of it is.
const SMALL_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What an answer's body is: streamed objects, or short and whole.
pub(crate) type AnswerBody = Either<Full<Bytes>, s3::ResponseBody>;

/// Everything behind the AWS port.
pub(crate) struct Aws {
    pub(crate) verifier: Verifier,
    pub(crate) s3: s3::Gateway,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

/// Why a request got no further than here.
enum Refusal {
    Signature(SigV4Error),
    BodyTooLong,
    BodyTooSlow,
    BodyBroken(Box<dyn Error + Send + Sync>),
}

impl Aws {
    /// Answers one request.
    pub(crate) async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<AnswerBody> {
        let started = Instant::now();
        let request_id = self.request_id();
        let (head, body) = request.into_parts();
        let service = match claim(&head) {
            Ok(Claim::Service(service)) => service,
            // What the client meant is all there is to go by; S3 is what is asked for without a signature.
            Ok(Claim::Anonymous) if head.headers.contains_key("x-amz-target") => {
                return self.refuse(
                    &head,
                    Protocol::Json,
                    &SigV4Error::Missing,
                    &request_id,
                    started,
                );
            }
            Ok(Claim::Anonymous) => {
                let error = (StatusCode::FORBIDDEN, "AccessDenied", "Access Denied");
                return self.refuse_s3(&head, error, &request_id, started);
            }
            Err(error) => return self.refuse(&head, Protocol::S3, &error, &request_id, started),
        };
        let protocol = Protocol::of_service(&service);
        let pending = match self.verifier.begin(&head, self.clock.now()) {
            Ok(pending) => pending,
            Err(error) => return self.refuse(&head, protocol, &error, &request_id, started),
        };
        if service == "s3" {
            return match pending.finish(Body::Unread) {
                Ok(verified) => {
                    let caller = caller(&verified, request_id, peer);
                    let request = Request::from_parts(head, body);
                    self.s3
                        .handle(request, &verified, caller)
                        .await
                        .map(Either::Right)
                }
                Err(error) => self.refuse(&head, protocol, &error, &request_id, started),
            };
        }
        let (verified, body) = match read_small(pending, body).await {
            Ok(read) => read,
            Err(Refusal::Signature(error)) => {
                return self.refuse(&head, protocol, &error, &request_id, started);
            }
            Err(Refusal::BodyTooLong) => {
                let message = "Request is larger than this endpoint takes";
                let error = (
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestEntityTooLarge",
                    message,
                );
                let response = self.answer(
                    Front::Other,
                    "Refused",
                    started,
                    0,
                    refusal(protocol, error, &request_id),
                );
                return ended_if_unread(&head, response);
            }
            Err(Refusal::BodyTooSlow) => {
                let error = (
                    StatusCode::REQUEST_TIMEOUT,
                    "RequestTimeout",
                    "The request body did not arrive in time",
                );
                let response = self.answer(
                    Front::Other,
                    "Refused",
                    started,
                    0,
                    refusal(protocol, error, &request_id),
                );
                return ended_if_unread(&head, response);
            }
            Err(Refusal::BodyBroken(error)) => {
                tracing::debug!(%peer, %error, "a request's body broke off");
                let error = (
                    StatusCode::BAD_REQUEST,
                    "IncompleteBody",
                    "The request body terminated unexpectedly",
                );
                let response = self.answer(
                    Front::Other,
                    "Refused",
                    started,
                    0,
                    refusal(protocol, error, &request_id),
                );
                return ended_if_unread(&head, response);
            }
        };
        let caller = caller(&verified, request_id, peer);
        let bytes_in = body.len() as u64;
        let (front, answer) = match service.as_str() {
            "kms" => (
                Front::Kms,
                api::kms::handle(&self.keyring, caller, &head.headers, body).await,
            ),
            "sts" => (Front::Sts, api::sts::handle(caller, &head, body).await),
            "ec2" => (
                Front::Ec2,
                api::ec2::handle(&self.volumes, &self.authorizer, caller, &head, body).await,
            ),
            "iam" => (Front::Iam, api::iam::handle(caller, &head, body).await),
            _ => {
                let message = format!("Service {service} is not served here");
                let error = (
                    StatusCode::NOT_IMPLEMENTED,
                    "NotImplemented",
                    message.as_str(),
                );
                let response = refusal(protocol, error, &caller.request_id);
                return self.answer(Front::Other, "Refused", started, bytes_in, response);
            }
        };
        self.answer(front, answer.operation, started, bytes_in, answer.response)
    }

    /// Counts and hands on an answer that is whole.
    fn answer(
        &self,
        front: Front,
        operation: &'static str,
        started: Instant,
        bytes_in: u64,
        response: Response<Bytes>,
    ) -> Response<AnswerBody> {
        self.metrics.request(crate::metrics::Request {
            front,
            operation,
            outcome: Outcome::of_status(response.status()),
            elapsed: started.elapsed(),
            bytes_in,
            bytes_out: response.body().len() as u64,
        });
        response.map(|body| Either::Left(Full::new(body)))
    }

    fn refuse(
        &self,
        head: &http::request::Parts,
        protocol: Protocol,
        error: &SigV4Error,
        request_id: &str,
        started: Instant,
    ) -> Response<AnswerBody> {
        let message = error.message(protocol);
        let error = (
            error.status(protocol),
            error.code(protocol),
            message.as_str(),
        );
        tracing::debug!(code = error.1, message, "a request was refused");
        if protocol == Protocol::S3 {
            return self.refuse_s3(head, error, request_id, started);
        }
        let response = self.answer(
            Front::Other,
            "Refused",
            started,
            0,
            refusal(protocol, error, request_id),
        );
        ended_if_unread(head, response)
    }

    fn refuse_s3(
        &self,
        head: &http::request::Parts,
        (status, code, message): (StatusCode, &str, &str),
        request_id: &str,
        started: Instant,
    ) -> Response<AnswerBody> {
        self.metrics.request(crate::metrics::Request {
            front: Front::S3,
            operation: "Refused",
            outcome: Outcome::ClientError,
            elapsed: started.elapsed(),
            bytes_in: 0,
            bytes_out: 0,
        });
        let response = s3::refuse(&head.method, status, code, message, request_id);
        ended_if_unread(head, response.map(Either::Right))
    }

    /// A UUID, as AWS gives; random, so that it tells nothing about other requests.
    fn request_id(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        let mut text = String::with_capacity(36);
        for (i, byte) in bytes.into_iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Reads the body within the limit and compares the signature over it.
async fn read_small(pending: Pending, body: Incoming) -> Result<(Verified, Bytes), Refusal> {
    let body = read_whole(body, SMALL_BODY_LEN_MAX, SMALL_BODY_TIMEOUT).await?;
    let verified = pending
        .finish(Body::Whole(&body))
        .map_err(Refusal::Signature)?;
    Ok((verified, body))
}

/// Reads a body of at most `len_max` bytes that arrives within `timeout`.
async fn read_whole<B>(body: B, len_max: usize, timeout: Duration) -> Result<Bytes, Refusal>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match tokio::time::timeout(timeout, Limited::new(body, len_max).collect()).await {
        Err(_) => Err(Refusal::BodyTooSlow),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::BodyTooLong)
        }
        Ok(Err(error)) => Err(Refusal::BodyBroken(error)),
    }
}

fn caller(verified: &Verified, request_id: String, peer: SocketAddr) -> Caller {
    let mut caller = Caller::new(verified.principal.clone(), Via::Api, request_id);
    caller.access_key = Some(verified.access_key.clone());
    caller.source = Some(peer.ip());
    caller
}

/// Ends the connection with the answer if the request has a body, which may not have been read: what the client
/// still sends of it would be taken for its next request.
fn ended_if_unread(
    head: &http::request::Parts,
    mut response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let has_body = head.headers.contains_key(header::TRANSFER_ENCODING)
        || head.headers.contains_key(header::EXPECT)
        || head
            .headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|len| len != "0");
    if has_body {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// An error in a protocol's own form.
fn refusal(
    protocol: Protocol,
    (status, code, message): (StatusCode, &str, &str),
    request_id: &str,
) -> Response<Bytes> {
    api::error::refuse(protocol, status, code, message, request_id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    /// A client that says nothing more.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_or_does_not_end_is_refused() {
        let wait = Duration::from_millis(20);
        let slow = read_whole(Silent, 8, wait).await;
        assert!(matches!(slow, Err(Refusal::BodyTooSlow)));
        let long = read_whole(Full::new(Bytes::from_static(b"123456789")), 8, wait).await;
        assert!(matches!(long, Err(Refusal::BodyTooLong)));
        let whole = read_whole(Full::new(Bytes::from_static(b"12345678")), 8, wait).await;
        assert_eq!(whole.ok().unwrap(), "12345678");
    }
}
