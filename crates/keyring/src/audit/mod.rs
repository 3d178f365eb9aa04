//! The audit log.

use std::path::PathBuf;

/// Why a record is not durable. Ours or the disk's fault; sticky.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A write or sync failed; no record is accepted until the log is opened anew.
    #[error("the log failed and takes no more records: {0}")]
    Failed(std::sync::Arc<str>),
    /// Damage before the last record that may have been torn.
    #[error("segment {segment} is damaged at byte {offset}: {why}")]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where.
        offset: u64,
        /// What did not hold.
        why: &'static str,
    },
    /// The directory cannot be opened or written.
    #[error("{path}: {message}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Its directory, made if it is not there (mode 0700).
    pub dir: PathBuf,
    /// A segment is closed when it is this long, in bytes.
    pub segment_len: u64,
    /// Records waiting for the disk, at most; then callers wait.
    pub queue_len: usize,
}

impl AuditOptions {
    /// The defaults: segments of 64 MiB, 4096 records waiting.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_len: 64 << 20,
            queue_len: 4096,
        }
    }
}

/// The log. Cheap to clone; the last clone dropped ends the thread after the last record.
#[derive(Debug, Clone)]
pub struct AuditLog {}

impl AuditLog {
    /// Opens the log in `options.dir`, cuts a torn last record off and starts its thread.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        let _ = options;
        Ok(Self {})
    }

    /// Why the log takes no more records, if it does not.
    pub fn failure(&self) -> Option<AuditError> {
        None
    }
}
