//! Signature Version 4, verified once for every service.
//!
//! [`Verifier::begin`] reads the head of a request and finds everything wrong with it that can be
//! found without the body; [`Pending::finish`] compares the signature. In between the caller may
//! dispatch on [`Pending::service`] and, where [`Pending::needs_body`], read the body.
//! [`Verifier::verify`] does both. [`claimed_service`] reads what a request that was refused says it
//! was for, so that the refusal can be told in that service's protocol.
//!
//! Promises:
//! - the comparison is constant-time, and nothing of the request is believed before it;
//! - `Host`, and every `x-amz-*` header, must be among the signed ones, so that what an operation
//!   acts on is what was signed; repeated authentication parameters and headers are refused, not
//!   chosen from;
//! - S3 paths are encoded once and not normalised, every other service's are normalised and encoded
//!   twice, as AWS does;
//! - Signature Version 2 is refused;
//! - signing keys are cached after a signature under them proved right, never before, so strangers
//!   cannot fill the cache.
//!
//! Not promised: protection from replay within the time window (TLS and the window are AWS's answer
//! too), and session tokens, which are refused because there is no STS to issue one yet.
//!
//! After [`Payload::Sha256`] the body still has to be compared with the digest, unless it was given
//! to `finish`; after a streaming payload it has to go through [`crate::chunked`].
pub mod authorization;
pub mod canonical;
mod claim;
pub mod error;
pub mod payload;
pub mod signing_key;
mod strip;
mod timestamp;
mod verifier;

pub use authorization::Form;
pub use claim::{claimed_access_key, claimed_service};
pub use error::SigV4Error;
pub use payload::{Payload, StreamingSignature};
pub use strip::strip;
pub use verifier::{Body, Options, Pending, Verified, Verifier};
