//! Errors a catalogue can return.

use crate::record::{Key, Table};

/// Errors a catalogue can return. Which of them may have changed something is said at each.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// An expectation did not hold: another writer was first. Nothing was changed; read, seal and try again.
    #[error("a record of table {table} was changed by another writer")]
    Conflict {
        /// The table.
        table: Table,
        /// The record.
        key: Key,
    },
    /// The caller's batch or key is longer than any should be, or names a record twice. Nothing was changed.
    #[error("the request is not one a catalogue takes: {0}")]
    Invalid(&'static str),
    /// The disk is full. Nothing was changed; it may be tried again.
    #[error("the catalogue's disk is full")]
    Full,
    /// The store does not answer, or another process holds it up. Nothing was changed; it may be tried again.
    #[error("the catalogue is not available: {0}")]
    Unavailable(String),
    /// Whether the batch was applied is not known, and will not be before the catalogue is opened anew. Every later
    /// call answers [`Stopped`](Self::Stopped).
    #[error("whether the change was made is not known: {0}")]
    Unknown(String),
    /// An earlier failure left the store in a state that is not known; open it anew.
    #[error("the catalogue has stopped: {0}")]
    Stopped(String),
    /// Changes after the sequence asked for are no longer kept, or that sequence was not reached yet: the store is an
    /// earlier one. Read the tables anew.
    #[error("the changes after that sequence are not there")]
    Trimmed,
    /// There is no store.
    #[error("there is no catalogue")]
    Missing,
    /// The store is damaged.
    #[error("the catalogue is damaged: {0}")]
    Damaged(String),
    /// The store was written by a newer version of this program.
    #[error("the catalogue has format {found}, newer than the {known} this program knows")]
    Newer {
        /// The store's.
        found: i64,
        /// This program's.
        known: i64,
    },
    /// The store is another program's.
    #[error("the file is not a catalogue")]
    Foreign,
}
