//! What is wrong with an `aws-chunked` body.

/// A body that is not what its head announced. Always the client's fault (or somebody's between).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkedError {
    /// A chunk header, chunk end or trailer that does not parse, or is too long.
    #[error("The aws-chunked body is malformed: {0}")]
    Malformed(&'static str),
    /// A chunk's size is beyond what one chunk may have.
    #[error("A chunk of the aws-chunked body is too large")]
    ChunkTooLarge,
    /// A chunk's or the trailers' signature is not right.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check \
         your key and signing method."
    )]
    Signature,
    /// The body ended before its final chunk, trailers or length.
    #[error(
        "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header."
    )]
    Incomplete,
    /// More data than `x-amz-decoded-content-length` announced, or bytes after the end.
    #[error("The body holds more than the x-amz-decoded-content-length HTTP header announced.")]
    TooLong,
    /// `x-amz-decoded-content-length` or `x-amz-trailer` is missing or does not parse.
    #[error("{0}")]
    Head(&'static str),
    /// A trailer that was promised is missing, came twice, or was not promised.
    #[error(
        "The request contained trailing data that was not well-formed or did not conform to x-amz-trailer."
    )]
    Trailer,
}

impl ChunkedError {
    /// S3's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::TooLong => "InvalidRequest",
            Self::ChunkTooLarge => "InvalidChunkSizeError",
            Self::Signature => "SignatureDoesNotMatch",
            Self::Incomplete => "IncompleteBody",
            Self::Head(_) => "InvalidRequest",
            Self::Trailer => "MalformedTrailerError",
        }
    }
}
