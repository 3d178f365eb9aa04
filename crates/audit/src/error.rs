//! Why the log refuses.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a record is not durable, or the log does not open. Ours or the disk's fault.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A write or sync failed, and what is on the disk is not known; no record is accepted until the log is opened
    /// anew.
    #[error("the log failed and takes no more records: {0}")]
    Failed(Arc<str>),
    /// The disk is full. The log tries again by itself; the record may yet appear in it.
    #[error("the disk is full: no record is taken until there is space")]
    Full,
    /// The record is longer than any record should be. Nothing was written.
    #[error("a record of {len} bytes is too long")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Bytes that are neither a record in its turn nor what a crash can leave.
    #[error(
        "{file} is damaged at byte {offset}: {why}. Put it back from a copy, or go on without what is lost: sealgate doctor --accept-older audit"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What did not hold.
        why: &'static str,
    },
    /// Records that were durable are not there.
    #[error(
        "{what}. Put back what is missing, or go on without it: sealgate doctor --accept-older audit"
    )]
    Lost {
        /// What is missing.
        what: String,
    },
    /// A format that this build does not know.
    #[error("{file} has format {version}, which this build does not know")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u16,
    },
    /// A file or folder cannot be opened, read or written.
    #[error("{path}: {message}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

impl AuditError {
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            message: error.to_string(),
        }
    }
}
