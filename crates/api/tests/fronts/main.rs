//! The fronts over a real keyring and real volumes, each in a directory of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod ec2;
mod encryption;
mod fixture;
mod kms;
