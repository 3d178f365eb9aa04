//! Whether a short look-up may run where it is asked for.
//!
//! Handing it to another thread costs more than the look-up, but one that waits for the disk holds up its thread, which is a
//! worker of the runtime that others need. So one may at a time, if there is another worker to go on with the rest, and as
//! long as look-ups are quick.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// A look-up that took longer has waited for the disk, or for others.
const QUICK: Duration = Duration::from_millis(2);
/// After a slow one, so many go elsewhere.
const ELSEWHERE: u32 = 1000;

#[derive(Debug, Default)]
pub(super) struct AtHand {
    taken: AtomicBool,
    elsewhere: AtomicU32,
}

/// The right to look up on this thread.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    of: &'a AtHand,
    began: Instant,
}

impl AtHand {
    /// The right, if it is to be had; it ends when it is dropped.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        let count = |left: u32| left.checked_sub(1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.elsewhere.fetch_update(set, fetch, count).is_ok() {
            return None;
        }
        if is_only_worker() || self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Turn {
            of: self,
            began: Instant::now(),
        })
    }
}

/// Whether there is nobody to go on with the rest. Who runs everything on one thread has chosen to.
fn is_only_worker() -> bool {
    let runtime = Handle::current();
    runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() < 2
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.began.elapsed() > QUICK {
            self.of.elsewhere.store(ELSEWHERE, Ordering::Relaxed);
        }
        self.of.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time_and_none_after_a_slow_one() {
        let at_hand = AtHand::default();
        let mut turn = at_hand.take().unwrap();
        assert!(at_hand.take().is_none());
        turn.began -= 2 * QUICK;
        drop(turn);
        for _ in 0..ELSEWHERE {
            assert!(at_hand.take().is_none());
        }
        assert!(at_hand.take().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_only_worker_waits_for_nothing() {
        assert!(AtHand::default().take().is_none());
    }
}
