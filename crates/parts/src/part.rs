//! Which parts there are.

use std::fmt;

/// A part of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The record that wraps the store key.
    RootHeader,
    /// What exists. Keeps the marks of all others, and so has none itself.
    Catalogue,
    /// The account root's access key.
    Credentials,
    /// The audit log: its folder and its journal.
    Audit,
    /// The folder of all volumes, as such.
    Volumes,
    /// The folder of all objects, as such.
    Objects,
    /// Which objects there are.
    Index,
}

impl Part {
    /// All parts, in the order in which a start looks at them.
    pub const ALL: [Self; 7] = [
        Self::RootHeader,
        Self::Catalogue,
        Self::Credentials,
        Self::Audit,
        Self::Volumes,
        Self::Objects,
        Self::Index,
    ];

    /// Its name in commands and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RootHeader => "root-header",
            Self::Catalogue => "catalogue",
            Self::Credentials => "credentials",
            Self::Audit => "audit",
            Self::Volumes => "volumes",
            Self::Objects => "objects",
            Self::Index => "index",
        }
    }

    /// What stands for it in records and stamps.
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::RootHeader => 1,
            Self::Catalogue => 2,
            Self::Credentials => 3,
            Self::Audit => 4,
            Self::Volumes => 5,
            Self::Objects => 6,
            Self::Index => 7,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.to_byte() == byte)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
