//! KMS, JSON 1.1, `TrentService`, 2014-11-01.
//!
//! [`handle`] takes a verified request and answers it: it reads the operation from `X-Amz-Target`,
//! parses the body strictly (a name given twice is refused, also inside an encryption context; a
//! name we do not know is ignored, as AWS does), checks the bounds the service model states, asks
//! the keyring for the permission and then for the operation.
//!
//! Promises:
//! - no operation without its [`iam::Authorized`];
//! - a parameter that would change what an answer means and that we do not do (a key policy, a
//!   Nitro recipient, another key spec, a grant token) is refused, never ignored;
//! - plaintext is decoded straight into a [`keyring::SecretVec`], the request body is wiped once it
//!   is parsed if nobody else holds it, and an answer that holds plaintext is wiped when its last
//!   handle goes. What stays in hyper's read buffer and what it copies into its write buffer is
//!   beyond that.
//!
//! Operations of KMS that are not here are answered 501 `NotImplementedException`; names KMS does
//! not have, 400 `UnknownOperationException`.
mod aliases;
mod cryptographic;
mod fault;
mod keys;
mod rotation;
mod tags;
mod validate;
mod wire;

use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use iam::Caller;
use keyring::Keyring;
use zeroize::Zeroize;

use self::fault::Fault;
use crate::{
    Answer, Protocol,
    error::{refuse, respond},
};

const SERVICE: &str = "TrentService.";

/// What KMS has and we do not yet.
const NOT_YET: [&str; 29] = [
    "ConnectCustomKeyStore",
    "CreateCustomKeyStore",
    "CreateGrant",
    "Decapsulate",
    "DeleteCustomKeyStore",
    "DeleteImportedKeyMaterial",
    "DeriveSharedSecret",
    "DescribeCustomKeyStores",
    "DisconnectCustomKeyStore",
    "Encapsulate",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "GetKeyLastUsage",
    "GetParametersForImport",
    "GetPublicKey",
    "ImportKeyMaterial",
    "ListGrants",
    "ListKeyPolicies",
    "ListRetirableGrants",
    "PutKeyPolicy",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "Sign",
    "UpdateCustomKeyStore",
    "UpdatePrimaryRegion",
    "Verify",
    "VerifyMac",
];

/// One request on its way.
struct Request<'a> {
    keyring: &'a Keyring,
    caller: &'a Caller,
    body: &'a [u8],
}

/// Answers one request.
pub async fn handle(keyring: &Keyring, caller: Caller, head: &Parts, body: Bytes) -> Answer {
    let mut targets = head.headers.get_all("x-amz-target").iter();
    let target = match (
        targets.next().and_then(|target| target.to_str().ok()),
        targets.next(),
    ) {
        (Some(target), None) => target.strip_prefix(SERVICE).unwrap_or_default(),
        _ => "",
    };
    let request = Request {
        keyring,
        caller: &caller,
        body: &body,
    };
    let (operation, result) = request.dispatch(target).await;
    wipe(body);
    let response = match result {
        Ok(body) => respond(Protocol::Json, StatusCode::OK, &caller.request_id, body),
        Err(fault) => explain(&fault, operation, &caller),
    };
    Answer {
        operation,
        response,
    }
}

impl Request<'_> {
    async fn dispatch(self, target: &str) -> (&'static str, Result<Bytes, Fault>) {
        macro_rules! operations {
            ($($name:literal => $method:ident,)*) => {
                match target {
                    $($name => ($name, self.$method().await),)*
                    _ => {
                        match NOT_YET.into_iter().find(|name| *name == target) {
                            Some(name) => (name, Err(Fault::NotImplemented(name))),
                            None => ("unknown", Err(Fault::UnknownOperation)),
                        }
                    }
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

    /// The parameters.
    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        // An empty body is how some clients write "no parameters".
        let text = if self.body.trim_ascii().is_empty() {
            b"{}"
        } else {
            self.body
        };
        // serde reads an array as a structure too, its fields by position: no client of ours writes that,
        // and what is checked by name is not then checked.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(Fault::Malformed(
                "The request does not parse: it is not a JSON object".to_owned(),
            ));
        }
        serde_json::from_slice(text).map_err(|error| Fault::malformed(&error))
    }
}

/// Overwrites a request body that nobody else holds.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.zeroize();
    }
}

fn explain(fault: &Fault, operation: &'static str, caller: &Caller) -> Response<Bytes> {
    if fault.is_internal() {
        tracing::error!(operation, request_id = caller.request_id, error = %fault, "KMS request failed");
    }
    refuse(
        Protocol::Json,
        fault.status(),
        fault.code(),
        &fault.message(),
        &caller.request_id,
    )
}

/// Reads a body as each kind of request with something to it.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    cryptographic::fuzz(data);
    if let Ok(wire::Context(Some(context))) = serde_json::from_slice(data) {
        let _ = context.canonical();
    }
}
