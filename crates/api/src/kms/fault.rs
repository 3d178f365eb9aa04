//! Why a KMS request is not answered, in KMS's words.
use http::StatusCode;
use keyring::KeyringError;

use crate::model::Wrong;

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Client: the body is not JSON, or not of this shape.
    #[error("{0}")]
    Malformed(String),
    /// Client: a value is outside its bounds.
    #[error("{0}")]
    Validation(String),
    /// Client: a parameter we cannot honour.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Client: the key is of another kind than the algorithm asked for.
    #[error("The key does not do {0}: it encrypts and decrypts with SYMMETRIC_DEFAULT.")]
    InvalidKeyUsage(String),
    /// Client: a grant token, where there are no grants.
    #[error("There are no grants here yet, so no grant token is valid.")]
    InvalidGrantToken,
    /// Client: not a request of KMS's protocol: another method, path or media type.
    #[error("KMS takes POST / with the content type application/x-amz-json-1.1.")]
    NotOfProtocol,
    /// Client: an operation KMS does not have.
    #[error("The operation is not known.")]
    UnknownOperation,
    /// Ours: an operation KMS has and we do not yet.
    #[error("{0} is not implemented by this gateway.")]
    NotImplemented(&'static str),
    /// The keyring's.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Malformed(said) => Self::Malformed(said),
            Wrong::Invalid(said) => Self::Validation(said),
        }
    }
}

impl Fault {
    /// What the model's check let through and serde_json does not: base64 with bits that belong to
    /// nothing. Nothing of the request is repeated, since it could be a secret.
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed(format!(
            "A value is not well-formed, at line {} column {}",
            error.line(),
            error.column()
        ))
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "SerializationException",
            Self::Validation(_) => "ValidationException",
            Self::Unsupported(_) => "UnsupportedOperationException",
            Self::InvalidKeyUsage(_) => "InvalidKeyUsageException",
            Self::InvalidGrantToken => "InvalidGrantTokenException",
            Self::NotOfProtocol | Self::UnknownOperation => "UnknownOperationException",
            Self::NotImplemented(_) => "NotImplementedException",
            Self::Keyring(error) => error.code(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotOfProtocol => StatusCode::NOT_FOUND,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            _ if self.is_internal() => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Keyring(error) => error.message(),
            other => other.to_string(),
        }
    }

    pub(super) fn is_internal(&self) -> bool {
        matches!(self, Self::Keyring(error) if error.is_internal())
    }
}
