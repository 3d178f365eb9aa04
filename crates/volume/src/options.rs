//! What a registry is made of.

use std::{path::PathBuf, sync::Arc};

use audit::AuditLog;
use catalogue::Catalogue;
use crypto::random::Random;
use host::{Clock, Disk};
use iam::{Authorizer, Region};
use keyring::Keyring;
use root::StoreKey;

/// Whether volumes may be made that are not encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionPolicy {
    /// Whether volumes are encrypted although their requests do not ask for it, as long as nobody has said otherwise
    /// ([`Volumes::disable_encryption_by_default`](crate::Volumes::disable_encryption_by_default)).
    pub by_default: bool,
    /// Whether there is no other way: what would make a plaintext volume possible is refused.
    pub required: bool,
}

impl Default for EncryptionPolicy {
    /// By default and not required.
    fn default() -> Self {
        Self {
            by_default: true,
            required: false,
        }
    }
}

/// What a registry is made of.
pub struct Options {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// Where volumes live, a folder each. Made if it is not there.
    pub dir: PathBuf,
    /// Says which volumes there are.
    pub catalogue: Arc<dyn Catalogue>,
    /// What rows and copies are sealed under, so that a sealed volume cannot be passed off as a plain one; of the same
    /// store as the catalogue.
    pub store_key: StoreKey,
    /// Wraps and unwraps data keys.
    pub keyring: Arc<Keyring>,
    /// Decides again about what is attached; whose account it decides for is whose volumes these are.
    pub authorizer: Arc<Authorizer>,
    /// Where attachments and changes of volumes and their defaults are recorded; one that takes no records lets none be made.
    pub audit: AuditLog,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and nonces.
    pub random: Arc<dyn Random>,
    /// The boot of the machine, if it is known: whether what an earlier process did not sync can still be there.
    pub boot: Option<host::BootId>,
    /// In which region they say they are.
    pub region: Region,
    /// Whether volumes may be made that are not encrypted.
    pub encryption: EncryptionPolicy,
    /// Most volumes that may exist.
    pub volumes_max: usize,
}
