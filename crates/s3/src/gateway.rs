//! The front door: one HTTP request in, one answer out.
//!
//! What happens to a request, in order: its operation is decided
//! ([`route`](crate::route)), its body is put behind a guard
//! ([`guard`](crate::guard)), s3s parses the rest and calls the operation, the
//! operation gets its permission from `iam` and works on the store, s3s writes
//! the XML, and the answer gets its ids, its stream and its observer.
//!
//! Promises: identity comes in from the verifier and is never read from the
//! request here; signature headers and parameters do not reach s3s; HEAD never
//! answers with a body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use host::memory::{Account, Memory};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method, Request as HttpRequest, Response, StatusCode, Uri};
use http_body::Body;
use iam::RequestContext;
use iam::sigv4::{Payload, Verified};
use root::Reseal;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::answered::{Answer, Status};
use crate::body::{Report, ResponseBody};
use crate::data_trail::DataTrail;
use crate::error::Error;
use crate::front::Front;
use crate::guard::{GuardedBody, Limit};
use crate::md5::Md5Group;
use crate::observer::Observer;
use crate::options::Options;
use crate::request::Request;
use crate::reseal;
use crate::room::Room;
use crate::route::{BodyKind, Operation, Query, Target, route};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The S3 front. Cheap to share behind an `Arc`.
pub struct Gateway {
    service: S3Service,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn host::Clock>,
    trail: DataTrail,
    domains: Vec<String>,
    md5s: Arc<Md5Group>,
    memory: Arc<Memory>,
    owners: Vec<Arc<dyn Reseal>>,
}

/// The error code of an answer.
#[derive(Clone)]
struct Code(String);

/// What an answer that is an error was to and says: in its extensions, for whoever reports refusals. Not sent.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The operation by its S3 name; `Unknown` if the request matched none.
    pub operation: &'static str,
    /// The error's code.
    pub code: String,
    /// Whether the audit log has its record, a data event.
    pub recorded: bool,
}

/// The operation by its S3 name that a request says it is, as far as that can be told from its head, the bucket in its
/// path. Nothing is verified.
pub fn claimed_operation(head: &http::request::Parts) -> Option<&'static str> {
    let target = target(head.uri.path()).ok()?;
    let query = Query::parse(head.uri.query()).ok()?;
    let operation = route(&head.method, target, &query, &head.headers).ok()?;
    Some(operation.name())
}

/// The error code that s3s has written.
fn refused_code(document: &[u8]) -> String {
    let text = String::from_utf8_lossy(document);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or("InvalidRequest", |(code, _)| code).to_owned()
}

impl Gateway {
    /// Opens the front: reads the buckets, makes the store agree with them where a kill left a change of one half-done,
    /// and registers with the changes of catalogue and keyring. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Catalogue`] and [`Error::Store`] if they fail; [`Error::Integrity`] if the record of a bucket was changed.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let owners = reseal::owners(
            &options.catalogue,
            &options.store_key,
            &options.random,
            &options.store,
        );
        let observer = Arc::clone(&options.observer);
        let clock = Arc::clone(&options.clock);
        let trail = DataTrail::new(
            options.audit.clone(),
            Arc::clone(&options.clock),
            options.account,
            options.region.clone(),
        );
        let domains = options.virtual_host_domains.clone();
        let md5s = Arc::new(Md5Group::new());
        let memory = Arc::clone(&options.memory);
        let front = Front::open(options, Arc::clone(&md5s)).await?;
        Ok(Self {
            service: S3ServiceBuilder::new(front).build(),
            observer,
            clock,
            trail,
            domains,
            md5s,
            memory,
            owners,
        })
    }

    /// The owners of all that is sealed here under the store key, for a rotation of it.
    pub fn owners(&self) -> Vec<Arc<dyn Reseal>> {
        self.owners.clone()
    }

    /// Answers one request whose signature has been verified.
    ///
    /// A body that fails with an [`std::io::Error`] of the kind `TimedOut` has stalled, and is answered so.
    ///
    /// Never fails: what goes wrong is an S3 error in XML. The answer's body
    /// ends in an error, which aborts the connection, if an object's data turns
    /// out not to be authentic half-way.
    pub async fn handle<B>(
        &self,
        request: HttpRequest<B>,
        verified: &Verified,
        context: Arc<RequestContext>,
    ) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.serve(request, &verified.payload, context).await
    }

    /// As [`handle`](Self::handle), with the one thing of the verification that
    /// matters here: how the signature covers the body.
    pub(crate) async fn serve<B>(
        &self,
        request: HttpRequest<B>,
        payload: &Payload,
        context: Arc<RequestContext>,
    ) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = self.clock.elapsed();
        let method = request.method().clone();
        let sender = Arc::clone(&context);
        let request_id = sender.request_id();
        let path = self.path_style(request.uri(), request.headers());
        let expects = request.headers().contains_key(EXPECT);
        let bytes_in = Arc::new(AtomicU64::new(0));
        let (operation, code, answer) = match self
            .dispatch(&path, request, payload, context, Arc::clone(&bytes_in))
            .await
        {
            Ok((operation, mut answer)) => {
                let code = answer.extensions_mut().remove::<Code>();
                (Some(operation), code, answer)
            }
            Err((operation, error)) => {
                let code = Code(error.code().into_owned());
                (operation, Some(code), error_answer(error, request_id))
            }
        };
        let outcome = code.as_ref().map_or("Success", |code| code.0.as_str());
        let answer = match self.trail.record(operation, &path, outcome, &sender).await {
            Ok(()) => answer,
            // It may be done: what is answered is not that it is not.
            Err(error) => error_answer(error, request_id),
        };
        let recorded = operation.is_some_and(|operation| self.trail.records(operation));
        let operation = operation.map_or("Unknown", Operation::name);
        let mut answer = finish(answer, &method, request_id);
        if outcome == "RequestTimeout" {
            // What the client may still send of the body is not its next request.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        if let Some(Code(code)) = code {
            let refused = Refused {
                operation,
                code,
                recorded,
            };
            answer.extensions_mut().insert(refused);
        }
        if expects && bytes_in.load(Ordering::Relaxed) == 0 {
            // The client asked for "100 Continue" and got this answer instead: the body was
            // refused, or is empty. botocore does not recover from that on a kept connection
            // (its next request on it waits for ever), so the connection ends here.
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let report = Report {
            observer: Arc::clone(&self.observer),
            operation,
            status: answer.status().as_u16(),
            bytes_in,
            bytes_out: 0,
            clock: Arc::clone(&self.clock),
            started,
        };
        let body = std::mem::replace(answer.body_mut(), ResponseBody::empty());
        *answer.body_mut() = body.reporting(report);
        answer
    }

    async fn dispatch<B>(
        &self,
        path: &str,
        request: HttpRequest<B>,
        payload: &Payload,
        context: Arc<RequestContext>,
        bytes_in: Arc<AtomicU64>,
    ) -> Result<(Operation, Response<ResponseBody>), (Option<Operation>, Error)>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let unrouted = |error| (None, error);
        let target = target(path).map_err(unrouted)?;
        let query = Query::parse(head.uri.query()).map_err(unrouted)?;
        let operation = route(&head.method, target, &query, &head.headers).map_err(unrouted)?;
        let failed = |error| (Some(operation), error);
        self.trail.check(operation).map_err(failed)?;

        let account = head.extensions.get::<Arc<Account>>().cloned();
        let room = Room::new(Arc::clone(&self.memory), account.unwrap_or_default());
        let guarded =
            |limit| GuardedBody::new(&head, payload, body, bytes_in, &self.md5s, &room, limit);
        let (stream, (document, _share)) = match operation.body() {
            BodyKind::Empty => (None, (Bytes::new(), None)),
            BodyKind::Stream => {
                let body = guarded(Limit::Data).map_err(failed)?;
                (Some(body), (Bytes::new(), None))
            }
            BodyKind::Xml => {
                let body = guarded(Limit::Xml).map_err(failed)?;
                (None, body.read_all().await.map_err(failed)?)
            }
        };

        let mut inner = HttpRequest::new(s3s::Body::from(document.clone()));
        *inner.method_mut() = head.method;
        *inner.uri_mut() = uri(path, &query.encode_for_s3s()).map_err(failed)?;
        *inner.headers_mut() = harmless(&head.headers, document.len());
        let sender = Arc::clone(&context);
        let request_id = sender.request_id();
        let request = Request::new(operation, context, head.headers, query, room, stream);
        let request = Arc::new(request);
        inner.extensions_mut().insert(Arc::clone(&request));

        let answer = self
            .service
            .call(inner)
            .await
            .map_err(|_| failed(Error::Internal("s3s could not write an answer")))?;
        let (mut head, body) = answer.into_parts();
        if let Some(Status(status)) = head.extensions.remove() {
            head.status = status;
        }
        let replaced = head
            .extensions
            .remove::<Answer>()
            .and_then(|answer| answer.0.lock().take());
        let body = match replaced {
            Some((stream, len)) => ResponseBody::stream(stream, len),
            None => {
                let document = body.bytes().ok_or_else(|| {
                    failed(Error::Internal("s3s answered with a stream of its own"))
                })?;
                let refused = || (!head.status.is_success()).then(|| refused_code(&document));
                if let Some(code) = request.code().or_else(refused) {
                    head.extensions.insert(Code(code));
                }
                ResponseBody::whole(if head.status.is_success() {
                    corrected(operation, document)
                } else {
                    completed(document, request_id)
                })
            }
        };
        Ok((operation, Response::from_parts(head, body)))
    }

    /// The path with the bucket in it, also where the host names the bucket.
    fn path_style(&self, uri: &Uri, headers: &HeaderMap) -> String {
        let path = uri.path();
        let host = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .or_else(|| uri.authority().map(http::uri::Authority::as_str))
            .unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
        for domain in &self.domains {
            let bucket = host
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'));
            if let Some(bucket) = bucket {
                return format!("/{bucket}{path}");
            }
        }
        path.to_owned()
    }
}

/// S3's XML for what goes wrong before the front is asked: a bad signature, an
/// anonymous request, a gateway that shuts down. HEAD gets no body.
pub fn refuse(
    method: &Method,
    status: StatusCode,
    code: &str,
    message: &str,
    request_id: &str,
) -> Response<ResponseBody> {
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>");
    body.push_str(&quick_xml::escape::escape(code));
    body.push_str("</Code><Message>");
    body.push_str(&quick_xml::escape::escape(message));
    body.push_str("</Message></Error>");
    let body = completed(body.into(), request_id);
    let mut answer = Response::new(ResponseBody::whole(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    finish(answer, method, request_id)
}

/// Mends what s3s writes otherwise than S3: attributes have their entity tag
/// without quotes, unlike every other document.
fn corrected(operation: Operation, document: Bytes) -> Bytes {
    if operation != Operation::GetObjectAttributes {
        return document;
    }
    match std::str::from_utf8(&document) {
        Ok(text) => text
            .replace("<ETag>\"", "<ETag>")
            .replace("\"</ETag>", "</ETag>")
            .into(),
        Err(_) => document,
    }
}

/// Completes an error that s3s wrote itself, or [`refuse`]: the request's id, and
/// a message where there is none.
fn completed(document: Bytes, request_id: &str) -> Bytes {
    let has = |element: &str| {
        document
            .windows(element.len())
            .any(|w| w == element.as_bytes())
    };
    let Some(start) = document.strip_suffix(b"</Error>") else {
        return document;
    };
    let mut text = start.to_vec();
    if !has("<Message>") {
        let known = MESSAGES
            .iter()
            .find(|(code, _)| has(&format!("<Code>{code}</Code>")));
        let message = known.map_or("The request is not valid.", |(_, message)| message);
        text.extend_from_slice(format!("<Message>{message}</Message>").as_bytes());
    }
    if !has("<RequestId>") {
        let id = quick_xml::escape::escape(request_id);
        text.extend_from_slice(format!("<RequestId>{id}</RequestId>").as_bytes());
    }
    text.extend_from_slice(b"</Error>");
    text.into()
}

/// S3's words for what s3s refuses without any.
const MESSAGES: [(&str, &str); 5] = [
    ("InvalidBucketName", "The specified bucket is not valid."),
    ("InvalidURI", "Couldn't parse the specified URI."),
    ("KeyTooLongError", "Your key is too long"),
    (
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    ("MissingRequestBodyError", "Request Body is empty"),
];

fn error_answer(error: Error, request_id: &str) -> Response<ResponseBody> {
    match error.into_s3s(request_id).to_http_response() {
        Ok(answer) => answer.map(|body| ResponseBody::whole(body.bytes().unwrap_or_default())),
        Err(_) => {
            let mut answer = Response::new(ResponseBody::empty());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
    }
}

/// What every answer has: ids, the server's name, and no body where none may be.
fn finish(
    mut answer: Response<ResponseBody>,
    method: &Method,
    request_id: &str,
) -> Response<ResponseBody> {
    let status = answer.status();
    let bodiless = method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if bodiless {
        let failed = status.is_client_error() || status.is_server_error();
        *answer.body_mut() = ResponseBody::empty();
        if failed || status == StatusCode::NOT_MODIFIED {
            answer.headers_mut().remove(CONTENT_TYPE);
            answer.headers_mut().remove(CONTENT_LENGTH);
        }
    } else if !answer.headers().contains_key(CONTENT_LENGTH) {
        let len = answer.body().size_hint().exact().unwrap_or_default();
        answer
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    if let Ok(id) = HeaderValue::try_from(request_id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
        .headers_mut()
        .insert(http::header::SERVER, HeaderValue::from_static("Sealgate"));
    answer
}

/// What a path names. Decoded first, as s3s does: `/b%2Fk` is an object.
fn target(path: &str) -> Result<Target, Error> {
    let invalid = || {
        Error::client(
            StatusCode::BAD_REQUEST,
            "InvalidURI",
            "Couldn't parse the specified URI.",
        )
    };
    let decoded = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| invalid())?;
    let path = decoded.strip_prefix('/').ok_or_else(invalid)?;
    Ok(match path.split_once('/') {
        None if path.is_empty() => Target::Service,
        None | Some((_, "")) => Target::Bucket,
        Some(_) => Target::Object,
    })
}

fn uri(path: &str, query: &str) -> Result<Uri, Error> {
    let text = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    text.parse().map_err(|_| {
        Error::client(
            StatusCode::BAD_REQUEST,
            "InvalidURI",
            "Couldn't parse the specified URI.",
        )
    })
}

/// The headers s3s may see: none that carries a key, and none that s3s would
/// judge otherwise than we do.
fn harmless(headers: &HeaderMap, document_len: usize) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        let text = name.as_str();
        let passes = text.starts_with("x-amz-meta-")
            || text == "x-amz-copy-source"
            || text == "x-amz-object-attributes";
        if passes {
            out.append(name.clone(), value.clone());
        }
    }
    if document_len > 0 {
        out.insert(CONTENT_LENGTH, HeaderValue::from(document_len));
    }
    out
}
