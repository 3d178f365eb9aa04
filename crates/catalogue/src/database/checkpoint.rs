//! The log: whether there is one, and how it is moved into the file, with a look at the outcome.

use host::Mode;
use rusqlite::Connection;

use super::{
    connection::{connect, failed, io},
    site::{Form, Site},
};
use crate::CatalogueError;

/// Behind the database's name.
pub(super) const LOG: &str = "-wal";

/// How far a checkpoint came.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint {
    /// A reader or a writer kept it from coming to the end.
    pub blocked: bool,
    /// Pages of the log.
    pub pages: i64,
}

/// Moves the log into the file, `how` as SQLite has it: `PASSIVE`, `RESTART`, `TRUNCATE`. After a failure other than a full
/// disk or a busy file a sync may have failed: the caller stops.
pub fn checkpoint(
    connection: &Connection,
    site: &Site,
    form: &Form,
    how: &str,
) -> rusqlite::Result<Checkpoint> {
    let pragma = |how| {
        let sql = format!("PRAGMA wal_checkpoint({how})");
        connection.query_row(&sql, [], |row| {
            Ok(Checkpoint {
                blocked: row.get(0)?,
                pages: row.get(1)?,
            })
        })
    };
    if how == "TRUNCATE" {
        let done = pragma("RESTART")?;
        if done.blocked {
            return Ok(done);
        }
        // SQLite does not sync the truncation, and a power cut may leave the log at any length that it had. The
        // first commits of a log, found without the later ones, would be taken for newer than the file: the log
        // starts over first, with a commit that changes nothing (a row that stays as it is would make none). Whether
        // SQLite counts pages in the log does not tell: it counts none where starting over has failed half way.
        if has_log(site).unwrap_or(true) {
            connection.pragma_update(None, "user_version", form.format)?;
        }
    }
    pragma(how)
}

/// Cuts off the log what a commit left there that a full disk has refused and that was rolled back. Its last write may
/// have come far enough for a recovery to take it for whole, what it lacks being there from an earlier time. Until this
/// has returned `Ok` the commit is not refused but unknown.
///
/// SQLite gave the lock for writing back when it rolled back. Unless the connection is the file's only one, the lock is
/// taken again for the cut, by a connection of its own (one that writes is not told how long the log is): another
/// process's commit stands where the refused one stood, and a cut at a length from before it would take it away.
///
/// # Errors
/// Nothing was cut, or the cut is not known to be durable; [`Unavailable`](CatalogueError::Unavailable) where another
/// process did not let go of the lock in time.
pub fn forget_refused(connection: &Connection, site: &Site) -> Result<(), CatalogueError> {
    if site.exclusive {
        return cut_log(connection, site);
    }
    let guard = connect(site, &site.path, false, site.patience)?;
    guard.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    cut_log(connection, site)
    // The guard's transaction has changed nothing and ends with it.
}

/// Cuts the log after the last frame that counts. Nobody else may commit meanwhile.
fn cut_log(connection: &Connection, site: &Site) -> Result<(), CatalogueError> {
    // Frames of the log that count; SQLite moves none.
    let sql = "PRAGMA wal_checkpoint(NOOP)";
    let frames = connection.query_row(sql, [], |row| row.get::<_, i64>(1));
    let frames = u64::try_from(frames.map_err(failed)?).map_err(|_| {
        CatalogueError::Unavailable("SQLite does not say how long its log is".to_owned())
    })?;
    let page_len = connection.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0));
    let page_len = u64::from(page_len.map_err(failed)?);
    // https://sqlite.org/fileformat.html, section 4.1: a header, then frames of a header and a page.
    let end = 32 + frames * (24 + page_len);
    let cut = || {
        let log = site.disk.open(&site.beside(LOG), Mode::Write)?;
        if log.len()? > end {
            log.set_len(end)?;
            log.sync_data()?;
        }
        Ok(())
    };
    match cut() {
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(io),
    }
}

/// Whether the log has anything. SQLite locks the database and its shared memory, not the log, so that opening the log
/// here drops no lock.
pub(super) fn has_log(site: &Site) -> Result<bool, CatalogueError> {
    match site.disk.open(&site.beside(LOG), Mode::Read) {
        Ok(log) => Ok(!log.is_empty().map_err(io)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io(error)),
    }
}
