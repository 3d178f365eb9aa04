//! A volume's folder: making it, opening it, removing it, each so that a crash leaves all or nothing.
//!
//! A folder is made under a name that begins with `.creating-` and renamed; it is renamed to one that begins with
//! `.deleted-` and emptied. What has such a name when the registry opens is removed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crypto::{random::Random, record::RecordKey};
use host::{Disk, Mode, disk::remove_tree};

use crate::{
    VolumeError, VolumeId,
    descriptor::Descriptor,
    engine::{self, Engine, Media, Shape},
    log::folder::{LOG_NAME, LogFolder},
    protection::Protection,
};

/// Name of the slot file.
const SLOTS_NAME: &str = "slots";
/// Exists while a volume has failed and was not attached again: what the page cache holds of its files may not be what
/// the disk holds.
const FAILED_NAME: &str = "failed";
const CREATING: &str = ".creating-";
const DELETED: &str = ".deleted-";

fn io_error(what: &'static str) -> impl Fn(io::Error) -> VolumeError {
    move |error| VolumeError::from_io(what, error)
}

/// Makes the folder and the files of a new volume, durably. Blocks.
pub(crate) fn create<P: Protection>(
    disk: &Arc<dyn Disk>,
    volumes: &Path,
    descriptor: &Descriptor,
    protection: &P,
    records: &RecordKey,
    random: &dyn Random,
) -> Result<(), VolumeError> {
    let id = descriptor.id;
    let creating = volumes.join(format!("{CREATING}{id}"));
    let make = || {
        disk.create_dir(&creating)
            .map_err(io_error("making a volume's folder"))?;
        let slots = disk
            .open(&creating.join(SLOTS_NAME), Mode::New)
            .map_err(io_error("making a volume's slot file"))?;
        let media = Media {
            slots,
            log: LogFolder::new(Arc::clone(disk), &creating),
            on_failed: Box::new(|| ()),
        };
        let shape = Shape {
            volume: id,
            size: descriptor.size.bytes(),
        };
        engine::create(&media, shape, protection)?;
        descriptor
            .write(&**disk, &creating, records, random)
            .and_then(|()| disk.rename(&creating, &volumes.join(id.to_string())))
            .and_then(|()| disk.sync_dir(volumes))
            .map_err(io_error("making a volume's folder"))
    };
    make().inspect_err(|_| {
        let _ = remove_tree(&**disk, &creating);
    })
}

/// Opens a volume's files and reads its map. Blocks.
pub(crate) fn open<P: Protection>(
    disk: &Arc<dyn Disk>,
    volumes: &Path,
    descriptor: &Descriptor,
    protection: P,
) -> Result<Engine<P>, VolumeError> {
    let id = descriptor.id;
    let dir = volumes.join(id.to_string());
    let opening = io_error("opening a volume's slot file");
    let slots = disk
        .open(&dir.join(SLOTS_NAME), Mode::Write)
        .map_err(&opening)?;
    slots.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => VolumeError::Locked(id),
        _ => opening(error),
    })?;
    let marker = dir.join(FAILED_NAME);
    let failed_before = disk
        .kind(&marker)
        .map_err(io_error("looking at a volume's folder"))?
        .is_some();
    if failed_before {
        tracing::warn!(volume = %id, "the volume had failed; what is read is what the disk has");
        let log = disk
            .open(&dir.join(LOG_NAME), Mode::Write)
            .map_err(&opening)?;
        slots
            .forget_cached()
            .and_then(|()| log.forget_cached())
            .map_err(io_error("reading again what a volume's files hold"))?;
    }
    let media = Media {
        slots,
        log: LogFolder::new(Arc::clone(disk), &dir),
        on_failed: Box::new({
            let (disk, marker) = (Arc::clone(disk), marker.clone());
            move || {
                if let Err(error) = disk.open(&marker, Mode::New)
                    && error.kind() != io::ErrorKind::AlreadyExists
                {
                    tracing::error!(%error, "a failed volume could not be marked");
                }
            }
        }),
    };
    let shape = Shape {
        volume: id,
        size: descriptor.size.bytes(),
    };
    let engine = Engine::open(media, shape, protection).map_err(|error| match error {
        VolumeError::Damaged { file, at, why } => VolumeError::Damaged {
            file: dir.join(file),
            at,
            why,
        },
        other => other,
    })?;
    if failed_before {
        disk.remove(&marker)
            .map_err(io_error("taking off a failed volume's mark"))?;
    }
    Ok(engine)
}

/// Takes a volume's folder out of sight, durably; gives its new name, to be emptied. Blocks.
pub(crate) fn hide(disk: &dyn Disk, volumes: &Path, id: VolumeId) -> Result<PathBuf, VolumeError> {
    let hidden = volumes.join(format!("{DELETED}{id}"));
    disk.rename(&volumes.join(id.to_string()), &hidden)
        .and_then(|()| disk.sync_dir(volumes))
        .map_err(io_error("deleting a volume"))?;
    Ok(hidden)
}

/// Empties and removes what was hidden. Blocks. What is left is removed when the registry opens.
pub(crate) fn remove(disk: &dyn Disk, hidden: &Path) {
    if let Err(error) = remove_tree(disk, hidden) {
        tracing::warn!(folder = %hidden.display(), %error, "a deleted volume's folder could not be removed");
    }
}

/// The volumes that have a folder; removes what a crash left of others. Blocks.
pub(crate) fn sweep(disk: &dyn Disk, volumes: &Path) -> io::Result<Vec<VolumeId>> {
    let mut ids = Vec::new();
    for entry in disk.list(volumes)? {
        let name = entry.name.to_string_lossy();
        if name.starts_with(CREATING) || name.starts_with(DELETED) {
            remove(disk, &volumes.join(&entry.name));
        } else if let Ok(id) = name.parse() {
            ids.push(id);
        } else {
            tracing::warn!(%name, "not a volume; left alone");
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
