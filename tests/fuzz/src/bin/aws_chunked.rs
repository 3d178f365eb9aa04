//! Bodies in `aws-chunked` encoding: no input panics, how it is split makes no difference, and a body that
//! ends well has exactly the announced length.
#![no_main]

use bytes::Bytes;
use http::HeaderName;
use iam::chunked::{ChunkedError, Decoder, Mode, Options};
use libfuzzer_sys::fuzz_target;

fn decode(options: &Options, body: &[u8], piece: usize) -> (Vec<u8>, Result<usize, ChunkedError>) {
    let mut decoder = Decoder::new(options.clone());
    let mut out: Vec<Bytes> = Vec::new();
    let mut failed = None;
    for part in body.chunks(piece) {
        if let Err(error) = decoder.push(Bytes::copy_from_slice(part), &mut out) {
            failed = Some(error);
            break;
        }
    }
    let end = match failed {
        Some(error) => Err(error),
        None => decoder.finish().map(|trailers| trailers.len()),
    };
    (out.concat(), end)
}

fuzz_target!(|data: &[u8]| {
    let [length, piece, trailers, body @ ..] = data else {
        return;
    };
    let names = ["x-amz-checksum-crc32", "x-amz-checksum-sha256"].map(HeaderName::from_static);
    let options = Options {
        mode: Mode::UnsignedTrailer,
        decoded_len: u64::from(*length),
        trailers: names.into_iter().take(usize::from(trailers % 3)).collect(),
    };
    let (whole, end) = decode(&options, body, body.len().max(1));
    let (pieces, end_of_pieces) = decode(&options, body, usize::from(*piece).max(1));
    assert_eq!(
        end.is_ok(),
        end_of_pieces.is_ok(),
        "depends on how the body is split: {end:?}, {end_of_pieces:?}"
    );
    if let Ok(trailers) = end {
        assert_eq!(whole.len() as u64, options.decoded_len);
        assert_eq!(whole, pieces);
        assert!(
            trailers >= options.trailers.len(),
            "a promised trailer is missing"
        );
    }
    assert!(
        whole.len() as u64 <= options.decoded_len,
        "handed out more than was announced"
    );
});
