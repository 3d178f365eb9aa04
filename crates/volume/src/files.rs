//! A volume's folder: making it, opening it, removing it, setting it aside, each so that a crash leaves all or nothing.
//!
//! A folder is made under a name that begins with `.creating-`, and gets its own name once the catalogue has the
//! volume's row. It is renamed to one that begins with `.deleted-` once the row says that it is deleted, and emptied.
//! These names are intents: what has one is cleaned up when the registry opens, and nothing else is removed. A folder
//! that no row names is moved to `quarantine`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use catalogue::Scope;
use host::{Disk, EntryKind, File, Mode, disk::remove_tree, private};

use crate::{
    VolumeError, VolumeId,
    cache_epoch::{self, Current, Source},
    copy,
    descriptor::Descriptor,
    engine::{self, Engine, Media, Shape},
    log::{
        self,
        folder::{LOG_NAME, LogFolder},
    },
    protection::Protection,
    slot_file::SLOTS_NAME,
    vault::{Seals, Vault},
};

/// Exists while a volume has failed and was not attached again: what the page cache holds of its files may not be what
/// the disk holds.
const FAILED_NAME: &str = "failed";
/// Locked by whoever changes the descriptor.
const CHANGING_NAME: &str = "changing";
const CREATING: &str = ".creating-";
const DELETED: &str = ".deleted-";
/// Where folders are put that no row names.
const QUARANTINE: &str = "quarantine";
/// How often a lock that another process has is tried, and how long between: five seconds.
const LOCK_TRIES: u32 = 500;
const LOCK_WAIT: Duration = Duration::from_millis(10);

fn io_error(what: &'static str) -> impl Fn(io::Error) -> VolumeError {
    move |error| VolumeError::from_io(what, error)
}

/// Where a volume's folder is.
pub(crate) fn folder(volumes: &Path, id: VolumeId) -> PathBuf {
    volumes.join(id.to_string())
}

fn creating(volumes: &Path, id: VolumeId) -> PathBuf {
    volumes.join(format!("{CREATING}{id}"))
}

fn deleted(volumes: &Path, id: VolumeId) -> PathBuf {
    volumes.join(format!("{DELETED}{id}"))
}

/// Makes the folder and the files of a new volume, durably, under the name that says that it is being made. Returns its
/// slot file, locked: while it is, no other process takes the folder for one that a crash left. Blocks.
pub(crate) fn prepare<P: Protection>(
    disk: &Arc<dyn Disk>,
    volumes: &Path,
    descriptor: &Descriptor,
    protection: &P,
    scope: &Scope,
    (vault, seals): (&Vault, &Seals),
) -> Result<Arc<dyn File>, VolumeError> {
    let id = descriptor.id;
    let creating = creating(volumes, id);
    let make = || {
        disk.create_dir(&creating)
            .map_err(io_error("making a volume's folder"))?;
        let slots = disk
            .open(&creating.join(SLOTS_NAME), Mode::New)
            .and_then(|slots| slots.lock().map(|()| slots))
            .map_err(io_error("making a volume's slot file"))?;
        let media = Media {
            slots: Arc::clone(&slots),
            log: LogFolder::new(Arc::clone(disk), &creating),
            on_failed: Box::new(|| ()),
        };
        let shape = Shape {
            volume: id,
            size: descriptor.size.bytes(),
        };
        engine::create(&media, shape, protection)?;
        cache_epoch::prepare(&**disk, &creating).map_err(io_error("making a volume's folder"))?;
        copy::write(&**disk, &creating, vault, seals, scope, descriptor)
            // Before the row: after it, a folder that is not there is a lost volume.
            .and_then(|()| disk.sync_dir(volumes))
            .map_err(io_error("making a volume's folder"))?;
        Ok(slots)
    };
    make().inspect_err(|_| discard(&**disk, volumes, id))
}

/// Removes what [`prepare`] made. Blocks. What is left is removed when the registry opens.
pub(crate) fn discard(disk: &dyn Disk, volumes: &Path, id: VolumeId) {
    remove(disk, &creating(volumes, id));
}

/// Gives what [`prepare`] made its own name, durably; the catalogue has its row. Blocks.
pub(crate) fn place(disk: &dyn Disk, volumes: &Path, id: VolumeId) -> Result<(), VolumeError> {
    disk.rename(&creating(volumes, id), &folder(volumes, id))
        .and_then(|()| disk.sync_dir(volumes))
        .map_err(io_error("making a volume's folder"))
}

/// Opens a volume's files, reads its map and begins or continues its epoch. Blocks.
pub(crate) fn open<P: Protection>(
    disk: &Arc<dyn Disk>,
    volumes: &Path,
    descriptor: &Descriptor,
    protection: P,
    epochs: Source<'_>,
) -> Result<(Engine<P>, Current), VolumeError> {
    let id = descriptor.id;
    let dir = folder(volumes, id);
    let opening = io_error("opening a volume's slot file");
    let slots = match disk.open(&dir.join(SLOTS_NAME), Mode::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(VolumeError::Damaged {
                file: dir.join(SLOTS_NAME),
                at: 0,
                why: "it is missing",
            });
        }
        opened => opened.map_err(&opening)?,
    };
    slots.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => VolumeError::Locked(id),
        _ => opening(error),
    })?;
    let failed_before = forget_if_failed(&**disk, &dir, &*slots)?;
    if failed_before {
        tracing::warn!(volume = %id, "the volume had failed; what is read is what the disk has");
    }
    let media = Media {
        slots,
        log: LogFolder::new(Arc::clone(disk), &dir),
        on_failed: mark_of_failure(disk, &dir),
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
    // Before the mark is taken off: a crash in between begins one more epoch, where the other order would lose this one.
    let epoch = Current::begin(&**disk, &dir, id, failed_before, epochs)
        .map_err(io_error("writing a volume's epoch"))?;
    if failed_before {
        disk.remove(&dir.join(FAILED_NAME))
            .map_err(io_error("taking off a failed volume's mark"))?;
    }
    Ok((engine, epoch))
}

/// Has a volume that failed read from the disk and not from the page cache, which has what a sync did not write; whether
/// it had failed. Blocks.
fn forget_if_failed(disk: &dyn Disk, dir: &Path, slots: &dyn File) -> Result<bool, VolumeError> {
    let marked = disk.kind(&dir.join(FAILED_NAME));
    if marked
        .map_err(io_error("looking at a volume's folder"))?
        .is_none()
    {
        return Ok(false);
    }
    let log = match disk.open(&dir.join(LOG_NAME), Mode::Write) {
        // For whoever reads it to say.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(io_error("opening a volume's metadata log"))?),
    };
    slots
        .forget_cached()
        .and_then(|()| log.map_or(Ok(()), |log| log.forget_cached()))
        .map_err(io_error("reading again what a volume's files hold"))?;
    Ok(true)
}

/// What a volume that fails is marked with: the next who opens it must not believe the page cache.
fn mark_of_failure(disk: &Arc<dyn Disk>, dir: &Path) -> Box<dyn Fn() + Send + Sync> {
    let (disk, dir) = (Arc::clone(disk), dir.to_owned());
    Box::new(move || {
        if let Err(error) = disk.open(&dir.join(FAILED_NAME), Mode::New)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::error!(%error, "a failed volume could not be marked");
            // Its epoch has a place of its own, also on a full disk: no client goes on over what was lost.
            if let Err(error) = cache_epoch::forget(&*disk, &dir) {
                tracing::error!(%error, "nor could its epoch be ended");
            }
        }
    })
}

/// Gives a volume's files to `look`, which the caller has locked. Blocks.
pub(crate) fn inspect<T>(
    disk: &Arc<dyn Disk>,
    volumes: &Path,
    descriptor: &Descriptor,
    look: impl FnOnce(&Media, Shape) -> Result<T, VolumeError>,
) -> Result<T, VolumeError> {
    let dir = folder(volumes, descriptor.id);
    let slots = disk
        .open(&dir.join(SLOTS_NAME), Mode::Write)
        .map_err(io_error("opening a volume's slot file"))?;
    // The mark stays: whoever attaches the volume next reads from the disk too, and begins an epoch.
    forget_if_failed(&**disk, &dir, &*slots)?;
    let media = Media {
        slots,
        log: LogFolder::new(Arc::clone(disk), &dir),
        on_failed: mark_of_failure(disk, &dir),
    };
    let shape = Shape {
        volume: descriptor.id,
        size: descriptor.size.bytes(),
    };
    look(&media, shape)
}

/// Takes the lock of the slot file below `dir`; `None` if there is no such file. While it is held nobody attaches the
/// volume, in any process. `WouldBlock` if it is attached, or being made. Blocks.
fn lock_slots(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Arc<dyn File>>> {
    match disk.open(&dir.join(SLOTS_NAME), Mode::Write) {
        Ok(slots) => slots.lock().map(|()| Some(slots)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps every process from attaching a volume that is to be deleted, until what is returned is dropped. Blocks.
pub(crate) fn keep_detached(
    disk: &dyn Disk,
    volumes: &Path,
    id: VolumeId,
) -> Result<Option<Arc<dyn File>>, VolumeError> {
    lock_slots(disk, &folder(volumes, id)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => VolumeError::InUse(id),
        _ => VolumeError::from_io("deleting a volume", error),
    })
}

/// Takes the right to change the descriptor of the volume in `dir`, waiting for another process to finish. Blocks, five
/// seconds at most; `WouldBlock` then.
pub(crate) fn lock_changing(disk: &dyn Disk, dir: &Path) -> io::Result<Arc<dyn File>> {
    let file = disk.open(&dir.join(CHANGING_NAME), Mode::Create)?;
    for _ in 1..LOCK_TRIES {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(LOCK_WAIT);
            }
            locked => return locked.map(|()| file),
        }
    }
    file.lock().map(|()| file)
}

/// Takes a volume's folder out of sight, durably; its row says that it is deleted. A folder that is not there is one
/// already. Blocks.
pub(crate) fn hide(disk: &dyn Disk, volumes: &Path, id: VolumeId) -> Result<(), VolumeError> {
    match disk.rename(&folder(volumes, id), &deleted(volumes, id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
    .and_then(|()| disk.sync_dir(volumes))
    .map_err(io_error("deleting a volume"))
}

/// Empties and removes what was hidden, durably. Blocks. What is left is removed when the registry opens.
pub(crate) fn remove_hidden(disk: &dyn Disk, volumes: &Path, id: VolumeId) -> bool {
    remove(disk, &deleted(volumes, id)) && disk.sync_dir(volumes).is_ok()
}

fn remove(disk: &dyn Disk, dir: &Path) -> bool {
    remove_tree(disk, dir)
        .inspect_err(|error| {
            tracing::warn!(folder = %dir.display(), %error, "a volume's folder could not be removed");
        })
        .is_ok()
}

/// The folders below the folder of volumes, by what their names say.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    pub(crate) creating: Vec<VolumeId>,
    pub(crate) deleted: Vec<VolumeId>,
    pub(crate) volumes: Vec<VolumeId>,
}

/// Looks which folders there are. Blocks.
pub(crate) fn list(disk: &dyn Disk, volumes: &Path) -> io::Result<Folders> {
    let mut folders = Folders::default();
    for entry in disk.list(volumes)? {
        let name = entry.name.to_string_lossy();
        let id = |name: &str| name.parse().ok();
        if let Some(id) = name.strip_prefix(CREATING).and_then(id) {
            folders.creating.push(id);
        } else if let Some(id) = name.strip_prefix(DELETED).and_then(id) {
            folders.deleted.push(id);
        } else if let Some(id) = id(&name) {
            folders.volumes.push(id);
        } else if name != QUARANTINE && entry.kind == EntryKind::Folder {
            tracing::warn!(%name, "not a volume; left alone");
        }
    }
    Ok(folders)
}

/// Whether the volume's folder is there. Blocks.
pub(crate) fn is_there(disk: &dyn Disk, volumes: &Path, id: VolumeId) -> io::Result<bool> {
    Ok(disk.kind(&folder(volumes, id))?.is_some())
}

/// Looks whether a volume's map and slots are there and begin as they should, as far as that can be seen without its key.
/// Blocks.
pub(crate) fn have_a_map(
    disk: &dyn Disk,
    volumes: &Path,
    row: &Descriptor,
) -> Result<(), VolumeError> {
    let dir = folder(volumes, row.id);
    let look = |name: &str| match disk.open(&dir.join(name), Mode::Read) {
        Ok(file) => {
            let mut page = [0; log::frame::PAGE_LEN];
            let len = file.len()?;
            let whole = len >= page.len() as u64;
            if whole {
                file.read_at(0, &mut page)?;
            }
            Ok(whole.then_some((page, len)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let looking = io_error("looking at a volume's folder");
    let damaged = |name: &str, why| {
        Err(VolumeError::Damaged {
            file: dir.join(name),
            at: 0,
            why,
        })
    };
    let header =
        |name| Ok(look(name)?.map(|(page, len)| (log::frame::outline(&page, row.id), len)));
    if !matches!(
        disk.kind(&dir.join(SLOTS_NAME)).map_err(&looking)?,
        Some(EntryKind::File)
    ) {
        return damaged(SLOTS_NAME, "it is missing");
    }
    let (log, copy) = (
        header(LOG_NAME).map_err(&looking)?,
        header(log::folder::COPY_NAME).map_err(&looking)?,
    );
    match (log, copy) {
        (None, _) => damaged(LOG_NAME, "it is missing, or cut off"),
        (Some((Ok(end), len)), _) | (Some((Err(_), len)), Some((Ok(end), _))) if len < end => {
            damaged(LOG_NAME, "the file ends within its checkpoint")
        }
        (Some((Ok(_), _)), _) | (_, Some((Ok(_), _))) => Ok(()),
        (Some((Err(why), _)), _) => damaged(LOG_NAME, why),
    }
}

/// Whether somebody is at work on a folder that is being made. Blocks.
pub(crate) fn is_being_made(disk: &dyn Disk, volumes: &Path, id: VolumeId) -> bool {
    let locked = lock_slots(disk, &creating(volumes, id));
    locked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// A folder that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aside {
    /// Of which volume it says that it is.
    pub(crate) id: VolumeId,
    pub(crate) dir: PathBuf,
}

/// What is in quarantine. Blocks.
pub(crate) fn quarantined(disk: &dyn Disk, volumes: &Path) -> io::Result<Vec<Aside>> {
    let dir = volumes.join(QUARANTINE);
    if disk.kind(&dir)?.is_none() {
        return Ok(Vec::new());
    }
    let mut aside = Vec::new();
    for entry in disk.list(&dir)? {
        let name = entry.name.to_string_lossy();
        let id = name.split_once('.').map_or(&*name, |(id, _)| id);
        if let Ok(id) = id.parse() {
            aside.push(Aside {
                id,
                dir: dir.join(&entry.name),
            });
        }
    }
    aside.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok(aside)
}

/// Sets a folder aside that no row names, durably; nothing of it is changed. Returns where it is now; `None` if it is
/// gone, or attached by somebody. Blocks.
pub(crate) fn set_aside(
    disk: &dyn Disk,
    volumes: &Path,
    id: VolumeId,
) -> io::Result<Option<PathBuf>> {
    let from = folder(volumes, id);
    let _slots = match lock_slots(disk, &from) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        locked => locked?,
    };
    let dir = volumes.join(QUARANTINE);
    private::create_dirs(disk, &dir)?;
    let mut to = dir.join(id.to_string());
    let mut number = 0_u32;
    while disk.kind(&to)?.is_some() {
        number += 1;
        to = dir.join(format!("{id}.{number}"));
    }
    match disk.rename(&from, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        renamed => renamed?,
    }
    disk.sync_dir(&dir)?;
    disk.sync_dir(volumes)?;
    Ok(Some(to))
}

/// Puts a folder that was set aside back in its place, durably, before it gets a row. False if there is another one.
/// Blocks.
pub(crate) fn put_back(disk: &dyn Disk, volumes: &Path, aside: &Aside) -> io::Result<bool> {
    let to = folder(volumes, aside.id);
    if disk.kind(&to)?.is_some() {
        return Ok(false);
    }
    disk.rename(&aside.dir, &to)?;
    disk.sync_dir(volumes)?;
    disk.sync_dir(private::folder_of(&aside.dir))?;
    Ok(true)
}

/// Every folder that may hold copies: the volumes', those being made, and those set aside. Blocks.
pub(crate) fn with_copies(disk: &dyn Disk, volumes: &Path) -> io::Result<Vec<PathBuf>> {
    let Folders {
        creating: made,
        volumes: ids,
        ..
    } = list(disk, volumes)?;
    let mut dirs: Vec<PathBuf> = quarantined(disk, volumes)?
        .into_iter()
        .map(|aside| aside.dir)
        .collect();
    dirs.extend(made.into_iter().map(|id| creating(volumes, id)));
    dirs.extend(ids.into_iter().map(|id| folder(volumes, id)));
    dirs.sort();
    Ok(dirs)
}

#[cfg(test)]
mod tests;
