//! Folders that carry a stamp in a file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use host::lane::{Lane, ShuttingDown};
use host::{Disk, private};

use crate::{
    part::Part,
    stamp::{LEN_MAX, Stamp, StampError, Stamped, Stamps},
};

/// There are few parts, and they are marked one after the other.
static LANE: Lane = Lane::new(8);

/// Name of the file in a folder that is a part.
pub const STAMP_FILE: &str = "PART";

/// The stamp of a folder.
pub struct FolderStamp {
    part: Part,
    file: PathBuf,
    disk: Arc<dyn Disk>,
    stamps: Arc<Stamps>,
}

impl FolderStamp {
    /// The stamp of `folder`, which is `part`.
    pub fn new(part: Part, folder: &Path, disk: Arc<dyn Disk>, stamps: Arc<Stamps>) -> Self {
        Self {
            part,
            file: folder.join(STAMP_FILE),
            disk,
            stamps,
        }
    }

    async fn bytes(&self) -> io::Result<Option<Vec<u8>>> {
        let (disk, file) = (Arc::clone(&self.disk), self.file.clone());
        let read = blocking(move || private::read(&*disk, &file, LEN_MAX as u64)).await;
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }
}

#[async_trait]
impl Stamped for FolderStamp {
    fn part(&self) -> Part {
        self.part
    }

    async fn read(&self) -> Result<Option<Stamp>, StampError> {
        match self.bytes().await {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => self.stamps.open(self.part, &bytes).map(Some),
            // Longer than any stamp, or cut off while it was read.
            Err(error) if is_content(error.kind()) => Err(StampError::Damaged(format!(
                "{}: {error}",
                self.file.display()
            ))),
            Err(error) => Err(StampError::Unreadable {
                kind: error.kind(),
                why: format!("{}: {error}", self.file.display()),
            }),
        }
    }

    async fn write(&self, stamp: Stamp) -> Result<(), String> {
        let sealing = self.stamps.sealing();
        let bytes = self.stamps.seal(&sealing, self.part, stamp);
        let (disk, file) = (Arc::clone(&self.disk), self.file.clone());
        blocking(move || {
            let written = private::replace(&*disk, &file, &bytes);
            // Not before the file is there: a rotation may drop the key meanwhile.
            drop(sealing);
            written
        })
        .await
        .map_err(|error| format!("{}: {error}", self.file.display()))
    }

    async fn is_stale(&self) -> Result<bool, String> {
        let read = self.bytes().await;
        let bytes = read.map_err(|error| format!("{}: {error}", self.file.display()))?;
        Ok(bytes.is_some_and(|bytes| self.stamps.is_stale(&bytes)))
    }
}

/// Whether an error of a read is about what is in the file, and not about reading it.
fn is_content(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = LANE.run(work).await;
    done.unwrap_or_else(|ShuttingDown| Err(io::Error::other("the process is shutting down")))
}
