//! Rows made again from the copies in the folders, after the catalogue lost them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

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
    /// Several folders of the volume are in quarantine, and none is newer than all others. Nothing was changed: which of
    /// them it is to be is for an operator to say, who takes the others away.
    Ambiguous,
    /// Its row does not open, and was written after its copy was. Nothing was changed.
    OlderThanRow,
    /// Its row is sealed under a generation of the store key that is not there: it is not damaged. Nothing was changed.
    OtherGeneration,
    /// It could not be done. What was changed is said by the next run.
    Failed(VolumeError),
}

/// Makes the rows of volumes again that have a folder and no row, or an older one: in their place and in quarantine, from
/// where they are put back; of several of one volume in quarantine, the one whose copy is the newest. A row is never
/// replaced by an older copy, as far as can be told of one that does not open, and what is deleted stays so. Reports
/// folder by folder.
pub async fn rebuild(with: Rebuild) -> Result<Vec<FolderReport>, VolumeError> {
    if with.catalogue.store_id().await?.0 != *with.store_key.store().as_bytes() {
        return Err(VolumeError::WrongStore);
    }
    let vault = Vault::new(&with.store_key, Arc::clone(&with.random));
    let reseals_max = u64::from(with.store_key.status().await.generation.saturating_sub(1));
    let with = Arc::new((with, vault));
    let folders = blocking({
        let with = Arc::clone(&with);
        move || {
            folders(&with.0, &with.1)
                .map_err(|error| VolumeError::from_io("listing the volumes", error))
        }
    });
    let folders = folders.await?;
    let mut reports = Vec::new();
    for Candidate {
        folder,
        aside,
        ambiguous,
    } in folders
    {
        let (dir, volume) = (folder.dir.clone(), folder.id);
        let outcome = match ambiguous {
            true => Ok(Rebuilt::Ambiguous),
            false => one(&with, folder, aside, reseals_max).await,
        };
        reports.push(FolderReport {
            folder: dir,
            volume,
            outcome: outcome.unwrap_or_else(Rebuilt::Failed),
        });
    }
    Ok(reports)
}

/// A folder that may get a row.
struct Candidate {
    folder: Aside,
    /// Whether it is in quarantine.
    aside: bool,
    /// Whether another one is as good.
    ambiguous: bool,
}

/// The folders that may get a row: of each volume the one to take comes first.
fn folders(with: &Rebuild, vault: &Vault) -> io::Result<Vec<Candidate>> {
    let Rebuild { disk, dir, .. } = with;
    if disk.kind(dir)?.is_none() {
        return Ok(Vec::new());
    }
    let mut ids = files::list(&**disk, dir)?.volumes;
    ids.sort_unstable();
    let in_place = ids.iter().map(|id| Candidate {
        folder: Aside {
            id: *id,
            dir: files::folder(dir, *id),
        },
        aside: false,
        ambiguous: false,
    });
    let mut candidates: Vec<_> = in_place.collect();
    let ids: BTreeSet<_> = ids.into_iter().collect();
    let mut aside: BTreeMap<VolumeId, Vec<Aside>> = BTreeMap::new();
    for folder in files::quarantined(&**disk, dir)? {
        aside.entry(folder.id).or_default().push(folder);
    }
    for (id, folders) in aside {
        let revision = |folder: &Aside| match copy::read(&**disk, &folder.dir, id, vault) {
            Found::Copy(copy) => Some(copy.descriptor.revision),
            _ => None,
        };
        let folders = folders.into_iter();
        let mut folders: Vec<_> = folders.map(|folder| (revision(&folder), folder)).collect();
        // The newest first; those whose copy does not open are last, and say so.
        folders.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
        let tie = match folders.as_slice() {
            [(Some(first), _), (Some(second), _), ..] => first == second && !ids.contains(&id),
            _ => false,
        };
        candidates.extend(folders.into_iter().map(|(revision, folder)| Candidate {
            folder,
            aside: true,
            ambiguous: tie && revision.is_some(),
        }));
    }
    Ok(candidates)
}

async fn one(
    with: &Arc<(Rebuild, Vault)>,
    folder: Aside,
    aside: bool,
    reseals_max: u64,
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
            (Err(_), _) if vault.is_other_generation(row) => return Ok(Rebuilt::OtherGeneration),
            // Of a row that does not open its version is known, which rises with each change and each rotation of the
            // store key. A copy is written before its row: one that is older than the row can be is not its copy.
            (Err(_), _) if row.version > copy.descriptor.revision.saturating_add(reseals_max) => {
                return Ok(Rebuilt::OlderThanRow);
            }
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
