//! What is wrong with a part, by the error that it opens or reads with.
//!
//! Only what reads and is not what was written is damaged. What the operating system does not let be read may be whole.

use std::error::Error;
use std::io;
use std::path::Path;

use audit::AuditError;
use catalogue::CatalogueError;
use parts::{StampError, Wrong};
use s3::store::StoreError;

use crate::credentials::RootUsers;

/// The credentials; `None` if they are not there. Blocks.
pub(super) fn credentials(path: &Path) -> Result<Option<RootUsers>, Wrong> {
    match std::fs::read(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(of_io(&error)),
    }
    match RootUsers::load(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) => Err(Wrong::Damaged(error.root_cause().to_string())),
    }
}

/// What is wrong with a file that cannot be looked at.
pub(crate) fn of_io(error: &io::Error) -> Wrong {
    Wrong::Unreadable {
        kind: error.kind(),
        why: error.to_string(),
    }
}

/// What is wrong with a catalogue that does not open.
pub(crate) fn of_catalogue(error: CatalogueError) -> Wrong {
    match error {
        CatalogueError::Missing => Wrong::Missing,
        CatalogueError::Damaged(why) => Wrong::Damaged(why),
        CatalogueError::Foreign => Wrong::Damaged("it is no catalogue".to_owned()),
        CatalogueError::Newer { .. } => Wrong::Newer(error.to_string()),
        other => unreadable(&other),
    }
}

/// What is wrong with an audit log that does not open.
pub(super) fn of_audit(error: AuditError) -> Wrong {
    match error {
        AuditError::Damaged { file, offset, why } => {
            Wrong::Damaged(format!("{} at byte {offset}: {why}", file.display()))
        }
        AuditError::Lost { what } => Wrong::Damaged(what),
        AuditError::Version { .. } => Wrong::Newer(error.to_string()),
        other => unreadable(&other),
    }
}

/// Why an index has no stamp that can be believed.
pub(super) fn of_index(error: StoreError) -> StampError {
    match error {
        StoreError::Corrupt(why) | StoreError::DamagedIndex(why) => StampError::Damaged(why),
        StoreError::NewerFormat { .. } => StampError::Newer(error.to_string()),
        other => {
            let kind = match &other {
                StoreError::Io { source, .. } => source.kind(),
                StoreError::NoSpace => io::ErrorKind::StorageFull,
                _ => io::ErrorKind::Other,
            };
            let why = with_causes(&other);
            StampError::Unreadable { kind, why }
        }
    }
}

fn unreadable(error: &dyn Error) -> Wrong {
    Wrong::Unreadable {
        kind: io::ErrorKind::Other,
        why: with_causes(error),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
