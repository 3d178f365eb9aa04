//! What can go wrong in a store, by whose fault.

use std::io;

/// An error of an [`ObjectStore`](super::ObjectStore).
///
/// The first group is the caller's doing and maps to one S3 error each; the second says that this
/// machine or its disk could not do it and that nothing was changed, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The bucket does not exist.
    #[error("no such bucket")]
    NoSuchBucket,
    /// The bucket still holds objects.
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    /// The object does not exist.
    #[error("no such key")]
    NoSuchKey,
    /// The upload does not exist, or belongs to another bucket or key.
    #[error("no such upload")]
    NoSuchUpload,
    /// A part named at completion does not exist, or was replaced since the caller looked.
    #[error("part {number} is missing or was replaced")]
    InvalidPart {
        /// The first part that does not match.
        number: u32,
    },
    /// The parts named at completion are none, or not in strictly ascending order.
    #[error("the list of parts is empty or not in ascending order")]
    InvalidPartOrder,
    /// A [`Condition`](super::Condition) does not hold.
    #[error("the precondition does not hold")]
    PreconditionFailed {
        /// The sequence of the object that is there, if one is.
        found: Option<u64>,
    },
    /// A key is longer than [`KEY_LEN_MAX`](super::KEY_LEN_MAX) bytes.
    #[error("the key is too long")]
    KeyTooLong,
    /// A caller broke a rule of the interface: an empty key, an envelope that is too long, chunks
    /// after the last one or a commit before it. A defect of ours, never of the client's.
    #[error("misuse of the object store: {0}")]
    Misuse(&'static str),

    /// The disk, or the quota on it, is full. What was there before is untouched.
    #[error("no space left for objects")]
    NoSpace,
    /// What was read back is not what was written: the index and the data files disagree, or a
    /// file lacks bytes. Said by the store about form only; authenticity is for the opener to tell.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// The index is damaged: SQLite finds no sense in a page of it. The store stops.
    #[error("the object index is damaged: {0}")]
    DamagedIndex(String),
    /// The store directory is of a newer format than this program knows.
    #[error("the object store has format {found}; this program knows formats up to {known}")]
    NewerFormat {
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// Another process has the store open.
    #[error("the object store is held by another process")]
    Held,
    /// The store is closing. Nothing was changed.
    #[error("the object store is closed")]
    Closed,
    /// Whether the change was made is not known, and will not be before the store is opened anew.
    #[error("whether the change was made is not known: {0}")]
    Unknown(String),
    /// An earlier failure (a failed sync of the index) left the store in a state that is not known. Nothing was changed;
    /// restart.
    #[error("the object store has stopped: {0}")]
    Stopped(String),
    /// The disk or the operating system failed.
    #[error("object store: {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The index failed.
    #[error("object index: {what}")]
    Index {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Wraps an I/O error, telling a full disk apart from the rest.
    pub(crate) fn io(what: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io { what, source },
        }
    }

    /// Whether the same call may succeed later without anything being changed by the caller.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NoSpace
                | Self::Closed
                | Self::Unknown(_)
                | Self::Stopped(_)
                | Self::Io { .. }
                | Self::Index { .. }
        )
    }
}
