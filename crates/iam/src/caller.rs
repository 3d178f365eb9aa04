//! The caller of an operation, as every layer below the front sees it.
use std::net::IpAddr;

use crate::identity::{AccessKeyId, Principal};

/// Through which side of the gateway a request reached the keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// The KMS (or another) API, called directly.
    Api,
    /// The object gateway, on behalf of the caller.
    S3,
    /// The volume side (EC2 API or NBD), on behalf of the caller.
    Volume,
}

impl Via {
    /// A short lower-case name for metrics and audit records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::S3 => "s3",
            Self::Volume => "volume",
        }
    }

    /// The service in the condition key `kms:ViaService`; `None` when called directly.
    pub fn service(self) -> Option<&'static str> {
        match self {
            Self::Api => None,
            Self::S3 => Some("s3"),
            Self::Volume => Some("ec2"),
        }
    }
}

/// An authenticated caller and the circumstances of its request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// With which key, if with one (a local NBD peer has none).
    pub access_key: Option<AccessKeyId>,
    /// Through which side.
    pub via: Via,
    /// The id in the response, in logs and in audit records.
    pub request_id: String,
    /// The peer's address, if it has one.
    pub source: Option<IpAddr>,
    /// Whether the transport was encrypted (`aws:SecureTransport`).
    pub secure_transport: bool,
}

impl Caller {
    /// A caller known by its principal alone; the other fields are filled in as they are known.
    pub fn new(principal: Principal, via: Via, request_id: impl Into<String>) -> Self {
        Self {
            principal,
            access_key: None,
            via,
            request_id: request_id.into(),
            source: None,
            secure_transport: false,
        }
    }

    /// The same caller, now acting through another side of the gateway.
    pub fn via(&self, via: Via) -> Self {
        Self {
            via,
            ..self.clone()
        }
    }
}
