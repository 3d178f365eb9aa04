//! Entry points for fuzz targets: what reads bytes from strangers. Compiled for fuzzing alone.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use bytes::Bytes;

use crate::{
    Arn,
    chunked::{Decoder, Mode, Options},
    identity::{Credential, FixedCredentials, Principal, SecretAccessKey},
    sigv4::{self, Body, StreamingSignature, Verifier, authorization::Authorization, canonical},
};

/// An `aws-chunked` body: the first byte chooses the mode, the second the size of the pieces. Whole
/// and in pieces it must give the same answer.
pub fn chunked(data: &[u8]) {
    let [mode, piece, body @ ..] = data else {
        return;
    };
    let signature = StreamingSignature {
        key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, b"key")),
        timestamp: "20130524T000000Z".into(),
        scope: "20130524/us-east-1/s3/aws4_request".into(),
        seed: [0; 32],
    };
    let mode = match mode % 3 {
        0 => Mode::Signed(signature),
        1 => Mode::SignedTrailer(signature),
        _ => Mode::UnsignedTrailer,
    };
    let trailers = vec![http::HeaderName::from_static("x-amz-checksum-crc32")];
    let decode = |piece: usize| {
        let decoded_len = u64::from(data[0]);
        let mut decoder = Decoder::new(Options {
            mode: mode.clone(),
            decoded_len,
            trailers: trailers.clone(),
        });
        let mut out: Vec<Bytes> = Vec::new();
        for part in body.chunks(piece) {
            decoder.push(Bytes::copy_from_slice(part), &mut out)?;
        }
        let trailers = decoder.finish()?;
        let out = out.concat();
        assert_eq!(out.len() as u64, decoded_len);
        Ok::<_, crate::chunked::ChunkedError>((out, trailers))
    };
    assert_eq!(
        decode(body.len().max(1)),
        decode(usize::from(*piece).max(1))
    );
}

/// An `Authorization` header's parameters.
pub fn authorization(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Authorization::parse(text);
    }
}

/// A whole request head: target, LF, then `name: value` lines.
pub fn request(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let mut request = http::Request::builder().uri(lines.next().unwrap_or_default());
    for line in lines {
        if let Some(at) = line.iter().position(|&byte| byte == b':') {
            request = request.header(&line[..at], line[at + 1..].trim_ascii());
        }
    }
    let Ok(request) = request.body(()) else {
        return;
    };
    let (mut head, ()) = request.into_parts();
    let credential = Credential {
        principal: Principal::root("123456789012".parse().expect("digits")),
        secret: SecretAccessKey::new("wJalrXUtnFEMI/K7MDENG").expect("printable"),
    };
    let credentials = FixedCredentials::one("AKIDEXAMPLE".parse().expect("letters"), credential);
    let region = "us-east-1".parse().expect("a region");
    let verifier = Verifier::new(sigv4::Options::new(region), Arc::new(credentials));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
    let _ = sigv4::claimed_service(&head);
    assert!(
        verifier.verify(&head, Body::Whole(b""), now).is_err(),
        "a signature was guessed"
    );
    sigv4::strip(&mut head);
}

/// A path and a query: what is canonical stays as it is.
pub fn canonical(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(once) = canonical::path(text, canonical::PathStyle::Object) {
        assert_eq!(
            canonical::path(&once, canonical::PathStyle::Object).as_ref(),
            Some(&once)
        );
    }
    let _ = canonical::path(text, canonical::PathStyle::Normalised);
    if let Some(pairs) = canonical::pairs(text) {
        let once = canonical::query(&pairs);
        let again = canonical::pairs(&once).map(|pairs| canonical::query(&pairs));
        assert_eq!(again.as_ref(), Some(&once));
    }
}

/// An ARN prints as it was written.
pub fn arn(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(arn) = text.parse::<Arn>() {
        assert_eq!(arn.as_str(), text);
        let _ = (arn.service(), arn.region(), arn.account(), arn.resource());
    }
}
