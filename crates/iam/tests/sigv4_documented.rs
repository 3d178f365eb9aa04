//! Signatures AWS publishes: the examples of the S3 API reference ("Authenticating Requests (AWS
//! Signature Version 4)") and of the SigV4 signing process.
#![allow(clippy::unwrap_used)]
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::request::Parts;
use iam::{
    Credential, Principal, SecretAccessKey,
    chunked::{ChunkedError, Decoder, Options},
    identity::FixedCredentials,
    sigv4::{self, Body, Form, Payload, SigV4Error, Verifier, claimed_service},
};

/// Friday, 24 May 2013, 00:00:00 UTC.
const MAY_24: u64 = 1_369_353_600;
/// 30 August 2015, 12:36:00 UTC.
const AUGUST_30: u64 = 1_440_938_160;
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn verifier(access_key: &str, secret: &str) -> Verifier {
    let credential = Credential {
        principal: Principal::root("123456789012".parse().unwrap()),
        secret: SecretAccessKey::new(secret).unwrap(),
    };
    let credentials = FixedCredentials::one(access_key.parse().unwrap(), credential);
    Verifier::new(
        sigv4::Options::new("us-east-1".parse().unwrap()),
        Arc::new(credentials),
    )
}

/// The credentials of the S3 API reference.
fn s3() -> Verifier {
    verifier(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
}

/// The credentials of the SigV4 test suite.
fn suite() -> Verifier {
    verifier("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
}

fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn s3_request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    content: &str,
    signed: &str,
    signature: &str,
) -> Parts {
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
         SignedHeaders={signed},Signature={signature}"
    );
    let mut all = headers.to_vec();
    all.extend([
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", content),
        ("authorization", &authorization),
    ]);
    if !headers.iter().any(|(name, _)| *name == "host") {
        all.push(("host", "examplebucket.s3.amazonaws.com"));
    }
    head(method, target, &all)
}

#[test]
fn the_s3_examples_with_a_header_verify() {
    let put_digest = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    let requests = [
        s3_request(
            "GET",
            "/test.txt",
            &[("range", "bytes=0-9")],
            EMPTY,
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        s3_request(
            "PUT",
            "/test%24file.text",
            &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ],
            put_digest,
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        s3_request(
            "GET",
            "/?lifecycle",
            &[],
            EMPTY,
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        s3_request(
            "GET",
            "/?max-keys=2&prefix=J",
            &[],
            EMPTY,
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ];
    let verifier = s3();
    for request in &requests {
        // Twice: the second time with the cached key.
        for _ in 0..2 {
            let verified = verifier.verify(request, Body::Unread, at(MAY_24)).unwrap();
            assert_eq!(verified.service, "s3");
            assert_eq!(verified.form, Form::Header);
            assert!(matches!(verified.payload, Payload::Sha256(_)));
        }
    }
    let put = verifier.verify(
        &requests[1],
        Body::Whole(b"Welcome to Amazon S3."),
        at(MAY_24),
    );
    assert!(put.is_ok());
    let other = verifier.verify(
        &requests[1],
        Body::Whole(b"Welcome to Amazon S4."),
        at(MAY_24),
    );
    assert_eq!(other.unwrap_err(), SigV4Error::ContentSha256Mismatch);
}

const PRESIGNED: &str = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
     &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
     &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
     &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

#[test]
fn the_presigned_example_verifies_for_its_day() {
    let request = head(
        "GET",
        PRESIGNED,
        &[("host", "examplebucket.s3.amazonaws.com")],
    );
    let verifier = s3();
    assert_eq!(claimed_service(&request).as_deref(), Some("s3"));
    for now in [MAY_24, MAY_24 + 86_400, MAY_24 - 15 * 60] {
        let verified = verifier.verify(&request, Body::Unread, at(now)).unwrap();
        assert_eq!(verified.form, Form::Presigned);
        assert!(matches!(verified.payload, Payload::Unsigned));
    }
    let verify = |now| {
        verifier
            .verify(&request, Body::Unread, at(now))
            .unwrap_err()
    };
    assert_eq!(verify(MAY_24 + 86_401), SigV4Error::Expired);
    assert_eq!(verify(MAY_24 - 15 * 60 - 1), SigV4Error::NotYetValid);
}

#[test]
fn a_presigned_request_with_anything_changed_is_refused() {
    let verifier = s3();
    let verify = |method: &str, target: &str, headers: &[(&str, &str)]| {
        let mut all = vec![("host", "examplebucket.s3.amazonaws.com")];
        all.extend(headers);
        let request = head(method, target, &all);
        verifier
            .verify(&request, Body::Unread, at(MAY_24))
            .map(drop)
            .unwrap_err()
    };
    assert_eq!(verify("PUT", PRESIGNED, &[]), SigV4Error::Mismatch);
    assert_eq!(
        verify("GET", &format!("{PRESIGNED}&versionId=1"), &[]),
        SigV4Error::Mismatch
    );
    assert_eq!(
        verify("GET", &PRESIGNED.replace("test.txt", "test.tx"), &[]),
        SigV4Error::Mismatch
    );
    let replaced = |from: &str, to: &str| verify("GET", &PRESIGNED.replace(from, to), &[]);
    assert_eq!(
        replaced("Expires=86400", "Expires=86401"),
        SigV4Error::Mismatch
    );
    for wrong in [
        "0",
        "604801",
        "-1",
        "1e3",
        "",
        "+60",
        "99999999999999999999999",
    ] {
        let error = replaced("Expires=86400", &format!("Expires={wrong}"));
        assert!(matches!(error, SigV4Error::Query(_)), "{wrong}: {error:?}");
    }
    for gone in [
        "X-Amz-Expires=86400&",
        "X-Amz-SignedHeaders=host",
        "X-Amz-Date=20130524T000000Z&",
    ] {
        assert!(matches!(replaced(gone, ""), SigV4Error::Query(_)), "{gone}");
    }
    let twice = format!("{PRESIGNED}&X-Amz-Expires=86400");
    assert!(matches!(verify("GET", &twice, &[]), SigV4Error::Query(_)));
    assert_eq!(
        verify("GET", &format!("{PRESIGNED}&X-Amz-Security-Token=t"), &[]),
        SigV4Error::Token
    );
    assert_eq!(
        verify("GET", PRESIGNED, &[("x-amz-security-token", "t")]),
        SigV4Error::Token
    );
    assert_eq!(
        verify(
            "GET",
            PRESIGNED,
            &[("x-amz-server-side-encryption", "AES256")]
        ),
        SigV4Error::NotSigned("x-amz-server-side-encryption".into())
    );
    assert!(matches!(
        verify("GET", PRESIGNED, &[("authorization", "AWS4-HMAC-SHA256 x")]),
        SigV4Error::Ambiguous(_)
    ));
}

#[test]
fn signature_version_2_is_refused() {
    let verifier = s3();
    for request in [
        head(
            "GET",
            "/",
            &[
                ("host", "h"),
                ("authorization", "AWS AKIAIOSFODNN7EXAMPLE:c2ln"),
            ],
        ),
        head(
            "GET",
            "/?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Expires=1&Signature=x",
            &[("host", "h")],
        ),
        head(
            "GET",
            "/?AWSAccess%4beyId=AKIAIOSFODNN7EXAMPLE&Signature=x",
            &[("host", "h")],
        ),
        head(
            "GET",
            "/",
            &[
                ("host", "h"),
                ("authorization", "AWS4-ECDSA-P256-SHA256 Credential=x"),
            ],
        ),
    ] {
        let error = verifier
            .verify(&request, Body::Unread, at(MAY_24))
            .unwrap_err();
        assert_eq!(error, SigV4Error::Unsupported);
    }
}

/// The requests of the SigV4 test suite: method, target, further headers, signed headers, signature.
/// All are for service `service` at 20150830T123600Z, host `example.amazonaws.com`, and none has an
/// `x-amz-content-sha256`: the body is hashed.
const SUITE: &str = include_str!("vectors/sigv4-suite.txt");

#[test]
fn the_sigv4_test_suite_verifies() {
    let verifier = suite();
    let mut count = 0;
    for case in SUITE
        .split("\n\n")
        .map(str::trim)
        .filter(|case| !case.starts_with('#'))
    {
        let mut lines = case.lines();
        let mut line = || lines.next().unwrap();
        let (name, request_line, signed, signature) = (line(), line(), line(), line());
        let (method, target) = request_line.split_once(' ').unwrap();
        let mut headers = vec![("host", "example.amazonaws.com")];
        let mut body = "";
        for line in lines {
            match line.split_once(": ") {
                Some(("body", text)) => body = text,
                Some(header) => headers.push(header),
                None => panic!("{name}: {line}"),
            }
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={signed}, Signature={signature}"
        );
        headers.push(("x-amz-date", "20150830T123600Z"));
        headers.push(("authorization", &authorization));
        let request = head(method, target, &headers);
        let verified = verifier.verify(&request, Body::Whole(body.as_bytes()), at(AUGUST_30));
        assert!(verified.is_ok(), "{name}: {verified:?}");
        let pending = verifier.begin(&request, at(AUGUST_30)).unwrap();
        assert!(pending.needs_body(), "{name}");
        let other = pending.finish(Body::Whole(b"another body"));
        assert_eq!(other.unwrap_err(), SigV4Error::Mismatch, "{name}");
        count += 1;
    }
    assert!(count >= 15, "only {count} cases were read");
}

const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";

#[test]
fn the_chunked_upload_example_verifies() {
    let request = s3_request(
        "PUT",
        "/examplebucket/chunkObject.txt",
        &[
            ("host", "s3.amazonaws.com"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("content-length", "66824"),
        ],
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;\
         x-amz-decoded-content-length;x-amz-storage-class",
        SEED,
    );
    let verified = s3().verify(&request, Body::Unread, at(MAY_24)).unwrap();
    let options = Options::from_request(&request, &verified.payload)
        .unwrap()
        .unwrap();
    assert_eq!(options.decoded_len, 66_560);

    let mut body = Vec::new();
    for (length, signature) in [
        (
            65_536,
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        ),
        (
            1024,
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        ),
        (
            0,
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ),
    ] {
        body.extend_from_slice(format!("{length:x};chunk-signature={signature}\r\n").as_bytes());
        body.extend(std::iter::repeat_n(b'a', length));
        body.extend_from_slice(b"\r\n");
    }
    assert_eq!(body.len(), 66_824);

    let mut decoder = Decoder::new(options.clone());
    let mut data = Vec::new();
    decoder.push(body.clone().into(), &mut data).unwrap();
    assert!(decoder.finish().unwrap().is_empty());
    assert_eq!(data.concat(), vec![b'a'; 66_560]);

    body[70_000 - 4_000] ^= 1;
    let mut decoder = Decoder::new(options);
    let error = decoder.push(body.into(), &mut Vec::new()).unwrap_err();
    assert_eq!(error, ChunkedError::Signature);
}

#[test]
fn the_chunked_upload_example_with_trailers_verifies() {
    let request = s3_request(
        "PUT",
        "/examplebucket/chunkObject.txt",
        &[
            ("host", "s3.amazonaws.com"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("x-amz-trailer", "x-amz-checksum-crc32c"),
        ],
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
         x-amz-storage-class;x-amz-trailer",
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    );
    let verified = s3().verify(&request, Body::Unread, at(MAY_24)).unwrap();
    let options = Options::from_request(&request, &verified.payload)
        .unwrap()
        .unwrap();

    let mut body = Vec::new();
    for (length, signature) in [
        (
            65_536,
            "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        ),
        (
            1024,
            "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        ),
        (
            0,
            "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
        ),
    ] {
        body.extend_from_slice(format!("{length:x};chunk-signature={signature}\r\n").as_bytes());
        body.extend(std::iter::repeat_n(b'a', length));
        if length > 0 {
            body.extend_from_slice(b"\r\n");
        }
    }
    let trailers = "x-amz-checksum-crc32c:sOO8/Q==";
    let signature = "x-amz-trailer-signature:\
         d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
    // As the SDKs send it, and as the documentation writes it.
    for (between, end) in [("\r\n", "\r\n\r\n"), ("\n\r\n", "\r\n"), ("\r\n", "\r\n")] {
        let mut body = body.clone();
        body.extend_from_slice(format!("{trailers}{between}{signature}{end}").as_bytes());
        let mut decoder = Decoder::new(options.clone());
        let mut data = Vec::new();
        decoder.push(body.into(), &mut data).unwrap();
        assert!(decoder.is_complete());
        let trailers = decoder.finish().unwrap();
        assert_eq!(trailers["x-amz-checksum-crc32c"], "sOO8/Q==");
        assert_eq!(data.iter().map(|piece| piece.len()).sum::<usize>(), 66_560);
    }
    let mut altered = body.clone();
    altered.extend_from_slice(
        format!("x-amz-checksum-crc32c:sOO9/Q==\r\n{signature}\r\n\r\n").as_bytes(),
    );
    let mut decoder = Decoder::new(options);
    let error = decoder.push(altered.into(), &mut Vec::new()).unwrap_err();
    assert_eq!(error, ChunkedError::Signature);
}
