//! Checking and repairing one volume that no server has open.
//!
//! [`check`] changes nothing of the volume. [`repair`] makes whole what there are two of (the row and its copies, the map
//! and the copy of its checkpoint, the map and the slots' owners) from what is left of it, and says what is lost. Both need
//! the data key: who may not use it cannot tell a forged map from an authentic one.

use std::{path::PathBuf, sync::Arc};

use catalogue::{Batch, Catalogue, Expect, Record, Scope};
use crypto::random::Random;
use host::{Disk, File};
use iam::{Caller, Via};
use keyring::Keyring;
use root::StoreKey;

use crate::{
    VolumeError, VolumeId,
    blocking::blocking,
    cache_epoch,
    copy::{self, Found},
    data_key::open_data_key,
    descriptor::{Descriptor, Row},
    engine::{self, BASE_GENERATION, Checked, Finding, Repaired},
    files,
    protection::{Protection, Sealed, Unencrypted},
    slot_file::SLOTS_NAME,
    vault::{TABLE, Vault, row_key},
};

/// What a volume is looked at with. No server has the volumes meanwhile.
#[derive(Clone)]
pub struct Inspection {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// Where volumes live, a folder each.
    pub dir: PathBuf,
    /// Says which volumes there are.
    pub catalogue: Arc<dyn Catalogue>,
    /// What rows and copies are sealed under; of the same store as the catalogue.
    pub store_key: StoreKey,
    /// Unwraps the data key.
    pub keyring: Arc<Keyring>,
    /// Nonces.
    pub random: Arc<dyn Random>,
    /// Whose volume it is.
    pub scope: Scope,
}

/// What is wrong with a volume, and how much it holds.
#[derive(Debug, Clone)]
pub struct Report<T> {
    /// Which.
    pub volume: VolumeId,
    /// What is wrong, or was, with its row in the catalogue and the copies of it.
    pub record: Vec<Finding>,
    /// Its map and its slots.
    pub files: T,
}

impl Report<Checked> {
    /// Whether nothing is damaged and no sector is marked.
    pub fn is_clean(&self) -> bool {
        self.record.is_empty() && self.files.findings.is_empty() && self.files.marked.is_empty()
    }
}

impl Report<Repaired> {
    /// Whether nothing was lost.
    pub fn is_whole(&self) -> bool {
        self.files.marked.is_empty() && self.files.unreadable == 0
    }
}

const RECORD: &str = "catalogue";

/// A volume's row and its copies, as far as they are there.
struct Facts {
    descriptor: Descriptor,
    /// The row, if it must be written again.
    damaged_row: Option<Record>,
    findings: Vec<Finding>,
}

/// Says what is damaged of a volume, and changes nothing of it. The data key is asked for in the name of the caller.
pub async fn check(
    with: Inspection,
    caller: Caller<'_>,
    id: VolumeId,
) -> Result<Report<Checked>, VolumeError> {
    let vault = vault(&with).await?;
    let found = find(&with, &vault, id).await?;
    let key = open_data_key(
        &with.keyring,
        caller.through(Via::Volume),
        id,
        &found.descriptor.protection,
    )
    .await?;
    let descriptor = found.descriptor;
    let checked = blocking(move || {
        let _locked = lock(&with, id)?;
        match key {
            Some((key, _)) => {
                let sealed = Sealed::new(id, key, BASE_GENERATION);
                files::inspect(&with.disk, &with.dir, &descriptor, |media, shape| {
                    engine::check(media, shape, &sealed)
                })
            }
            None => files::inspect(&with.disk, &with.dir, &descriptor, |media, shape| {
                engine::check(media, shape, &Unencrypted::new())
            }),
        }
    });
    Ok(Report {
        volume: id,
        record: found.findings,
        files: checked.await?,
    })
}

/// Makes a volume whole as far as that can be. The data key is asked for in the name of the caller. `accept_loss`: also if
/// the map is lost and so is what says which chunks some slots hold.
///
/// Cut off half-way, another repair does it again. To be run to its end: it is not cancelled half-way through its files.
pub async fn repair(
    with: Inspection,
    caller: Caller<'_>,
    id: VolumeId,
    accept_loss: bool,
) -> Result<Report<Repaired>, VolumeError> {
    let vault = Arc::new(vault(&with).await?);
    let found = find(&with, &vault, id).await?;
    let key = open_data_key(
        &with.keyring,
        caller.through(Via::Volume),
        id,
        &found.descriptor.protection,
    )
    .await?;
    if let Some(row) = &found.damaged_row {
        let seals = vault.seals();
        let expect = Expect::Version(row.version);
        let present = Row::Present(Box::new(found.descriptor.clone()));
        let sealed = vault.seal_row(&seals, &row.key, expect.next_version(), &present);
        let batch = Batch::new().put(TABLE, row.key.clone(), expect, sealed);
        with.catalogue.commit(batch).await?;
    }
    let copies = found.findings.iter().any(|finding| finding.file != RECORD);
    let descriptor = found.descriptor;
    let repaired = blocking(move || {
        let _locked = lock(&with, id)?;
        // Before anything changes: what a client was answered may not be what it will read.
        cache_epoch::forget(&*with.disk, &files::folder(&with.dir, id))
            .map_err(|error| VolumeError::from_io("ending a volume's epoch", error))?;
        if copies {
            let dir = files::folder(&with.dir, id);
            let (disk, seals) = (&*with.disk, vault.seals());
            copy::write(disk, &dir, &vault, &seals, &with.scope, &descriptor).map_err(|error| {
                VolumeError::from_io("writing the copy of a volume's row", error)
            })?;
        }
        match key {
            Some((key, _)) => {
                let sealed = Sealed::new(id, key, BASE_GENERATION);
                repair_files(&with, &descriptor, &sealed, accept_loss)
            }
            None => repair_files(&with, &descriptor, &Unencrypted::new(), accept_loss),
        }
    });
    Ok(Report {
        volume: id,
        record: found.findings,
        files: repaired.await?,
    })
}

fn repair_files<P: Protection>(
    with: &Inspection,
    descriptor: &Descriptor,
    protection: &P,
    accept_loss: bool,
) -> Result<Repaired, VolumeError> {
    files::inspect(&with.disk, &with.dir, descriptor, |media, shape| {
        engine::repair(media, shape, protection, accept_loss)
    })
}

async fn vault(with: &Inspection) -> Result<Vault, VolumeError> {
    if with.catalogue.store_id().await?.0 != *with.store_key.store().as_bytes() {
        return Err(VolumeError::WrongStore);
    }
    Ok(Vault::new(&with.store_key, Arc::clone(&with.random)))
}

/// Reads the row; one that does not open is made up for by a copy.
async fn find(with: &Inspection, vault: &Vault, id: VolumeId) -> Result<Facts, VolumeError> {
    let key = row_key(&with.scope, id);
    let row = with.catalogue.get(TABLE, &key).await?;
    let row = row.ok_or_else(|| VolumeError::not_found(id))?;
    let dir = files::folder(&with.dir, id);
    let finding = |file, why: &str| Finding {
        file,
        at: 0,
        what: why.to_owned(),
    };
    let (descriptor, mut findings) = match vault.open_row(&row) {
        Ok(Row::Deleting) => return Err(VolumeError::not_found(id)),
        Ok(Row::Present(descriptor)) => (*descriptor, Vec::new()),
        Err(error) => match copy::read(&*with.disk, &dir, id, vault) {
            Found::Copy(copy) if copy.scope == with.scope => {
                (copy.descriptor, vec![finding(RECORD, &error.to_string())])
            }
            _ => return Err(error),
        },
    };
    let damaged_row = (!findings.is_empty()).then_some(row);
    let faults = copy::faults(&*with.disk, &dir, vault, (&with.scope, &descriptor));
    findings.extend(faults.into_iter().map(|(file, why)| finding(file, why)));
    Ok(Facts {
        descriptor,
        damaged_row,
        findings,
    })
}

/// Keeps others from attaching the volume.
fn lock(with: &Inspection, id: VolumeId) -> Result<Arc<dyn File>, VolumeError> {
    let locked = files::keep_detached(&*with.disk, &with.dir, id)?;
    locked.ok_or_else(|| VolumeError::Damaged {
        file: files::folder(&with.dir, id).join(SLOTS_NAME),
        at: 0,
        why: "it is missing: restore it from a backup",
    })
}
