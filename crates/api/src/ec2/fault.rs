//! Why an EC2 request is not answered, in EC2's words.
use http::StatusCode;
use iam::Denied;
use volume::{MalformedId, VolumeError};

use crate::model::WrongForm;

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Client: the form does not parse.
    #[error("{0}")]
    Malformed(String),
    /// Client: an operation EC2 does not have, or none of ours.
    #[error("The action {0} is not valid for this web service.")]
    InvalidAction(String),
    /// Ours: an operation for volumes that is not there yet.
    #[error("{0} is not implemented by this gateway.")]
    NotImplemented(&'static str),
    /// Client.
    #[error("The request must contain the parameter {0}")]
    MissingParameter(&'static str),
    /// Client.
    #[error("The parameter {0} is not recognized")]
    UnknownParameter(String),
    /// Client.
    #[error("{0}")]
    InvalidParameterValue(String),
    /// Client.
    #[error("{0}")]
    InvalidParameterCombination(&'static str),
    /// Client: a parameter EC2 takes and we do not.
    #[error("The parameter {0} is not supported by this gateway.")]
    Unsupported(&'static str),
    /// Client: an id of another kind of resource, or of none.
    #[error("The ID '{0}' is not valid")]
    InvalidId(String),
    /// Client asked for a dry run, and the request would have succeeded.
    #[error("Request would have succeeded, but DryRun flag is set.")]
    DryRun,
    /// Client: not permitted.
    #[error("You are not authorized to perform this operation. {0}")]
    Denied(#[from] Denied),
    /// The volumes'.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl From<MalformedId> for Fault {
    fn from(error: MalformedId) -> Self {
        Self::Volume(error.into())
    }
}

impl From<WrongForm> for Fault {
    fn from(wrong: WrongForm) -> Self {
        match wrong {
            WrongForm::Unknown(name) => Self::UnknownParameter(name),
            WrongForm::Missing(name) => Self::MissingParameter(name),
            WrongForm::Invalid { name, value, why } => Self::invalid(name, &value, &why),
        }
    }
}

impl Fault {
    /// A value that cannot be.
    pub(super) fn invalid(name: &str, value: &str, why: &str) -> Self {
        let value: String = value.chars().take(64).collect();
        Self::InvalidParameterValue(format!(
            "Value ({value}) for parameter {name} is invalid. {why}"
        ))
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "MalformedQueryString",
            Self::InvalidAction(_) => "InvalidAction",
            Self::NotImplemented(_) => "NotImplemented",
            Self::MissingParameter(_) => "MissingParameter",
            Self::UnknownParameter(_) => "UnknownParameter",
            Self::InvalidParameterValue(_) => "InvalidParameterValue",
            Self::InvalidParameterCombination(_) => "InvalidParameterCombination",
            Self::Unsupported(_) => "UnsupportedOperation",
            Self::InvalidId(_) => "InvalidID",
            Self::DryRun => "DryRunOperation",
            Self::Denied(_) => "UnauthorizedOperation",
            Self::Volume(error) => error.code(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.code() {
            "NotImplemented" => StatusCode::NOT_IMPLEMENTED,
            "DryRunOperation" => StatusCode::PRECONDITION_FAILED,
            "UnauthorizedOperation" => StatusCode::FORBIDDEN,
            "Unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.is_internal() => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Volume(error) => error.message(),
            other => other.to_string(),
        }
    }

    pub(super) fn is_internal(&self) -> bool {
        matches!(self, Self::Volume(error) if error.is_internal())
    }
}
