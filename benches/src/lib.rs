//! The crypto hot path and its peers, as things that can be timed side by side.
//!
//! [`cases`] lists what there is to time, [`measure`] times it in interleaved
//! rounds. `cargo bench -p benches` puts every case through criterion; the
//! program `hotpath` holds the ratios against the project's bars.

#![deny(unsafe_code)]

mod awslc;
pub mod cases;
pub mod measure;
