//! Where the metadata log lives: the current file, and the one that is about to replace it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use host::{Disk, File, Mode};

/// Name of the current log in a volume's folder.
pub(crate) const LOG_NAME: &str = "map.log";
/// Name of the log that is about to replace it.
const LOG_NEXT_NAME: &str = "map.log.new";

/// A volume's folder, as its log sees it.
pub(crate) struct LogFolder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl LogFolder {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
        }
    }

    /// The current file. First makes its name durable: a process that died while it put the file in its place may not
    /// have come to that, and what is appended to it must not vanish with the name.
    pub(crate) fn open_current(&self) -> io::Result<Arc<dyn File>> {
        self.disk.sync_dir(&self.dir)?;
        self.disk.open(&self.dir.join(LOG_NAME), Mode::Write)
    }

    /// An empty file beside it; what an earlier attempt left is gone.
    pub(crate) fn create_next(&self) -> io::Result<Arc<dyn File>> {
        let path = self.dir.join(LOG_NEXT_NAME);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.open(&path, Mode::New)
    }

    /// Puts the next file in the current one's place, durably. On an error it is unknown which of them is there.
    pub(crate) fn publish_next(&self) -> io::Result<()> {
        let next = self.dir.join(LOG_NEXT_NAME);
        self.disk.rename(&next, &self.dir.join(LOG_NAME))?;
        self.disk.sync_dir(&self.dir)
    }

    /// Removes the next file if there is one. A failure costs space and nothing else.
    pub(crate) fn discard_next(&self) {
        let _ = self.disk.remove(&self.dir.join(LOG_NEXT_NAME));
    }
}
