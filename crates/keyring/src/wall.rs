//! The wall clock, watched: what cannot be undone is not done because it jumped.
//!
//! A key past its deletion date is refused as one that does not exist at once, and is erased only when the wall clock has
//! gone along with the steady one for [`SETTLED_AFTER`]: until then somebody, or NTP, may put right a clock that jumped
//! forward, and the key is there again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use host::Clock;
use parking_lot::Mutex;

/// How long the wall clock must have gone along before a key is erased.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(3600);
/// What the wall clock may differ by from the steady one between two looks: slewing, and a correction of NTP's.
const DRIFT_MAX: Duration = Duration::from_secs(30);
/// How far behind what was written earlier the clock is said to be far back.
const BACK_MAX: Duration = Duration::from_secs(300);

/// The wall clock and how long it has gone along.
pub(crate) struct Wall {
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

struct Seen {
    now: SystemTime,
    elapsed: Duration,
    /// Since when it has not jumped, on the steady clock.
    since: Duration,
}

impl Wall {
    /// Begins to watch it. `newest` is the newest moment that something was written at earlier: a clock that is far
    /// behind it is logged.
    pub(crate) fn new(clock: Arc<dyn Clock>, newest: Option<SystemTime>) -> Self {
        let (now, elapsed) = (clock.now(), clock.elapsed());
        let behind = newest.and_then(|newest| newest.duration_since(now).ok());
        if let Some(behind) = behind.filter(|behind| *behind > BACK_MAX) {
            tracing::warn!(
                seconds = behind.as_secs(),
                "the clock is far back: keys were changed later than it says it is now"
            );
        }
        let seen = Seen {
            now,
            elapsed,
            since: elapsed,
        };
        Self {
            clock,
            seen: Mutex::new(seen),
        }
    }

    /// Looks at both clocks, logs a jump, and says whether the wall clock has gone along long enough to be believed.
    pub(crate) fn is_settled(&self) -> bool {
        let mut seen = self.seen.lock();
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let passed = elapsed.saturating_sub(seen.elapsed);
        let expected = seen.now + passed;
        let (by, direction) = match now.duration_since(expected) {
            Ok(forward) => (forward, "forward"),
            Err(back) => (back.duration(), "back"),
        };
        if by > DRIFT_MAX {
            tracing::warn!(
                seconds = by.as_secs(),
                direction,
                "the clock jumped: no key is erased until it has gone on evenly for an hour"
            );
            seen.since = elapsed;
        }
        seen.now = now;
        seen.elapsed = elapsed;
        elapsed.saturating_sub(seen.since) >= SETTLED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::clock::ManualClock;

    fn wall() -> (Arc<ManualClock>, Wall) {
        let clock = Arc::new(ManualClock::new(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        ));
        let wall = Wall::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
        (clock, wall)
    }

    #[test]
    fn a_clock_is_believed_once_it_has_gone_along_for_a_while() {
        let (clock, wall) = wall();
        assert!(!wall.is_settled());
        clock.advance(Duration::from_secs(3599));
        assert!(!wall.is_settled());
        clock.advance(Duration::from_secs(1));
        assert!(wall.is_settled());
        clock.advance(Duration::from_secs(86_400 * 30));
        assert!(wall.is_settled(), "however long nobody looked");
    }

    #[test]
    fn a_jump_forward_or_back_begins_the_wait_anew_and_slewing_does_not() {
        let day = Duration::from_secs(86_400);
        for forward in [true, false] {
            let (clock, wall) = wall();
            clock.advance(SETTLED_AFTER);
            assert!(wall.is_settled());
            let to = match forward {
                true => clock.now() + 30 * day,
                false => clock.now() - 30 * day,
            };
            clock.set(to);
            assert!(!wall.is_settled());
            clock.advance(SETTLED_AFTER / 2);
            assert!(!wall.is_settled());
            clock.advance(SETTLED_AFTER / 2);
            assert!(wall.is_settled());
            clock.set(clock.now() + DRIFT_MAX);
            assert!(wall.is_settled());
        }
    }
}
