//! Who calls, and whether they may.
//!
//! - [`identity`], [`arn`], [`caller`]: accounts, principals, credentials, resource names, and the
//!   [`RequestContext`] that every layer shares;
//! - [`sigv4`]: the one Signature Version 4 verifier in front of every service;
//! - [`uri`]: percent-encoding as AWS does it;
//! - [`chunked`]: the `aws-chunked` body decoder that goes on where the verifier stopped;
//! - [`action`], [`authorize`], [`permission`]: [`Authorized<A, R>`](Authorized), the permission to do
//!   `A` to `R` once, and [`Standing<A, R>`](Standing), what is kept of it. Only [`Authorizer`] makes
//!   one, and key use, volumes and objects ask for it by type.
//!
//! What this crate promises: no I/O, no clock of its own (the time is an argument), secrets that
//! are wiped on drop and never printed, and decisions that fail closed: whatever is not understood
//! is refused.
//!
//! What it does not do: there is no policy language yet. The account's root user may do everything
//! to the account's own resources and nobody else may do anything.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
pub mod action;
pub mod arn;
pub mod authorize;
pub mod caller;
pub mod chunked;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod permission;
pub mod sigv4;
pub mod uri;

pub use account::{AccountId, IdentityError, Region};
pub use action::{Action, ec2::*, kms::*, s3::*, sealgate, sts::*};
pub use arn::{Arn, ArnError};
pub use authorize::{Authorizer, Denied};
pub use caller::{Caller, RequestContext, Via};
pub use identity::{AccessKeyId, Credential, Credentials, Principal, SecretAccessKey};
pub use permission::{Authorized, Resource, Revision, Standing};
