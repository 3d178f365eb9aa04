//! The stamp of the index: opaque bytes in a row of it, by which the rest of a data directory knows it.
//!
//! It stands in the index and not beside it, so an index without its log, or one that was put in its place, carries an
//! older stamp or another.

use std::path::Path;

use catalogue::database::{self, Look, Site};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::layout::Directory;
use super::schema::{self, APPLICATION_ID, FORM, VERSION, failed, refused};
use super::{LocalStore, hold, intents};
use crate::store::StoreError;

impl LocalStore {
    /// The stamp; `None` before the first.
    pub async fn stamp(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.look(read_row).await
    }

    /// Writes the stamp; durable on return. Cancelled, it is written or not.
    pub async fn set_stamp(&self, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.change(move |batch| write_row(batch.index, &bytes))
            .await
    }

    /// Rises with every change of the index that was asked for, since the store was opened.
    pub fn changes_submitted(&self) -> u64 {
        self.shared.writer.submitted()
    }
}

/// Looks for damage in the index of the store in `dir`, whose owner must be stopped, and reads its stamp; `None` if there
/// is no index, or none in it. One that is longer than a start has time for is looked at page by page only if `whole` is
/// set, or if it has stopped for damage. No byte of index or log is changed. Blocks.
///
/// # Errors
/// [`StoreError::NewerFormat`], [`StoreError::Corrupt`], [`StoreError::DamagedIndex`], and those of the machine.
pub fn inspect(dir: &Path, whole: bool) -> Result<Option<Vec<u8>>, StoreError> {
    let site = schema::site(&Directory::at(dir), None);
    let path = database::newest(&site).map_err(refused)?;
    let io = |e| StoreError::io("look at the index", e);
    if !path.try_exists().map_err(io)? {
        return Ok(None);
    }
    let len = path.metadata().map_err(io)?.len();
    if len == 0 {
        // Made, and nothing written: the first start did not come further.
        return Ok(None);
    }
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    let had_log = Path::new(&log).try_exists().map_err(io)?;
    let extent = match whole || database::is_marked(&site) {
        true => Look::Whole,
        false => schema::LOOK,
    };
    let outcome = look(&site, &path, extent);
    if !had_log {
        // SQLite makes an empty one.
        match std::fs::remove_file(&log) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    outcome
}

fn look(site: &Site, path: &Path, extent: Look) -> Result<Option<Vec<u8>>, StoreError> {
    // Alone with it, the log's index is kept in memory; and the log stays where it is.
    let index = database::connect(site, path, true, site.patience).map_err(refused)?;
    let number = |name| {
        index
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(failed("read the version"))
    };
    let version = number("user_version")?;
    if version > VERSION {
        return Err(StoreError::NewerFormat {
            found: u32::try_from(version).unwrap_or(u32::MAX),
            known: u32::try_from(VERSION).unwrap_or(u32::MAX),
        });
    }
    let owner = number("application_id")?;
    let known = (APPLICATION_ID, VERSION);
    if (owner, version) == (0, 0) {
        // Not yet filled, if it is whole.
    } else if (owner, version) != known {
        return Err(StoreError::Corrupt(format!(
            "index.db is not an object index (owner {owner:#x}, version {version})"
        )));
    }
    database::look(&index, extent).map_err(refused)?;
    if owner == 0 {
        return Ok(None);
    }
    read_row(&index)
}

/// Writes the stamp of a store that is stopped, durably, and leaves every data file where it is, whether the index names it
/// or not: an index that is behind may have intents for files that have become objects since, and names too few. The next
/// start puts what nothing names into the quarantine. Blocks.
pub fn replace(dir: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let directory = Directory::at(dir);
    let lock = hold(&directory)?;
    let site = schema::site(&directory, None);
    let index = schema::open_for_writing(&site, schema::LOOK)?;
    let failed = |error| failed("write the stamp")(error);
    let transaction = index.unchecked_transaction().map_err(failed)?;
    intents::clear(&index)?;
    write_row(&index, bytes)?;
    index
        .execute("UPDATE meta SET value = 0 WHERE name = 'clean'", [])
        .map_err(failed)?;
    transaction.commit().map_err(failed)?;
    database::checkpoint(&index, &site, &FORM, "TRUNCATE").map_err(failed)?;
    drop(index);
    drop(lock);
    Ok(())
}

/// Whether the store in `dir` has any data file. Blocks.
pub fn has_data(dir: &Path) -> std::io::Result<bool> {
    let directory = Directory::at(dir);
    for fan in 0..=0xff {
        match std::fs::read_dir(directory.folder(fan)) {
            Ok(mut files) => {
                if files.next().is_some() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn read_row(index: &Connection) -> Result<Option<Vec<u8>>, StoreError> {
    index
        .query_row("SELECT bytes FROM stamp WHERE id = 0", [], |row| row.get(0))
        .optional()
        .map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::Unknown) => StoreError::DamagedIndex(error.to_string()),
            _ => failed("read the stamp")(error),
        })
}

fn write_row(index: &Connection, bytes: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT INTO stamp VALUES (0, ?1) ON CONFLICT (id) DO UPDATE SET bytes = ?1";
    index
        .execute(sql, [bytes])
        .map(drop)
        .map_err(failed("write the stamp"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crypto::random::SystemRandom;

    use super::super::Options;
    use super::*;
    use crate::store::ObjectStore as _;

    fn options(dir: &Path) -> Options {
        Options::new(dir, Arc::new(SystemRandom))
    }

    #[tokio::test]
    async fn the_stamp_is_in_the_index_and_its_log() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inspect(dir.path(), false).unwrap(), None);
        let store = LocalStore::open(options(dir.path())).unwrap();
        assert_eq!(store.stamp().await.unwrap(), None);
        let before = store.changes_submitted();
        store.set_stamp(b"one".to_vec()).await.unwrap();
        store.set_stamp(b"two".to_vec()).await.unwrap();
        assert!(store.changes_submitted() > before);
        assert_eq!(store.stamp().await.unwrap().unwrap(), b"two");
        // Copied as it stands, log and all: what a killed process leaves.
        let killed = tempfile::tempdir().unwrap();
        for name in ["index.db", "index.db-wal"] {
            std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
        }
        let bytes = |name| std::fs::read(killed.path().join(name)).unwrap();
        let was = (bytes("index.db"), bytes("index.db-wal"));
        assert_eq!(inspect(killed.path(), false).unwrap().unwrap(), b"two");
        assert!((bytes("index.db"), bytes("index.db-wal")) == was);
        std::fs::remove_file(killed.path().join("index.db-wal")).unwrap();
        assert_ne!(
            inspect(killed.path(), false).ok().flatten().as_deref(),
            Some(&b"two"[..])
        );
        store.close().await;
        drop(store);
        assert_eq!(inspect(dir.path(), false).unwrap().unwrap(), b"two");
        replace(dir.path(), b"three").unwrap();
        assert_eq!(inspect(dir.path(), false).unwrap().unwrap(), b"three");
        // A copy was about to take the index's place, whose log is gone: it is what the next start goes on from.
        let index = dir.path().join("index.db");
        std::fs::copy(&index, dir.path().join("index.db.renewed")).unwrap();
        std::fs::write(&index, b"torn").unwrap();
        assert_eq!(inspect(dir.path(), false).unwrap().unwrap(), b"three");
        let store = LocalStore::open(options(dir.path())).unwrap();
        store.create_bucket("one").await.unwrap();
        store.close().await;
    }
}
