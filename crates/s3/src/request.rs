//! What the front keeps of a request while s3s dispatches it.
//!
//! s3s sees the method, a path-style URI with the parameters the operation
//! takes, and a few harmless headers. Everything that decides about encryption,
//! conditions, ranges, checksums and the body is read from here, by us.

use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use iam::{Caller, RequestContext, Via};
use parking_lot::Mutex;

use crate::error::Error;
use crate::guard::GuardedBody;
use crate::room::Room;
use crate::route::{Operation, Query};
use crate::sse::Confidential;

/// One request; handed through s3s in its extensions.
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) context: Arc<RequestContext>,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    /// Where it gets the memory it buffers in.
    pub(crate) room: Room,
    body: Mutex<Option<GuardedBody>>,
    /// The error code of its answer, if it failed.
    code: OnceLock<String>,
}

impl Request {
    pub(crate) fn new(
        operation: Operation,
        context: Arc<RequestContext>,
        headers: HeaderMap,
        query: Query,
        room: Room,
        body: Option<GuardedBody>,
    ) -> Self {
        Self {
            operation,
            context,
            headers,
            query,
            room,
            body: Mutex::new(body),
            code: OnceLock::new(),
        }
    }

    /// The request behind what s3s calls with, if it is for `operation`.
    pub(crate) fn of<T>(
        request: &s3s::S3Request<T>,
        operation: Operation,
    ) -> Result<Arc<Self>, Error> {
        let found = request
            .extensions
            .get::<Arc<Self>>()
            .ok_or(Error::Internal("a request did not come through the front"))?;
        if found.operation != operation {
            return Err(Error::Internal(
                "s3s chose another operation than the front",
            ));
        }
        Ok(Arc::clone(found))
    }

    /// Notes why it failed.
    pub(crate) fn fail(&self, error: &Error) {
        let _ = self.code.set(error.code().into_owned());
    }

    /// The error code of its answer, if the front failed it.
    pub(crate) fn code(&self) -> Option<String> {
        self.code.get().cloned()
    }

    /// Who calls: the sender, whom S3 acts for.
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::new(&self.context, Via::S3)
    }

    /// The body; can be taken once.
    pub(crate) fn take_body(&self) -> Result<GuardedBody, Error> {
        self.body
            .lock()
            .take()
            .ok_or(Error::Internal("the request has no body to take"))
    }

    /// A header as text, if it is ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a customer's key may come with this request.
    pub(crate) fn confidential(&self) -> Confidential {
        let loopback = self
            .context
            .source
            .is_some_and(|source| source.to_canonical().is_loopback());
        Confidential(self.context.secure_transport || loopback)
    }
}
