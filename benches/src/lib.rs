//! The crypto hot path and its peers, as things that can be timed side by side; and a keyring in process.
//!
//! [`cases`] lists what there is to time, [`measure`] times it in interleaved
//! rounds. `cargo bench -p benches` puts every case through criterion; the
//! program `hotpath` holds the ratios against the project's bars. [`key_store`] makes a store with as many keys as
//! are asked for, for the programs `unwraps` and `kms_forgotten`.

#![deny(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod awslc;
pub mod cases;
pub mod key_store;
pub mod measure;
mod silent_disk;
