//! Log lines that strangers can cause as often as they like.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use host::Clock;

/// A line of one kind is written this often at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// Whether a line of one kind is to be written now.
pub(crate) struct Throttle {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Duration>,
    unsaid: u64,
}

impl Throttle {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// How many lines were not written since the last one, if this one is to be written.
    pub(crate) fn say(&self) -> Option<u64> {
        let now = self.clock.elapsed();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .last
            .is_some_and(|last| now.saturating_sub(last) < INTERVAL)
        {
            state.unsaid += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::clock::ManualClock;

    #[test]
    fn a_flood_is_one_line_an_interval_that_counts_the_others() {
        let clock = Arc::new(ManualClock::new(std::time::SystemTime::UNIX_EPOCH));
        let throttle = Throttle::new(Arc::clone(&clock) as _);
        assert_eq!(throttle.say(), Some(0));
        assert_eq!(throttle.say(), None);
        assert_eq!(throttle.say(), None);
        clock.advance(INTERVAL);
        assert_eq!(throttle.say(), Some(2));
        assert_eq!(throttle.say(), None);
    }
}
