//! The embedded store: one SQLite file in WAL mode, synced at every commit.
//!
//! The file is opened with an exclusive lock and stays so; `PRAGMA application_id` says whose it is
//! and `PRAGMA user_version` which format, both looked at before anything is changed. Erased rows
//! are overwritten with zeros (`secure_delete`), and [`KeyStore::purge`] empties the write-ahead
//! log, which is as far as a file can go: what a disk keeps of old blocks is out of reach.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params};

use super::{Batch, Change, Expect, KeyStore, StoreError, StoredRecord, Table};

/// `SGKR`: a Sealgate keyring.
const APPLICATION_ID: i64 = 0x5347_4b52;
/// The format this program writes, and the newest it reads.
const FORMAT: i64 = 1;

/// Records in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it (mode 0600). Its directory must exist. A file that is
    /// another's, newer, damaged or in use is refused and not changed.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // SQLite gives its own log files the mode of the database.
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?;
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        // Long enough for a process that is just ending, not for one that runs.
        connection.busy_timeout(Duration::from_millis(500))?;
        let fresh = identify(&connection)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        let mut store = Self {
            connection: Mutex::new(connection),
        };
        if fresh {
            store.create()?;
        } else {
            store.check()?;
        }
        Ok(store)
    }

    fn create(&mut self) -> Result<(), StoreError> {
        let transaction = self.connection.get_mut().transaction()?;
        for table in Table::ALL {
            transaction.execute_batch(&format!(
                "CREATE TABLE {} (id BLOB PRIMARY KEY, version INTEGER NOT NULL, \
                 sealed BLOB NOT NULL) STRICT, WITHOUT ROWID;",
                table.name()
            ))?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        let verdict: String =
            self.connection
                .lock()
                .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict == "ok" {
            Ok(())
        } else {
            Err(StoreError::Damaged(verdict))
        }
    }
}

/// Whether the file is empty; an error unless it is that or ours.
fn identify(connection: &Connection) -> Result<bool, StoreError> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
    let application: i64 = number("application_id")?;
    let format: i64 = number("user_version")?;
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, format, objects) {
        (0, 0, 0) => Ok(true),
        (APPLICATION_ID, FORMAT, _) => Ok(false),
        (APPLICATION_ID, found, _) if found > FORMAT => Err(StoreError::Newer {
            found,
            known: FORMAT,
        }),
        _ => Err(StoreError::Foreign),
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord {
        id: row.get(0)?,
        version: row.get::<_, i64>(1)?.try_into().map_err(|_| {
            rusqlite::Error::IntegralValueOutOfRange(1, row.get(1).unwrap_or_default())
        })?,
        sealed: row.get(2)?,
    })
}

impl KeyStore for SqliteStore {
    fn get(&self, table: Table, id: &[u8]) -> Result<Option<StoredRecord>, StoreError> {
        let connection = self.connection.lock();
        let sql = format!(
            "SELECT id, version, sealed FROM {} WHERE id = ?1",
            table.name()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        Ok(statement.query_row([id], record).optional()?)
    }

    fn scan(&self, table: Table) -> Result<Vec<StoredRecord>, StoreError> {
        let connection = self.connection.lock();
        let sql = format!(
            "SELECT id, version, sealed FROM {} ORDER BY id",
            table.name()
        );
        let mut statement = connection.prepare(&sql)?;
        let records = statement
            .query_map([], record)?
            .collect::<rusqlite::Result<_>>()?;
        Ok(records)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut connection = self.connection.lock();
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for change in batch {
            let (table, changed) = match change {
                Change::Put {
                    table,
                    id,
                    expect: Expect::Absent,
                    record,
                } => {
                    let sql = format!(
                        "INSERT INTO {} (id, version, sealed) VALUES (?1, 1, ?2) \
                         ON CONFLICT DO NOTHING",
                        table.name()
                    );
                    let mut statement = transaction.prepare_cached(&sql)?;
                    (table, statement.execute(params![id, record.as_bytes()])?)
                }
                Change::Put {
                    table,
                    id,
                    expect: Expect::Version(version),
                    record,
                } => {
                    let sql = format!(
                        "UPDATE {} SET version = version + 1, sealed = ?2 \
                         WHERE id = ?1 AND version = ?3",
                        table.name()
                    );
                    let mut statement = transaction.prepare_cached(&sql)?;
                    // A version past i64 was never written, so it is nobody's.
                    let version = i64::try_from(*version).unwrap_or(-1);
                    let parameters = params![id, record.as_bytes(), version];
                    (table, statement.execute(parameters)?)
                }
                Change::Erase { table, id } => {
                    let sql = format!("DELETE FROM {} WHERE id = ?1", table.name());
                    (table, transaction.prepare_cached(&sql)?.execute([id])?)
                }
            };
            if changed != 1 {
                // Dropped, the transaction rolls back.
                return Err(StoreError::Conflict {
                    table: table.name(),
                });
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn purge(&self) -> Result<(), StoreError> {
        let connection = self.connection.lock();
        // A checkpoint that could not run answers so in a row and not as an error.
        let blocked: i64 =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if blocked == 0 {
            Ok(())
        } else {
            Err(StoreError::InUse)
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            _ => Self::Io(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SealedRecord;

    fn put(id: &[u8], expect: Expect, bytes: &[u8]) -> Change {
        Change::Put {
            table: Table::Key,
            id: id.to_vec(),
            expect,
            record: SealedRecord::new(bytes.to_vec()),
        }
    }

    #[test]
    fn records_are_found_again_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.db");
        let store = SqliteStore::open(&path).unwrap();
        store
            .commit(&vec![
                put(b"b", Expect::Absent, b"2"),
                put(b"a", Expect::Absent, b"1"),
            ])
            .unwrap();
        store
            .commit(&vec![put(b"a", Expect::Version(1), b"11")])
            .unwrap();
        drop(store);
        let store = SqliteStore::open(&path).unwrap();
        let records = store.scan(Table::Key).unwrap();
        let seen: Vec<_> = records
            .iter()
            .map(|r| (&r.id[..], r.version, &r.sealed[..]))
            .collect();
        assert_eq!(seen, [(&b"a"[..], 2, &b"11"[..]), (b"b", 1, b"2")]);
        assert!(store.get(Table::Alias, b"a").unwrap().is_none());
    }

    #[test]
    fn a_batch_whose_expectations_fail_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("keyring.db")).unwrap();
        store
            .commit(&vec![put(b"a", Expect::Absent, b"1")])
            .unwrap();
        for bad in [
            put(b"a", Expect::Absent, b"x"),
            put(b"a", Expect::Version(2), b"x"),
            put(b"c", Expect::Version(1), b"x"),
            Change::Erase {
                table: Table::Key,
                id: b"c".to_vec(),
            },
        ] {
            let batch = vec![put(b"new", Expect::Absent, b"n"), bad];
            let error = store.commit(&batch).unwrap_err();
            assert!(matches!(error, StoreError::Conflict { table: "key" }));
            assert!(store.get(Table::Key, b"new").unwrap().is_none());
        }
        assert_eq!(store.get(Table::Key, b"a").unwrap().unwrap().sealed, b"1");
    }

    #[test]
    fn a_newer_a_foreign_and_a_damaged_file_are_told_apart_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.db");
        drop(SqliteStore::open(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 7)
            .unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(
            SqliteStore::open(&path).unwrap_err(),
            StoreError::Newer { found: 7, known: 1 }
        ));
        assert_eq!(std::fs::read(&path).unwrap(), before);

        let path = dir.path().join("foreign.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        assert!(matches!(
            SqliteStore::open(&path).unwrap_err(),
            StoreError::Foreign
        ));
        std::fs::write(&path, b"no database at all, but longer than a header of one is: 100 bytes, so that SQLite reads it as such.").unwrap();
        assert!(matches!(
            SqliteStore::open(&path).unwrap_err(),
            StoreError::Foreign
        ));
    }

    #[test]
    fn a_corrupt_page_is_refused_at_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.db");
        let store = SqliteStore::open(&path).unwrap();
        let batch = (0..200_u32)
            .map(|id| put(&id.to_be_bytes(), Expect::Absent, &[7; 300]))
            .collect();
        store.commit(&batch).unwrap();
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() / 2 / 4096 * 4096;
        bytes[at..at + 64].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            SqliteStore::open(&path).unwrap_err(),
            StoreError::Damaged(_)
        ));
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.db");
        let _first = SqliteStore::open(&path).unwrap();
        assert!(matches!(
            SqliteStore::open(&path).unwrap_err(),
            StoreError::InUse
        ));
    }

    #[test]
    fn erased_bytes_are_in_no_file_after_a_purge() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("keyring.db")).unwrap();
        store
            .commit(&vec![put(b"a", Expect::Absent, b"needle-in-the-store")])
            .unwrap();
        store
            .commit(&vec![Change::Erase {
                table: Table::Key,
                id: b"a".to_vec(),
            }])
            .unwrap();
        store.purge().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(19).any(|w| w == b"needle-in-the-store"));
        }
    }
}
