//! EC2, Query, 2016-11-15: volumes.
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use iam::{Authorizer, Caller, sigv4::Protocol};
use volume::Volumes;

use crate::{Answer, error::refuse};

/// Answers one request.
pub async fn handle(
    volumes: &Volumes,
    authorizer: &Authorizer,
    caller: Caller,
    head: &Parts,
    body: Bytes,
) -> Answer {
    let _ = (volumes, authorizer, head, body);
    let response = refuse(
        Protocol::Ec2,
        StatusCode::NOT_IMPLEMENTED,
        "NotImplemented",
        "",
        &caller.request_id,
    );
    Answer {
        operation: "unknown",
        response,
    }
}
