//! Time as it comes in: dates of records, deletion and rotation. A test passes its own.

use std::time::SystemTime;

/// The wall clock.
pub trait Clock: Send + Sync {
    /// Now. May step back; nothing here depends on it rising, except that a key past its deletion
    /// date stays usable again until the date is reached anew if it was not yet swept.
    fn now(&self) -> SystemTime;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
