//! Where a database is, whose it is, and the mark that a failed sync leaves beside it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use host::{Disk, private};
use rusqlite::Connection;

use crate::CatalogueError;

/// Behind the database's name: the mark that is left when a sync has failed.
pub(super) const FAILED: &str = ".failed";

/// Where a database is, and how it is reached.
#[derive(Debug, Clone)]
pub struct Site {
    /// The file. Its folder must exist.
    pub path: PathBuf,
    /// How long another process may hold things up.
    pub patience: Duration,
    /// The name of a VFS registered with SQLite; `None` is its own.
    pub vfs: Option<String>,
    /// Whether one connection alone uses the file, which then needs no shared memory.
    pub exclusive: bool,
    /// Where the files beside the database are made and renamed: the same file system as the VFS's.
    pub disk: Arc<dyn Disk>,
}

impl Site {
    /// The path with `suffix` after its name.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }

    pub(super) fn folder(&self) -> &Path {
        private::folder_of(&self.path)
    }
}

/// Whose file it is, and what its owner asks of it.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// `PRAGMA application_id`.
    pub application_id: i64,
    /// `PRAGMA user_version`: the format this program writes, and the only one it reads.
    pub format: i64,
    /// Looks whether the content is sound, beyond what SQLite can see. Changes nothing.
    pub check: fn(&Connection) -> Result<(), CatalogueError>,
    /// Whether erased bytes are overwritten.
    pub secure_delete: bool,
    /// What is rewritten after a stop that was not in order, but left no mark of a failed sync. With a mark it is always
    /// the whole file.
    pub renewal: Renewal,
    /// How much of the file is looked at for damage when it is opened. A file that is rewritten whole is looked at whole.
    pub look: Look,
}

/// How much of a file is looked at for damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Every page, and whether tables and their indexes say the same.
    Whole,
    /// Every page, if the file has at most so many bytes: for one that may be too long to be read at each start. What is
    /// damaged in a longer one is found when it is read.
    UpTo(u64),
    /// Nothing: the owner has looked, and nobody has changed the file since.
    Done,
}

/// What is rewritten to a fresh file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Everything.
    Whole,
    /// The log, which is then moved into the file: for a file that may be so large that there is no time or space to
    /// copy it after each crash.
    Log,
}

/// Says to whoever opens the file next that a sync has failed. At best: the disk has just failed, and without the mark
/// the log that was left behind tells.
pub fn mark_failed(site: &Site, why: &str) {
    let _ = private::replace(&*site.disk, &site.beside(FAILED), why.as_bytes());
}

/// Whether a mark of a failed sync is there.
pub fn is_marked(site: &Site) -> bool {
    matches!(site.disk.kind(&site.beside(FAILED)), Ok(Some(_)))
}
