//! How a catalogue is opened, and the names of its files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use host::{Disk, OsDisk, private};

use crate::{StoreId, limits};

/// Behind the database's name: the mark that a handle leaves when a sync has failed.
pub(super) const FAILED: &str = ".failed";

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

    /// The path with `suffix` after its name.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }

    pub(super) fn folder(&self) -> &Path {
        private::folder_of(&self.path)
    }
}
