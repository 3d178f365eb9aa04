//! When marks and stamps are kept, and what is said when they are not.

use std::sync::Arc;
use std::time::Duration;

use audit::AuditLog;
use host::Clock;
use tokio::sync::watch;

use super::Known;
use crate::admin::Readiness;
use crate::metrics::Metrics;

/// How often marks and stamps are brought up to date while anything changes: what is set back by less is not seen.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long they may have failed to be before the server is no longer ready.
const PATIENCE: Duration = INTERVAL.saturating_mul(2);
/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What became of the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    UpToDate,
    /// They failed to be kept. It is tried again.
    Failed,
    /// They have failed for longer than can be borne.
    Overdue,
}

/// Keeps marks and stamps until `stop`. A failure is said in the log and the metrics, and tried again; one that lasts, in
/// readiness too, for as long as it does. What is served stays served.
pub(crate) async fn keep(
    known: Arc<Known>,
    audit: AuditLog,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
) {
    let keep = move || {
        let (known, audit) = (Arc::clone(&known), audit.clone());
        async move {
            let kept = known.keep(&audit, false).await;
            if let Err(error) = &kept {
                tracing::error!(%error, "the marks between the parts are not up to date");
            }
            kept.is_ok()
        }
    };
    let say = |kept| {
        metrics.marks_up(kept == Kept::UpToDate);
        readiness.marks_overdue(kept == Kept::Overdue);
    };
    keep_by(&*clock, stop, keep, say).await;
}

async fn keep_by<F: Future<Output = bool>>(
    clock: &dyn Clock,
    mut stop: watch::Receiver<bool>,
    keep: impl Fn() -> F,
    say: impl Fn(Kept),
) {
    let mut due = clock.elapsed();
    let mut failing_since = None;
    loop {
        let now = clock.elapsed();
        if now >= due {
            let kept = match keep().await {
                true => {
                    failing_since = None;
                    Kept::UpToDate
                }
                false if now.saturating_sub(*failing_since.get_or_insert(now)) >= PATIENCE => {
                    Kept::Overdue
                }
                false => Kept::Failed,
            };
            say(kept);
            due = now + INTERVAL;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::time::SystemTime;

    use host::clock::ManualClock;
    use parking_lot::Mutex;

    use super::*;

    /// Tokio's time runs ahead by itself, the clock stands until it is moved.
    #[tokio::test(start_paused = true)]
    async fn marks_are_kept_by_the_clock_and_overdue_when_they_fail_for_long() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let (stop, stopped) = watch::channel(false);
        let (works, tries) = (AtomicBool::new(true), AtomicUsize::new(0));
        let said = Mutex::new(Vec::new());
        let keeping = keep_by(
            &clock,
            stopped,
            || {
                tries.fetch_add(1, SeqCst);
                std::future::ready(works.load(SeqCst))
            },
            |kept| said.lock().push(kept),
        );
        // Long enough for many turns of tokio's time.
        let pass = async |by: u64| {
            clock.advance(Duration::from_secs(by));
            tokio::time::sleep(Duration::from_secs(3600)).await;
        };
        let script = async {
            pass(0).await;
            assert_eq!(tries.load(SeqCst), 1);
            pass(9).await;
            assert_eq!(tries.load(SeqCst), 1, "not before the clock says so");
            works.store(false, SeqCst);
            for _ in 0..4 {
                pass(10).await;
            }
            works.store(true, SeqCst);
            pass(10).await;
            stop.send(true).unwrap();
        };
        tokio::join!(keeping, script);
        use Kept::{Failed, Overdue, UpToDate};
        assert_eq!(
            *said.lock(),
            [UpToDate, Failed, Failed, Overdue, Overdue, UpToDate]
        );
    }
}
