//! How the file comes to be: whole, beside its place, and then put there.

use std::{io, path::Path};

use host::{Mode, private};
use rusqlite::Connection;

use super::{
    connection::{self, failed, io},
    site::{Form, Site},
};
use crate::CatalogueError;

/// Puts the schema and the first rows into an empty file.
pub(super) type Fill<'f> = &'f dyn Fn(&Connection) -> rusqlite::Result<()>;

/// What is beside the file while a new one is written; waste at start.
pub(super) const NEW: &str = ".new";
/// Makes the file. A crash leaves a whole one or none.
pub(super) fn create(site: &Site, form: &Form, fill: Fill<'_>) -> Result<(), CatalogueError> {
    let new = prepare_new(site)?;
    fill_file(site, form, &new, fill)?;
    put(site, &new, &site.path)
}

/// An empty private file for SQLite to fill; what an earlier attempt left is gone.
pub(super) fn prepare_new(site: &Site) -> Result<std::path::PathBuf, CatalogueError> {
    let new = site.beside(NEW);
    for suffix in ["", "-journal", "-wal", "-shm"] {
        remove_if_there(site, &site.beside(&format!("{NEW}{suffix}")))?;
    }
    site.disk.open(&new, Mode::New).map_err(io)?;
    Ok(new)
}

/// Syncs a file that SQLite has filled and closed, and puts it in its place.
pub(super) fn put(site: &Site, new: &Path, place: &Path) -> Result<(), CatalogueError> {
    let disk = &*site.disk;
    // No connection to it is open: closing this would drop the connection's locks.
    let file = disk.open(new, Mode::Write).map_err(io)?;
    file.sync_all().map_err(io)?;
    for suffix in ["-wal", "-shm"] {
        // Empty: what SQLite made for a file that was only switched to a log.
        remove_if_there(site, &site.beside(&format!("{NEW}{suffix}")))?;
    }
    disk.rename(new, place).map_err(io)?;
    private::sync_name(disk, place).map_err(io)
}

/// Removes a file that may not be there.
pub(super) fn remove_if_there(site: &Site, path: &Path) -> Result<(), CatalogueError> {
    match site.disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(error)),
        _ => Ok(()),
    }
}

fn fill_file(site: &Site, form: &Form, path: &Path, fill: Fill<'_>) -> Result<(), CatalogueError> {
    let connection = connection::connect(site, path, true, site.patience)?;
    let (id, format) = (form.application_id, form.format);
    let make = || {
        connection.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
        fill(&connection)?;
        connection.execute_batch(&format!(
            "PRAGMA application_id = {id}; PRAGMA user_version = {format}; COMMIT"
        ))
    };
    make().map_err(failed)?;
    // Here, where a failed sync costs a file that nobody has seen, and not when it is opened.
    connection::switch_to_log(&connection)?;
    connection.close().map_err(|(_, error)| failed(error))
}
