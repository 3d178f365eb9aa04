//! How a catalogue is opened.

use std::{path::PathBuf, sync::Arc, time::Duration};

use host::{Disk, OsDisk};

use crate::{StoreId, database::Site, limits};

/// How to open a catalogue.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file. Its folder must exist.
    pub path: PathBuf,
    /// Makes the file with this id if it is not there. `None`: it must be.
    pub create: Option<StoreId>,
    /// Changes kept for followers, at least [`limits::BATCH_STEPS_MAX`]. All handles should agree.
    pub changes_kept: u64,
    /// How long another process may hold things up before a call is [`Unavailable`](crate::CatalogueError::Unavailable).
    pub patience: Duration,
    /// What is written, in bytes, before the log is moved into the file; a step of a batch counts as a page at least.
    pub checkpoint_every: usize,
    /// The name of a VFS registered with SQLite; `None` is its own.
    pub vfs: Option<String>,
    /// Whether this handle is the only one, everything runs on one connection, and no shared memory is needed.
    pub exclusive: bool,
    /// Where the files beside the database are made and renamed: the same file system as the VFS's.
    pub disk: Arc<dyn Disk>,
}

impl Options {
    /// A file on the operating system's disk, which is not made if it is missing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            create: None,
            changes_kept: limits::CHANGES_KEPT,
            patience: Duration::from_secs(5),
            checkpoint_every: 4 << 20,
            vfs: None,
            exclusive: false,
            disk: Arc::new(OsDisk),
        }
    }

    /// Where the file is.
    pub(super) fn site(&self) -> Site {
        Site {
            path: self.path.clone(),
            patience: self.patience,
            vfs: self.vfs.clone(),
            exclusive: self.exclusive,
            disk: Arc::clone(&self.disk),
        }
    }
}
