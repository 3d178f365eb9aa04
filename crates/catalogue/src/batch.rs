//! Changes that happen together or not at all.

use crypto::record::SealedRecord;

use crate::record::{Key, Table};

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no such record.
    Absent,
    /// There is, and it was written this often.
    Version(u64),
}

impl Expect {
    /// The version of a record that is put on this expectation: what it is to be sealed for.
    pub fn next_version(self) -> u64 {
        match self {
            Self::Absent => 1,
            // No store counts that far: the expectation does not hold, and the number is not used.
            Self::Version(version) => version.saturating_add(1),
        }
    }

    /// Whether it holds for a record that has `version`, or none.
    pub fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::Absent => version.is_none(),
            Self::Version(expected) => version == Some(expected),
        }
    }
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Writes a record, sealed for [`Expect::next_version`].
    Put {
        /// In which table.
        table: Table,
        /// Where.
        key: Key,
        /// Only if this holds.
        expect: Expect,
        /// The record.
        record: SealedRecord,
    },
    /// Erases a record; its bytes are overwritten as far as the store can.
    Erase {
        /// From which table.
        table: Table,
        /// Where.
        key: Key,
        /// Only if it was written this often.
        version: u64,
    },
    /// Writes nothing.
    Check {
        /// In which table.
        table: Table,
        /// Where.
        key: Key,
        /// The batch happens only if this holds.
        expect: Expect,
    },
}

impl Write {
    /// The record that it is about.
    pub fn target(&self) -> (Table, &Key) {
        match self {
            Self::Put { table, key, .. }
            | Self::Erase { table, key, .. }
            | Self::Check { table, key, .. } => (*table, key),
        }
    }

    /// What must hold for it to happen.
    pub fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Check { expect, .. } => *expect,
            Self::Erase { version, .. } => Expect::Version(*version),
        }
    }
}

/// Changes that happen together or not at all: 1 to [`BATCH_STEPS_MAX`](crate::limits::BATCH_STEPS_MAX) steps, in
/// which a record is named once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    writes: Vec<Write>,
}

impl Batch {
    /// A batch of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record to be written on `expect`; it must be sealed for [`Expect::next_version`].
    #[must_use]
    pub fn put(mut self, table: Table, key: Key, expect: Expect, record: SealedRecord) -> Self {
        self.push(Write::Put {
            table,
            key,
            expect,
            record,
        });
        self
    }

    /// Adds a record to be erased.
    #[must_use]
    pub fn erase(mut self, table: Table, key: Key, version: u64) -> Self {
        self.push(Write::Erase {
            table,
            key,
            version,
        });
        self
    }

    /// Adds an expectation alone.
    #[must_use]
    pub fn check(mut self, table: Table, key: Key, expect: Expect) -> Self {
        self.push(Write::Check { table, key, expect });
        self
    }

    /// Adds a step.
    pub fn push(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Its steps, in order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether it has no step.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}
