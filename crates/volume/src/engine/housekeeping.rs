//! What can wait: giving freed slots' space back, flushing what nobody has flushed for long, writing a new log when the old
//! one has grown.
//!
//! A thread of its own does it for an attached volume; tests do it when they like. What is left undone at the end, or by
//! a crash, is found when the volume is opened: slots that the map does not name are free, and are punched again.

use super::Engine;
use crate::{geometry::SlotRun, protection::Protection};

/// Most slots punched in one call (8 GiB), so that a large trim does not keep the file system's lock for long.
const PUNCH_SLOTS_MAX: u32 = 16 << 10;

impl<P: Protection> Engine<P> {
    /// Works until [`stop_housekeeping`](Self::stop_housekeeping).
    pub(crate) fn keep_house(&self) {
        loop {
            if !self.housekeeping.wait() {
                return;
            }
            self.tidy();
        }
    }

    /// Ends [`keep_house`](Self::keep_house) after what it is doing.
    pub(crate) fn stop_housekeeping(&self) {
        self.housekeeping.stop();
    }

    /// Does what there is to do.
    pub(crate) fn tidy(&self) {
        let work = self.housekeeping.take();
        for run in work.punch {
            self.punch(run);
        }
        if work.flush
            && let Err(error) = self.flush()
        {
            tracing::warn!(volume = %self.shape.volume, %error, "what was written could not be flushed in the background");
        }
        if work.checkpoint
            && let Err(error) = self.checkpoint()
        {
            tracing::warn!(volume = %self.shape.volume, %error, "the metadata log could not be written anew");
        }
        if work.copy
            && let Err(error) = self.copy_checkpoint()
        {
            tracing::warn!(volume = %self.shape.volume, %error, "the map's last checkpoint could not be copied");
        }
    }

    /// Gives back the space that nobody has come to give back yet: who detaches after a trim has a right to it.
    pub(crate) fn free_space(&self) {
        for run in self.housekeeping.take_punches() {
            self.punch(run);
        }
    }

    /// Gives the space of free slots back, and then the slots.
    fn punch(&self, mut run: SlotRun) {
        while run.count > 0 {
            let now = SlotRun {
                count: run.count.min(PUNCH_SLOTS_MAX),
                ..run
            };
            if let Err(error) = self.disown(now) {
                tracing::warn!(volume = %self.shape.volume, %error, "the owners of freed slots could not be cleared");
            }
            let punched = self.store.punch(now);
            if let Err(error) = &punched
                && error.kind() != std::io::ErrorKind::Unsupported
            {
                // The space stays taken; the slots can be used all the same.
                tracing::warn!(volume = %self.shape.volume, %error, "the space of freed slots could not be given back");
            }
            // The next flush syncs it, and then the slots are of use again.
            self.written();
            self.slots.punched(now, punched.is_ok());
            run.first.0 += now.count;
            run.count -= now.count;
        }
    }
}
