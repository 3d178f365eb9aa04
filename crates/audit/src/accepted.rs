//! What was accepted as lost: from where on the log is looked at.

use std::path::{Path, PathBuf};

use host::{Disk, private};
use serde::{Deserialize, Serialize};

use crate::error::AuditError;

/// What is written, and all that is read.
const VERSION: u16 = 1;

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
    decode(&path, &bytes)
}

/// The first segment that is looked at, by the file's contents.
fn decode(path: &Path, bytes: &[u8]) -> Result<u64, AuditError> {
    let accepted: Accepted = serde_json::from_slice(bytes).map_err(|_| AuditError::Damaged {
        file: path.to_owned(),
        offset: 0,
        why: "it does not read",
    })?;
    if accepted.version != VERSION {
        return Err(AuditError::Version {
            file: path.to_owned(),
            version: accepted.version,
        });
    }
    Ok(accepted.through)
}

fn encode(through: u64) -> Vec<u8> {
    let accepted = Accepted {
        version: VERSION,
        through,
    };
    serde_json::to_vec(&accepted).expect("numbers")
}

/// Segments before `through` are no longer looked at when the log is opened.
pub(crate) fn accept(disk: &dyn Disk, dir: &Path, through: u64) -> Result<(), AuditError> {
    let path = path_of(dir);
    private::replace(disk, &path, &encode(through)).map_err(|error| AuditError::io(&path, &error))
}

/// For the fuzz targets: what is read is written so that it is read the same.
#[cfg(any(fuzzing, test))]
pub(crate) fn decode_any(bytes: &[u8]) {
    let path = Path::new("accepted.json");
    if let Ok(through) = decode(path, bytes) {
        assert_eq!(decode(path, &encode(through)).ok(), Some(through));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_format_is_refused() {
        let decode = |text: &str| decode(Path::new("f"), text.as_bytes());
        for whole in [0, 8193, u64::MAX] {
            assert_eq!(
                decode(std::str::from_utf8(&encode(whole)).unwrap()).unwrap(),
                whole
            );
        }
        for bad in [
            "",
            "{}",
            "{\"version\":1}",
            "{\"through\":1}",
            "{\"version\":1,\"through\":-1}",
            "{\"version\":1,\"through\":1,\"more\":1}",
            "{\"version\":1,\"through\":1}{",
            "{\"version\":65537,\"through\":1}",
            "{\"version\":0,\"through\":1}",
        ] {
            assert!(decode(bad).is_err(), "{bad}");
            decode_any(bad.as_bytes());
        }
        decode_any(&encode(7));
    }
}
