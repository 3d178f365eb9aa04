//! What waits for [`keep_house`](super::Engine::keep_house) to do it.

use parking_lot::{Condvar, Mutex};

use crate::geometry::SlotRun;

/// What is to be done.
pub(super) struct Chores {
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Default)]
struct Work {
    punch: Vec<SlotRun>,
    checkpoint: bool,
    flush: bool,
    stop: bool,
}

impl Chores {
    pub(super) fn new() -> Self {
        Self {
            work: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Slots nobody names any more, not even after a crash.
    pub(super) fn punch(&self, runs: Vec<SlotRun>) {
        if !runs.is_empty() {
            self.work.lock().punch.extend(runs);
            self.wake.notify_one();
        }
    }

    /// The log has grown.
    pub(super) fn checkpoint(&self) {
        if !std::mem::replace(&mut self.work.lock().checkpoint, true) {
            self.wake.notify_one();
        }
    }

    /// Much was written that was not flushed.
    pub(super) fn flush(&self) {
        if !std::mem::replace(&mut self.work.lock().flush, true) {
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.work.lock().stop = true;
        self.wake.notify_one();
    }

    /// Waits until there is something to do; false if there will be nothing more.
    pub(super) fn wait(&self) -> bool {
        let mut work = self.work.lock();
        while work.punch.is_empty() && !work.checkpoint && !work.flush && !work.stop {
            self.wake.wait(&mut work);
        }
        !work.stop
    }

    /// Slots to punch, whether to flush, and whether the log is to be written anew.
    pub(super) fn take(&self) -> (Vec<SlotRun>, bool, bool) {
        let mut work = self.work.lock();
        (
            std::mem::take(&mut work.punch),
            std::mem::take(&mut work.flush),
            std::mem::take(&mut work.checkpoint),
        )
    }
}
