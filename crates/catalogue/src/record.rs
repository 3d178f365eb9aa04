//! Where records stand, and how they come back.

use std::fmt;

use crypto::record::Place;
use host::entropy::{Entropy, uuid_text};

/// The name of a table: part of what its records are sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(&'static str);

impl Table {
    /// A table called `name`: 1 to 32 lower-case letters, digits and hyphens. Anything else does not compile in a
    /// `const`.
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 32, "1 to 32 characters");
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            assert!(
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
                "lower-case letters, digits and hyphens"
            );
            at += 1;
        }
        Self(name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whose a record is. Both parts are empty for what belongs to the whole store; otherwise each is at most 64 visible
/// ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Scope {
    /// The account.
    pub account: String,
    /// The region; empty for what belongs to the account everywhere.
    pub region: String,
}

/// A record's place in its table, account and region first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key {
    /// Whose.
    pub scope: Scope,
    /// Its id: 1 to 1024 bytes.
    pub id: Vec<u8>,
}

impl Key {
    /// The key `id` of `scope`.
    pub fn new(scope: Scope, id: impl Into<Vec<u8>>) -> Self {
        Self {
            scope,
            id: id.into(),
        }
    }

    /// Where version `version` of it is sealed for.
    pub fn place(&self, table: Table, version: u64) -> Place<'_> {
        Place {
            table: table.name(),
            account: &self.scope.account,
            region: &self.scope.region,
            id: &self.id,
            version,
        }
    }
}

/// A record as it came back: not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub key: Key,
    /// How often it was written, from 1.
    pub version: u64,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

impl Record {
    /// Where it must have been sealed for to open.
    pub fn place(&self, table: Table) -> Place<'_> {
        self.key.place(table, self.version)
    }
}

/// Which store this is: 16 random bytes, drawn when it was made. Every part of a data directory carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// A new one.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self(entropy.uuid())
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&uuid_text(&self.0))
    }
}

/// The number of a commit: rises by one from one to the next, from 1. 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

/// Some records of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The records, in the order of their keys.
    pub records: Vec<Record>,
    /// What to ask for after, if there may be more.
    pub next: Option<Key>,
}

/// One record that a commit wrote or erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// By which commit.
    pub sequence: Sequence,
    /// Its table's name. Not a [`Table`]: another program may have tables that this one does not know.
    pub table: String,
    /// Its key.
    pub key: Key,
    /// Its version now; `None` if it was erased.
    pub version: Option<u64>,
}

/// Some changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The changes, oldest first.
    pub changes: Vec<Changed>,
    /// What to ask for after.
    pub upto: Sequence,
}
