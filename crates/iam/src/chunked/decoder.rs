//! The decoder's state machine.
use bytes::Bytes;
use http::{HeaderMap, HeaderName, request::Parts};

use super::ChunkedError;
use crate::sigv4::{Payload, StreamingSignature};

/// Which of the three encodings.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Signed chunks, no trailers.
    Signed(StreamingSignature),
    /// Signed chunks, signed trailers.
    SignedTrailer(StreamingSignature),
    /// Unsigned chunks, unsigned trailers.
    UnsignedTrailer,
}

/// What the head of the request announced.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which encoding.
    pub mode: Mode,
    /// `x-amz-decoded-content-length`: data bytes in all chunks together.
    pub decoded_len: u64,
    /// `x-amz-trailer`: the names of the trailers to come; empty if none.
    pub trailers: Vec<HeaderName>,
}

impl Options {
    /// Reads them from a verified request; `None` if its body is not `aws-chunked`.
    pub fn from_request(_head: &Parts, _payload: &Payload) -> Result<Option<Self>, ChunkedError> {
        Ok(None)
    }
}

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder {
    _options: Options,
}

impl Decoder {
    /// A decoder at the start of a body.
    pub fn new(options: Options) -> Self {
        Self { _options: options }
    }

    /// Takes the next piece of the body, of any length, and appends the data in it to `out`, in
    /// slices of `input`. After an error the decoder stays failed.
    pub fn push(
        &mut self,
        _input: Bytes,
        _out: &mut impl Extend<Bytes>,
    ) -> Result<(), ChunkedError> {
        Err(ChunkedError::Incomplete)
    }

    /// Whether the end of the body has been read: `finish` would succeed.
    pub fn is_complete(&self) -> bool {
        false
    }

    /// Says that the body ended. The trailers, without the signature of theirs.
    pub fn finish(self) -> Result<HeaderMap, ChunkedError> {
        Err(ChunkedError::Incomplete)
    }
}
