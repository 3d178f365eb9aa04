//! How the file comes to be: whole, beside its place, and then put there.

use std::{io, path::Path, sync::Arc, time::Duration};

use host::{File, Mode, private};

use super::{
    connection::{self, APPLICATION_ID, FORMAT, failed, io},
    options::Options,
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
    for suffix in ["", "-journal", "-wal", "-shm"] {
        remove_if_there(options, &options.beside(&format!("{NEW}{suffix}")))?;
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
    for suffix in ["-wal", "-shm"] {
        // Empty: what SQLite made for a file that was only switched to a log.
        remove_if_there(options, &options.beside(&format!("{NEW}{suffix}")))?;
    }
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
    // Here, where a failed sync costs a file that nobody has seen, and not when it is opened.
    connection::switch_to_log(&connection)?;
    connection.close().map_err(|(_, error)| failed(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_its_log_from_the_start_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.db");
        create(&Options::new(&path), StoreId([1; 16])).unwrap();
        // Read and write version, https://sqlite.org/fileformat.html, section 1.3: 2 is a write-ahead log.
        assert_eq!(std::fs::read(&path).unwrap()[18..20], [2, 2]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
