//! What was accepted as lost: from where on the log is looked at.

use std::path::{Path, PathBuf};

use host::{Disk, private};
use serde::{Deserialize, Serialize};

use crate::error::AuditError;

/// The file `accepted.json` in the log's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    version: u16,
    /// Segments before this one are no longer looked at when the log is opened.
    through: u64,
}

fn path_of(dir: &Path) -> PathBuf {
    dir.join("accepted.json")
}

/// The first segment that is looked at when the log is opened; 0 for all.
pub(crate) fn accepted_through(disk: &dyn Disk, dir: &Path) -> Result<u64, AuditError> {
    let path = path_of(dir);
    let here = |error| AuditError::io(&path, &error);
    if disk.kind(&path).map_err(here)?.is_none() {
        return Ok(0);
    }
    let bytes = private::read(disk, &path, 4096).map_err(here)?;
    let accepted: Accepted = serde_json::from_slice(&bytes).map_err(|_| AuditError::Damaged {
        file: path.clone(),
        offset: 0,
        why: "it does not read",
    })?;
    if accepted.version != 1 {
        return Err(AuditError::Version {
            file: path,
            version: accepted.version,
        });
    }
    Ok(accepted.through)
}

/// Segments before `through` are no longer looked at when the log is opened.
pub(crate) fn accept(disk: &dyn Disk, dir: &Path, through: u64) -> Result<(), AuditError> {
    let accepted = Accepted {
        version: 1,
        through,
    };
    let path = path_of(dir);
    let bytes = serde_json::to_vec(&accepted).expect("numbers");
    private::replace(disk, &path, &bytes).map_err(|error| AuditError::io(&path, &error))
}
