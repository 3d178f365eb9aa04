//! The crate's one error.

use std::{io, path::PathBuf};

use crate::id::RootKeyId;

/// A store key that cannot be had or changed, or a record key that does not fit. Each says whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The root key file ends too early or was changed: not a wrong key, a broken one.
    #[error("root key file {path} is damaged: {why}; restore it from its backup")]
    KeyFileDamaged {
        /// The file.
        path: PathBuf,
        /// What did not hold.
        why: &'static str,
    },
    /// The root key file was written by a newer version of this program.
    #[error("root key file {path} has format {found}, newer than this program knows")]
    KeyFileNewer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Others may read the root key file.
    #[error(
        "root key file {path} has mode {mode:03o}: others than its owner may use it: `chmod 600 {path}`"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The store exists and no root key does. Nothing was made in its place.
    #[error("no root key at {from}, but the store needs root key {needed}: restore it")]
    Missing {
        /// Where it was looked for.
        from: String,
        /// Public id of the root key that the store key is wrapped under.
        needed: RootKeyId,
    },
    /// A root key that is whole and another store's.
    #[error("root key {found} from {from} does not open this store: it needs root key {needed}")]
    WrongRootKey {
        /// Where the root key came from.
        from: String,
        /// Public id of the root key that the store key is wrapped under.
        needed: RootKeyId,
        /// Public id of the root key given.
        found: RootKeyId,
    },
    /// The store key is wrapped by a provider of another kind than the one configured.
    #[error("the store key is wrapped by a {needed}, and {from} is configured: set [root_key]")]
    WrongKind {
        /// The provider that is configured.
        from: String,
        /// The kind that is needed.
        needed: String,
    },
    /// The operator's: no passphrase was given, or one that cannot be used.
    #[error("passphrase: {0}")]
    Passphrase(&'static str),
    /// Both copies of the header are damaged or gone.
    #[error("root header {path} and its copy are damaged: {why}; restore both from a backup")]
    HeaderDamaged {
        /// The header.
        path: PathBuf,
        /// What did not hold, of each.
        why: String,
    },
    /// The header was written by a newer version of this program.
    #[error("root header {path} has version {found}, newer than this program knows")]
    HeaderNewer {
        /// The header.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// A store with records in it has no header.
    #[error(
        "root header {path} and its copy are gone, but the store holds data: restore them from a backup"
    )]
    HeaderMissing {
        /// The header.
        path: PathBuf,
    },
    /// The header is whole and was not written by who has the store key: it was changed by hand.
    #[error("root header {path} does not authenticate: it was changed; restore it from a backup")]
    HeaderForged {
        /// The header.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An earlier change of the header failed, and whether it took place is not known until the store is opened anew.
    #[error("an earlier change of the root header failed: restart before changing it again")]
    Unknown,
    /// The store key was rotated 2^32 times.
    #[error("the store key has no generation left")]
    Exhausted,
    /// The store's: a record is damaged, or does not belong where it was found.
    #[error("a record does not authenticate")]
    Unauthentic,
    /// The store's: a record names a generation of the store key that is not there any more, or not yet.
    #[error(
        "a record is sealed under generation {found} of the store key, which this store does not have"
    )]
    Generation {
        /// The generation that it names.
        found: u32,
    },
    /// An owner could not re-seal its records; the rotation stays open and both generations live.
    #[error("records of {owner} cannot be sealed again: {source}")]
    Reseal {
        /// Whose records.
        owner: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Ours: a task was cut off by the runtime shutting down.
    #[error("shutting down")]
    ShuttingDown,
}
