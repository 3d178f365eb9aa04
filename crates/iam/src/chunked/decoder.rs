//! The decoder's state machine.
use aws_lc_rs::{digest, hmac};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

use super::ChunkedError;
use crate::sigv4::{Payload, StreamingSignature, authorization::parse_digest};

/// Longest chunk header or trailer line, without its end. A signed chunk header needs at most
/// 16 + 17 + 64 bytes; the longest checksum trailer about 120.
const LINE_LEN_MAX: usize = 512;

/// Trailers a request may promise.
const TRAILERS_MAX: usize = 8;

/// Largest chunk: as much as one PUT may have altogether.
const CHUNK_LEN_MAX: u64 = 5 << 30;

const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// SHA-256 of nothing, which stands in every chunk's string to sign.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

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
    pub fn from_request(head: &Parts, payload: &Payload) -> Result<Option<Self>, ChunkedError> {
        let mode = match payload {
            Payload::Sha256(_) | Payload::Unsigned => return Ok(None),
            Payload::StreamingSigned(signature) => Mode::Signed(signature.clone()),
            Payload::StreamingSignedTrailer(signature) => Mode::SignedTrailer(signature.clone()),
            Payload::StreamingUnsignedTrailer => Mode::UnsignedTrailer,
        };
        let mut lengths = head.headers.get_all("x-amz-decoded-content-length").iter();
        let decoded_len = match (lengths.next(), lengths.next()) {
            (Some(length), None) => length
                .to_str()
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .ok_or(ChunkedError::Head(
                    "x-amz-decoded-content-length is not a number.",
                ))?,
            (None, _) => {
                return Err(ChunkedError::Head(
                    "You must provide the x-amz-decoded-content-length HTTP header.",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(ChunkedError::Head(
                    "x-amz-decoded-content-length is given twice.",
                ));
            }
        };
        let mut trailers = Vec::new();
        for value in head.headers.get_all("x-amz-trailer") {
            const WRONG: ChunkedError = ChunkedError::Head("x-amz-trailer is not valid.");
            for name in value.to_str().map_err(|_| WRONG)?.split(',') {
                let name: HeaderName = name.trim().parse().map_err(|_| WRONG)?;
                if name == TRAILER_SIGNATURE || trailers.contains(&name) {
                    return Err(WRONG);
                }
                trailers.push(name);
            }
        }
        if trailers.len() > TRAILERS_MAX {
            return Err(ChunkedError::Head("x-amz-trailer names too many trailers."));
        }
        if !trailers.is_empty() && matches!(mode, Mode::Signed(_)) {
            return Err(ChunkedError::Head(
                "x-amz-trailer needs a payload that is signed as one with trailers.",
            ));
        }
        Ok(Some(Self {
            mode,
            decoded_len,
            trailers,
        }))
    }
}

/// Decodes one body.
pub struct Decoder {
    state: State,
    /// The line being read, if it came in pieces.
    line: Vec<u8>,
    /// Data bytes that may still come.
    data_left: u64,
    chain: Option<Chain>,
    /// Whether trailers may follow, and whether they are signed: as the mode says.
    has_trailers: bool,
    promised: Vec<HeaderName>,
    trailers: HeaderMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At, or in, a chunk's header.
    Header,
    /// In a chunk's data, so many bytes before its end.
    Data {
        left: u64,
    },
    /// After a chunk's data, before its CR LF.
    DataEnd,
    /// After the final chunk's header, in a mode without trailers.
    FinalEnd,
    /// Among the trailers.
    Trailers {
        /// An empty line has been seen. AWS documents one before the trailers' signature, which no
        /// SDK of its own sends.
        blank: bool,
    },
    /// After the trailers' signature, where an empty line may follow.
    TrailersEnd,
    /// Everything has been read.
    Complete,
    Failed(ChunkedError),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("state", &self.state)
            .field("data_left", &self.data_left)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder at the start of a body.
    pub fn new(options: Options) -> Self {
        let (chain, has_trailers) = match options.mode {
            Mode::Signed(signature) => (Some(Chain::new(signature)), false),
            Mode::SignedTrailer(signature) => (Some(Chain::new(signature)), true),
            Mode::UnsignedTrailer => (None, true),
        };
        Self {
            state: State::Header,
            line: Vec::new(),
            data_left: options.decoded_len,
            chain,
            has_trailers,
            promised: options.trailers,
            trailers: HeaderMap::new(),
        }
    }

    /// Takes the next piece of the body, of any length, and appends the data in it to `out`, in
    /// slices of `input`. After an error the decoder stays failed, with the same error.
    pub fn push(
        &mut self,
        mut input: Bytes,
        out: &mut impl Extend<Bytes>,
    ) -> Result<(), ChunkedError> {
        while !input.is_empty() {
            match self.step(&mut input) {
                Ok(Some(data)) => out.extend([data]),
                Ok(None) => {}
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether the end of the body has been read: `finish` would succeed.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
            || (self.state == State::TrailersEnd && self.line.is_empty())
    }

    /// Says that the body ended. The trailers, without the signature of theirs.
    pub fn finish(self) -> Result<HeaderMap, ChunkedError> {
        match self.state {
            State::Failed(error) => Err(error),
            _ if self.is_complete() => Ok(self.trailers),
            _ => Err(ChunkedError::Incomplete),
        }
    }

    /// Goes on by one line or one slice of data. Takes at least one byte of `input`.
    fn step(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, ChunkedError> {
        match self.state {
            State::Data { left } => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let data = input.split_to(take);
                if let Some(chain) = &mut self.chain {
                    chain.update(&data);
                }
                let left = left - take as u64;
                self.state = if left == 0 {
                    State::DataEnd
                } else {
                    State::Data { left }
                };
                return Ok(Some(data));
            }
            State::Complete => return Err(ChunkedError::TooLong),
            State::Failed(error) => return Err(error),
            _ => {}
        }
        let Some(line) = self.take_line(input)? else {
            return Ok(None);
        };
        match self.state {
            State::Header => self.chunk_header(&line)?,
            State::DataEnd => {
                if line != b"\r\n" {
                    return Err(ChunkedError::Malformed(
                        "a chunk is longer than its size says",
                    ));
                }
                if let Some(chain) = &mut self.chain {
                    chain.end_chunk()?;
                }
                self.state = State::Header;
            }
            State::FinalEnd => {
                if line != b"\r\n" {
                    return Err(ChunkedError::Malformed(
                        "there is more after the final chunk",
                    ));
                }
                self.state = State::Complete;
            }
            State::Trailers { blank } => self.trailer(&line, blank)?,
            State::TrailersEnd => {
                if line != b"\r\n" && line != b"\n" {
                    return Err(ChunkedError::Malformed("there is more after the trailers"));
                }
                self.state = State::Complete;
            }
            State::Data { .. } | State::Complete | State::Failed(_) => {
                unreachable!("answered above")
            }
        }
        Ok(None)
    }

    /// The next line with its end, or `None` if it has not all come yet.
    fn take_line(&mut self, input: &mut Bytes) -> Result<Option<Vec<u8>>, ChunkedError> {
        // What must be an empty line is judged on its first byte, so that a chunk which is longer
        // than it says does not first fill the line.
        let room = match self.state {
            State::DataEnd | State::FinalEnd | State::TrailersEnd => 2,
            _ => LINE_LEN_MAX + 2,
        };
        let window = &input[..input.len().min(room - self.line.len())];
        match window.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                self.line.extend_from_slice(&window[..=end]);
                input.advance(end + 1);
                Ok(Some(std::mem::take(&mut self.line)))
            }
            None if self.line.len() + window.len() == room => Err(ChunkedError::Malformed(
                "a line is not ended where it should be",
            )),
            None => {
                let taken = window.len();
                self.line.extend_from_slice(window);
                input.advance(taken);
                Ok(None)
            }
        }
    }

    fn chunk_header(&mut self, line: &[u8]) -> Result<(), ChunkedError> {
        const WRONG: ChunkedError = ChunkedError::Malformed("a chunk header does not parse");
        let line = line.strip_suffix(b"\r\n").ok_or(WRONG)?;
        let size = match &mut self.chain {
            Some(chain) => {
                let at = line.iter().position(|&byte| byte == b';').ok_or(WRONG)?;
                let (size, extension) = line.split_at(at);
                let signature = extension.strip_prefix(b";chunk-signature=").ok_or(WRONG)?;
                chain.begin_chunk(parse_digest(signature).ok_or(WRONG)?);
                size
            }
            None => line,
        };
        if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(WRONG);
        }
        let size = size.iter().fold(0u64, |size, &digit| {
            size << 4 | u64::from(char::from(digit).to_digit(16).expect("checked above"))
        });
        if size > CHUNK_LEN_MAX {
            return Err(ChunkedError::ChunkTooLarge);
        }
        if size > self.data_left {
            return Err(ChunkedError::TooLong);
        }
        self.data_left -= size;
        if size > 0 {
            self.state = State::Data { left: size };
            return Ok(());
        }
        if let Some(chain) = &mut self.chain {
            chain.end_chunk()?;
        }
        if self.data_left > 0 {
            return Err(ChunkedError::Incomplete);
        }
        self.state = if self.has_trailers {
            State::Trailers { blank: false }
        } else {
            State::FinalEnd
        };
        Ok(())
    }

    fn trailer(&mut self, line: &[u8], blank: bool) -> Result<(), ChunkedError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if self.chain.is_none() {
                self.check_promised()?;
                self.state = State::Complete;
            } else if blank {
                return Err(ChunkedError::Trailer);
            } else {
                self.state = State::Trailers { blank: true };
            }
            return Ok(());
        }
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .ok_or(ChunkedError::Trailer)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let Some(chain) = &mut self.chain
            && name.eq_ignore_ascii_case(TRAILER_SIGNATURE.as_bytes())
        {
            let signature = parse_digest(value).ok_or(ChunkedError::Trailer)?;
            chain.check_trailers(&self.trailers, signature)?;
            self.check_promised()?;
            self.state = State::TrailersEnd;
            return Ok(());
        }
        let name = HeaderName::from_bytes(name).map_err(|_| ChunkedError::Trailer)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| ChunkedError::Trailer)?;
        if blank || !self.promised.contains(&name) || self.trailers.contains_key(&name) {
            return Err(ChunkedError::Trailer);
        }
        self.trailers.insert(name, value);
        Ok(())
    }

    fn check_promised(&self) -> Result<(), ChunkedError> {
        let all_came = self
            .promised
            .iter()
            .all(|name| self.trailers.contains_key(name));
        if all_came {
            Ok(())
        } else {
            Err(ChunkedError::Trailer)
        }
    }
}

/// The chain of chunk signatures, each over the one before.
struct Chain {
    key: std::sync::Arc<hmac::Key>,
    /// The two lines every string to sign has after its first: time and scope.
    time_and_scope: String,
    previous: [u8; 32],
    /// The signature the current chunk's header gave, and the digest of its data so far.
    claimed: [u8; 32],
    data: digest::Context,
}

impl Chain {
    fn new(signature: StreamingSignature) -> Self {
        Self {
            time_and_scope: format!("{}\n{}", signature.timestamp, signature.scope),
            key: signature.key,
            previous: signature.seed,
            claimed: [0; 32],
            data: digest::Context::new(&digest::SHA256),
        }
    }

    fn begin_chunk(&mut self, claimed: [u8; 32]) {
        self.claimed = claimed;
        self.data = digest::Context::new(&digest::SHA256);
    }

    fn update(&mut self, data: &[u8]) {
        self.data.update(data);
    }

    fn end_chunk(&mut self) -> Result<(), ChunkedError> {
        let data = std::mem::replace(&mut self.data, digest::Context::new(&digest::SHA256));
        let string_to_sign = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{EMPTY_SHA256}\n{}",
            self.time_and_scope,
            hex::encode(self.previous),
            hex::encode(data.finish()),
        );
        self.check(&string_to_sign, self.claimed)
    }

    fn check_trailers(
        &mut self,
        trailers: &HeaderMap,
        claimed: [u8; 32],
    ) -> Result<(), ChunkedError> {
        let mut sorted: Vec<_> = trailers.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| name.as_str());
        let mut canonical = digest::Context::new(&digest::SHA256);
        for (name, value) in sorted {
            for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"] {
                canonical.update(part);
            }
        }
        let string_to_sign = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}",
            self.time_and_scope,
            hex::encode(self.previous),
            hex::encode(canonical.finish()),
        );
        self.check(&string_to_sign, claimed)
    }

    /// Constant-time.
    fn check(&mut self, string_to_sign: &str, claimed: [u8; 32]) -> Result<(), ChunkedError> {
        hmac::verify(&self.key, string_to_sign.as_bytes(), &claimed)
            .map_err(|_| ChunkedError::Signature)?;
        self.previous = claimed;
        Ok(())
    }
}
