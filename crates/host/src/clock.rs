//! Time, passed in.

use std::time::{Duration, Instant, SystemTime};

/// Tells the time. Tests set one by hand.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump, both ways.
    fn now(&self) -> SystemTime;

    /// Time since some fixed moment before the first call. Never goes back, and goes on evenly: for
    /// time-outs, rates and durations.
    fn elapsed(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Starts counting [`Clock::elapsed`] now.
    #[expect(
        clippy::new_without_default,
        reason = "a process makes one on purpose, in one place"
    )]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that stands still until it is moved. For tests.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
pub struct ManualClock {
    state: parking_lot::Mutex<(SystemTime, Duration)>,
}

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that says `now`.
    pub fn new(now: SystemTime) -> Self {
        Self {
            state: parking_lot::Mutex::new((now, Duration::ZERO)),
        }
    }

    /// Lets time pass, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock();
        state.0 += by;
        state.1 += by;
    }

    /// Sets the wall clock, as an operator or NTP does; [`Clock::elapsed`] does not move.
    pub fn set(&self, now: SystemTime) {
        self.state.lock().0 = now;
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.state.lock().0
    }

    fn elapsed(&self) -> Duration {
        self.state.lock().1
    }
}
