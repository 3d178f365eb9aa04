//! The AWS endpoint: one verifier, then the service that the credential scope names.
//!
//! S3 streams, so its requests go on with the body unread. Every other service's body is small, and is
//! read whole within a limit before the signature over it is compared. Which services there are, in
//! which protocol each is answered and what a refusal is called there is `api`'s to know.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use api::{Protocol, Refusal, Service};
use bytes::Bytes;
use crypto::random::Random;
use host::Clock;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use iam::sigv4::{Body, Pending, Verified, Verifier};
use iam::{AccountId, Region, RequestContext};

use crate::assembly::Served;
use crate::metrics::{Front, Metrics, Outcome};
use crate::small_body;

/// What an answer's body is: streamed objects, or short and whole.
pub(crate) type AnswerBody = Either<Full<Bytes>, s3::ResponseBody>;

/// Everything behind the AWS port.
pub(crate) struct Aws {
    pub(crate) verifier: Verifier,
    /// By account and region.
    pub(crate) served: HashMap<(AccountId, Region), Served>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
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
        let refuse = |refusal: Refusal| self.refuse(&head, &refusal, &request_id, started);
        let pending = match self.verifier.begin(&head, self.clock.now()) {
            Ok(pending) => pending,
            Err(error) => return refuse(error.into()),
        };
        let service = Service::of_scope(pending.service());
        if service.is_some_and(Service::streams) {
            return match pending.finish(Body::Unread) {
                Ok(verified) => {
                    let Some(served) = self.served(&verified) else {
                        return refuse(Refusal::NotServed(verified.service));
                    };
                    let context = self.context(&head, &verified, request_id, peer);
                    let request = Request::from_parts(head, body);
                    // In a place of its own: hyper moves this future for each request of any service, and keeps room
                    // for it in each connection.
                    Box::pin(served.s3.handle(request, &verified, context))
                        .await
                        .map(Either::Right)
                }
                Err(error) => refuse(error.into()),
            };
        }
        let (verified, body) = match verify_whole(pending, body).await {
            Ok(read) => read,
            Err(refusal) => return refuse(refusal),
        };
        let (Some(service), Some(served)) = (service, self.served(&verified)) else {
            return refuse(Refusal::NotServed(verified.service));
        };
        let context = &self.context(&head, &verified, request_id.clone(), peer);
        let bytes_in = body.len() as u64;
        match service.answer(&served.backends, context, &head, body).await {
            Some(answer) => self.answer(
                Front::of_service(service),
                answer.operation,
                started,
                bytes_in,
                answer.response,
            ),
            // A service that streams, and its requests went another way above.
            None => refuse(Refusal::NotServed(verified.service)),
        }
    }

    /// What the account of a request has in its region. The verifier lets no other ones through.
    fn served(&self, verified: &Verified) -> Option<&Served> {
        let at = (verified.principal.account(), verified.region.clone());
        self.served.get(&at)
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

    /// Answers what gets no further than here, in the protocol that the request speaks.
    fn refuse(
        &self,
        head: &Parts,
        refusal: &Refusal,
        request_id: &str,
        started: Instant,
    ) -> Response<AnswerBody> {
        let protocol = Protocol::of_request(head);
        let words = refusal.words(protocol);
        let (status, code, message) = (words.status, words.code, words.message.as_str());
        tracing::debug!(code, message, "a request was refused");
        let response = if protocol == Protocol::S3 {
            self.metrics.request(crate::metrics::Request {
                front: Front::S3,
                operation: "Refused",
                outcome: Outcome::of_status(status),
                elapsed: started.elapsed(),
                bytes_in: 0,
                bytes_out: 0,
            });
            // S3's own, which answers HEAD without a body.
            s3::refuse(&head.method, status, code, message, request_id).map(Either::Right)
        } else {
            let response = api::error::refuse(protocol, status, code, message, request_id);
            self.answer(Front::OTHER, "Refused", started, 0, response)
        };
        ended_if_unread(head, response)
    }

    /// What every layer below shares of a request.
    fn context(
        &self,
        head: &Parts,
        verified: &Verified,
        request_id: String,
        peer: SocketAddr,
    ) -> Arc<RequestContext> {
        let mut context = RequestContext::new(verified.principal.clone(), request_id);
        context.access_key = Some(verified.access_key.clone());
        context.source = Some(peer.ip());
        context.time = Some(self.clock.now());
        let user_agent = head.headers.get(header::USER_AGENT);
        context.user_agent = user_agent
            .and_then(|agent| agent.to_str().ok())
            .map(str::to_owned);
        Arc::new(context)
    }

    /// A UUID, as AWS gives; random, so that it tells nothing about other requests.
    fn request_id(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        host::entropy::uuid_text(&bytes)
    }
}

/// Reads the body within the limit and compares the signature over it.
async fn verify_whole(pending: Pending, body: Incoming) -> Result<(Verified, Bytes), Refusal> {
    let body = small_body::read(body).await?;
    let verified = pending.finish(Body::Whole(&body))?;
    Ok((verified, body))
}

/// Ends the connection with the answer if the request has a body, which may not have been read: what the client
/// still sends of it would be taken for its next request.
fn ended_if_unread(head: &Parts, mut response: Response<AnswerBody>) -> Response<AnswerBody> {
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
