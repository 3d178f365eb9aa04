//! Opens the file; after a stop that was not in order, rewrites it first.
//!
//! After a failed sync the page cache may show what is not on the disk, and after a crash the log's tail may be there
//! only. A file whose log is not empty, or beside which lies the mark of a failed sync, is therefore copied to a
//! fresh file (`VACUUM INTO`), which is synced before anything is answered from it.
//!
//! Where the owner asks for less ([`Renewal::Log`]) and no sync is known to have failed, the log alone is copied and synced,
//! and then moved into the file, with a sync again.
//!
//! The order: the copy is synced under a name that says that it is whole (`.renewed`); then the old log goes; then the
//! copy takes the file's place. Were the copy put in place first, a crash would leave it beside the log of another
//! file, which SQLite would replay into it. A crash in between finds `.renewed` and goes on from there.

use std::{path::PathBuf, time::Duration};

use host::{Mode, private};
use rusqlite::Connection;

use super::{
    checkpoint::{LOG, checkpoint, has_log},
    connection::{self, connect, failed, identify, io},
    creation::{self, Fill, remove_if_there},
    site::{FAILED, Form, Look, Renewal, Site},
};
use crate::CatalogueError;

/// A whole copy that is to take the file's place.
pub(super) const RENEWED: &str = ".renewed";
/// A copy of the log that is not whole yet; waste at start.
const NEW_LOG: &str = "-wal.new";
const COPY_LEN: usize = 1 << 20;
const INDEX_OF_LOG: &str = "-shm";

/// A connection that may write, to a file that was identified and, where it must be, renewed or made: `fill` puts schema
/// and first rows into a new one, without it the file must be there. The caller sees to it that nobody else opens the
/// file meanwhile. Reads as much of it as [`Form::look`] says.
///
/// # Errors
/// Nothing was changed that was answered: [`Missing`](CatalogueError::Missing), [`Foreign`](CatalogueError::Foreign),
/// [`Newer`](CatalogueError::Newer), [`Damaged`](CatalogueError::Damaged), and those of the machine.
pub fn open(
    site: &Site,
    form: &Form,
    fill: Option<Fill<'_>>,
) -> Result<Connection, CatalogueError> {
    if is_there(site, RENEWED)? {
        finish(site)?;
    }
    if !is_there(site, "")? {
        if is_there(site, LOG)? || is_there(site, FAILED)? {
            let what = "the file is gone, what belongs to it is there".to_owned();
            return Err(CatalogueError::Damaged(what));
        }
        creation::create(site, form, fill.ok_or(CatalogueError::Missing)?)?;
    }
    let sync_failed = is_there(site, FAILED)?;
    let log_only = !sync_failed && form.renewal == Renewal::Log;
    let was_left = sync_failed || has_log(site)?;
    if was_left && log_only {
        copy_log(site)?;
    } else if was_left && copy_whole(site, form, sync_failed)? {
        finish(site)?;
    }
    let connection = connect(site, &site.path, site.exclusive, site.patience)?;
    identify(&connection, form, form.look)?;
    connection::prepare_to_write(&connection, form)?;
    if was_left && log_only {
        // Each page whose sync may have failed is still in the log, which starts over only after a good one.
        let moved = checkpoint(&connection, site, form, "RESTART").map_err(failed)?;
        if moved.blocked {
            return Err(in_use());
        }
    }
    // The log is there now. SQLite syncs its name with the first commit and does not look at the outcome: a power cut
    // would take the log away, answered commits and all.
    private::sync_name(&*site.disk, &site.path).map_err(io)?;
    Ok(connection)
}

/// Copies the file, unless another handle has it open: that one knows what is durable, and has not failed. `false` if
/// it was not copied. `sync_failed`: some handle's sync did fail, so nothing is answered before all are closed.
pub(super) fn copy_whole(
    site: &Site,
    form: &Form,
    sync_failed: bool,
) -> Result<bool, CatalogueError> {
    let connection = connect(site, &site.path, true, Duration::ZERO)?;
    match identify(&connection, form, Look::Whole) {
        Err(CatalogueError::Unavailable(_)) if !sync_failed && !site.exclusive => {
            return Ok(false);
        }
        Err(CatalogueError::Unavailable(why)) => {
            return Err(CatalogueError::Unavailable(format!(
                "it must be rewritten first, which takes all other handles to be closed: {why}"
            )));
        }
        identified => identified?,
    }
    let new = creation::prepare_new(site)?;
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
        let copy = connect(site, &new, true, site.patience)?;
        connection::switch_to_log(&copy)?;
        copy.close().map_err(|(_, error)| failed(error))
    };
    if let Err(error) = copy() {
        let _ = site.disk.remove(&new);
        return Err(error);
    }
    // While this connection has its lock, no other handle commits to the file that is being replaced.
    creation::put(site, &new, &site.beside(RENEWED))?;
    connection.close().map_err(|(_, error)| failed(error))?;
    Ok(true)
}

/// Puts a synced copy in the log's place. What the page cache shows is what any process has seen; and if a sync of the
/// file failed, what it was to make durable is in the log.
fn copy_log(site: &Site) -> Result<(), CatalogueError> {
    let alone = connect(site, &site.path, true, Duration::ZERO)?;
    let looked = alone.pragma_query_value(None, "application_id", |row| row.get::<_, i64>(0));
    match looked.map_err(failed) {
        Err(CatalogueError::Unavailable(_)) => return Err(in_use()),
        looked => looked?,
    };
    alone.close().map_err(|(_, error)| failed(error))?;
    let disk = &*site.disk;
    let (log, new) = (site.beside(LOG), site.beside(NEW_LOG));
    remove_if_there(site, &new)?;
    let copy = || {
        let (from, to) = (disk.open(&log, Mode::Read)?, disk.open(&new, Mode::New)?);
        let len = from.len()?;
        let mut piece = vec![0; COPY_LEN];
        let mut at = 0;
        while at < len {
            let left = usize::try_from(len - at).unwrap_or(COPY_LEN);
            let piece = &mut piece[..left.min(COPY_LEN)];
            from.read_at(at, piece)?;
            to.write_at(at, piece)?;
            at += piece.len() as u64;
        }
        to.sync_all()
    };
    copy().map_err(io)?;
    disk.rename(&new, &log).map_err(io)?;
    private::sync_name(disk, &log).map_err(io)
}

fn in_use() -> CatalogueError {
    CatalogueError::Unavailable("another process has the file open".to_owned())
}

/// Puts a whole copy in the file's place.
pub(super) fn finish(site: &Site) -> Result<(), CatalogueError> {
    let disk = &*site.disk;
    for old in [LOG, INDEX_OF_LOG] {
        remove_if_there(site, &site.beside(old))?;
    }
    disk.sync_dir(site.folder()).map_err(io)?;
    disk.rename(&site.beside(RENEWED), &site.path).map_err(io)?;
    disk.sync_dir(site.folder()).map_err(io)?;
    // The mark last: until here the copy may have to be made again.
    remove_if_there(site, &site.beside(FAILED))?;
    private::sync_name(disk, &site.path).map_err(io)
}

/// The file that the next [`open`] goes on from: the one at [`Site::path`], or a copy of it that is whole and synced and was
/// about to take its place when the machine stopped. The file itself may have lost its log by then. Changes nothing.
pub fn newest(site: &Site) -> Result<PathBuf, CatalogueError> {
    let suffix = if is_there(site, RENEWED)? {
        RENEWED
    } else {
        ""
    };
    Ok(site.beside(suffix))
}

fn is_there(site: &Site, suffix: &str) -> Result<bool, CatalogueError> {
    Ok(site.disk.kind(&site.beside(suffix)).map_err(io)?.is_some())
}
