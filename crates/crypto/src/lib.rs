//! Everything that touches key material or bulk data, and nothing else.
//!
//! For the volume engine, the object gateway and the keyring: sectors
//! ([`sector`], [`xts`], [`volume_key`]), chunk streams ([`chunk`]), keys under
//! keys ([`wrap`]), small records ([`record`]), checksums ([`hash`]), and the
//! types that carry secrets ([`secret`]) and randomness ([`random`]).
//!
//! What the crate promises:
//! - Sealed bytes have types of their own which only this crate can make, so a
//!   store that takes them cannot be handed plaintext.
//! - A key that may be used once is taken by value.
//! - Whatever fails authentication fails with one error that says nothing more,
//!   and no byte of it is handed out.
//! - Secrets are wiped on drop, do not print, do not clone, and are compared in
//!   constant time.
//!
//! What it does not: no I/O, no clock, no threads, no locking of pages against
//! swap, and no wiping of what the compiler left in registers and on the stack.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod committing;
mod derive;
mod error;

pub mod chunk;
pub mod context;
pub mod hash;
pub mod random;
pub mod record;
pub mod secret;
pub mod sector;
pub mod volume_key;
pub mod wrap;
pub mod xts;

pub use error::CryptoError;
