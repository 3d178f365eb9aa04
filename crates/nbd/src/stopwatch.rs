//! How long something took.
//!
//! The crate's one look at a clock: it takes none of the workspace's crates, and so not the one that is passed in
//! elsewhere. What is measured is told to an [`Observer`](crate::Observer) or ends a busy wait; nothing of it is kept or
//! sent, so nothing has to replay. Time-outs are tokio's timers.

use std::time::{Duration, Instant};

/// Runs from its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "real time is measured, for metrics and a busy wait"
)]
impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
