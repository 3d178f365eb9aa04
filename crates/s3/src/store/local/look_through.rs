//! A look at every page of the index while the store is open: for one that is too long to be read before a start.
//!
//! It goes through the tables in short steps, each a view of its own: one long view would keep the log of the index
//! from starting over for as long as it lasts. Free pages are not looked at, and hold nothing.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::LocalStore;
use super::schema::failed;
use crate::store::StoreError;

/// Rows a step; inline objects have 64 KiB each at most.
const ROWS_A_STEP: usize = 256;

/// The tables, and what they are sorted by.
const TABLES: [(&str, &[&str]); 8] = [
    ("meta", &["name"]),
    ("stamp", &["id"]),
    ("bucket", &["id"]),
    ("object", &["bucket", "key"]),
    ("inline", &["content"]),
    ("upload", &["bucket", "key", "content"]),
    ("part", &["content", "number"]),
    ("intent", &["file"]),
];

/// Where a look through the index has come to.
#[derive(Debug, Clone, Default)]
pub struct Through {
    table: usize,
    after: Option<Vec<Value>>,
    /// Rows that were read.
    pub rows: u64,
}

impl LocalStore {
    /// Reads the next rows of the index after `from`, every byte of them; `None` at the end. Where SQLite finds a page
    /// damaged the store stops, as it does when a request comes upon one, and the next start says so. Cancel-safe.
    pub async fn look_through(&self, from: Through) -> Result<Option<Through>, StoreError> {
        self.look(move |index| step(index, from)).await
    }
}

fn step(index: &Connection, from: Through) -> Result<Option<Through>, StoreError> {
    let what = "look through the index";
    let Some((table, columns)) = TABLES.get(from.table) else {
        return Ok(None);
    };
    let keys = columns.join(", ");
    let filter = match &from.after {
        Some(_) => format!("WHERE ({keys}) > ({})", vec!["?"; columns.len()].join(", ")),
        None => String::new(),
    };
    // The keys come first, to go on from.
    let sql = format!("SELECT {keys}, * FROM {table} {filter} ORDER BY {keys} LIMIT {ROWS_A_STEP}");
    let mut statement = index.prepare_cached(&sql).map_err(failed(what))?;
    let width = statement.column_count();
    let after = from.after.iter().flatten();
    let mut rows = statement
        .query(params_from_iter(after))
        .map_err(failed(what))?;
    let (mut found, mut last) = (0, None);
    while let Some(row) = rows.next().map_err(failed(what))? {
        // A long value is on pages of its own, which are read with it.
        for column in columns.len()..width {
            row.get_ref(column).map_err(failed(what))?;
        }
        let key = (0..columns.len()).map(|column| row.get(column));
        last = Some(key.collect::<Result<_, _>>().map_err(failed(what))?);
        found += 1;
    }
    let full = found == ROWS_A_STEP;
    Ok(Some(Through {
        table: from.table + usize::from(!full),
        after: last.filter(|_| full),
        rows: from.rows + found as u64,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use crypto::random::SystemRandom;

    use super::super::{Options, stamp};
    use super::*;
    use crate::store::ObjectStore as _;

    const PAGE: usize = 4096;

    fn options(dir: &std::path::Path) -> Options {
        let mut options = Options::new(dir, Arc::new(SystemRandom));
        // As if it were too long to be read before the start.
        options.looked_at = true;
        options
    }

    /// A store with so many uploads that its index has many pages, closed.
    async fn filled(dir: &std::path::Path) -> u64 {
        let store = LocalStore::open(options(dir)).unwrap();
        store.create_bucket("one").await.unwrap();
        for n in 0..600 {
            let envelope = bytes::Bytes::from(vec![7; 300]);
            let key = format!("key-{n:04}");
            let made = store.create_upload("one", &key, envelope, UNIX_EPOCH);
            made.await.unwrap();
        }
        let rows = through(&store).await.unwrap();
        store.close().await;
        rows
    }

    async fn through(store: &LocalStore) -> Result<u64, StoreError> {
        let mut at = Through::default();
        let mut rows = 0;
        while let Some(next) = store.look_through(at).await? {
            rows = next.rows;
            at = next;
        }
        Ok(rows)
    }

    fn damage(dir: &std::path::Path, page: usize) -> Vec<u8> {
        let path = dir.join("index.db");
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0xa5);
        std::fs::write(path, bytes).unwrap();
        whole
    }

    #[tokio::test]
    async fn every_row_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let rows = filled(dir.path()).await;
        // Uploads, the bucket, what is said of the store, and the intents of names that were drawn ahead.
        assert!((603..=603 + 128).contains(&rows), "{rows}");
    }

    #[tokio::test]
    async fn a_damaged_page_stops_the_store_wherever_it_is_and_the_next_start_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let index = dir.path().join("index.db");
        let pages = usize::try_from(index.metadata().unwrap().len()).unwrap() / PAGE;
        assert!(pages > 40, "{pages} pages are too few");
        let mut found_late = 0;
        // The first has the header; without it there is no index.
        for page in 1..pages {
            let whole = damage(dir.path(), page);
            let found = match LocalStore::open(options(dir.path())) {
                Err(error) => Err(error),
                Ok(store) => {
                    let found = through(&store).await;
                    if found.is_err() {
                        found_late += 1;
                        store.stopped().await;
                        let why = store.healthy().unwrap_err().to_string();
                        assert!(why.contains("the object index is damaged"), "{why}");
                        let change = store.create_bucket("two").await;
                        assert!(matches!(change, Err(StoreError::Stopped(_))), "{change:?}");
                    }
                    store.close().await;
                    drop(store);
                    if found.is_err() {
                        // What was marked is looked at whole from now on, however long it is.
                        let again = stamp::inspect(dir.path(), false);
                        assert!(
                            matches!(again, Err(StoreError::DamagedIndex(_))),
                            "{again:?}"
                        );
                    }
                    found.map(drop)
                }
            };
            assert!(found.is_err(), "page {page}");
            for name in ["index.db-wal", "index.db-shm", "index.db.failed"] {
                let _ = std::fs::remove_file(dir.path().join(name));
            }
            std::fs::write(&index, whole).unwrap();
        }
        assert!(found_late > pages / 2, "{found_late} of {pages}");
        stamp::inspect(dir.path(), true).unwrap();
    }

    #[tokio::test]
    async fn a_change_that_comes_upon_a_damaged_page_is_refused_and_stops_the_store() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let index = dir.path().join("index.db");
        let pages = usize::try_from(index.metadata().unwrap().len()).unwrap() / PAGE;
        let mut stopped = 0;
        for page in 1..pages {
            let whole = damage(dir.path(), page);
            if let Ok(store) = LocalStore::open(options(dir.path())) {
                let envelope = bytes::Bytes::from_static(b"new");
                let made = store.create_upload("one", "key-0300", envelope, UNIX_EPOCH);
                match made.await {
                    Ok(_) => store.healthy().unwrap(),
                    Err(error) => {
                        assert!(
                            matches!(error, StoreError::DamagedIndex(_)),
                            "page {page}: {error}"
                        );
                        store.healthy().unwrap_err();
                        stopped += 1;
                    }
                }
                store.close().await;
            }
            for name in ["index.db-wal", "index.db-shm", "index.db.failed"] {
                let _ = std::fs::remove_file(dir.path().join(name));
            }
            std::fs::write(&index, whole).unwrap();
        }
        assert!(stopped > 0);
    }
}
