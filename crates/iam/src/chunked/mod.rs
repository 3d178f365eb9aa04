//! The `aws-chunked` body encoding, as a decoder without I/O.
//!
//! ```text
//! body     = *chunk last-chunk *trailer CRLF
//! chunk    = size [";chunk-signature=" 64HEX] CRLF data CRLF      size: hexadecimal, data bytes
//! last     = "0"  [";chunk-signature=" 64HEX] CRLF
//! trailer  = name ":" value LF-or-CRLF          names promised in x-amz-trailer, and, if signed,
//!                                               x-amz-trailer-signature last
//! ```
//!
//! [`Decoder::push`] takes what arrived and hands out slices of it, uncopied. A chunk's signature
//! stands before its data and can be checked only after it, so **bytes handed out are not yet
//! authentic**: commit nothing before [`Decoder::finish`] said `Ok`. That call also refuses a body
//! whose final chunk is missing, whose decoded length is not the one announced, or whose promised
//! trailers did not come. It does not compute checksums: the trailers' values are the caller's to
//! compare.
mod decoder;
mod error;

pub use decoder::{Decoder, Mode, Options};
pub use error::ChunkedError;
