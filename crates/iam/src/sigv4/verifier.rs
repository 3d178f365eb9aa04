//! The verifier.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::request::Parts;

use super::{Payload, SigV4Error};
use crate::identity::{AccessKeyId, Credentials, Principal, Region};

/// How a [`Verifier`] judges.
#[derive(Debug, Clone)]
pub struct Options {
    /// The region credential scopes must name.
    pub region: Region,
    /// How far the client's clock may be from ours, either way. AWS allows 15 minutes.
    pub skew: Duration,
    /// Signing keys kept at most.
    pub cached_keys: u64,
}

impl Options {
    /// AWS's own bounds, in `region`.
    pub fn new(region: Region) -> Self {
        Self {
            region,
            skew: Duration::from_secs(15 * 60),
            cached_keys: 1024,
        }
    }
}

/// The body, as far as the signature needs it.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Not in memory: it streams, and `x-amz-content-sha256` stands for it.
    Unread,
    /// All of it: it is hashed, and compared with the header if there is one.
    Whole(&'a [u8]),
}

/// Where the signature stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the `Authorization` header.
    Header,
    /// In the query string.
    Presigned,
}

/// What a request claims about itself, before anything of it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// No signature at all.
    Anonymous,
    /// A signature for this service, the third field of its credential scope.
    Service(String),
}

/// Which service a request is for. Good for dispatch and for choosing the form of an error, not for
/// anything else. A signature too malformed to tell is an error.
pub fn claim(_head: &Parts) -> Result<Claim, SigV4Error> {
    Err(SigV4Error::Missing)
}

/// A request whose signature is right.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verified {
    /// Who signed it.
    pub principal: Principal,
    /// With which key.
    pub access_key: AccessKeyId,
    /// For which service, as in the credential scope: `s3`, `kms`, `ec2`, `sts`...
    pub service: String,
    /// For which region.
    pub region: String,
    /// How the body is covered.
    pub payload: Payload,
    /// Where the signature stood.
    pub form: Form,
    /// When it was signed, by the client's clock.
    pub signed_at: SystemTime,
}

/// Verifies requests. One for the whole process; cheap to share.
pub struct Verifier {
    _options: Options,
    _credentials: Arc<dyn Credentials>,
}

impl Verifier {
    /// A verifier over `credentials`.
    pub fn new(options: Options, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            _options: options,
            _credentials: credentials,
        }
    }

    /// Everything that can be judged without the body.
    pub fn begin(&self, _head: &Parts, _now: SystemTime) -> Result<Pending, SigV4Error> {
        Err(SigV4Error::Missing)
    }

    /// [`begin`](Self::begin) and [`finish`](Pending::finish) in one.
    pub fn verify(
        &self,
        head: &Parts,
        body: Body<'_>,
        now: SystemTime,
    ) -> Result<Verified, SigV4Error> {
        self.begin(head, now)?.finish(body)
    }
}

/// A request that is well-formed, in time and signed by a key that exists; whether rightly is still
/// to be seen.
#[derive(Debug)]
pub struct Pending {
    _private: (),
}

impl Pending {
    /// The service in the credential scope.
    pub fn service(&self) -> &str {
        ""
    }

    /// Whether [`finish`](Self::finish) needs the whole body, because no header stands for it.
    pub fn needs_body(&self) -> bool {
        false
    }

    /// Compares the signature. With [`Body::Whole`], the body is thereby verified too.
    pub fn finish(self, _body: Body<'_>) -> Result<Verified, SigV4Error> {
        Err(SigV4Error::Missing)
    }
}
