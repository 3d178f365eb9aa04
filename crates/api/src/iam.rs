//! IAM, Query, 2010-05-08: not there yet. Users, roles and policies come with the policy language;
//! until then every request is answered clearly instead of as an unknown service.
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use iam::RequestContext;

use crate::{Answer, Protocol, error::refuse};

/// Answers one request: `NotImplemented`.
#[allow(clippy::unused_async)] // the other fronts wait, and the gateway treats them alike
pub async fn handle(context: &RequestContext, _head: &Parts, _body: Bytes) -> Answer {
    let response = refuse(
        Protocol::Query,
        StatusCode::NOT_IMPLEMENTED,
        "NotImplemented",
        "This gateway has no IAM API yet: the account's root user is its only principal.",
        context.request_id(),
    );
    Answer {
        operation: "unknown",
        code: Some("NotImplemented"),
        response,
    }
}
