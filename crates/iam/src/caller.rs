//! The caller of an operation, as every layer below the front sees it.
//!
//! A [`RequestContext`] is made once a request, where the request is authenticated, and shared from
//! there on: a permission that outlives its call holds the same one. What differs between the calls
//! that one request leads to, such as the side of the gateway they come through, is in [`Caller`],
//! which borrows the context and is copied freely.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::SystemTime};

use crate::{
    arn::Arn,
    identity::{AccessKeyId, Principal},
};

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

/// An authenticated request: who sent it, and the circumstances a policy may ask about.
///
/// Shared, never copied: everything that needs it holds the same `Arc`.
/// ```compile_fail,E0599
/// fn copy(context: iam::RequestContext) -> iam::RequestContext {
///     context.clone()
/// }
/// ```
#[derive(Debug)]
pub struct RequestContext {
    principal: Principal,
    principal_arn: Arn,
    request_id: String,
    /// With which key, if with one (a local NBD peer has none).
    pub access_key: Option<AccessKeyId>,
    /// The peer's address, if it has one (`aws:SourceIp`).
    pub source: Option<IpAddr>,
    /// Whether the transport was encrypted (`aws:SecureTransport`).
    pub secure_transport: bool,
    /// What the client calls itself (`aws:UserAgent`).
    pub user_agent: Option<String>,
    /// When the request was authenticated (`aws:CurrentTime`), if a clock was asked.
    pub time: Option<SystemTime>,
    /// The principal's tags (`aws:PrincipalTag`).
    pub principal_tags: BTreeMap<String, String>,
}

impl RequestContext {
    /// A request known by its principal alone; the other fields are filled in as they are known,
    /// before the context is shared. `request_id` is the id in the response, in logs and in audit
    /// records.
    pub fn new(principal: Principal, request_id: impl Into<String>) -> Self {
        Self {
            principal_arn: principal.arn(),
            principal,
            request_id: request_id.into(),
            access_key: None,
            source: None,
            secure_transport: false,
            user_agent: None,
            time: None,
            principal_tags: BTreeMap::new(),
        }
    }

    /// Who.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Who, by name.
    pub fn principal_arn(&self) -> &Arn {
        &self.principal_arn
    }

    /// The id in the response, in logs and in audit records.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }
}

/// Who calls, through which side of the gateway, and with which grant tokens.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    context: &'a Arc<RequestContext>,
    via: Via,
    grant_tokens: Option<&'a Arc<[String]>>,
}

impl<'a> Caller<'a> {
    /// The sender of a request, calling through `via`.
    pub fn new(context: &'a Arc<RequestContext>, via: Via) -> Self {
        Self {
            context,
            via,
            grant_tokens: None,
        }
    }

    /// The same caller, calling through another side of the gateway.
    #[must_use]
    pub fn through(self, via: Via) -> Self {
        Self { via, ..self }
    }

    /// The same caller with the grant tokens of its request.
    #[must_use]
    pub fn with_grant_tokens(self, tokens: Option<&'a Arc<[String]>>) -> Self {
        Self {
            grant_tokens: tokens,
            ..self
        }
    }

    /// The request behind the call.
    pub fn context(&self) -> &'a Arc<RequestContext> {
        self.context
    }

    /// Who.
    pub fn principal(&self) -> &'a Principal {
        self.context.principal()
    }

    /// The id in the response, in logs and in audit records.
    pub fn request_id(&self) -> &'a str {
        self.context.request_id()
    }

    /// Through which side.
    pub fn via(&self) -> Via {
        self.via
    }

    /// The grant tokens given, if any.
    pub fn grant_tokens(&self) -> Option<&'a Arc<[String]>> {
        self.grant_tokens
    }
}
