//! How fast a job may go: a token bucket on the injected clock.

use std::time::Duration;

use host::Clock;
use serde::{Deserialize, Serialize};

/// Units (bytes, records: the kind of job says which) a second, on average.
///
/// A second's worth may come at once; what a step took beyond that, the next one waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RateLimit(std::num::NonZeroU64);

impl RateLimit {
    /// So many units a second; `None` for 0.
    pub fn per_second(units: u64) -> Option<Self> {
        std::num::NonZeroU64::new(units).map(Self)
    }

    /// Units a second.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A bucket that holds a second's worth.
#[derive(Debug)]
pub(crate) struct Bucket {
    limit: RateLimit,
    /// Units that may be taken now; below 0 where more were taken than there was.
    level: i128,
    /// When it was last filled, on [`Clock::elapsed`].
    filled: Duration,
}

impl Bucket {
    pub(crate) fn new(limit: RateLimit, clock: &dyn Clock) -> Self {
        Self {
            limit,
            level: i128::from(limit.get()),
            filled: clock.elapsed(),
        }
    }

    /// Takes `units` and returns how long to wait before going on.
    pub(crate) fn take(&mut self, units: u64, clock: &dyn Clock) -> Duration {
        let rate = i128::from(self.limit.get());
        let now = clock.elapsed();
        let nanos = i128::try_from(now.saturating_sub(self.filled).as_nanos()).unwrap_or(i128::MAX);
        let gained = nanos.saturating_mul(rate) / 1_000_000_000;
        if gained > 0 {
            // What a whole unit did not take of the time stays to be counted.
            let spent = gained * 1_000_000_000 / rate;
            self.filled += Duration::from_nanos(u64::try_from(spent).unwrap_or(u64::MAX));
            self.level = (self.level + gained).min(rate);
        }
        self.level -= i128::from(units);
        if self.level >= 0 {
            return Duration::ZERO;
        }
        let missing = -self.level;
        Duration::from_nanos(u64::try_from(missing * 1_000_000_000 / rate).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use host::clock::ManualClock;

    use super::*;

    #[test]
    fn a_second_s_worth_is_free_and_the_rest_is_waited_for() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let mut bucket = Bucket::new(RateLimit::per_second(1000).unwrap(), &clock);
        assert_eq!(bucket.take(1000, &clock), Duration::ZERO);
        let wait = bucket.take(500, &clock);
        assert_eq!(wait, Duration::from_millis(500));
        clock.advance(wait);
        assert_eq!(bucket.take(0, &clock), Duration::ZERO);
        assert_eq!(bucket.take(100, &clock), Duration::from_millis(100));
    }

    #[test]
    fn over_a_long_time_the_average_is_the_limit_whatever_the_pieces() {
        for piece in [1, 7, 333, 5000] {
            let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
            let mut bucket = Bucket::new(RateLimit::per_second(1000).unwrap(), &clock);
            let mut taken = 0;
            while clock.elapsed() < Duration::from_secs(100) {
                clock.advance(bucket.take(piece, &clock));
                taken += piece;
                if piece == 1 {
                    clock.advance(Duration::from_micros(300));
                }
            }
            assert!((99_000..=106_000).contains(&taken), "{piece}: {taken}");
        }
    }

    #[test]
    fn idle_time_is_not_saved_up_beyond_a_second() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let mut bucket = Bucket::new(RateLimit::per_second(10).unwrap(), &clock);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(bucket.take(10, &clock), Duration::ZERO);
        assert_eq!(bucket.take(10, &clock), Duration::from_secs(1));
    }
}
