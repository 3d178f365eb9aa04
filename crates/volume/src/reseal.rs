//! The part of volumes in a rotation of the store key: their rows, and the copies in their folders, sealed anew. Those of
//! every account and region: whose registry is not open would lose its volumes with the old generation.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use host::{Disk, private};
use root::{Page, Reseal, ResealError};

use crate::{
    VolumeError, Volumes,
    blocking::blocking,
    copy::{self, NAMES},
    default_encryption, files,
    options::Options,
    registry::Registry,
    token::TOKENS,
    vault::{COPIES, TABLE, Vault},
};

/// Folders of a page: each costs a few syncs.
const FOLDERS: usize = 16;

impl Volumes {
    /// The owners of what is sealed for volumes, for [`root::Rotation::run`].
    pub fn owners(&self) -> Vec<Arc<dyn Reseal>> {
        let Options {
            catalogue,
            store_key,
            random,
            ..
        } = &self.registry.options;
        vec![
            // A row that does not open holds the rotation up until its volume is deleted or its row made again.
            jobs::table_owner(TABLE, catalogue, store_key, random),
            jobs::table_owner(TOKENS, catalogue, store_key, random),
            jobs::table_owner(default_encryption::TABLE, catalogue, store_key, random),
            Arc::new(Copies(Arc::clone(&self.registry))),
        ]
    }
}

struct Copies(Arc<Registry>);

/// A text that no page of this owner ends with.
#[derive(Debug, thiserror::Error)]
#[error("the place in the pass does not read")]
struct NoPlace;

#[async_trait]
impl Reseal for Copies {
    fn name(&self) -> &str {
        COPIES
    }

    /// A place in the pass is the last folder of the page before, below the folder of volumes.
    async fn reseal(&self, after: Option<&[u8]>) -> Result<Page, ResealError> {
        let after = match after {
            Some(after) => Some(PathBuf::from(
                std::str::from_utf8(after).map_err(|_| NoPlace)?,
            )),
            None => None,
        };
        let registry = Arc::clone(&self.0);
        let page = blocking(move || {
            let (disk, volumes) = registry.place();
            reseal_folders(disk, volumes, after.as_deref(), &registry.vault)
                .map_err(|error| VolumeError::from_io("re-sealing the copies of volumes", error))
        });
        Ok(page.await?)
    }
}

/// Re-seals the copies of a page of folders. Blocks.
fn reseal_folders(
    disk: &dyn Disk,
    volumes: &Path,
    after: Option<&Path>,
    vault: &Vault,
) -> io::Result<Page> {
    let after = after.map(|after| volumes.join(after));
    let mut folders = files::with_copies(disk, volumes)?;
    folders.retain(|folder| after.as_ref().is_none_or(|after| folder > after));
    let mut page = Page::default();
    for folder in folders.iter().take(FOLDERS) {
        page.resealed += reseal_folder(disk, folder, vault)?;
    }
    if folders.len() > FOLDERS {
        let last = &folders[FOLDERS - 1];
        let last = last.strip_prefix(volumes).unwrap_or(last);
        page.next = Some(last.to_string_lossy().into_owned().into_bytes());
    }
    Ok(page)
}

/// Re-seals the copies of one folder; how many. Blocks.
fn reseal_folder(disk: &dyn Disk, folder: &Path, vault: &Vault) -> io::Result<u64> {
    let stale = |name: &str| -> io::Result<Option<copy::Sealed>> {
        // One that cannot be read is no copy less: it may be readable later, and closed then.
        let Some(bytes) = copy::read_file(disk, folder, name)? else {
            return Ok(None);
        };
        let copy = copy::Sealed::decode(&bytes).ok();
        Ok(copy.filter(|copy| vault.copies.is_stale(&copy.sealed)))
    };
    let mut any = false;
    for name in NAMES {
        any |= stale(name)?.is_some();
    }
    if !any {
        return Ok(0);
    }
    // A folder that is deleted meanwhile needs no copies.
    let _lock = match files::lock_changing(disk, folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        locked => locked?,
    };
    let mut resealed = 0;
    for name in NAMES {
        let Some(old) = stale(name)? else { continue };
        let sealing = vault.copies.sealing();
        let opened = vault.open_copy(&old.scope, old.id, old.revision, &old.sealed);
        let Ok(contents) = opened else {
            // Nothing is lost by leaving it: it opens as little now.
            tracing::warn!(folder = %folder.display(), name, "a copy of a volume's row does not open; it is left");
            continue;
        };
        let contents = contents.expose();
        let sealed = vault.seal_copy_of(&sealing, &old.scope, old.id, old.revision, contents);
        let new = copy::Sealed { sealed, ..old };
        match private::replace(disk, &folder.join(name), &new.encode()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(resealed),
            replaced => replaced?,
        }
        resealed += 1;
    }
    Ok(resealed)
}
