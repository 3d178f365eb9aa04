//! The embedded store.

use std::path::Path;

use super::{Batch, KeyStore, StoreError, StoredRecord, Table};

/// Records in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {}

impl SqliteStore {
    /// Opens the file at `path`, or makes it. Its directory must exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let _ = path;
        Err(StoreError::Foreign)
    }
}

impl KeyStore for SqliteStore {
    fn get(&self, _table: Table, _id: &[u8]) -> Result<Option<StoredRecord>, StoreError> {
        Err(StoreError::Foreign)
    }
    fn scan(&self, _table: Table) -> Result<Vec<StoredRecord>, StoreError> {
        Err(StoreError::Foreign)
    }
    fn commit(&self, _batch: &Batch) -> Result<(), StoreError> {
        Err(StoreError::Foreign)
    }
    fn purge(&self) -> Result<(), StoreError> {
        Err(StoreError::Foreign)
    }
}
