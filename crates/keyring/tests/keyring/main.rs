//! The keyring through its public face: what it does, what it withstands, what it records.
#![allow(clippy::unwrap_used, missing_docs)]

mod attacks;
mod audit;
mod faults;
mod fixture;
mod operations;
mod processes;
mod reseal;
mod tiers;
