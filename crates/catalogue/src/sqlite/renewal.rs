//! Opens the file; after a stop that was not in order, rewrites it first.
//!
//! After a failed sync the page cache may show what is not on the disk, and after a crash the log's tail may be there
//! only. A catalogue whose log is not empty, or beside which lies the mark of a failed sync, is therefore copied to a
//! fresh file (`VACUUM INTO`), which is synced before anything is answered from it.
//!
//! The order: the copy is synced under a name that says that it is whole (`.renewed`); then the old log goes; then the
//! copy takes the file's place. Were the copy put in place first, a crash would leave it beside the log of another
//! file, which SQLite would replay into it. A crash in between finds `.renewed` and goes on from there.

use std::time::Duration;

use host::{Mode, private};
use rusqlite::Connection;

use super::{
    connection::{self, connect, failed, identify, io},
    creation::{self, remove_if_there},
    options::{FAILED, Options},
};
use crate::CatalogueError;

/// A whole copy that is to take the file's place.
const RENEWED: &str = ".renewed";
const LOG: &str = "-wal";
const INDEX_OF_LOG: &str = "-shm";

/// A connection that may write, to a file that was identified and, where it must be, renewed or made. The caller has
/// the lock for opening.
pub(super) fn open(options: &Options) -> Result<Connection, CatalogueError> {
    if is_there(options, RENEWED)? {
        finish(options)?;
    }
    if !is_there(options, "")? {
        if is_there(options, LOG)? || is_there(options, FAILED)? {
            let what = "the file is gone, what belongs to it is there".to_owned();
            return Err(CatalogueError::Damaged(what));
        }
        creation::create(options, options.create.ok_or(CatalogueError::Missing)?)?;
    }
    let sync_failed = is_there(options, FAILED)?;
    if (sync_failed || has_log(options)?) && renew(options, sync_failed)? {
        finish(options)?;
    }
    let connection = connect(options, &options.path, options.exclusive, options.patience)?;
    identify(&connection)?;
    connection::prepare_to_write(&connection)?;
    // The log is there now. SQLite syncs its name with the first commit and does not look at the outcome: a power cut
    // would take the log away, answered commits and all.
    private::sync_name(&*options.disk, &options.path).map_err(io)?;
    Ok(connection)
}

/// Copies the file, unless another handle has it open: that one knows what is durable, and has not failed. `false` if
/// it was not copied. `sync_failed`: some handle's sync did fail, so nothing is answered before all are closed.
fn renew(options: &Options, sync_failed: bool) -> Result<bool, CatalogueError> {
    let connection = connect(options, &options.path, true, Duration::ZERO)?;
    match identify(&connection) {
        Err(CatalogueError::Unavailable(_)) if !sync_failed && !options.exclusive => {
            return Ok(false);
        }
        Err(CatalogueError::Unavailable(why)) => {
            return Err(CatalogueError::Unavailable(format!(
                "it must be rewritten first, which takes all other handles to be closed: {why}"
            )));
        }
        identified => identified?,
    }
    let new = creation::prepare_new(options)?;
    let copy = || {
        let target = new
            .to_str()
            .ok_or(CatalogueError::Invalid("a path that is not UTF-8"))?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(failed)?;
        connection
            .execute("VACUUM INTO ?1", [target])
            .map_err(failed)?;
        // The copy has a rollback journal. Switched here, a failed sync costs a file that nobody has seen.
        let copy = connect(options, &new, true, options.patience)?;
        connection::switch_to_log(&copy)?;
        copy.close().map_err(|(_, error)| failed(error))
    };
    if let Err(error) = copy() {
        let _ = options.disk.remove(&new);
        return Err(error);
    }
    // While this connection has its lock, no other handle commits to the file that is being replaced.
    creation::put(options, &new, &options.beside(RENEWED))?;
    connection.close().map_err(|(_, error)| failed(error))?;
    Ok(true)
}

/// Puts a whole copy in the file's place.
fn finish(options: &Options) -> Result<(), CatalogueError> {
    let disk = &*options.disk;
    for old in [LOG, INDEX_OF_LOG] {
        remove_if_there(options, &options.beside(old))?;
    }
    disk.sync_dir(options.folder()).map_err(io)?;
    disk.rename(&options.beside(RENEWED), &options.path)
        .map_err(io)?;
    disk.sync_dir(options.folder()).map_err(io)?;
    // The mark last: until here the copy may have to be made again.
    remove_if_there(options, &options.beside(FAILED))?;
    private::sync_name(disk, &options.path).map_err(io)
}

fn is_there(options: &Options, suffix: &str) -> Result<bool, CatalogueError> {
    Ok(options
        .disk
        .kind(&options.beside(suffix))
        .map_err(io)?
        .is_some())
}

/// Whether the log has anything. SQLite locks the database and its shared memory, not the log, so that opening the log
/// here drops no lock.
pub(super) fn has_log(options: &Options) -> Result<bool, CatalogueError> {
    match options.disk.open(&options.beside(LOG), Mode::Read) {
        Ok(log) => Ok(!log.is_empty().map_err(io)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreId;

    #[test]
    fn a_copy_has_its_log_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(dir.path().join("catalogue.db"));
        creation::create(&options, StoreId([1; 16])).unwrap();
        assert!(renew(&options, true).unwrap());
        let copy = std::fs::read(options.beside(RENEWED)).unwrap();
        assert_eq!(copy[18..20], [2, 2]);
        finish(&options).unwrap();
        drop(open(&options).unwrap());
        assert!(!options.beside(RENEWED).exists());
    }
}
