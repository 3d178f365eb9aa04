//! Request bodies: nothing is committed that was not checked to the end.
//!
//! s3s ends an aws-chunked body without its final chunk as a clean stream, so
//! no body reaches it. A [`GuardedBody`] decodes and counts, computes what was
//! promised, and gives a [`Received`] only if
//! - as many bytes came as `Content-Length` or `x-amz-decoded-content-length` say,
//! - `x-amz-content-sha256`, `Content-MD5` and the promised checksum, header or
//!   trailer, are those of the bytes that came, and
//! - an aws-chunked body had its final chunk, signatures and trailers.
//!
//! A commit needs the `Received`, so a body cut short cannot become an object.
//! Nothing is buffered beyond what one read of the connection brought, and what
//! waits to be hashed ([`crate::md5`]).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use crypto::hash::Sha256;
use host::memory::Share;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use iam::chunked::{ChunkedError, Decoder, Options as ChunkedOptions};
use iam::sigv4::Payload;
use subtle::ConstantTimeEq;

use crate::checksum::{Algorithm, Hasher, Value};
use crate::error::Error;
use crate::md5::{BodyMd5, Md5Group};
use crate::room::Room;

/// Largest object of one PUT, and largest part: 5 GiB, as in S3.
pub(crate) const PLAIN_LEN_MAX: u64 = 5 << 30;
/// Largest XML document taken: a completion of 10 000 parts with checksums, or
/// 1000 keys of 1024 escaped bytes, is well below.
const XML_LEN_MAX: u64 = 8 << 20;

/// How long a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Object data.
    Data,
    /// A document that is read whole.
    Xml,
}

impl Limit {
    fn len_max(self) -> u64 {
        match self {
            Self::Data => PLAIN_LEN_MAX,
            Self::Xml => XML_LEN_MAX,
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Source = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// A request's body with everything promised about it.
pub(crate) struct GuardedBody {
    source: Source,
    decoder: Option<Decoder>,
    ready: VecDeque<Bytes>,
    len: u64,
    seen: u64,
    sha256: Option<(Sha256, [u8; 32])>,
    md5: Option<BodyMd5>,
    md5s: Arc<Md5Group>,
    md5_promised: Option<[u8; 16]>,
    checksums: Vec<Hasher>,
    checksum_promised: Promised,
    taken: Arc<AtomicU64>,
    limit: Limit,
    room: Room,
    /// What it is buffered in; none before the first byte, so that a client that sends nothing takes nothing.
    share: Option<Share>,
}

/// Where a checksum's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Promised {
    /// None was promised.
    Nothing,
    /// In a header.
    Header(Value),
    /// In a trailer to come.
    Trailer(Algorithm),
}

impl Promised {
    /// Which algorithm, if any.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Nothing => None,
            Self::Header(value) => Some(value.algorithm),
            Self::Trailer(algorithm) => Some(*algorithm),
        }
    }

    /// Reads `x-amz-checksum-*`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm`.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Result<Self, Error> {
        let mut promised = Self::Nothing;
        for algorithm in Algorithm::ALL {
            let Some(value) = headers.get(algorithm.header()) else {
                continue;
            };
            if promised != Self::Nothing {
                return Err(Error::invalid_request(
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                ));
            }
            let value = value.to_str().unwrap_or_default();
            promised = Self::Header(Value::parse(algorithm, value)?);
        }
        if let Some(trailer) = headers.get("x-amz-trailer") {
            let names = trailer.to_str().unwrap_or_default().split(',');
            for algorithm in names.filter_map(|name| Algorithm::of_header(name.trim())) {
                if promised != Self::Nothing {
                    return Err(Error::invalid_request(
                        "Expecting a single x-amz-checksum- header or trailer.",
                    ));
                }
                promised = Self::Trailer(algorithm);
            }
        }
        let named = headers
            .get("x-amz-sdk-checksum-algorithm")
            .map(|v| v.to_str().unwrap_or_default());
        if let (Some(named), Some(found)) = (named, promised.algorithm())
            && Algorithm::parse(named)? != found
        {
            return Err(Error::invalid_request(
                "Value for x-amz-sdk-checksum-algorithm header is invalid.",
            ));
        }
        Ok(promised)
    }
}

/// A body that came whole and is what was promised.
#[derive(Debug)]
pub(crate) struct Received {
    /// Plain bytes.
    pub(crate) len: u64,
    /// Their MD5, if [`GuardedBody::want_md5`] or a promise asked for it.
    pub(crate) md5: Option<[u8; 16]>,
    /// The checksums that [`GuardedBody::want_checksum`] or a promise asked for.
    pub(crate) checksums: Vec<Value>,
    /// The memory it was received in, to be held until it is stored.
    pub(crate) share: Option<Share>,
}

impl Received {
    /// The checksum of this algorithm, if one was asked for.
    pub(crate) fn checksum(&self, algorithm: Algorithm) -> Option<Value> {
        self.checksums
            .iter()
            .find(|value| value.algorithm == algorithm)
            .cloned()
    }
}

impl GuardedBody {
    /// Reads from the head of a request what is promised about its body.
    /// `taken` counts the plain bytes for metrics; `md5s` are the other bodies.
    pub(crate) fn new<B>(
        head: &Parts,
        payload: &Payload,
        body: B,
        taken: Arc<AtomicU64>,
        md5s: &Arc<Md5Group>,
        room: &Room,
        limit: Limit,
    ) -> Result<Self, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // An XML document may be left out; data says how long it is.
        let optional = limit == Limit::Xml && body.is_end_stream();
        let chunked = ChunkedOptions::from_request(head, payload).map_err(chunked_error)?;
        let len = match &chunked {
            Some(chunked) => chunked.decoded_len,
            None => content_len(&head.headers, optional)?,
        };
        if len > limit.len_max() {
            return Err(too_large());
        }
        let sha256 = match payload {
            Payload::Sha256(expected) => Some((Sha256::new(), *expected)),
            _ => None,
        };
        let md5_promised = content_md5(&head.headers)?;
        let checksum_promised = Promised::of_headers(&head.headers)?;
        if matches!(checksum_promised, Promised::Trailer(_)) && chunked.is_none() {
            return Err(Error::invalid_request(
                "x-amz-trailer is given, but the body is not aws-chunked.",
            ));
        }
        Ok(Self {
            source: Box::pin(body.map_err(Into::into)),
            decoder: chunked.map(Decoder::new),
            ready: VecDeque::new(),
            len,
            seen: 0,
            sha256,
            md5: md5_promised.map(|_| md5s.begin(len)),
            md5s: Arc::clone(md5s),
            md5_promised,
            checksums: checksum_promised
                .algorithm()
                .map(Hasher::new)
                .into_iter()
                .collect(),
            checksum_promised,
            taken,
            limit,
            room: room.clone(),
            share: None,
        })
    }

    /// How many plain bytes are to come.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Asks for the MD5, promised or not.
    pub(crate) fn want_md5(&mut self) {
        self.md5.get_or_insert_with(|| self.md5s.begin(self.len));
    }

    /// Which checksum is promised.
    pub(crate) fn promised(&self) -> &Promised {
        &self.checksum_promised
    }

    /// Asks for a checksum, promised or not.
    pub(crate) fn want_checksum(&mut self, algorithm: Algorithm) {
        if !self
            .checksums
            .iter()
            .any(|hasher| hasher.algorithm() == algorithm)
        {
            self.checksums.push(Hasher::new(algorithm));
        }
    }

    /// The next plain bytes; `None` at the end of the connection's body, which
    /// says nothing yet: [`finish`](Self::finish) does.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(md5) = &mut self.md5 {
            md5.room().await?;
        }
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.take(&bytes)?;
                return Ok(Some(bytes));
            }
            let Some(frame) = self.source.frame().await else {
                return Ok(None);
            };
            // HTTP trailers are not aws-chunked ones and promise nothing.
            let Ok(data) = frame.map_err(Error::of_body)?.into_data() else {
                continue;
            };
            if self.share.is_none() {
                let share = match self.limit {
                    Limit::Data => self.room.for_upload(self.len, self.md5.is_some()).await,
                    Limit::Xml => self.room.for_document(self.len).await,
                };
                self.share = Some(share?);
            }
            match &mut self.decoder {
                Some(decoder) => decoder.push(data, &mut self.ready).map_err(chunked_error)?,
                None => self.ready.push_back(data),
            }
        }
    }

    fn take(&mut self, bytes: &Bytes) -> Result<(), Error> {
        self.seen += bytes.len() as u64;
        self.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.seen > self.len {
            return Err(Error::invalid_request("The body is longer than announced."));
        }
        if let Some((sha256, _)) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.push(bytes);
        }
        for checksum in &mut self.checksums {
            checksum.update(bytes);
        }
        Ok(())
    }

    /// After [`next`](Self::next) gave `None`: whether all promises were kept.
    pub(crate) async fn finish(self) -> Result<Received, Error> {
        let trailers = match self.decoder {
            Some(decoder) => Some(decoder.finish().map_err(chunked_error)?),
            None => None,
        };
        if self.seen != self.len || !self.ready.is_empty() {
            return Err(Error::incomplete_body());
        }
        if let Some((sha256, expected)) = self.sha256
            && !bool::from(sha256.finish().ct_eq(&expected))
        {
            return Err(Error::client(
                StatusCode::BAD_REQUEST,
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ));
        }
        let md5 = match self.md5 {
            Some(md5) => Some(md5.finish().await?),
            None => None,
        };
        if self.md5_promised.is_some() && self.md5_promised != md5 {
            return Err(Error::bad_digest("Content-MD5"));
        }
        let received = Received {
            len: self.seen,
            md5,
            checksums: self.checksums.into_iter().map(Hasher::finish).collect(),
            share: self.share,
        };
        let promised = match self.checksum_promised {
            Promised::Nothing => None,
            Promised::Header(value) => Some(value),
            Promised::Trailer(algorithm) => {
                let value = trailers
                    .as_ref()
                    .and_then(|trailers| trailers.get(algorithm.header()))
                    .and_then(|value| value.to_str().ok())
                    .ok_or_else(|| chunked_error(ChunkedError::Trailer))?;
                Some(Value::parse(algorithm, value)?)
            }
        };
        if let Some(promised) = promised
            && received.checksum(promised.algorithm) != Some(promised.clone())
        {
            return Err(Error::bad_digest(promised.algorithm.name()));
        }
        Ok(received)
    }

    /// Reads a small body whole and checks it. With it comes the memory it is in.
    pub(crate) async fn read_all(mut self) -> Result<(Bytes, Option<Share>), Error> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            whole.extend_from_slice(&bytes);
        }
        let received = self.finish().await?;
        Ok((whole.freeze(), received.share))
    }
}

fn content_len(headers: &HeaderMap, optional: bool) -> Result<u64, Error> {
    let Some(value) = headers.get(http::header::CONTENT_LENGTH) else {
        if optional {
            return Ok(0);
        }
        return Err(Error::client(
            StatusCode::LENGTH_REQUIRED,
            "MissingContentLength",
            "You must provide the Content-Length HTTP header.",
        ));
    };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::invalid_argument(
            "The Content-Length is not a number.",
        ));
    }
    text.parse().map_err(|_| too_large())
}

fn too_large() -> Error {
    Error::client(
        StatusCode::BAD_REQUEST,
        "EntityTooLarge",
        "Your proposed upload exceeds the maximum allowed size",
    )
}

fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Error> {
    let Some(value) = headers.get("content-md5") else {
        return Ok(None);
    };
    STANDARD
        .decode(value.as_bytes())
        .ok()
        .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
        .map(Some)
        .ok_or_else(|| {
            Error::client(
                StatusCode::BAD_REQUEST,
                "InvalidDigest",
                "The Content-MD5 you specified was invalid.",
            )
        })
}

fn chunked_error(error: ChunkedError) -> Error {
    let status = match error {
        ChunkedError::Signature => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    Error::client(status, error.code(), error.to_string())
}
