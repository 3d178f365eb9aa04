//! The root key: what every record is sealed under, and the providers it comes from.

use std::path::PathBuf;

use crypto::{random::Random, record::RootKey};

use crate::{error::KeyringError, store::KeyStore};

/// A root key that cannot be had. The operator's fault, or the file's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootKeyError {
    /// The file ends too early or was changed: not a wrong key, a broken one.
    #[error("root key file {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What did not hold.
        why: &'static str,
    },
    /// Written by a newer version of this program.
    #[error("root key file {path} has format {found}, newer than this program knows")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Others may read the file.
    #[error("root key file {path} must not be accessible to others: mode {mode:o}, expected 600")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The store exists and no root key does: making one would lock every key out for good.
    #[error("there is a key store but no root key at {from}: the store needs root key {needed}")]
    Missing {
        /// Where it was looked for.
        from: String,
        /// Public id of the root key the store was made with.
        needed: String,
    },
    /// The file cannot be read or written.
    #[error("root key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Where a root key comes from.
pub trait RootKeyProvider: Send + Sync {
    /// The root key, or `None` if there is none yet.
    fn load(&self) -> Result<Option<RootKey>, RootKeyError>;

    /// Makes a root key and keeps it durably. Never replaces one.
    fn create(&self, random: &dyn Random) -> Result<RootKey, RootKeyError>;

    /// Where it comes from, for messages.
    fn describe(&self) -> String;
}

/// A file of mode 0600.
#[derive(Debug, Clone)]
pub struct FileProvider {
    path: PathBuf,
}

impl FileProvider {
    /// The root key in the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

/// The root key from `provider`; made if there is none and `store` is empty, never if `store`
/// holds keys that need another one.
pub fn load_or_create(
    provider: &dyn RootKeyProvider,
    store: &dyn KeyStore,
    random: &dyn Random,
) -> Result<RootKey, KeyringError> {
    let _ = (provider, store, random);
    Err(KeyringError::ShuttingDown)
}

impl RootKeyProvider for FileProvider {
    fn load(&self) -> Result<Option<RootKey>, RootKeyError> {
        Ok(None)
    }
    fn create(&self, _random: &dyn Random) -> Result<RootKey, RootKeyError> {
        Err(RootKeyError::Missing {
            from: self.describe(),
            needed: String::new(),
        })
    }
    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
