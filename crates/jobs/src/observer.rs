//! What happens, for metrics.

use crate::job::Outcome;

/// Told of what happens to jobs. Called from tasks of the runtime: it must be quick.
pub trait Observer: Send + Sync {
    /// Work on a job of `kind` began or was taken up again.
    fn started(&self, kind: &'static str);

    /// A step of a job ended; it advanced the job by so many units.
    fn advanced(&self, kind: &'static str, units: u64);

    /// A step failed and will be tried again.
    fn retried(&self, kind: &'static str);

    /// Work on a job stopped; `outcome` says how, `None` that it goes on elsewhere or later.
    fn stopped(&self, kind: &'static str, outcome: Option<&Outcome>);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn started(&self, _: &'static str) {}
    fn advanced(&self, _: &'static str, _: u64) {}
    fn retried(&self, _: &'static str) {}
    fn stopped(&self, _: &'static str, _: Option<&Outcome>) {}
}
