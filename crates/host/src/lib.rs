//! The ground everything stands on: clock, files, folder syncs, locks, ids and jitter.
//!
//! Nothing else in the workspace reads the clock, opens a file it must not lose, or draws a random number by
//! itself (keys and nonces are `crypto`'s). Each is passed in, so that a test can pass in a twin: the feature
//! `test-util` has a disk that loses what was not synced, a clock that is set by hand, and entropy that follows
//! from a seed.
//!
//! It does not know what it stores.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "it wraps the machine's clock, randomness and locks for everyone else"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod boot;
pub mod clock;
pub mod disk;
pub mod entropy;
pub mod lane;
pub mod lock;
pub mod memory;
pub mod private;

pub use boot::BootId;
pub use clock::{Clock, SystemClock};
pub use disk::{
    DIRECT_ALIGN, Disk, Entry, EntryKind, File, Mode, OsDisk, ReservingDisk, SECTOR_LEN,
};
pub use entropy::{Entropy, SystemEntropy};
pub use lane::Lane;
pub use lock::Lock;
