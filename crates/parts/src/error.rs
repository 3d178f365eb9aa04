//! Why a start is refused, and what else can fail.

use std::path::PathBuf;

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
    /// It is as far as it was, and not the same.
    #[error("is not what it was when the server last ran")]
    Other,
    /// It does not read.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// It carries another store's id.
    #[error("belongs to another store, {store}")]
    OtherStore {
        /// Whose it is.
        store: root::StoreId,
    },
}

/// A part that a start must not go on with, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{part}: {} {wrong}. {}", path.display(), way_out(*part, wrong))]
pub struct Refusal {
    /// Which part.
    pub part: Part,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong.
    pub wrong: Wrong,
}

fn way_out(part: Part, wrong: &Wrong) -> String {
    let restore = "Restore the newest backup of this data directory's own";
    match (part, wrong) {
        // Without it, every key is gone.
        (Part::Catalogue, Wrong::Missing | Wrong::Damaged(_) | Wrong::OtherStore { .. })
        | (Part::RootHeader, Wrong::Missing | Wrong::Damaged(_) | Wrong::OtherStore { .. }) => {
            format!("{restore}; there is no going on without it")
        }
        _ => format!(
            "{restore}, or go on without what it lost: sealgate doctor --accept-older {part}"
        ),
    }
}

/// Marks that cannot be read or kept.
#[derive(Debug, Clone, Error)]
pub enum PartsError {
    /// The record of the marks does not open or read.
    #[error("the marks between the parts are damaged: {0}")]
    Marks(String),
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
