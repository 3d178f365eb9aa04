//! Signed requests: whatever a stranger sends as path, query and headers, the verifier neither panics nor says yes.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request};
use iam::sigv4::{Body, Options, Verifier, claim, strip};
use iam::{Credential, Principal, SecretAccessKey};
use libfuzzer_sys::fuzz_target;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let credential = Credential {
        principal: Principal::root("123456789012".parse().expect("twelve digits")),
        secret: SecretAccessKey::new("a secret that no input of the fuzzer knows")
            .expect("printable"),
    };
    let known = iam::identity::SingleCredential::new(
        "AKIAIOSFODNN7EXAMPLE".parse().expect("an id"),
        credential,
    );
    Verifier::new(
        Options::new("us-east-1".parse().expect("a region")),
        Arc::new(known),
    )
});

fuzz_target!(|data: &[u8]| {
    // METHOD and target on the first line, a header on each further one.
    let mut lines = data.split(|b| *b == b'\n');
    let Some(first) = lines.next() else { return };
    let Ok(target) = std::str::from_utf8(first) else {
        return;
    };
    let Ok(mut request) = Request::get(target).body(()) else {
        return;
    };
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let (name, value) = (
            HeaderName::from_bytes(&line[..colon]),
            HeaderValue::from_bytes(&line[colon + 1..]),
        );
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    let (mut head, ()) = request.into_parts();
    let now = UNIX_EPOCH + Duration::from_secs(1_440_938_160); // 20150830T123600Z, the day of AWS's examples
    let _ = claim(&head);
    for body in [Body::Unread, Body::Whole(b"")] {
        assert!(
            VERIFIER.verify(&head, body, now).is_err(),
            "a signature was guessed"
        );
    }
    strip(&mut head);
    assert!(
        !head.headers.contains_key("authorization"),
        "stripped, and still signed"
    );
});
