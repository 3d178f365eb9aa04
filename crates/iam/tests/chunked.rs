//! The `aws-chunked` decoder against bodies that are whole, cut, stretched and altered, in pieces of
//! every size. Bodies are made by a small encoder of the tests' own; that both agree with AWS is
//! shown in `sigv4_documented.rs`.
#![allow(clippy::unwrap_used)]
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use iam::{
    Credential, Principal, SecretAccessKey,
    chunked::{ChunkedError, Decoder, Mode, Options},
    identity::FixedCredentials,
    sigv4::{self, Body, Payload, Verifier},
};
use proptest::prelude::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";
const TIME: &str = "20130524T000000Z";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn hmac(key: &[u8], data: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes())
        .as_ref()
        .to_vec()
}

fn sha256(data: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, data))
}

/// A client: its signing key, and the last signature it made.
struct Client {
    key: Vec<u8>,
    last: String,
}

impl Client {
    /// Signs a request with this `x-amz-content-sha256`, and verifies it to get the mode.
    fn start(content: &str) -> (Self, Payload) {
        let mut key = format!("AWS4{SECRET}").into_bytes();
        for part in SCOPE.split('/') {
            key = hmac(&key, part);
        }
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "PUT\n/b/k\n\nhost:h\nx-amz-content-sha256:{content}\nx-amz-date:{TIME}\n\n{signed}\n{content}"
        );
        let signature = hex::encode(hmac(
            &key,
            &format!(
                "AWS4-HMAC-SHA256\n{TIME}\n{SCOPE}\n{}",
                sha256(canonical.as_bytes())
            ),
        ));
        let request = http::Request::put("/b/k")
            .header("host", "h")
            .header("x-amz-content-sha256", content)
            .header("x-amz-date", TIME)
            .header(
                "authorization",
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{SCOPE},SignedHeaders={signed},\
                     Signature={signature}"
                ),
            )
            .body(())
            .unwrap();
        let credential = Credential {
            principal: Principal::root("123456789012".parse().unwrap()),
            secret: SecretAccessKey::new(SECRET).unwrap(),
        };
        let credentials = FixedCredentials::one("AKIDEXAMPLE".parse().unwrap(), credential);
        let verifier = Verifier::new(
            sigv4::Options::new("us-east-1".parse().unwrap()),
            Arc::new(credentials),
        );
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let verified = verifier
            .verify(&request.into_parts().0, Body::Unread, now)
            .unwrap();
        (
            Self {
                key,
                last: signature,
            },
            verified.payload,
        )
    }

    fn sign(&mut self, kind: &str, rest: &str) -> String {
        let string_to_sign = format!(
            "AWS4-HMAC-SHA256-{kind}\n{TIME}\n{SCOPE}\n{}\n{rest}",
            self.last
        );
        self.last = hex::encode(hmac(&self.key, &string_to_sign));
        self.last.clone()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Signed,
    SignedTrailer,
    UnsignedTrailer,
}

const KINDS: [Kind; 3] = [Kind::Signed, Kind::SignedTrailer, Kind::UnsignedTrailer];
const TRAILERS: [(&str, &str); 2] = [
    ("x-amz-checksum-sha256", "c2hh"),
    ("x-amz-checksum-crc32", "AAAAAA=="),
];

/// A body of these chunks, and the options that go with it.
fn encode(kind: Kind, chunks: &[&[u8]], trailers: &[(&str, &str)]) -> (Vec<u8>, Options) {
    let content = match kind {
        Kind::Signed => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        Kind::SignedTrailer => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        Kind::UnsignedTrailer => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    };
    let (mut client, payload) = Client::start(content);
    let mut body = Vec::new();
    for chunk in chunks
        .iter()
        .copied()
        .filter(|chunk| !chunk.is_empty())
        .chain([&[][..]])
    {
        body.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if kind != Kind::UnsignedTrailer {
            let signature = client.sign("PAYLOAD", &format!("{EMPTY}\n{}", sha256(chunk)));
            body.extend_from_slice(format!(";chunk-signature={signature}").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        if !chunk.is_empty() {
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
    }
    if kind != Kind::Signed {
        let mut sorted = trailers.to_vec();
        sorted.sort_unstable();
        let canonical: String = sorted
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        for (name, value) in trailers {
            body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        if kind == Kind::SignedTrailer {
            let signature = client.sign("TRAILER", &sha256(canonical.as_bytes()));
            body.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
        }
    }
    body.extend_from_slice(b"\r\n");
    let mode = match payload {
        Payload::StreamingSigned(signature) => Mode::Signed(signature),
        Payload::StreamingSignedTrailer(signature) => Mode::SignedTrailer(signature),
        Payload::StreamingUnsignedTrailer => Mode::UnsignedTrailer,
        other => panic!("{other:?}"),
    };
    let options = Options {
        mode,
        decoded_len: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
        trailers: match kind {
            Kind::Signed => Vec::new(),
            _ => trailers
                .iter()
                .map(|(name, _)| name.parse::<HeaderName>().unwrap())
                .collect(),
        },
    };
    (body, options)
}

/// Decodes a body that comes in these pieces.
fn decode<'a>(
    options: &Options,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<u8>, HeaderMap), ChunkedError> {
    let mut decoder = Decoder::new(options.clone());
    let mut out: Vec<Bytes> = Vec::new();
    for piece in pieces {
        if let Err(error) = decoder.push(Bytes::copy_from_slice(piece), &mut out) {
            assert_eq!(decoder.push(Bytes::from_static(b"x"), &mut out), Err(error));
            assert_eq!(
                decoder.finish(),
                Err(error),
                "a failed decoder stays failed"
            );
            return Err(error);
        }
    }
    let complete = decoder.is_complete();
    let trailers = decoder.finish();
    assert_eq!(complete, trailers.is_ok());
    Ok((out.concat(), trailers?))
}

const CHUNKS: [&[u8]; 3] = [
    b"0123456789abcdef0",
    b"\r\n0;chunk-signature=\r\n\r\n",
    b"z",
];

#[test]
fn a_body_split_anywhere_decodes_the_same() {
    for kind in KINDS {
        let (body, options) = encode(kind, &CHUNKS, &TRAILERS);
        let whole = decode(&options, [&body[..]]).unwrap();
        assert_eq!(whole.0, CHUNKS.concat());
        assert_eq!(whole.1.len(), if kind == Kind::Signed { 0 } else { 2 });
        for at in 0..=body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(
                decode(&options, [a, b]).unwrap(),
                whole,
                "{kind:?} split at {at}"
            );
        }
        assert_eq!(decode(&options, body.chunks(1)).unwrap(), whole);
    }
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    for kind in KINDS {
        let (body, options) = encode(kind, &CHUNKS, &TRAILERS);
        // What ends with the trailers' signature is whole: the empty line after it says nothing.
        let end = if kind == Kind::SignedTrailer {
            body.len() - 2
        } else {
            body.len()
        };
        for at in 0..end {
            let error = decode(&options, [&body[..at]]).unwrap_err();
            assert_eq!(error, ChunkedError::Incomplete, "{kind:?} cut at {at}");
        }
    }
}

#[test]
fn an_empty_object_is_a_final_chunk_alone() {
    for kind in KINDS {
        let (body, options) = encode(kind, &[], &[]);
        assert_eq!(decode(&options, [&body[..]]).unwrap().0, b"");
    }
}

#[test]
fn more_after_the_end_is_refused() {
    for kind in KINDS {
        let (body, options) = encode(kind, &CHUNKS, &TRAILERS);
        for extra in [&b"\r\n"[..], b"0\r\n\r\n", b"x"] {
            let long = [&body[..], extra].concat();
            assert_eq!(
                decode(&options, [&long[..]]),
                Err(ChunkedError::TooLong),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn the_decoded_length_is_the_one_announced() {
    for kind in KINDS {
        let (body, options) = encode(kind, &CHUNKS, &TRAILERS);
        let with = |decoded_len| Options {
            decoded_len,
            ..options.clone()
        };
        let short = decode(&with(options.decoded_len + 1), [&body[..]]);
        assert_eq!(short, Err(ChunkedError::Incomplete));
        let long = decode(&with(options.decoded_len - 1), [&body[..]]);
        assert_eq!(long, Err(ChunkedError::TooLong));
    }
}

#[test]
fn any_bit_flipped_in_a_signed_body_is_noticed() {
    for kind in [Kind::Signed, Kind::SignedTrailer] {
        let (body, options) = encode(kind, &CHUNKS, &TRAILERS);
        let whole = decode(&options, [&body[..]]).unwrap();
        for at in 0..body.len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut altered = body.clone();
                altered[at] ^= bit;
                match decode(&options, [&altered[..]]) {
                    Err(_) => {}
                    // Case of a size's digit or of a trailer's name, and the blank around a line:
                    // the meaning is the same.
                    Ok(decoded) => assert_eq!(decoded, whole, "{kind:?} byte {at} bit {bit:x}"),
                }
            }
        }
    }
}

#[test]
fn chunks_cannot_be_dropped_repeated_or_reordered() {
    let (body, options) = encode(Kind::Signed, &[b"aaaa", b"bbbb", b"cccc"], &[]);
    // `4;chunk-signature=` 64 digits CR LF, four bytes, CR LF.
    let chunk = |index: usize| &body[index * 90..(index + 1) * 90];
    let end = &body[270..];
    let decode_of = |order: &[usize], decoded_len| {
        let pieces: Vec<&[u8]> = order
            .iter()
            .map(|&index| chunk(index))
            .chain([end])
            .collect();
        decode(
            &Options {
                decoded_len,
                ..options.clone()
            },
            pieces,
        )
    };
    assert!(decode_of(&[0, 1, 2], 12).is_ok());
    for (order, len) in [
        (&[1, 0, 2][..], 12),
        (&[0, 2], 8),
        (&[0, 1], 8),
        (&[0, 0, 1, 2], 16),
    ] {
        assert_eq!(
            decode_of(order, len),
            Err(ChunkedError::Signature),
            "{order:?}"
        );
    }
}

#[test]
fn trailers_come_as_promised() {
    for kind in [Kind::SignedTrailer, Kind::UnsignedTrailer] {
        let (body, options) = encode(kind, &CHUNKS, &TRAILERS);
        let promise = |names: &[&str]| {
            let trailers = names.iter().map(|name| name.parse().unwrap()).collect();
            decode(
                &Options {
                    trailers,
                    ..options.clone()
                },
                [&body[..]],
            )
        };
        let both = ["x-amz-checksum-crc32", "x-amz-checksum-sha256"];
        assert!(promise(&both).is_ok());
        assert_eq!(
            promise(&both[..1]),
            Err(ChunkedError::Trailer),
            "one was not promised"
        );
        let three = [both[0], both[1], "x-amz-checksum-sha1"];
        assert_eq!(
            promise(&three),
            Err(ChunkedError::Trailer),
            "one did not come"
        );
        let twice = encode(kind, &CHUNKS, &[TRAILERS[0], TRAILERS[0]]);
        assert_eq!(
            decode(&twice.1, [&twice.0[..]]),
            Err(ChunkedError::Trailer),
            "one came twice"
        );
    }
    // A signed body whose trailers' signature is left out altogether.
    let (body, options) = encode(Kind::SignedTrailer, &CHUNKS, &TRAILERS);
    let at = body
        .windows(23)
        .position(|part| part == b"x-amz-trailer-signature")
        .unwrap();
    for end in [&b"\r\n"[..], b"\r\n\r\n", b""] {
        let unsigned = [&body[..at], end].concat();
        assert!(decode(&options, [&unsigned[..]]).is_err());
    }
}

#[test]
fn malformed_chunk_headers_are_refused() {
    let (_, unsigned) = encode(Kind::UnsignedTrailer, &[b"aaaa"], &[]);
    for (body, expected) in [
        (&b"4;chunk-signature=00\r\naaaa\r\n"[..], None),
        (b"\r\n", None),
        (b"-4\r\naaaa\r\n", None),
        (b"+4\r\naaaa\r\n", None),
        (b"0x4\r\naaaa\r\n", None),
        (b" 4\r\naaaa\r\n", None),
        (b"4\naaaa\r\n", None),
        (b"4\r\naaaaa\r\n", None),
        (b"4\r\naaaa\n0\r\n\r\n", None),
        (b"5\r\naaaaa\r\n", Some(ChunkedError::TooLong)),
        (b"ffffffff\r\n", Some(ChunkedError::TooLong)),
        (b"ffffffffffffffff\r\n", Some(ChunkedError::ChunkTooLarge)),
        (b"00000000000000004\r\naaaa\r\n", None),
        (
            b"4\r\naaaa\r\n0\r\nno colon\r\n\r\n",
            Some(ChunkedError::Trailer),
        ),
    ] {
        let error = decode(&unsigned, [body]).unwrap_err();
        match expected {
            Some(expected) => assert_eq!(error, expected),
            None => assert!(
                matches!(error, ChunkedError::Malformed(_)),
                "{body:?}: {error:?}"
            ),
        }
    }
    let (_, signed) = encode(Kind::Signed, &[b"aaaa"], &[]);
    for body in [
        &b"4\r\naaaa\r\n"[..],
        b"4;chunk-signature=00\r\n",
        b"4;x=y\r\n",
    ] {
        assert!(matches!(
            decode(&signed, [body]),
            Err(ChunkedError::Malformed(_))
        ));
    }
}

#[test]
fn a_line_without_end_is_not_collected() {
    let (_, options) = encode(Kind::UnsignedTrailer, &[b"aaaa"], &[]);
    let endless = vec![b'0'; 100_000];
    let malformed = |pieces: Vec<&[u8]>| {
        assert!(matches!(
            decode(&options, pieces),
            Err(ChunkedError::Malformed(_))
        ));
    };
    malformed(vec![&endless]);
    malformed(endless.chunks(7).collect());
    let trailer = [&b"4\r\naaaa\r\n0\r\n"[..], &endless].concat();
    malformed(vec![&trailer]);
}

#[test]
fn data_is_handed_out_uncopied() {
    let (body, options) = encode(Kind::UnsignedTrailer, &[&[7; 1000]], &[]);
    let body = Bytes::from(body);
    let mut out = Vec::new();
    Decoder::new(options).push(body.clone(), &mut out).unwrap();
    let start = body.as_ptr() as usize;
    assert_eq!(out.len(), 1);
    assert!((start..start + body.len()).contains(&(out[0].as_ptr() as usize)));
}

#[test]
fn the_head_must_announce_length_and_trailers_once() {
    let (_, signed) = Client::start("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let unsigned = Payload::StreamingUnsignedTrailer;
    let read = |payload: &Payload, headers: &[(&str, &str)]| {
        let mut request = http::Request::put("/b/k");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Options::from_request(&request.body(()).unwrap().into_parts().0, payload)
    };
    let length = ("x-amz-decoded-content-length", "5");
    let options = read(
        &unsigned,
        &[length, ("x-amz-trailer", "X-Amz-Checksum-Crc32, x-b")],
    );
    assert_eq!(
        options.unwrap().unwrap().trailers,
        ["x-amz-checksum-crc32", "x-b"]
    );
    assert!(read(&signed, &[length]).unwrap().is_some());
    assert!(read(&Payload::Unsigned, &[]).unwrap().is_none());
    let many = "a,b,c,d,e,f,g,h,i";
    for (payload, headers) in [
        (&unsigned, &[][..]),
        (&unsigned, &[length, length]),
        (&unsigned, &[("x-amz-decoded-content-length", "+5")]),
        (&unsigned, &[("x-amz-decoded-content-length", "")]),
        (&unsigned, &[length, ("x-amz-trailer", "a,a")]),
        (&unsigned, &[length, ("x-amz-trailer", "a,,b")]),
        (
            &unsigned,
            &[length, ("x-amz-trailer", "x-amz-trailer-signature")],
        ),
        (&unsigned, &[length, ("x-amz-trailer", many)]),
        (&signed, &[length, ("x-amz-trailer", "a")]),
    ] {
        assert!(
            matches!(read(payload, headers), Err(ChunkedError::Head(_))),
            "{headers:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However a body is chunked and however it arrives, the data is the same.
    #[test]
    fn decoding_does_not_depend_on_how_the_body_arrives(
        kind in prop::sample::select(&KINDS[..]),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let (body, options) = encode(kind, &chunks, &TRAILERS);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| &body[ends[0]..ends[1]]);
        let (data, trailers) = decode(&options, pieces).unwrap();
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(trailers.len(), if kind == Kind::Signed { 0 } else { 2 });
    }

    /// Whatever arrives, in whatever pieces, gives one answer, and data never beyond the length.
    #[test]
    fn nonsense_is_answered_alike_whole_and_in_pieces(
        body in prop::collection::vec(
            prop::sample::select(&b"0123456789abcdef;:\r\n\n\rxX-"[..]), 0..200),
        piece in 1usize..20,
    ) {
        let options = Options {
            mode: Mode::UnsignedTrailer,
            decoded_len: 40,
            trailers: vec!["x".parse().unwrap()],
        };
        let whole = decode(&options, [&body[..]]);
        prop_assert_eq!(&decode(&options, body.chunks(piece)), &whole);
        if let Ok((data, _)) = whole {
            prop_assert_eq!(data.len(), 40);
        }
    }
}
