//! A volume's folder: making it, opening it, removing it, each so that a crash leaves all or nothing.
//!
//! A folder is made under a name that begins with `.creating-` and renamed; it is renamed to one that begins with
//! `.deleted-` and emptied. What has such a name when the registry opens is removed.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crypto::{random::Random, record::RecordKey};

use crate::{
    VolumeError, VolumeId,
    descriptor::Descriptor,
    device::disk::{DiskFile, DiskLogDir, LOG_NAME, sync_dir},
    engine::{self, Engine, Media, Shape},
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

/// Makes a folder that only the owner may enter; one that is there already is all right.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    }
}

/// Makes the folder and the files of a new volume, durably. Blocks.
pub(crate) fn create<P: Protection>(
    volumes: &Path,
    descriptor: &Descriptor,
    protection: &P,
    records: &RecordKey,
    random: &dyn Random,
) -> Result<(), VolumeError> {
    let id = descriptor.id;
    let creating = volumes.join(format!("{CREATING}{id}"));
    let make = || {
        DirBuilder::new()
            .mode(0o700)
            .create(&creating)
            .map_err(io_error("making a volume's folder"))?;
        let slots = DiskFile::create_new(&creating.join(SLOTS_NAME))
            .map_err(io_error("making a volume's slot file"))?;
        let media = Media {
            slots: Arc::new(slots),
            log: Box::new(DiskLogDir::new(&creating)),
            on_failed: Box::new(|| ()),
        };
        let shape = Shape {
            volume: id,
            size: descriptor.size.bytes(),
        };
        engine::create(&media, shape, protection)?;
        descriptor
            .write(&creating, records, random)
            .and_then(|()| fs::rename(&creating, volumes.join(id.to_string())))
            .and_then(|()| sync_dir(volumes))
            .map_err(io_error("making a volume's folder"))
    };
    make().inspect_err(|_| {
        let _ = fs::remove_dir_all(&creating);
    })
}

/// Opens a volume's files and reads its map. Blocks.
pub(crate) fn open<P: Protection>(
    volumes: &Path,
    descriptor: &Descriptor,
    protection: P,
) -> Result<Engine<P>, VolumeError> {
    let id = descriptor.id;
    let dir = volumes.join(id.to_string());
    let opening = io_error("opening a volume's slot file");
    let slots = DiskFile::open(&dir.join(SLOTS_NAME)).map_err(&opening)?;
    slots.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => VolumeError::Locked(id),
        _ => opening(error),
    })?;
    let marker = dir.join(FAILED_NAME);
    let failed_before = marker
        .try_exists()
        .map_err(io_error("looking at a volume's folder"))?;
    if failed_before {
        tracing::warn!(volume = %id, "the volume had failed; what is read is what the disk has");
        let log = DiskFile::open(&dir.join(LOG_NAME)).map_err(&opening)?;
        slots
            .forget_cached()
            .and_then(|()| log.forget_cached())
            .map_err(io_error("reading again what a volume's files hold"))?;
    }
    let media = Media {
        slots: Arc::new(slots),
        log: Box::new(DiskLogDir::new(&dir)),
        on_failed: Box::new({
            let marker = marker.clone();
            move || {
                if let Err(error) = DiskFile::create_new(&marker)
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
        fs::remove_file(&marker).map_err(io_error("taking off a failed volume's mark"))?;
    }
    Ok(engine)
}

/// Takes a volume's folder out of sight, durably; gives its new name, to be emptied. Blocks.
pub(crate) fn hide(volumes: &Path, id: VolumeId) -> Result<PathBuf, VolumeError> {
    let hidden = volumes.join(format!("{DELETED}{id}"));
    fs::rename(volumes.join(id.to_string()), &hidden)
        .and_then(|()| sync_dir(volumes))
        .map_err(io_error("deleting a volume"))?;
    Ok(hidden)
}

/// Empties and removes what was hidden. Blocks. What is left is removed when the registry opens.
pub(crate) fn remove(hidden: &Path) {
    if let Err(error) = fs::remove_dir_all(hidden) {
        tracing::warn!(folder = %hidden.display(), %error, "a deleted volume's folder could not be removed");
    }
}

/// The volumes that have a folder; removes what a crash left of others. Blocks.
pub(crate) fn sweep(volumes: &Path) -> io::Result<Vec<VolumeId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(volumes)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(CREATING) || name.starts_with(DELETED) {
            remove(&entry.path());
        } else if let Ok(id) = name.parse() {
            ids.push(id);
        } else {
            tracing::warn!(%name, "not a volume; left alone");
        }
    }
    Ok(ids)
}
