//! KMS, JSON 1.1, `TrentService`, 2014-11-01.
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use iam::{Caller, sigv4::Protocol};
use keyring::Keyring;

use crate::{Answer, error::refuse};

/// Answers one request.
pub async fn handle(keyring: &Keyring, caller: Caller, headers: &HeaderMap, body: Bytes) -> Answer {
    let _ = (keyring, headers, body);
    let response = refuse(
        Protocol::Json,
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
