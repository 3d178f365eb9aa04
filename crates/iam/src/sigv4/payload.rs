//! What a verified request says about its body.
use std::{fmt, sync::Arc};

use aws_lc_rs::hmac;

/// How the body is covered by the signature.
#[derive(Debug, Clone)]
pub enum Payload {
    /// The body's SHA-256 is signed. Whoever reads the body compares, unless it was given to
    /// [`Pending::finish`](super::Pending::finish).
    Sha256([u8; 32]),
    /// `UNSIGNED-PAYLOAD`, and presigned requests that do not name a digest.
    Unsigned,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`: each chunk is signed.
    StreamingSigned(StreamingSignature),
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`: each chunk and the trailers are signed.
    StreamingSignedTrailer(StreamingSignature),
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`: chunks unsigned, checksum trailers follow.
    StreamingUnsignedTrailer,
}

impl Payload {
    /// Whether the body is `aws-chunked` and has to go through [`crate::chunked`].
    pub fn is_streaming(&self) -> bool {
        !matches!(self, Self::Sha256(_) | Self::Unsigned)
    }
}

/// What the chunk signatures of one body continue from. The key opens nothing but this day's
/// signatures of one service; it is wiped when the last clone goes.
#[derive(Clone)]
pub struct StreamingSignature {
    pub(crate) key: Arc<hmac::Key>,
    /// `20130524T000000Z`.
    pub(crate) timestamp: Box<str>,
    /// `20130524/us-east-1/s3/aws4_request`.
    pub(crate) scope: Box<str>,
    /// The request's own signature: the first chunk's predecessor.
    pub(crate) seed: [u8; 32],
}

impl fmt::Debug for StreamingSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingSignature")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
