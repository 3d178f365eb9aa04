//! What goes wrong in the front, and how S3 says it.
//!
//! One enum for the crate, by whose fault it is; [`Error::code`],
//! [`Error::status`] and [`Error::message`] are the only place where it becomes
//! S3's codes. What a failed authentication of stored data was about is logged,
//! never answered.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use http::header::{ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use s3s::{S3Error, S3ErrorCode};

use crate::store::StoreError;

/// Any failure of an S3 request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client asked for something that cannot be: the code, status and
    /// message are S3's.
    #[error("{code}: {message}")]
    Client {
        /// S3's error code.
        code: &'static str,
        /// The status that goes with it.
        status: StatusCode,
        /// What the client is told.
        message: Cow<'static, str>,
    },
    /// `iam` did not allow it.
    #[error("access denied")]
    Denied,
    /// The bucket is in another region of the account, where it is to be asked for.
    #[error("the bucket is in {region}")]
    Elsewhere {
        /// Where it is.
        region: String,
    },
    /// A condition of the request asks for "304 Not Modified".
    #[error("not modified")]
    NotModified {
        /// The object's entity tag, without quotes.
        etag: String,
        /// When it was last written.
        modified: SystemTime,
    },
    /// The requested range lies outside the object.
    #[error("the requested range is not satisfiable")]
    InvalidRange {
        /// The object's size in bytes.
        size: u64,
    },
    /// The keyring refused or failed.
    #[error("keyring: {0}")]
    Keyring(Arc<keyring::KeyringError>),
    /// The inner store refused or failed.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The catalogue refused or failed.
    #[error("catalogue: {0}")]
    Catalogue(#[from] catalogue::CatalogueError),
    /// What the store gave back is not what this front sealed: altered,
    /// swapped, truncated or of an unknown version. Says no more on purpose.
    #[error("stored data failed authentication")]
    Integrity,
    /// Sealing failed, or another promise among our own parts broke.
    #[error("internal: {0}")]
    Internal(&'static str),
    /// Too little memory was free for too long.
    #[error("too many requests hold memory")]
    Busy,
    /// The client sent nothing, or next to nothing, for too long.
    #[error("the request body stalled")]
    Stalled,
    /// The client's body ended early or its connection failed.
    #[error("reading the request body: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<keyring::KeyringError> for Error {
    fn from(error: keyring::KeyringError) -> Self {
        Self::Keyring(Arc::new(error))
    }
}

impl Error {
    pub(crate) fn client(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Client {
            code,
            status,
            message: message.into(),
        }
    }

    pub(crate) fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(crate) fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    pub(crate) fn malformed_xml() -> Self {
        Self::client(
            StatusCode::BAD_REQUEST,
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
        )
    }

    pub(crate) fn not_implemented(message: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(crate) fn access_denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::FORBIDDEN, "AccessDenied", message)
    }

    pub(crate) fn precondition_failed() -> Self {
        Self::client(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
        )
    }

    /// Another writer was first, again and again.
    pub(crate) fn operation_aborted() -> Self {
        Self::client(
            StatusCode::CONFLICT,
            "OperationAborted",
            "A conflicting conditional operation is currently in progress against this resource. Please try again.",
        )
    }

    pub(crate) fn no_such_key() -> Self {
        Self::Store(StoreError::NoSuchKey)
    }

    pub(crate) fn no_such_upload() -> Self {
        Self::Store(StoreError::NoSuchUpload)
    }

    pub(crate) fn bad_digest(what: &str) -> Self {
        Self::client(
            StatusCode::BAD_REQUEST,
            "BadDigest",
            format!("The {what} you specified did not match the calculated checksum."),
        )
    }

    pub(crate) fn incomplete_body() -> Self {
        Self::client(
            StatusCode::BAD_REQUEST,
            "IncompleteBody",
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        )
    }

    /// S3's error code.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        match self {
            Self::Client { code, .. } => Cow::Borrowed(code),
            Self::Denied => Cow::Borrowed("AccessDenied"),
            Self::Elsewhere { .. } => Cow::Borrowed("PermanentRedirect"),
            Self::NotModified { .. } => Cow::Borrowed("NotModified"),
            Self::InvalidRange { .. } => Cow::Borrowed("InvalidRange"),
            Self::Keyring(error) => kms_code(error),
            Self::Store(error) => store_answer(error).0.into(),
            Self::Catalogue(error) => catalogue_answer(error).0.into(),
            Self::Integrity | Self::Internal(_) => Cow::Borrowed("InternalError"),
            Self::Busy => Cow::Borrowed("SlowDown"),
            Self::Stalled => Cow::Borrowed("RequestTimeout"),
            Self::Body(_) => Cow::Borrowed("IncompleteBody"),
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Client { status, .. } => *status,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Elsewhere { .. } => StatusCode::MOVED_PERMANENTLY,
            Self::NotModified { .. } => StatusCode::NOT_MODIFIED,
            Self::InvalidRange { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Keyring(error) => kms_status(error),
            Self::Store(error) => store_answer(error).1,
            Self::Catalogue(error) => catalogue_answer(error).1,
            Self::Integrity | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Stalled | Self::Body(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Client { message, .. } => message.clone(),
            Self::Denied => Cow::Borrowed("Access Denied"),
            Self::Elsewhere { region } => Cow::Owned(format!(
                "The bucket you are attempting to access is in the region {region}: sign the request for that region."
            )),
            Self::NotModified { .. } => Cow::Borrowed("Not Modified"),
            Self::InvalidRange { .. } => Cow::Borrowed("The requested range is not satisfiable"),
            Self::Keyring(error) => kms_message(error),
            Self::Store(error) => Cow::Borrowed(store_answer(error).2),
            Self::Catalogue(error) => Cow::Borrowed(catalogue_answer(error).2),
            Self::Integrity | Self::Internal(_) => Cow::Borrowed(INTERNAL_MESSAGE),
            Self::Busy => Cow::Borrowed("Please reduce your request rate."),
            Self::Stalled => Cow::Borrowed(
                "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.",
            ),
            Self::Body(_) => Cow::Borrowed(
                "You did not provide the number of bytes specified by the Content-Length HTTP header",
            ),
        }
    }

    /// The error of a body that could not be read to its end.
    pub(crate) fn of_body(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let io = error.downcast_ref::<std::io::Error>();
        match io.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::TimedOut) => Self::Stalled,
            _ => Self::Body(error),
        }
    }

    /// Whether an operator should look: our fault or the store's.
    pub(crate) fn is_ours(&self) -> bool {
        self.status().is_server_error()
            && self.status() != StatusCode::NOT_IMPLEMENTED
            && !matches!(self, Self::Busy)
    }

    /// As s3s wants it, with the headers the answer needs.
    pub(crate) fn into_s3s(self, request_id: &str) -> S3Error {
        if self.is_ours() {
            tracing::error!(error = ?self, request_id, "S3 request failed");
        }
        let code =
            S3ErrorCode::from_bytes(self.code().as_bytes()).unwrap_or(S3ErrorCode::InternalError);
        let mut error = S3Error::with_message(code, self.message());
        error.set_status_code(self.status());
        error.set_request_id(request_id);
        if let Some(headers) = self.headers() {
            error.set_headers(headers);
        }
        error
    }

    /// Headers beyond the usual: the entity of a 304, the size of a 416, the region of a 301.
    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        match self {
            Self::NotModified { etag, modified } => {
                headers.insert(ETAG, HeaderValue::try_from(format!("\"{etag}\"")).ok()?);
                headers.insert(LAST_MODIFIED, crate::dates::http_date(*modified));
            }
            Self::InvalidRange { size } => {
                let value = HeaderValue::try_from(format!("bytes */{size}")).ok()?;
                headers.insert(http::header::CONTENT_RANGE, value);
            }
            Self::Elsewhere { region } => {
                let value = HeaderValue::try_from(region).ok()?;
                headers.insert("x-amz-bucket-region", value);
            }
            _ => return None,
        }
        // `set_headers` replaces what s3s set, and the body is XML all the same.
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/xml"),
        );
        Some(headers)
    }
}

/// The code of a refusal by the keyring, as S3 answers it.
fn kms_code(error: &keyring::KeyringError) -> Cow<'static, str> {
    match error {
        keyring::KeyringError::AccessDenied(_) => Cow::Borrowed("AccessDenied"),
        // A blob of ours that does not open was altered: nothing of the client's.
        keyring::KeyringError::InvalidCiphertext | keyring::KeyringError::IncorrectKey => {
            Cow::Borrowed("InternalError")
        }
        error if error.is_internal() => Cow::Borrowed("InternalError"),
        error => Cow::Owned(format!("KMS.{}", error.code())),
    }
}

fn kms_status(error: &keyring::KeyringError) -> StatusCode {
    match &*kms_code(error) {
        "AccessDenied" => StatusCode::FORBIDDEN,
        "InternalError" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn kms_message(error: &keyring::KeyringError) -> Cow<'static, str> {
    if kms_status(error).is_server_error() {
        return Cow::Borrowed(INTERNAL_MESSAGE);
    }
    Cow::Owned(error.message())
}

const INTERNAL_MESSAGE: &str = "We encountered an internal error. Please try again.";

/// Code, status and message for what a store says.
fn store_answer(error: &StoreError) -> (&'static str, StatusCode, &'static str) {
    match error {
        StoreError::NoSuchBucket => (
            "NoSuchBucket",
            StatusCode::NOT_FOUND,
            "The specified bucket does not exist",
        ),
        StoreError::BucketNotEmpty => (
            "BucketNotEmpty",
            StatusCode::CONFLICT,
            "The bucket you tried to delete is not empty",
        ),
        StoreError::NoSuchKey => (
            "NoSuchKey",
            StatusCode::NOT_FOUND,
            "The specified key does not exist.",
        ),
        StoreError::NoSuchUpload => ("NoSuchUpload", StatusCode::NOT_FOUND, NO_SUCH_UPLOAD),
        StoreError::InvalidPart { .. } => (
            "InvalidPart",
            StatusCode::BAD_REQUEST,
            "One or more of the specified parts could not be found.",
        ),
        StoreError::InvalidPartOrder => (
            "InvalidPartOrder",
            StatusCode::BAD_REQUEST,
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        ),
        StoreError::PreconditionFailed { .. } => (
            "PreconditionFailed",
            StatusCode::PRECONDITION_FAILED,
            "At least one of the pre-conditions you specified did not hold",
        ),
        StoreError::KeyTooLong => (
            "KeyTooLongError",
            StatusCode::BAD_REQUEST,
            "Your key is too long",
        ),
        StoreError::NoSpace | StoreError::Closed | StoreError::Stopped(_) => UNAVAILABLE,
        _ => INTERNAL,
    }
}

/// As [`store_answer`], for what the catalogue says.
fn catalogue_answer(error: &catalogue::CatalogueError) -> (&'static str, StatusCode, &'static str) {
    use catalogue::CatalogueError::{Full, Stopped, Unavailable, Unknown};
    match error {
        Full | Unavailable(_) | Unknown(_) | Stopped(_) => UNAVAILABLE,
        _ => INTERNAL,
    }
}

const UNAVAILABLE: (&str, StatusCode, &str) = (
    "ServiceUnavailable",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service cannot take the request at present. Please try again later.",
);

const INTERNAL: (&str, StatusCode, &str) = (
    "InternalError",
    StatusCode::INTERNAL_SERVER_ERROR,
    INTERNAL_MESSAGE,
);

const NO_SUCH_UPLOAD: &str = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
