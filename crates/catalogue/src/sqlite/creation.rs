//! How the file comes to be: whole, beside its place, and then put there.

use std::{io, path::Path, sync::Arc, time::Duration};

use host::{File, Mode, private};

use super::{
    Options,
    connection::{self, APPLICATION_ID, FORMAT, failed, io},
};
use crate::{CatalogueError, StoreId};

/// What is beside the file while a new one is written; waste at start.
pub(super) const NEW: &str = ".new";
/// The empty file whose lock a handle has while it opens.
const LOCK: &str = ".lock";
const LOCK_RETRY: Duration = Duration::from_millis(10);

const SCHEMA: &str = include_str!("schema.sql");

/// Takes the lock that lets one handle open at a time, or finds it held for longer than there is patience.
pub(super) fn lock(options: &Options) -> Result<Arc<dyn File>, CatalogueError> {
    let file = options
        .disk
        .open(&options.beside(LOCK), Mode::Create)
        .map_err(io)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if waited >= options.patience {
                    let what = "another process is opening it".to_owned();
                    return Err(CatalogueError::Unavailable(what));
                }
                std::thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
            Err(error) => return Err(io(error)),
        }
    }
}

/// Makes an empty catalogue. A crash leaves a whole one or none.
pub(super) fn create(options: &Options, id: StoreId) -> Result<(), CatalogueError> {
    let new = prepare_new(options)?;
    fill(options, &new, id)?;
    put(options, &new, &options.path)
}

/// An empty private file for SQLite to fill; what an earlier attempt left is gone.
pub(super) fn prepare_new(options: &Options) -> Result<std::path::PathBuf, CatalogueError> {
    let new = options.beside(NEW);
    for leftover in [new.clone(), options.beside(".new-journal")] {
        remove_if_there(options, &leftover)?;
    }
    options.disk.open(&new, Mode::New).map_err(io)?;
    Ok(new)
}

/// Syncs a file that SQLite has filled and closed, and puts it in its place.
pub(super) fn put(options: &Options, new: &Path, place: &Path) -> Result<(), CatalogueError> {
    let disk = &*options.disk;
    // No connection to it is open: closing this would drop the connection's locks.
    let file = disk.open(new, Mode::Write).map_err(io)?;
    file.sync_all().map_err(io)?;
    disk.rename(new, place).map_err(io)?;
    private::sync_name(disk, place).map_err(io)
}

/// Removes a file that may not be there.
pub(super) fn remove_if_there(options: &Options, path: &Path) -> Result<(), CatalogueError> {
    match options.disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(error)),
        _ => Ok(()),
    }
}

fn fill(options: &Options, path: &Path, id: StoreId) -> Result<(), CatalogueError> {
    let connection = connection::connect(options, path, true, options.patience)?;
    let fill = || {
        connection.execute_batch(&format!(
            "PRAGMA synchronous = FULL; BEGIN IMMEDIATE; {SCHEMA}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
        ))?;
        connection.execute(
            "INSERT INTO meta (one, store_id, sequence, trimmed, kept) VALUES (1, ?1, 0, 0, 0)",
            [id.0],
        )?;
        connection.execute_batch("COMMIT")
    };
    fill().map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))
}
