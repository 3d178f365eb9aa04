//! The index: its schema, and how connections to it are opened. See `FORMAT.md`.

use std::sync::Arc;
use std::time::Duration;

use catalogue::CatalogueError;
use catalogue::database::{self, Form, Look, Renewal, Site};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::layout::Directory;
use super::lifecycle::Life;
use crate::store::StoreError;

/// `PRAGMA application_id`: "SGOS", so that `file` and we know whose this is.
pub(super) const APPLICATION_ID: i64 = 0x5347_4f53;
/// `PRAGMA user_version`; counts up with every change of the schema.
pub(super) const VERSION: i64 = 3;
/// Connections kept for reading; more are opened when needed and closed again.
const IDLE_READERS_MAX: usize = 32;
/// Statements a connection keeps prepared; more than there are.
const STATEMENTS_MAX: usize = 64;

/// How long another process may hold things up, such as one that looks into the index.
const PATIENCE: Duration = Duration::from_secs(10);

const SCHEMA: &str = include_str!("schema.sql");

/// An index of objects. It may hold many small ones and be too large to be rewritten whole after each crash.
pub(super) const FORM: Form = Form {
    application_id: APPLICATION_ID,
    format: VERSION,
    check: |_| Ok(()),
    secure_delete: false,
    renewal: Renewal::Log,
    look: LOOK,
};

/// Indexes up to this many bytes are read whole before a start, at about 1 GB/s from memory; what is damaged in a longer
/// one is found when it is read, or by [`LocalStore::look_through`](super::LocalStore::look_through).
pub(super) const LOOK: Look = Look::UpTo(LOOK_LEN_MAX);
const LOOK_LEN_MAX: u64 = 1 << 30;

/// Whether an index is short enough for [`LOOK`].
pub(super) fn is_short(index: &Connection) -> Result<bool, StoreError> {
    let number = |name| {
        index
            .pragma_query_value(None, name, |row| row.get::<_, u64>(0))
            .map_err(failed("look how long it is"))
    };
    let len = number("page_count")?.saturating_mul(number("page_size")?);
    Ok(len <= LOOK_LEN_MAX)
}

/// Where the index of a store is.
pub(super) fn site(directory: &Directory, vfs: Option<String>) -> Site {
    Site {
        path: directory.index(),
        patience: PATIENCE,
        vfs,
        exclusive: false,
        disk: directory.shared_disk(),
    }
}

/// Wraps an error of SQLite, telling a full disk and damage apart from the rest.
pub(super) fn failed(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::NoSpace,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::DamagedIndex(format!("{what}: {error}"))
        }
        _ => StoreError::Index {
            what,
            source: Box::new(error),
        },
    }
}

/// What an error at opening means.
pub(super) fn refused(error: CatalogueError) -> StoreError {
    match error {
        CatalogueError::Full => StoreError::NoSpace,
        CatalogueError::Newer { found, known } => StoreError::NewerFormat {
            found: u32::try_from(found).unwrap_or(u32::MAX),
            known: u32::try_from(known).unwrap_or(u32::MAX),
        },
        CatalogueError::Foreign => StoreError::Corrupt(format!(
            "index.db is not an object index of format {VERSION}"
        )),
        CatalogueError::Damaged(why) => StoreError::DamagedIndex(why),
        other => StoreError::Index {
            what: "open",
            source: Box::new(other),
        },
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Plans must not depend on values bound: SQLite would compile a join anew for every key looked
    // up, which was measured as a quarter of the CPU of a 4 KiB GET.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Opens the index for writing, creating it where there is none, and rewrites first what is in the page cache alone.
/// `look` says how much of it is looked at for damage.
pub(super) fn open_for_writing(site: &Site, look: Look) -> Result<Connection, StoreError> {
    let fill = |connection: &Connection| connection.execute_batch(SCHEMA);
    let form = Form { look, ..FORM };
    let connection = database::open(site, &form, Some(&fill)).map_err(refused)?;
    let configure = || {
        prepare(&connection)?;
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.pragma_update(None, "cache_size", -32_768)?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)
    };
    configure().map_err(failed("configure"))?;
    Ok(connection)
}

/// Read-only connections, lent out one at a time. The lock is held for a push or a pop only.
#[derive(Debug)]
pub(super) struct Readers {
    site: Site,
    life: Arc<Life>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(site: Site, life: Arc<Life>) -> Self {
        Self {
            site,
            life,
            idle: Mutex::default(),
        }
    }

    /// Runs `look` on a connection of its own. Every statement in it sees the newest commit; wrap
    /// several in a transaction to see one.
    pub(super) fn with<T>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.life.serving()?;
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        let result = look(&connection);
        if let Err(StoreError::DamagedIndex(why)) = &result {
            self.life.stop_damaged(&self.site, why);
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_READERS_MAX {
            idle.push(connection);
        }
        drop(idle);
        // Again: what was read while the index stopped may be what did not reach the disk.
        self.life.serving()?;
        result
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let connection = database::connect(&self.site, &self.site.path, false, PATIENCE);
        let connection = connection.map_err(refused)?;
        let configure = || {
            prepare(&connection)?;
            connection.pragma_update(None, "query_only", true)
        };
        configure().map_err(failed("configure for reading"))?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use host::OsDisk;

    use super::*;

    fn site_in(dir: &tempfile::TempDir) -> Site {
        let directory = Directory::create(Arc::new(OsDisk), dir.path(), 0xff).unwrap();
        site(&directory, None)
    }

    #[test]
    fn an_index_of_another_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let site = site_in(&dir);
        drop(open_for_writing(&site, LOOK).unwrap());
        let set = |version: i64| {
            let index = Connection::open(&site.path).unwrap();
            index.pragma_update(None, "user_version", version).unwrap();
        };
        set(4);
        assert!(matches!(
            open_for_writing(&site, LOOK),
            Err(StoreError::NewerFormat { found: 4, known: 3 })
        ));
        set(1);
        assert!(matches!(
            open_for_writing(&site, LOOK),
            Err(StoreError::Corrupt(_))
        ));
    }

    #[test]
    fn a_foreign_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let site = site_in(&dir);
        Connection::open(&site.path)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        assert!(matches!(
            open_for_writing(&site, LOOK),
            Err(StoreError::Corrupt(_))
        ));
        std::fs::write(&site.path, [7; 8192]).unwrap();
        assert!(matches!(
            open_for_writing(&site, LOOK),
            Err(StoreError::Corrupt(_))
        ));
    }
}
