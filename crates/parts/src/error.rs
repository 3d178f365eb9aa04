//! Why a start is refused, and what else can fail.

use std::{fmt, io, path::PathBuf};

use catalogue::CatalogueError;
use thiserror::Error;

use crate::part::Part;

/// What is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Wrong {
    /// It was there when the marks were last kept.
    #[error("is missing")]
    Missing,
    /// It is behind its mark: a backup was restored, or what was written last is lost.
    #[error("is older than the rest of the data directory (it is at {found}, and was at {marked})")]
    Older {
        /// How far it is.
        found: u64,
        /// How far it was.
        marked: u64,
    },
    /// Root header and catalogue do not belong together: it is the older of the two, and the store key's generation
    /// between them is gone.
    #[error(
        "is older than the rest of the data directory: records are sealed under generation {records} of the store key, \
         and the root header has {header}"
    )]
    OtherGeneration {
        /// That of the catalogue's records.
        records: u32,
        /// That of the root header.
        header: u32,
    },
    /// It is as far as it was, and not the same.
    #[error("is not what it was when the server last ran")]
    Other,
    /// It reads, and is not what was written.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// A newer version of this program wrote it.
    #[error("is of a newer version: {0}")]
    Newer(String),
    /// The operating system does not let it be read, so nothing is known of it: too many open files, no permission, a
    /// disk that fails.
    #[error("cannot be read: {why}")]
    Unreadable {
        /// The operating system's kind.
        kind: io::ErrorKind,
        /// What it said, and of which file.
        why: String,
    },
    /// It carries another store's id.
    #[error("belongs to another store, {store}")]
    OtherStore {
        /// Whose it is.
        store: root::StoreId,
    },
}

/// What an operator can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// Mend what keeps it from being read, and start again. Nothing is known to be lost.
    Mend,
    /// Start the version that wrote it.
    NewerProgram,
    /// Restore a backup: there is no going on without it.
    Restore,
    /// Restore a backup, however old, and then go on without what that lacks.
    RestoreThenAccept,
    /// Restore a backup, or go on without what is lost.
    RestoreOrAccept,
    /// Take it away, and then as for one that is missing.
    TakeAway,
}

/// A part that a start must not go on with, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{part}: {} {wrong}. {}", path.display(), Words(*part, self.way_out()))]
pub struct Refusal {
    /// Which part.
    pub part: Part,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong.
    pub wrong: Wrong,
}

impl Refusal {
    /// The way out that the message names.
    pub fn way_out(&self) -> WayOut {
        match (self.part, &self.wrong) {
            (_, Wrong::Unreadable { .. }) => WayOut::Mend,
            (_, Wrong::Newer(_)) => WayOut::NewerProgram,
            (_, Wrong::OtherGeneration { .. })
            // Without it, every key is gone.
            | (
                Part::Catalogue | Part::RootHeader,
                Wrong::Missing | Wrong::Damaged(_) | Wrong::OtherStore { .. },
            ) => WayOut::Restore,
            (_, Wrong::OtherStore { .. }) => WayOut::TakeAway,
            // Without any index every data file is one that nothing names.
            (Part::Index, Wrong::Missing | Wrong::Damaged(_)) => WayOut::RestoreThenAccept,
            _ => WayOut::RestoreOrAccept,
        }
    }
}

/// A way out, in words.
struct Words(Part, WayOut);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(part, way_out) = self;
        let restore = "Restore the newest backup of this data directory's own";
        let accept = format_args!("sealgate doctor --accept-older {part}");
        match way_out {
            WayOut::Mend => {
                f.write_str("Nothing is known to be lost: mend the cause and start again")
            }
            WayOut::NewerProgram => f.write_str("Start the version of Sealgate that wrote it"),
            WayOut::Restore => write!(f, "{restore}; there is no going on without it"),
            WayOut::RestoreThenAccept => write!(
                f,
                "{restore}, however old, and then go on without what that lacks: {accept}"
            ),
            WayOut::RestoreOrAccept => {
                write!(f, "{restore}, or go on without what it lost: {accept}")
            }
            WayOut::TakeAway => write!(
                f,
                "Move it out of the data directory. {restore}, or go on without it: {accept}"
            ),
        }
    }
}

/// Marks that cannot be read or kept.
#[derive(Debug, Clone, Error)]
pub enum PartsError {
    /// The record of the marks does not open or read.
    #[error("the marks between the parts are damaged: {0}")]
    Marks(String),
    /// The record of the marks is sealed under a generation of the store key that the root header does not have: one of
    /// the two is older than the other.
    #[error("the marks between the parts are sealed under generation {found} of the store key")]
    Generation {
        /// The generation.
        found: u32,
    },
    /// The catalogue failed.
    #[error("the marks between the parts: {0}")]
    Catalogue(#[from] CatalogueError),
    /// A stamp could not be written.
    #[error("{part} cannot be stamped: {reason}")]
    Stamp {
        /// Which part.
        part: Part,
        /// Why.
        reason: String,
    },
}
