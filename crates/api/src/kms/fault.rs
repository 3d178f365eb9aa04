//! Why a KMS request is not answered, in KMS's words.
use http::StatusCode;
use keyring::KeyringError;

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
    InvalidKeyUsage(&'static str),
    /// Client: a grant token, where there are no grants.
    #[error("There are no grants here yet, so no grant token is valid.")]
    InvalidGrantToken,
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

impl Fault {
    /// What serde_json says, without the text of the request where it could be a secret.
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        let said = error.to_string();
        let what = match error.classify() {
            serde_json::error::Category::Data if said.starts_with("duplicate") => said,
            serde_json::error::Category::Data if !said.contains('"') => said,
            serde_json::error::Category::Data => {
                format!(
                    "a value is not of the type it should be, at column {}",
                    error.column()
                )
            }
            _ => format!(
                "it is not JSON at line {} column {}",
                error.line(),
                error.column()
            ),
        };
        Self::Malformed(format!("The request does not parse: {what}"))
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "SerializationException",
            Self::Validation(_) => "ValidationException",
            Self::Unsupported(_) => "UnsupportedOperationException",
            Self::InvalidKeyUsage(_) => "InvalidKeyUsageException",
            Self::InvalidGrantToken => "InvalidGrantTokenException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::NotImplemented(_) => "NotImplementedException",
            Self::Keyring(error) => error.code(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
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
