//! The header's two files. One damaged or lost copy is made again from the other.
//!
//! A change replaces `root.header`, then its copy, each in one step, and is acted on only when both are durable. So
//! the copies differ by one change at most, and the older one still opens every record there is.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use host::{Disk, private};

use crate::{
    error::RootError,
    header::{Header, LEN_MAX, NoHeader, ReadHeader},
};

/// Name of the header in the data directory.
pub const HEADER_NAME: &str = "root.header";
/// Name of its second copy.
pub const COPY_NAME: &str = "root.header.copy";

/// Where a store's header is kept.
#[derive(Debug, Clone)]
pub(crate) struct HeaderFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What was found.
pub(crate) enum Found {
    /// Neither copy is there.
    Nothing,
    /// The newer of the whole copies.
    Header {
        read: ReadHeader,
        /// What is wrong with the other copy: it must be written again before the header is acted on.
        repair: Option<String>,
    },
}

enum Slot {
    Gone,
    Whole(ReadHeader),
    Bad(String),
}

impl HeaderFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// Where the header is.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(HEADER_NAME)
    }

    /// Reads both copies. Blocks. `HeaderDamaged` if no copy is whole and one is there; `HeaderNewer` if either is
    /// newer than this program.
    pub(crate) fn read(&self) -> Result<Found, RootError> {
        let first = self.slot(HEADER_NAME)?;
        let second = self.slot(COPY_NAME)?;
        let describe = |name: &str, slot: &Slot| match slot {
            Slot::Gone => format!("{name} is gone"),
            Slot::Whole(_) => format!("{name} is an earlier one"),
            Slot::Bad(why) => format!("{name} is damaged: {why}"),
        };
        let (read, repair) = match (first, second) {
            (Slot::Gone, Slot::Gone) => return Ok(Found::Nothing),
            (Slot::Whole(a), Slot::Whole(b)) if a.bytes == b.bytes => (a, None),
            (Slot::Whole(a), Slot::Whole(b)) => {
                let related = a.header.store == b.header.store;
                if !related || a.header.sequence == b.header.sequence {
                    return Err(RootError::HeaderDamaged {
                        path: self.path(),
                        why: format!("{HEADER_NAME} and {COPY_NAME} contradict each other"),
                    });
                }
                let (newer, older) = if a.header.sequence > b.header.sequence {
                    (a, COPY_NAME)
                } else {
                    (b, HEADER_NAME)
                };
                (newer, Some(format!("{older} is an earlier one")))
            }
            (Slot::Whole(a), other) => (a, Some(describe(COPY_NAME, &other))),
            (other, Slot::Whole(b)) => (b, Some(describe(HEADER_NAME, &other))),
            (a, b) => {
                let why = format!("{}, {}", describe(HEADER_NAME, &a), describe(COPY_NAME, &b));
                return Err(RootError::HeaderDamaged {
                    path: self.path(),
                    why,
                });
            }
        };
        Ok(Found::Header { read, repair })
    }

    /// Replaces both copies, durably. Blocks. On an error it is not known which of them changed.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), RootError> {
        for name in [HEADER_NAME, COPY_NAME] {
            let path = self.dir.join(name);
            private::replace(&*self.disk, &path, bytes).map_err(io_at(&path))?;
        }
        Ok(())
    }

    fn slot(&self, name: &str) -> Result<Slot, RootError> {
        let path = self.dir.join(name);
        let bytes = match private::read(&*self.disk, &path, LEN_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slot::Gone),
            // A copy that cannot be read (a bad sector) is as good as one that is damaged.
            Err(error) => return Ok(Slot::Bad(error.to_string())),
        };
        match Header::decode(&bytes) {
            Ok(read) => Ok(Slot::Whole(read)),
            Err(NoHeader::Newer(found)) if looks_whole(&bytes) => {
                Err(RootError::HeaderNewer { path, found })
            }
            Err(NoHeader::Newer(_)) => Ok(Slot::Bad("its version is not known".to_owned())),
            Err(NoHeader::Damaged(why)) => Ok(Slot::Bad(why.to_owned())),
        }
    }
}

/// Whether a header of another version ends in its checksum, as every version does: a flipped bit in the version is
/// damage, not a newer program.
fn looks_whole(bytes: &[u8]) -> bool {
    use sha2::{Digest as _, Sha256};
    bytes
        .split_last_chunk::<32>()
        .is_some_and(|(body, check)| Sha256::digest(body).as_slice() == check)
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> RootError {
    move |source| RootError::Io {
        path: path.into(),
        source,
    }
}
