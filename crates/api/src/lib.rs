//! AWS-shaped fronts: KMS's JSON, EC2's and STS's Query. Stateless: requests in, answers out.
//!
//! A front parses a verified request strictly, asks for the permission, calls the keyring or the
//! volumes, and puts what they say into the words an AWS SDK expects. No operation has an effect
//! before its [`Authorized`](::iam::Authorized) was made: the layers below take nothing else.
//!
//! - [`kms`]: JSON 1.1, `TrentService`, 2014-11-01;
//! - [`ec2`]: Query and XML, 2016-11-15, the volume operations;
//! - [`sts`]: Query and XML, 2011-06-15, GetCallerIdentity;
//! - [`iam`]: Query and XML, 2010-05-08, nothing yet;
//! - [`sealgate`]: JSON 1.1, `Sealgate`, its own: jobs and the root key;
//! - [`Service`]: the one table of them, with what each is called in a credential scope and in metrics;
//! - [`Protocol`], [`Refusal`]: which protocol a request speaks, and each one's words for what goes
//!   wrong before a front has the request;
//! - [`error`]: every protocol's error body, in one place.
//!
//! What these fronts do not do: verify signatures, limit bodies, count requests. The gateway does,
//! before and after.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod claimed;
pub mod ec2;
pub mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod iam;
pub mod kms;
mod model;
mod protocol;
mod query;
mod refusal;
pub mod sealgate;
mod service;
mod spoken;
pub mod sts;
mod time;
mod xml;

use bytes::Bytes;

pub use self::{
    claimed::claimed_operation,
    protocol::Protocol,
    refusal::{Refusal, Words},
    service::{Backends, Service},
};

/// An answer, and the name its operation has in metrics.
#[derive(Debug)]
pub struct Answer {
    /// The operation's AWS name, such as `Decrypt`; `unknown` for one we do not know, so that a
    /// client cannot invent label values.
    pub operation: &'static str,
    /// The code of the error in the answer, if it is one.
    pub code: Option<&'static str>,
    /// What goes to the client.
    pub response: http::Response<Bytes>,
}
