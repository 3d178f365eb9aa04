//! KMS, JSON 1.1, `TrentService`, 2014-11-01.
//!
//! [`handle`] takes a verified request and answers it: it takes `POST /` with the protocol's media type
//! alone, reads the operation from `X-Amz-Target`, checks the body against the public service model
//! (types first, then all bounds; a name given twice is refused, also inside an encryption context; a
//! name the model does not have is ignored, as AWS does), checks what the service has narrower than
//! its model, asks the keyring for the permission and then for the operation.
//!
//! Promises:
//! - no operation without its [`iam::Authorized`];
//! - a parameter that would change what an answer means and that we do not do (a key policy, a
//!   Nitro recipient, another key spec, a grant token) is refused, never ignored;
//! - plaintext is decoded straight into a [`keyring::SecretVec`]: the check counts its bytes without
//!   decoding them, and a text with escapes is unescaped into memory that is wiped. The request body
//!   is wiped once it is parsed if nobody else holds it, and an answer that holds plaintext is wiped when its last
//!   handle goes. What stays in hyper's read buffer and what it copies into its write buffer is
//!   beyond that.
//!
//! Operations of KMS that are not here are answered 501 `NotImplementedException`; names KMS does
//! not have, 400 `UnknownOperationException`; what is not `POST /` with the media type, the same with
//! 404.
mod aliases;
mod cryptographic;
mod fault;
mod keys;
#[rustfmt::skip] // generated, a shape a line
mod model;
mod request;
mod rotation;
mod tags;
mod validate;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, Response, StatusCode, request::Parts};
use iam::{Caller, RequestContext, Via};
use keyring::Keyring;
use zeroize::Zeroize;

use self::{fault::Fault, request::Request};
use crate::{
    Answer, Protocol,
    error::{refuse, respond},
    model::Operation,
    protocol::is_media_type,
};

/// The media type of a request: with parameters behind it or without.
const MEDIA_TYPE: &str = "application/x-amz-json-1.1";

static TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// What stands before the dot in `X-Amz-Target`.
pub(crate) const TARGET_PREFIX: &str = "TrentService";

/// The operation of this name, if KMS has it.
pub(crate) fn operation_named(name: &str) -> Option<&'static str> {
    Some(model::SERVICE.operation(name)?.name)
}

/// Answers one request.
pub async fn handle(
    keyring: &Keyring,
    context: &Arc<RequestContext>,
    head: &Parts,
    body: Bytes,
) -> Answer {
    let caller = Caller::new(context, Via::Api);
    let (operation, result) = match operation(head) {
        Ok(operation) => {
            let request = Request {
                keyring,
                caller,
                operation,
                body: &body,
            };
            (operation.name, request.dispatch().await)
        }
        Err(fault) => ("unknown", Err(fault)),
    };
    wipe(body);
    let code = result.as_ref().err().map(Fault::code);
    let response = match result {
        Ok(body) => respond(Protocol::Json, StatusCode::OK, caller.request_id(), body),
        Err(fault) => explain(&fault, operation, caller),
    };
    Answer {
        operation,
        code,
        response,
    }
}

/// The operation that a request's head asks for.
fn operation(head: &Parts) -> Result<&'static Operation, Fault> {
    let of_protocol = head.method == Method::POST
        && head.uri.path() == "/"
        && is_media_type(&head.headers, MEDIA_TYPE);
    if !of_protocol {
        return Err(Fault::NotOfProtocol);
    }
    let mut targets = head.headers.get_all(&TARGET).iter();
    let (Some(target), None) = (targets.next(), targets.next()) else {
        return Err(Fault::UnknownOperation);
    };
    let (prefix, name) = target
        .to_str()
        .ok()
        .and_then(|target| target.split_once('.'))
        .ok_or(Fault::UnknownOperation)?;
    if prefix != model::SERVICE.target_prefix {
        return Err(Fault::UnknownOperation);
    }
    model::SERVICE
        .operation(name)
        .ok_or(Fault::UnknownOperation)
}

impl Request<'_> {
    async fn dispatch(self) -> Result<Bytes, Fault> {
        macro_rules! operations {
            ($($name:literal => $method:ident,)*) => {
                match self.operation.name {
                    // Each in a place of its own: this future is moved when a request begins, and would be as long
                    // as the longest of them.
                    $($name => Box::pin(self.$method()).await,)*
                    other => Err(Fault::NotImplemented(other)),
                }
            };
        }
        operations! {
            "Encrypt" => encrypt,
            "Decrypt" => decrypt,
            "ReEncrypt" => re_encrypt,
            "GenerateDataKey" => generate_data_key,
            "GenerateDataKeyWithoutPlaintext" => generate_data_key_without_plaintext,
            "GenerateRandom" => generate_random,
            "CreateKey" => create_key,
            "DescribeKey" => describe_key,
            "ListKeys" => list_keys,
            "UpdateKeyDescription" => update_key_description,
            "EnableKey" => enable_key,
            "DisableKey" => disable_key,
            "ScheduleKeyDeletion" => schedule_key_deletion,
            "CancelKeyDeletion" => cancel_key_deletion,
            "GetKeyPolicy" => get_key_policy,
            "CreateAlias" => create_alias,
            "UpdateAlias" => update_alias,
            "DeleteAlias" => delete_alias,
            "ListAliases" => list_aliases,
            "RotateKeyOnDemand" => rotate_key_on_demand,
            "EnableKeyRotation" => enable_key_rotation,
            "DisableKeyRotation" => disable_key_rotation,
            "GetKeyRotationStatus" => get_key_rotation_status,
            "ListKeyRotations" => list_key_rotations,
            "TagResource" => tag_resource,
            "UntagResource" => untag_resource,
            "ListResourceTags" => list_resource_tags,
        }
    }
}

/// The requests of KMS.
#[cfg(test)]
pub(crate) fn model() -> &'static crate::model::Service {
    &model::SERVICE
}

/// Overwrites a request body that nobody else holds.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.zeroize();
    }
}

fn explain(fault: &Fault, operation: &'static str, caller: Caller<'_>) -> Response<Bytes> {
    if fault.is_internal() {
        tracing::error!(operation, request_id = caller.request_id(), error = %fault, "KMS request failed");
    }
    refuse(
        Protocol::Json,
        fault.status(),
        fault.code(),
        &fault.message(),
        caller.request_id(),
    )
}

/// Reads a body as each kind of request with something to it.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    for operation in model::SERVICE.operations {
        let _ = operation.check(data);
    }
    cryptographic::fuzz(data);
    if let Ok(wire::Context(Some(context))) = serde_json::from_slice(data) {
        let _ = context.canonical();
    }
}
