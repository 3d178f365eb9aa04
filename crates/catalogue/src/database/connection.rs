//! Connections: how they are made, whose file it is, and what SQLite's errors mean.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::site::{Form, Look, Site};
use crate::CatalogueError;

/// Connects to a file that is there. Changes nothing. With `exclusive`, the first look takes a lock that lets no
/// other connection be, or is refused as busy.
pub fn connect(
    site: &Site,
    path: &Path,
    exclusive: bool,
    patience: Duration,
) -> Result<Connection, CatalogueError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match &site.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.as_str()),
        None => Connection::open_with_flags(path, flags),
    };
    let connection = connection.map_err(failed)?;
    configure(&connection, exclusive, patience).map_err(failed)?;
    Ok(connection)
}

fn configure(connection: &Connection, exclusive: bool, patience: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(patience)?;
    connection.set_prepared_statement_cache_capacity(32);
    // A checkpoint at close would sync the file where no one sees it fail.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // A damaged file must not run code of its own.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if exclusive {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    Ok(())
}

/// Makes a connection one that commits: durable when it says so, erased bytes overwritten.
pub(super) fn prepare_to_write(connection: &Connection, form: &Form) -> Result<(), CatalogueError> {
    switch_to_log(connection)?;
    let set = || {
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", form.secure_delete)?;
        // A checkpoint after a commit would sync the file where no one sees it fail: the writer makes them.
        connection.pragma_update(None, "wal_autocheckpoint", 0)
    };
    set().map_err(failed)
}

/// Makes the file one with a write-ahead log, if it is none yet. That changes the file, in a transaction with a sync.
pub(super) fn switch_to_log(connection: &Connection) -> Result<(), CatalogueError> {
    let switch = || {
        let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
        let mut rows = statement.query([])?;
        let mode: Option<String> = rows.next()?.map(|row| row.get(0)).transpose()?;
        // The row comes before the commit: only the end of the statement says whether that succeeded. Without a look
        // at it, SQLite would have rolled back, and gone on with a rollback journal.
        while rows.next()?.is_some() {}
        Ok(mode)
    };
    match switch().map_err(failed)?.as_deref() {
        Some("wal") => Ok(()),
        other => Err(CatalogueError::Unavailable(format!(
            "SQLite can keep no write-ahead log here (its journal is {other:?})"
        ))),
    }
}

/// Says whether the file is of this form, and undamaged as far as `extent` goes and SQLite can see. Changes nothing.
pub(super) fn identify(
    connection: &Connection,
    form: &Form,
    extent: Look,
) -> Result<(), CatalogueError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0));
    let application: i64 = number("application_id").map_err(failed)?;
    let format: i64 = number("user_version").map_err(failed)?;
    let pages: i64 = number("page_count").map_err(failed)?;
    let known = form.format;
    match (application == form.application_id, format) {
        (true, found) if found == known => {}
        (true, found) if found > known => return Err(CatalogueError::Newer { found, known }),
        _ if pages == 0 => return Err(CatalogueError::Damaged("the file is empty".to_owned())),
        _ => return Err(CatalogueError::Foreign),
    }
    look(connection, extent)?;
    (form.check)(connection)
}

/// Looks for damage in the file, its log included. Changes nothing. Reads what `extent` says, once.
pub fn look(connection: &Connection, extent: Look) -> Result<(), CatalogueError> {
    let check = match extent {
        Look::Done => return Ok(()),
        Look::UpTo(len_max) => {
            let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0));
            let pages: u64 = number("page_count").map_err(failed)?;
            let page_len: u64 = number("page_size").map_err(failed)?;
            if pages.saturating_mul(page_len) > len_max {
                return Ok(());
            }
            "PRAGMA quick_check(1)"
        }
        Look::Whole => "PRAGMA integrity_check(1)",
    };
    let verdict: String = connection
        .query_row(check, [], |row| row.get(0))
        .map_err(failed)?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(CatalogueError::Damaged(verdict)),
    }
}

/// What an error of SQLite means where nothing was changed.
pub fn failed(error: rusqlite::Error) -> CatalogueError {
    let text = error.to_string();
    match error {
        rusqlite::Error::SqliteFailure(error, _) => match error.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                CatalogueError::Unavailable(format!("another process holds it up: {text}"))
            }
            ErrorCode::DiskFull => CatalogueError::Full,
            // Shared memory is a file too, and its space is taken before anything is changed.
            ErrorCode::SystemIoFailure
                if error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE =>
            {
                CatalogueError::Full
            }
            ErrorCode::NotADatabase => CatalogueError::Foreign,
            // A table that is missing is no error of our SQL.
            ErrorCode::DatabaseCorrupt | ErrorCode::Unknown | ErrorCode::ConstraintViolation => {
                CatalogueError::Damaged(text)
            }
            _ => CatalogueError::Unavailable(text),
        },
        // A row that is missing, or a value of another type than the schema says.
        _ => CatalogueError::Damaged(text),
    }
}

/// What an error of a file means where nothing was changed.
pub fn io(error: std::io::Error) -> CatalogueError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => CatalogueError::Full,
        _ => CatalogueError::Unavailable(error.to_string()),
    }
}
