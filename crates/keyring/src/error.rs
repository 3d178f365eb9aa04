//! The one error of this crate: a variant for each exception of the KMS API, and whose fault it is.
//!
//! [`KeyringError::code`] is the exception's name as it stands on the wire and in the audit log;
//! [`KeyringError::message`] is what may be told to the caller. Everything that is the
//! catalogue's, the audit log's or our own fault becomes `KMSInternalException` with a fixed message: the detail is
//! in [`std::fmt::Display`] and belongs in our log.

use audit::AuditError;
use catalogue::CatalogueError;
use iam::Arn;
use root::StoreId;

use crate::key_state::KeyState;

/// Why the keyring did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// Caller: no such key or alias (or an AWS owned key, which nobody may name).
    #[error("{0}")]
    NotFound(String),
    /// Caller: the key is disabled.
    #[error("{key} is disabled.")]
    Disabled {
        /// The key.
        key: Arn,
    },
    /// Caller: the key's state does not allow the operation.
    #[error("{key} {}", state.refusal())]
    InvalidState {
        /// The key.
        key: Arn,
        /// The state it is in.
        state: KeyState,
    },
    /// Caller: an ARN that is none, or not of a key or alias, or an alias where none is taken.
    #[error("Invalid ARN {0}")]
    InvalidArn(String),
    /// Caller: an alias name outside `alias/[a-zA-Z0-9/_-]+`, or of the reserved `alias/aws/`.
    #[error("{0}")]
    InvalidAliasName(String),
    /// Caller: the alias exists.
    #[error("An alias with the name {0} already exists")]
    AlreadyExists(String),
    /// Caller: the blob does not open. The same for every reason.
    #[error("The ciphertext is invalid.")]
    InvalidCiphertext,
    /// Caller: the blob was sealed under another key than the one named.
    #[error(
        "The key ID in the request does not identify a CMK that can perform this operation: the ciphertext was made under another key."
    )]
    IncorrectKey,
    /// Caller: a quota, such as 25 on-demand rotations a key.
    #[error("{0}")]
    LimitExceeded(String),
    /// Caller: a marker that no list of ours returned.
    #[error("The marker is not valid.")]
    InvalidMarker,
    /// Caller: the kind of key does not do this.
    #[error("{0}")]
    UnsupportedOperation(String),
    /// Caller: a tag that is malformed, reserved or one too many.
    #[error("{0}")]
    Tag(String),
    /// Caller: a value outside its bounds.
    #[error("{0}")]
    Validation(String),
    /// Caller: not permitted. The message is IAM's.
    #[error("{0}")]
    AccessDenied(String),
    /// Caller asked for a dry run, and the request would have succeeded.
    #[error("The request would have succeeded, but the DryRun option is set.")]
    DryRun,
    /// Ours: the catalogue is that of another store than the root header's. Refused at open, nothing changed.
    #[error(
        "the catalogue belongs to store {keyring}, and the root header to store {header}: they are of two backups"
    )]
    WrongStore {
        /// The store that the catalogue was made in.
        keyring: StoreId,
        /// The store whose key was given.
        header: StoreId,
    },
    /// The store's fault: a record was changed, moved, cut or lost.
    #[error("record {id} of table {table} is damaged or does not belong there: {why}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The record's id, in hexadecimal or as the name it is.
        id: String,
        /// What did not hold.
        why: &'static str,
    },
    /// The catalogue's fault. Nothing was changed.
    #[error("catalogue: {0}")]
    Catalogue(#[from] CatalogueError),
    /// The catalogue's fault: whether the change was made is not known. The keyring has stopped.
    #[error("whether the change was made is not known: {0}")]
    Unknown(#[source] CatalogueError),
    /// The catalogue's fault, for as long as it lasts: changes of other processes are not seen.
    #[error("changes of other processes are not seen: {0}")]
    Behind(std::sync::Arc<str>),
    /// The audit log's fault: no key is used without its record.
    #[error("audit log: {0}")]
    Audit(#[from] AuditError),
    /// Ours: after a failure of the catalogue it is not known what that holds; sticky until the keyring is opened
    /// anew.
    #[error("the keyring stopped because what the catalogue holds is not known: {0}")]
    Stopped(std::sync::Arc<str>),
    /// Ours: a task was cut off by the runtime shutting down.
    #[error("the keyring is shutting down")]
    ShuttingDown,
}

impl KeyringError {
    /// The exception's name, such as `DisabledException`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFoundException",
            Self::Disabled { .. } => "DisabledException",
            Self::InvalidState { .. } => "KMSInvalidStateException",
            Self::InvalidArn(_) => "InvalidArnException",
            Self::InvalidAliasName(_) => "InvalidAliasNameException",
            Self::AlreadyExists(_) => "AlreadyExistsException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::LimitExceeded(_) => "LimitExceededException",
            Self::InvalidMarker => "InvalidMarkerException",
            Self::UnsupportedOperation(_) => "UnsupportedOperationException",
            Self::Tag(_) => "TagException",
            Self::Validation(_) => "ValidationException",
            Self::AccessDenied(_) => "AccessDeniedException",
            Self::DryRun => "DryRunOperationException",
            Self::WrongStore { .. }
            | Self::Damaged { .. }
            | Self::Catalogue(_)
            | Self::Unknown(_)
            | Self::Behind(_)
            | Self::Audit(_)
            | Self::Stopped(_)
            | Self::ShuttingDown => "KMSInternalException",
        }
    }

    /// What the caller may read. Never names a file, a record or a reason of ours.
    pub fn message(&self) -> String {
        if self.is_internal() {
            "The request could not be completed because of an internal error.".to_owned()
        } else {
            self.to_string()
        }
    }

    /// Whether it is our fault (HTTP 500) and the detail belongs in the log alone.
    pub fn is_internal(&self) -> bool {
        self.code() == "KMSInternalException"
    }
}

impl From<iam::Denied> for KeyringError {
    fn from(denied: iam::Denied) -> Self {
        Self::AccessDenied(denied.to_string())
    }
}
