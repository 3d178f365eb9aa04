//! Sealed objects behind an S3 front.
//!
//! A [`Gateway`] takes HTTP requests whose signatures have been verified and
//! answers as S3 does; every object it stores is sealed before a store sees a
//! byte of it, in 64 KiB chunks under a key of its own.
//!
//! What it promises:
//! - No operation has an effect before `iam` gave the permission for it, and
//!   none is run that the client did not ask for: unknown sub-resources and
//!   parameters are `NotImplemented`.
//! - An object is committed only when its body came whole and is what every
//!   promise about it says (length, digests, checksums, chunk signatures).
//! - A store holds ciphertext and sealed records alone; names, sizes and dates
//!   are all it can read.
//! - Not a byte of data that is not authentic is answered, and an answer that
//!   cannot be finished is cut off, never ended.
//! - Keys that clients send are not stored, logged or printed.
//!
//! What it does not: verify signatures (the gateway does, with `iam`), hide key
//! names and sizes from the store, or detect a store rolled back as a whole.
//! Versions, ACLs, policies, object lock and replication are not implemented.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod answered;
mod body;
mod bucket;
mod bucket_default;
mod bucket_key;
mod bucket_trail;
mod checksum;
mod condition;
mod data_trail;
mod dates;
mod envelope;
mod error;
mod front;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod guard;
mod md5;
mod object_key;
mod observer;
mod opening;
mod options;
mod range;
mod request;
mod reseal;
mod room;
mod route;
mod sealing;
mod settle;
mod sse;
pub mod store;
#[cfg(test)]
mod tests;
mod url;
mod vault;

pub use body::{BodyError, ResponseBody};
pub use bucket::{Neighbours, scopes};
pub use bucket_key::BucketKeyPolicy;
pub use error::Error;
pub use gateway::{Gateway, Refused, claimed_operation, refuse};
pub use observer::{NoObserver, Observer, RequestEnd};
pub use options::Options;
