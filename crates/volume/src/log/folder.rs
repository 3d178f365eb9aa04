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
/// Name of the second copy of the current log's checkpoint.
pub(crate) const COPY_NAME: &str = "map.log.copy";
const COPY_NEXT_NAME: &str = "map.log.copy.new";
/// Name that a damaged log gets when a repair has made a new one.
const LOG_DAMAGED_NAME: &str = "map.log.damaged";
/// Copied at a time.
const COPY_LEN: usize = 1 << 20;

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

    /// The copy of a checkpoint, if there is one.
    pub(crate) fn open_copy(&self) -> io::Result<Option<Arc<dyn File>>> {
        match self.disk.open(&self.dir.join(COPY_NAME), Mode::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The current file as it is, with nothing made durable.
    pub(crate) fn peek_current(&self) -> io::Result<Arc<dyn File>> {
        self.disk.open(&self.dir.join(LOG_NAME), Mode::Read)
    }

    /// Makes the second copy of a log's checkpoint, durably: the file's beginning up to `end`. It replaces that of an
    /// earlier log, which is of no use any more.
    pub(crate) fn copy_checkpoint(&self, log: &dyn File, end: u64) -> io::Result<()> {
        let next = self.dir.join(COPY_NEXT_NAME);
        match self.disk.remove(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let copy = self.disk.open(&next, Mode::New)?;
        let mut buf = vec![0; COPY_LEN];
        let mut at = 0;
        while at < end {
            let len = usize::try_from(end - at).map_or(COPY_LEN, |left| left.min(COPY_LEN));
            log.read_at(at, &mut buf[..len])?;
            copy.write_at(at, &buf[..len])?;
            at += len as u64;
        }
        copy.sync_data()?;
        self.disk.rename(&next, &self.dir.join(COPY_NAME))?;
        self.disk.sync_dir(&self.dir)
    }

    /// Keeps the current file, which is of no use, under another name.
    pub(crate) fn set_current_aside(&self) -> io::Result<()> {
        let aside = self.dir.join(LOG_DAMAGED_NAME);
        match self.disk.rename(&self.dir.join(LOG_NAME), &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }
}
