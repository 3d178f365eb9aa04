//! The crate's one error: a variant for each thing a caller would do differently, and whose fault it is.
//!
//! Two readers turn it into their own codes, each in one place: the block protocol by [`VolumeError::kind`],
//! the EC2 API by [`VolumeError::code`].

use std::{io, path::PathBuf, sync::Arc};

use audit::AuditError;
use catalogue::CatalogueError;
use keyring::KeyringError;

use crate::id::{MalformedId, VolumeId};

/// Why a volume did not do what was asked. Cheap to clone, since one failed sync is the answer to many requests.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// Caller: no such volume.
    #[error("The volume '{0}' does not exist.")]
    NotFound(String),
    /// Caller: text that is no volume id.
    #[error(transparent)]
    MalformedId(#[from] MalformedId),
    /// Caller: two volumes have the tag `Name` by which an export was asked for.
    #[error("more than one volume is named '{0}'; use a volume id")]
    AmbiguousName(String),
    /// Caller: it is attached.
    #[error("Volume {0} is currently attached.")]
    InUse(VolumeId),
    /// Caller: a parameter outside its bounds.
    #[error("{0}")]
    InvalidParameter(String),
    /// Caller: the client token was used for another request.
    #[error("The client token was used before with other parameters.")]
    IdempotentParameterMismatch,
    /// Caller: too many volumes.
    #[error("The maximum of {0} volumes is reached.")]
    TooMany(usize),
    /// Ours: the permission given is for another resource than the one asked for. Nothing was done.
    #[error("the permission is for another resource than {0}")]
    PermissionMismatch(String),
    /// Caller: a plaintext volume, where the operator has forbidden them.
    #[error("Volumes that are not encrypted are not permitted on this gateway.")]
    EncryptionRequired,
    /// Caller: a key for a volume that is not to be encrypted.
    #[error("The parameter KmsKeyId requires the parameter Encrypted to be set.")]
    KeyWithoutEncryption,
    /// The key's: it is disabled, gone, not permitted. The keyring's own error says which.
    #[error("{0}")]
    Key(Arc<KeyringError>),
    /// Caller: bytes outside the volume.
    #[error("{len} bytes at {offset} reach past the end of the volume")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// The store's: it is full. The volume goes on.
    #[error("no space left for the volume")]
    NoSpace,
    /// The store's: one read or write failed. The volume goes on.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The store's: a repair could not tell what these sectors hold. They can be written, and trimmed.
    #[error("the sector at byte {offset} was marked by a repair: what it held is not known")]
    Marked {
        /// Of its first byte, in the volume.
        offset: u64,
    },
    /// The store's: what was acknowledged may be lost, so the volume does nothing more until it is attached again.
    #[error("the volume has failed and must be attached again: {0}")]
    Failed(Arc<str>),
    /// The store's: a file is damaged, forged, or not this volume's. It is not opened.
    #[error("{file} is damaged at byte {at}: {why}")]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where.
        at: u64,
        /// What did not hold.
        why: &'static str,
    },
    /// The store's: a volume's map is lost, and so are the owners of some slots that hold data: which chunks these are is
    /// not known. Nothing was changed; a repair that accepts the loss goes on without them.
    #[error(
        "the map is lost and {slots} slots have no readable owner: `--accept-loss` goes on without what they hold"
    )]
    CannotRepair {
        /// How many.
        slots: u64,
    },
    /// The store's: a volume's row in the catalogue is damaged, forged, or another one's. That volume alone is not served;
    /// `doctor --rebuild` makes the row again from the volume's folder.
    #[error("the catalogue's row of volume {id} is damaged: {why}")]
    DamagedRow {
        /// The row's id in hexadecimal.
        id: String,
        /// What did not hold.
        why: &'static str,
    },
    /// The store's: the record of what new volumes get is damaged or forged. None is made without its encryption being
    /// named.
    #[error("the catalogue's record of the default encryption is damaged: {why}")]
    DamagedDefault {
        /// What did not hold.
        why: &'static str,
    },
    /// The store's: a volume's folder is not there, or not as the volume's row says. That volume alone is not served.
    #[error("the folder of volume {0} is missing")]
    FolderMissing(VolumeId),
    /// The store's: the catalogue did not do it. Which errors may have changed something it says itself.
    #[error(transparent)]
    Catalogue(Arc<CatalogueError>),
    /// The store's: the audit log took no record. Without the intent's nothing was changed, without the outcome's it was.
    #[error("the change could not be recorded: {0}")]
    Audit(Arc<AuditError>),
    /// The store's: it is not known whether the change was made, before the volumes are opened anew.
    #[error("whether the change was made is not known: {0}")]
    Unknown(Arc<str>),
    /// An operator's: the catalogue is that of one store, the store key that of another.
    #[error("the catalogue is not that of the store key's store")]
    WrongStore,
    /// Ours or an operator's: the volume's files are held by another process.
    #[error("the files of volume {0} are in use by another process")]
    Locked(VolumeId),
    /// Ours: the runtime is going away.
    #[error("the volumes are shutting down")]
    ShuttingDown,
}

/// What a block protocol needs to know of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// `EINVAL`; of a write, `ENOSPC`.
    OutOfRange,
    /// `ENOSPC`.
    NoSpace,
    /// `EPERM`: the key or the caller.
    Denied,
    /// `ESHUTDOWN`.
    ShuttingDown,
    /// `EINVAL`.
    Invalid,
    /// `EIO`: everything else, a failed volume among it.
    Io,
}

impl VolumeError {
    /// For a block protocol.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::OutOfRange { .. } => ErrorKind::OutOfRange,
            Self::NoSpace => ErrorKind::NoSpace,
            Self::Key(_) | Self::PermissionMismatch(_) => ErrorKind::Denied,
            Self::ShuttingDown => ErrorKind::ShuttingDown,
            Self::NotFound(_)
            | Self::MalformedId(_)
            | Self::AmbiguousName(_)
            | Self::InUse(_)
            | Self::InvalidParameter(_)
            | Self::IdempotentParameterMismatch
            | Self::EncryptionRequired
            | Self::KeyWithoutEncryption
            | Self::TooMany(_) => ErrorKind::Invalid,
            Self::Catalogue(error) if matches!(**error, CatalogueError::Full) => ErrorKind::NoSpace,
            Self::Io { .. }
            | Self::Marked { .. }
            | Self::Failed(_)
            | Self::Damaged { .. }
            | Self::CannotRepair { .. }
            | Self::DamagedRow { .. }
            | Self::DamagedDefault { .. }
            | Self::FolderMissing(_)
            | Self::Catalogue(_)
            | Self::Audit(_)
            | Self::Unknown(_)
            | Self::WrongStore
            | Self::Locked(_) => ErrorKind::Io,
        }
    }

    /// The EC2 API's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "InvalidVolume.NotFound",
            Self::MalformedId(_) => "InvalidVolumeID.Malformed",
            Self::AmbiguousName(_) | Self::InvalidParameter(_) => "InvalidParameterValue",
            Self::InUse(_) => "VolumeInUse",
            Self::EncryptionRequired => "OperationNotPermitted",
            Self::KeyWithoutEncryption => "InvalidParameterDependency",
            Self::Failed(_)
            | Self::Locked(_)
            | Self::Damaged { .. }
            | Self::DamagedRow { .. }
            | Self::FolderMissing(_) => "IncorrectState",
            Self::IdempotentParameterMismatch => "IdempotentParameterMismatch",
            Self::TooMany(_) => "VolumeLimitExceeded",
            Self::PermissionMismatch(_) => "UnauthorizedOperation",
            Self::Key(error) => match **error {
                KeyringError::AccessDenied(_) => "UnauthorizedOperation",
                KeyringError::NotFound { .. } => "InvalidKmsKeyId.NotFound",
                KeyringError::Disabled { .. } | KeyringError::InvalidState { .. } => {
                    "InvalidKmsKey.InvalidState"
                }
                ref other if other.is_internal() => "InternalError",
                _ => "InvalidParameterValue",
            },
            Self::OutOfRange { .. } => "InvalidParameterValue",
            Self::NoSpace => "InsufficientVolumeCapacity",
            Self::Catalogue(error) => match **error {
                CatalogueError::Full => "InsufficientVolumeCapacity",
                CatalogueError::Unavailable(_) => "Unavailable",
                _ => "InternalError",
            },
            Self::Io { .. }
            | Self::Marked { .. }
            | Self::CannotRepair { .. }
            | Self::DamagedDefault { .. }
            | Self::Audit(_)
            | Self::Unknown(_)
            | Self::WrongStore => "InternalError",
            Self::ShuttingDown => "Unavailable",
        }
    }

    /// Whether the fault is ours or the store's (HTTP 5xx), so that the detail belongs in our log alone.
    pub fn is_internal(&self) -> bool {
        matches!(self.code(), "InternalError" | "Unavailable")
    }

    /// What the caller may read: never a path or a reason of ours.
    pub fn message(&self) -> String {
        match self {
            Self::Key(error) => error.message(),
            Self::Damaged { .. } | Self::DamagedRow { .. } | Self::FolderMissing(_) => {
                "The volume is in the 'error' state.".to_owned()
            }
            other if other.is_internal() => {
                "The request could not be completed because of an internal error.".to_owned()
            }
            other => other.to_string(),
        }
    }

    /// What an operator can do about damage to volume `id`, in a sentence; `None` for what is no damage.
    pub fn way_out(&self, id: VolumeId) -> Option<String> {
        match self {
            Self::Damaged { .. } | Self::DamagedRow { .. } => Some(format!(
                "stop the server and run `sealgate volume repair {id}`"
            )),
            Self::FolderMissing(_) => Some(format!(
                "restore volumes/{id} from a backup, or delete the volume"
            )),
            _ => None,
        }
    }

    /// Whether something may have been changed although it failed.
    pub(crate) fn may_have_changed(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Catalogue(error) => matches!(**error, CatalogueError::Unknown(_)),
            _ => false,
        }
    }

    pub(crate) fn not_found(id: VolumeId) -> Self {
        Self::NotFound(id.to_string())
    }

    /// An I/O error in words: a full disk is [`VolumeError::NoSpace`], whatever else is [`VolumeError::Io`].
    pub(crate) fn from_io(what: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::NoSpace,
            _ => Self::Io {
                what,
                source: Arc::new(source),
            },
        }
    }
}

impl From<KeyringError> for VolumeError {
    fn from(error: KeyringError) -> Self {
        Self::Key(Arc::new(error))
    }
}

impl From<AuditError> for VolumeError {
    fn from(error: AuditError) -> Self {
        Self::Audit(Arc::new(error))
    }
}

impl From<CatalogueError> for VolumeError {
    fn from(error: CatalogueError) -> Self {
        Self::Catalogue(Arc::new(error))
    }
}
