//! The AWS endpoint: one verifier, then the service that the credential scope names.
//!
//! S3 streams, so its requests go on with the body unread. Every other service's body is small, and is
//! read whole within a limit before the signature over it is compared. Which services there are, in
//! which protocol each is answered and what a refusal is called there is `api`'s to know.

#[cfg(test)]
mod silence;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use api::{Backends, Protocol, Refusal, Service};
use bytes::Bytes;
use host::Clock;
use host::memory::{Account, Memory, Share};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use iam::sigv4::{Body, Pending, Verified, Verifier, claimed_access_key, claimed_service};
use iam::{AccountId, Region, RequestContext};

use zeroize::Zeroize as _;

use crate::door::{Guest, NoPlace};
use crate::listener::RequestBody;
use crate::metrics::{Front, Metrics, Outcome};
use crate::refusal_reason::Reason;
use crate::refusals::{Refusals, Refused};
use crate::request_ids::RequestIds;
use crate::small_body;

/// What is served of one account in one region.
pub(crate) struct Served {
    pub(crate) s3: s3::Gateway,
    pub(crate) backends: Backends,
}

/// What an answer's body is: streamed objects, or short and whole.
pub(crate) type AnswerBody = Either<Full<Bytes>, s3::ResponseBody>;

/// Everything behind the AWS port.
pub(crate) struct Aws {
    pub(crate) verifier: Verifier,
    /// By account and region.
    pub(crate) served: HashMap<(AccountId, Region), Served>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) refusals: Arc<Refusals>,
    /// What all bodies are in.
    pub(crate) memory: Arc<Memory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) request_ids: RequestIds,
}

impl Aws {
    /// Answers one request.
    pub(crate) async fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
        guest: Arc<Guest>,
    ) -> Response<AnswerBody> {
        let started = Instant::now();
        let request_id = self.request_ids.next();
        let (mut head, body) = request.into_parts();
        head.extensions.insert(Arc::clone(&guest.client.memory));
        let peer = guest.client.address;
        let refuse_with = |refusal: Refusal, body: Option<&Bytes>| {
            let refused = Unanswered {
                head: &head,
                body,
                peer,
                request_id: &request_id,
            };
            self.refuse(refused, &refusal, started)
        };
        let refuse = |refusal: Refusal| refuse_with(refusal, None);
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
                    if let Err(NoPlace) = guest.is_known() {
                        return refuse(Refusal::Busy);
                    }
                    let context = self.context(&head, &verified, request_id, peer);
                    let sender = Arc::clone(&context);
                    let request = Request::from_parts(head, body);
                    // In a place of its own: hyper moves this future for each request of any service, and keeps room
                    // for it in each connection.
                    let mut answer = Box::pin(served.s3.handle(request, &verified, context)).await;
                    if let Some(refused) = answer.extensions_mut().remove::<s3::Refused>() {
                        let status = answer.status();
                        let code = (status, refused.code.into());
                        let at = (Front::S3, refused.operation);
                        self.note_answer(at, code, refused.recorded, &sender);
                    }
                    answer.map(Either::Right)
                }
                Err(error) => refuse(error.into()),
            };
        }
        let whole = verify_whole(pending, body, &self.memory, &guest.client.memory).await;
        let (verified, body, _share) = match whole {
            Ok(read) => read,
            Err((refusal, body)) => {
                let answer = refuse_with(refusal, body.as_ref());
                // Whatever was to be encrypted is in it.
                if let Some(Ok(mut body)) = body.map(Bytes::try_into_mut) {
                    body.zeroize();
                }
                return answer;
            }
        };
        if let Err(NoPlace) = guest.is_known() {
            return refuse(Refusal::Busy);
        }
        let (Some(service), Some(served)) = (service, self.served(&verified)) else {
            return refuse(Refusal::NotServed(verified.service));
        };
        let context = &self.context(&head, &verified, request_id.clone(), peer);
        let bytes_in = body.len() as u64;
        match service.answer(&served.backends, context, &head, body).await {
            Some(answer) => {
                let front = Front::of_service(service);
                if let Some(code) = answer.code {
                    let status = answer.response.status();
                    // Whoever may not use a key is in the keyring's own record.
                    let recorded = front.label() == "kms"
                        && Reason::of_answer(status, code) == Some(Reason::Denied);
                    let at = (front, answer.operation);
                    self.note_answer(at, (status, code.into()), recorded, context);
                }
                self.answer(front, answer.operation, started, bytes_in, answer.response)
            }
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
        refused: Unanswered<'_>,
        refusal: &Refusal,
        started: Instant,
    ) -> Response<AnswerBody> {
        let Unanswered {
            head, request_id, ..
        } = refused;
        let protocol = Protocol::of_request(head);
        let words = refusal.words(protocol);
        let (status, code, message) = (words.status, words.code, words.message.as_str());
        self.note_unanswered(refused, refusal, code);
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

    /// Tells of a request that got no further than here.
    fn note_unanswered(&self, refused: Unanswered<'_>, refusal: &Refusal, code: &'static str) {
        let Unanswered {
            head,
            body,
            peer,
            request_id,
        } = refused;
        let service = claimed_service(head).and_then(|scope| Service::of_scope(&scope));
        let operation = service.and_then(|service| match service.streams() {
            true => s3::claimed_operation(head),
            false => api::claimed_operation(service, head, body),
        });
        let source = peer.ip().to_canonical();
        self.refusals.note(Refused {
            front: service.map_or(Front::OTHER, Front::of_service),
            operation: operation.unwrap_or("unknown"),
            reason: Reason::of_refusal(refusal),
            code: code.into(),
            peer: source.to_string(),
            source: Some(source),
            access_key: claimed_access_key(head),
            principal: None,
            request_id: request_id.to_owned(),
            subject: None,
            recorded: false,
        });
    }

    /// Tells of an answer that refuses a request. `recorded` says that the audit log has it already.
    fn note_answer(
        &self,
        (front, operation): (Front, &'static str),
        (status, code): (StatusCode, Cow<'static, str>),
        recorded: bool,
        sender: &RequestContext,
    ) {
        let Some(reason) = Reason::of_answer(status, &code) else {
            return;
        };
        let source = sender.source.map(|source| source.to_canonical());
        self.refusals.note(Refused {
            front,
            operation,
            reason,
            code,
            peer: source.map_or_else(String::new, |source| source.to_string()),
            source,
            access_key: sender
                .access_key
                .as_ref()
                .map(|key| key.as_str().to_owned()),
            principal: Some(sender.principal_arn().to_string()),
            request_id: sender.request_id().to_owned(),
            subject: None,
            recorded,
        });
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
}

/// A request that no front has.
#[derive(Clone, Copy)]
struct Unanswered<'a> {
    head: &'a Parts,
    /// What came of its body, if it was read.
    body: Option<&'a Bytes>,
    peer: SocketAddr,
    request_id: &'a str,
}

/// Reads the body within the limit and compares the signature over it.
async fn verify_whole(
    pending: Pending,
    body: RequestBody,
    memory: &Memory,
    account: &Arc<Account>,
) -> Result<(Verified, Bytes, Share), (Refusal, Option<Bytes>)> {
    let (body, share) = match small_body::read(body, memory, account).await {
        Ok(read) => read,
        Err(refusal) => return Err((refusal, None)),
    };
    match pending.finish(Body::Whole(&body)) {
        Ok(verified) => Ok((verified, body, share)),
        Err(error) => Err((error.into(), Some(body))),
    }
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
