//! What waits for [`keep_house`](super::Engine::keep_house) to do it.

use parking_lot::{Condvar, Mutex};

use crate::geometry::SlotRun;

/// What is to be done.
pub(super) struct Chores {
    work: Mutex<Work>,
    wake: Condvar,
}

/// Things to do.
#[derive(Default)]
pub(super) struct Work {
    /// Slots to punch.
    pub(super) punch: Vec<SlotRun>,
    /// Whether the log is to be written anew.
    pub(super) checkpoint: bool,
    /// Whether its checkpoint is to be copied.
    pub(super) copy: bool,
    /// Whether to flush.
    pub(super) flush: bool,
    stop: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.punch.is_empty() && !self.checkpoint && !self.copy && !self.flush
    }
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

    /// The checkpoint has no second copy.
    pub(super) fn copy_checkpoint(&self) {
        if !std::mem::replace(&mut self.work.lock().copy, true) {
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
        while work.is_empty() && !work.stop {
            self.wake.wait(&mut work);
        }
        !work.stop
    }

    /// All there is to do; it is not to be done again.
    pub(super) fn take(&self) -> Work {
        let mut work = self.work.lock();
        let stop = work.stop;
        let taken = std::mem::take(&mut *work);
        work.stop = stop;
        taken
    }

    /// Slots to punch.
    pub(super) fn take_punches(&self) -> Vec<SlotRun> {
        std::mem::take(&mut self.work.lock().punch)
    }
}
