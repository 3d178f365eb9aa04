//! Rows made again from the copies in the folders, after the catalogue lost them.

use std::{io, path::PathBuf, sync::Arc};

use catalogue::{Batch, Catalogue, Expect};
use crypto::random::Random;
use host::Disk;
use root::{StoreId, StoreKey};

use crate::{
    VolumeError, VolumeId,
    blocking::blocking,
    copy::{self, Copy, Found},
    descriptor::Row,
    files::{self, Aside},
    token::{TOKENS, Tokens, token_key},
    vault::{TABLE, Vault, row_key},
};

/// What rows are made again with. Nobody else has the volumes meanwhile.
pub struct Rebuild {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// Where volumes live, a folder each.
    pub dir: PathBuf,
    /// Gets the rows.
    pub catalogue: Arc<dyn Catalogue>,
    /// What rows and copies are sealed under; of the same store as the catalogue.
    pub store_key: StoreKey,
    /// Nonces.
    pub random: Arc<dyn Random>,
}

/// A folder, and what became of it.
#[derive(Debug)]
pub struct FolderReport {
    /// Where it is; where it was, if it came out of quarantine.
    pub folder: PathBuf,
    /// Of which volume it says that it is.
    pub volume: VolumeId,
    /// What became of it.
    pub outcome: Rebuilt,
}

/// What became of a folder.
#[derive(Debug)]
pub enum Rebuilt {
    /// It had no row, or one that did not open, and has one now.
    Rebuilt,
    /// Its row was older than its copy, and is as new now.
    Renewed,
    /// Its row is there and as new as its copy, or newer. Nothing was changed.
    AlreadyThere,
    /// The volume was deleted. Nothing was changed.
    Deleted,
    /// Its copies do not open, for this reason. Nothing was changed.
    Damaged(&'static str),
    /// It has no copy. Nothing was changed.
    WithoutCopy,
    /// It belongs to another store. Nothing was changed.
    OtherStore(StoreId),
    /// It is in quarantine, and the volume has a folder in its place. Nothing was changed.
    Duplicate,
    /// It could not be done. What was changed is said by the next run.
    Failed(VolumeError),
}

/// Makes the rows of volumes again that have a folder and no row, or an older one: in their place and in quarantine, from
/// where they are put back. A row is never replaced by an older copy, and what is deleted stays so. Reports folder by
/// folder.
pub async fn rebuild(with: Rebuild) -> Result<Vec<FolderReport>, VolumeError> {
    if with.catalogue.store_id().await?.0 != *with.store_key.store().as_bytes() {
        return Err(VolumeError::WrongStore);
    }
    let vault = Vault::new(&with.store_key, Arc::clone(&with.random));
    let with = Arc::new((with, vault));
    let folders = blocking({
        let with = Arc::clone(&with);
        move || folders(&with.0).map_err(|error| VolumeError::from_io("listing the volumes", error))
    });
    let folders = folders.await?;
    let mut reports = Vec::new();
    for (folder, aside) in folders {
        let (dir, volume) = (folder.dir.clone(), folder.id);
        let outcome = one(&with, folder, aside).await;
        reports.push(FolderReport {
            folder: dir,
            volume,
            outcome: outcome.unwrap_or_else(Rebuilt::Failed),
        });
    }
    Ok(reports)
}

/// The folders that may get a row, and whether each is in quarantine.
fn folders(with: &Rebuild) -> io::Result<Vec<(Aside, bool)>> {
    let Rebuild { disk, dir, .. } = with;
    if disk.kind(dir)?.is_none() {
        return Ok(Vec::new());
    }
    let mut ids = files::list(&**disk, dir)?.volumes;
    ids.sort_unstable();
    let in_place = ids.into_iter().map(|id| Aside {
        id,
        dir: files::folder(dir, id),
    });
    let aside = files::quarantined(&**disk, dir)?.into_iter();
    Ok(in_place
        .map(|folder| (folder, false))
        .chain(aside.map(|folder| (folder, true)))
        .collect())
}

async fn one(
    with: &Arc<(Rebuild, Vault)>,
    folder: Aside,
    aside: bool,
) -> Result<Rebuilt, VolumeError> {
    let copy = blocking({
        let (with, folder) = (Arc::clone(with), folder.clone());
        move || Ok(copy::read(&*with.0.disk, &folder.dir, folder.id, &with.1))
    });
    let copy = match copy.await? {
        Found::Copy(copy) => *copy,
        Found::Nothing => return Ok(Rebuilt::WithoutCopy),
        Found::OtherStore(store) => return Ok(Rebuilt::OtherStore(store)),
        Found::Damaged(why) => return Ok(Rebuilt::Damaged(why)),
    };
    let (Rebuild { catalogue, .. }, vault) = &**with;
    let key = row_key(&copy.scope, copy.descriptor.id);
    let row = catalogue.get(TABLE, &key).await?;
    let (expect, outcome) = match &row {
        None => (Expect::Absent, Rebuilt::Rebuilt),
        Some(row) => match (vault.open_row(row), Expect::Version(row.version)) {
            (Ok(Row::Deleting), _) => return Ok(Rebuilt::Deleted),
            (Ok(Row::Present(row)), _) if aside && row.revision >= copy.descriptor.revision => {
                // Its row never went, or came back with a newer catalogue: the folder is all that is missing.
                return put_back(with, folder, Rebuilt::Rebuilt).await;
            }
            (Ok(Row::Present(row)), _) if row.revision >= copy.descriptor.revision => {
                return Ok(Rebuilt::AlreadyThere);
            }
            (Ok(Row::Present(_)), expect) => (expect, Rebuilt::Renewed),
            (Err(_), expect) => (expect, Rebuilt::Rebuilt),
        },
    };
    if aside {
        // Before the row: a folder without one is set aside again, a row without one is a lost volume.
        match put_back(with, folder, outcome).await? {
            Rebuilt::Duplicate => Ok(Rebuilt::Duplicate),
            put => write(&with.0, vault, copy, expect).await.map(|()| put),
        }
    } else {
        write(&with.0, vault, copy, expect).await.map(|()| outcome)
    }
}

async fn write(
    with: &Rebuild,
    vault: &Vault,
    copy: Copy,
    expect: Expect,
) -> Result<(), VolumeError> {
    let id = copy.descriptor.id;
    let key = row_key(&copy.scope, id);
    let seals = vault.seals();
    let tokens = Tokens::new(&with.store_key);
    let claiming = tokens.sealing();
    let mut batch = Batch::new();
    if let Some(request) = &copy.descriptor.request {
        let at = token_key(&copy.scope, &request.client_token);
        // Not taken from a volume that has it by now.
        if with.catalogue.get(TOKENS, &at).await?.is_none() {
            let claimed = Tokens::seal(&claiming, &at, 1, id, &*with.random);
            batch = batch.put(TOKENS, at, Expect::Absent, claimed);
        }
    }
    let row = Row::Present(Box::new(copy.descriptor));
    let sealed = vault.seal_row(&seals, &key, expect.next_version(), &row);
    let batch = batch.put(TABLE, key, expect, sealed);
    with.catalogue.commit(batch).await?;
    Ok(())
}

async fn put_back(
    with: &Arc<(Rebuild, Vault)>,
    folder: Aside,
    outcome: Rebuilt,
) -> Result<Rebuilt, VolumeError> {
    let put = blocking({
        let with = Arc::clone(with);
        move || {
            files::put_back(&*with.0.disk, &with.0.dir, &folder).map_err(|error| {
                VolumeError::from_io("putting a folder back from quarantine", error)
            })
        }
    });
    Ok(if put.await? {
        outcome
    } else {
        Rebuilt::Duplicate
    })
}
