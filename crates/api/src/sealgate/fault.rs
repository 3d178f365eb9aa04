//! Why a request to Sealgate's own service is not answered.
use http::StatusCode;
use iam::Denied;

use super::job_id::JobId;

/// Errors of what the service works on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdministrationError {
    /// Client: there is no such job, or no longer.
    #[error("There is no job {0}.")]
    NoSuchJob(JobId),
    /// Client: the job has ended, and cannot be cancelled.
    #[error("Job {0} has ended.")]
    Ended(JobId),
    /// Client: it cannot be done here, and why.
    #[error("{0}")]
    Unsupported(String),
    /// Ours; not shown to the client.
    #[error(transparent)]
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Validation(String),
    #[error("Sealgate takes POST / with the content type application/x-amz-json-1.1.")]
    NotOfProtocol,
    #[error("The operation is not known.")]
    UnknownOperation,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Administration(#[from] AdministrationError),
}

impl Fault {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "SerializationException",
            Self::Validation(_) => "ValidationException",
            Self::NotOfProtocol | Self::UnknownOperation => "UnknownOperationException",
            Self::Denied(_) => "AccessDeniedException",
            Self::Administration(error) => match error {
                AdministrationError::NoSuchJob(_) => "ResourceNotFoundException",
                AdministrationError::Ended(_) => "ConflictException",
                AdministrationError::Unsupported(_) => "UnsupportedOperationException",
                AdministrationError::Internal(_) => "InternalServerException",
            },
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotOfProtocol => StatusCode::NOT_FOUND,
            Self::Administration(AdministrationError::Internal(_)) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Administration(AdministrationError::Internal(_)) => {
                "The request failed on the server's side: see its log.".to_owned()
            }
            other => other.to_string(),
        }
    }
}
