//! What the keyring tells metrics about each request.

use std::time::Duration;

use iam::Via;

/// Called once for every request, after its audit record is durable. Must not block.
pub trait Observer: Send + Sync {
    /// `operation` is the API's name (`GenerateDataKey`); `outcome` is `Success` or the code of
    /// the exception; `elapsed` includes the wait for the audit record.
    fn request(&self, operation: &'static str, via: Via, outcome: &str, elapsed: Duration) {
        let _ = (operation, via, outcome, elapsed);
    }
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
