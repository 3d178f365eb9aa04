//! What the threads of a handle and the handle itself share: whether it serves, and how far it has come.

use std::sync::OnceLock;

use tokio::sync::watch;

use super::options::Options;
use crate::{CatalogueError, Sequence, StoreId, database};

/// What the threads and the handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) store_id: StoreId,
    /// Why the handle has stopped.
    pub(super) stopped: OnceLock<String>,
    /// The last sequence that this handle committed or saw.
    pub(super) sequence: watch::Sender<Sequence>,
}

impl Shared {
    pub(super) fn new(options: Options, store_id: StoreId, sequence: Sequence) -> Self {
        Self {
            options,
            store_id,
            stopped: OnceLock::new(),
            sequence: watch::Sender::new(sequence),
        }
    }

    pub(super) fn serving(&self) -> Result<(), CatalogueError> {
        match self.stopped.get() {
            Some(why) => Err(CatalogueError::Stopped(why.clone())),
            None => Ok(()),
        }
    }

    /// Lets nothing more be answered, and leaves a mark for whoever opens the file next.
    pub(super) fn stop(&self, why: String) {
        if self.stopped.set(why.clone()).is_err() {
            return;
        }
        database::mark_failed(&self.options.site(), &why);
        // Waiters look again, and find it stopped.
        self.sequence.send_modify(|_| {});
    }

    /// Tells waiters of this process.
    pub(super) fn committed(&self, sequence: Sequence) {
        self.sequence.send_if_modified(|seen| {
            let newer = sequence > *seen;
            *seen = sequence.max(*seen);
            newer
        });
    }
}
