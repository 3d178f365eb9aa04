//! How a log is kept, and where.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use host::{Clock, Disk, OsDisk};

use crate::{group::GROUP_RECORDS_MAX, journal::HALF_LEN};

/// How a log is kept.
#[derive(Clone)]
pub struct AuditOptions {
    /// Its folder, made if it is not there (mode 0700). The journal stands beside it, its name ending in `.journal`.
    pub dir: PathBuf,
    /// A segment is closed before it is longer than this, in bytes; one group may be longer.
    pub segment_len: u64,
    /// Records waiting for the disk, at most; then callers wait.
    pub queue_len: usize,
    /// Whether [`AuditLog::data_event`](crate::AuditLog::data_event) records anything.
    pub data_events: bool,
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// Tells the time of the records that the log itself makes.
    pub clock: Arc<dyn Clock>,
    /// Length of one half of the journal, in bytes. Tests have a shorter one, so that a few records fill it.
    pub(crate) half_len: usize,
}

impl AuditOptions {
    /// The defaults: segments of 64 MiB, 1024 records waiting, no data events, the operating system's disk.
    pub fn new(dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir: dir.into(),
            segment_len: 64 << 20,
            queue_len: GROUP_RECORDS_MAX,
            data_events: false,
            disk: Arc::new(OsDisk),
            clock,
            half_len: HALF_LEN,
        }
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        journal_of(&self.dir)
    }
}

impl std::fmt::Debug for AuditOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditOptions")
            .field("dir", &self.dir)
            .field("segment_len", &self.segment_len)
            .field("queue_len", &self.queue_len)
            .field("data_events", &self.data_events)
            .finish_non_exhaustive()
    }
}

pub(crate) fn journal_of(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".journal");
    dir.with_file_name(name)
}
