//! Where sealed records are kept.
//!
//! A [`KeyStore`] holds opaque records in four tables. It takes [`SealedRecord`]s, which only this
//! crate makes by sealing, so plaintext cannot be given to it; it returns [`StoredRecord`]s, which
//! are not trusted until they open under the table and id they were asked for.
//!
//! A store promises: a [`Batch`] is applied whole or not at all, and is durable when
//! [`KeyStore::commit`] returns `Ok`; a batch whose [`Expect`]ations do not hold changes nothing.
//! After any other error the batch may have been applied or not. It does not promise to notice
//! changed bytes: sealing does.

mod sqlite;

pub use sqlite::SqliteStore;

/// The tables. Their names are part of what records are sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// One record, id `store`: what the store is and which root key it needs.
    Header,
    /// A key's metadata; id: the key's 16 bytes.
    Key,
    /// One version of a key's material; id: the key's 16 bytes and the number, u32 big endian.
    Material,
    /// An alias; id: its name in UTF-8.
    Alias,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Header, Self::Key, Self::Material, Self::Alias];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Key => "key",
            Self::Material => "material",
            Self::Alias => "alias",
        }
    }
}

/// A record on its way to the store. Only this crate makes one, by sealing.
#[derive(Debug, Clone)]
pub struct SealedRecord(Vec<u8>);

impl SealedRecord {
    pub(crate) fn new(sealed: Vec<u8>) -> Self {
        Self(sealed)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A record as it came back: not trusted.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// Its id.
    pub id: Vec<u8>,
    /// How often it was written, from 1.
    pub version: u64,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no such record.
    Absent,
    /// There is, and it was written this often.
    Version(u64),
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Writes a record.
    Put {
        /// Where.
        table: Table,
        /// Its id.
        id: Vec<u8>,
        /// Only if this holds.
        expect: Expect,
        /// The record.
        record: SealedRecord,
    },
    /// Erases a record; its bytes are overwritten as far as the store can.
    Erase {
        /// Where.
        table: Table,
        /// Its id.
        id: Vec<u8>,
    },
}

/// Changes that happen together or not at all.
pub type Batch = Vec<Change>;

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An expectation did not hold: somebody else wrote. Nothing was changed.
    #[error("record of table {table} was changed by another writer")]
    Conflict {
        /// The table.
        table: &'static str,
    },
    /// The disk is full. Nothing was changed.
    #[error("the disk is full")]
    Full,
    /// The file is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The file was written by a newer version of this program.
    #[error("the store has format {found}, newer than the {known} this program knows")]
    Newer {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file is some other program's database.
    #[error("the file is not a key store")]
    Foreign,
    /// Another process has it open.
    #[error("the store is in use by another process")]
    InUse,
    /// Anything else; whether the change is durable is not known.
    #[error("{0}")]
    Io(String),
}

/// Keeps sealed records. Blocking: called on threads that may block, never on the event loop.
pub trait KeyStore: Send + Sync + 'static {
    /// One record.
    fn get(&self, table: Table, id: &[u8]) -> Result<Option<StoredRecord>, StoreError>;

    /// All records of a table, in the order of their ids.
    fn scan(&self, table: Table) -> Result<Vec<StoredRecord>, StoreError>;

    /// Applies `batch`; durable when it returns.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Makes erased records unrecoverable as far as the store can (truncates its log).
    fn purge(&self) -> Result<(), StoreError>;
}
