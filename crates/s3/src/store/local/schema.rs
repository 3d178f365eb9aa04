//! The index: its schema, and how connections to it are opened. See `FORMAT.md`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::store::StoreError;

/// `PRAGMA application_id`: "SGOS", so that `file` and we know whose this is.
pub(super) const APPLICATION_ID: i32 = 0x5347_4f53;
/// `PRAGMA user_version`; counts up with every change of the schema.
pub(super) const VERSION: u32 = 3;
/// Connections kept for reading; more are opened when needed and closed again.
const IDLE_READERS_MAX: usize = 32;
/// Statements a connection keeps prepared; more than there are.
const STATEMENTS_MAX: usize = 64;

const SCHEMA: &str = include_str!("schema.sql");

/// Wraps an error of SQLite, telling a full disk and damage apart from the rest.
pub(super) fn failed(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::NoSpace,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt(format!("object index: {what}: {error}"))
        }
        _ => StoreError::Index {
            what,
            source: Box::new(error),
        },
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Plans must not depend on values bound: SQLite would compile a join anew for every key looked
    // up, which was measured as a quarter of the CPU of a 4 KiB GET.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Names in the schema and text are ours, but a damaged file must not run code of its own.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Opens the index for writing, creating it where there is none.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    // SQLite would make it readable to others; its log takes the mode from it.
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(false).mode(0o600);
    private
        .open(path)
        .map_err(|e| StoreError::io("create the index", e))?;
    let connection = Connection::open(path).map_err(failed("open"))?;
    configure(&connection)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    let version: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("read the version"))?;
    if version > VERSION {
        return Err(StoreError::NewerFormat {
            found: version,
            known: VERSION,
        });
    }
    prepare(connection).map_err(failed("configure"))?;
    let set = |name, value: &dyn rusqlite::ToSql| connection.pragma_update(None, name, value);
    set("journal_mode", &"WAL").map_err(failed("switch to a write-ahead log"))?;
    // FULL: a commit is on disk when it returns. Group commit pays for it once per batch.
    set("synchronous", &"FULL").map_err(failed("configure"))?;
    set("foreign_keys", &false).map_err(failed("configure"))?;
    set("cache_size", &-32_768).map_err(failed("configure"))?;
    // A checkpoint every 16 MiB of log instead of 4: it is two more syncs and rewrites hot pages.
    set("wal_autocheckpoint", &4096).map_err(failed("configure"))?;
    set("journal_size_limit", &(64 << 20)).map_err(failed("configure"))?;
    let owner: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(failed("read the owner"))?;
    match (owner, version) {
        (APPLICATION_ID, VERSION) => Ok(()),
        (0, 0) => create(connection),
        _ => Err(StoreError::Corrupt(format!(
            "index.db is not an object index (owner {owner:#x}, version {version})"
        ))),
    }
}

fn create(connection: &Connection) -> Result<(), StoreError> {
    let tables: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed("read the schema"))?;
    if tables != 0 {
        return Err(StoreError::Corrupt(
            "index.db is a database of something else".into(),
        ));
    }
    let script = format!(
        "BEGIN IMMEDIATE;\n{SCHEMA}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {VERSION};\nCOMMIT;"
    );
    connection
        .execute_batch(&script)
        .map_err(failed("create the schema"))
}

/// Read-only connections, lent out one at a time. The lock is held for a push or a pop only.
#[derive(Debug)]
pub(super) struct Readers {
    path: std::path::PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: std::path::PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
        }
    }

    /// Runs `look` on a connection of its own. Every statement in it sees the newest commit; wrap
    /// several in a transaction to see one.
    pub(super) fn with<T>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        let result = look(&connection);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_READERS_MAX {
            idle.push(connection);
        }
        result
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(failed("open for reading"))?;
        prepare(&connection).map_err(failed("configure for reading"))?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_index_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        drop(open_for_writing(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 4)
            .unwrap();
        assert!(matches!(
            open_for_writing(&path),
            Err(StoreError::NewerFormat { found: 4, known: 3 })
        ));
    }

    #[test]
    fn a_foreign_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        assert!(matches!(
            open_for_writing(&path),
            Err(StoreError::Corrupt(_))
        ));
        std::fs::write(&path, [7; 8192]).unwrap();
        assert!(matches!(
            open_for_writing(&path),
            Err(StoreError::Corrupt(_))
        ));
    }
}
