//! Requests signed rightly by a signer of the tests' own, then changed in one respect.
#![allow(clippy::unwrap_used)]
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{digest, hmac};
use http::request::Parts;
use iam::{
    AccessKeyId, Credential, Credentials, Principal, SecretAccessKey,
    sigv4::{self, Body, Form, Payload, SigV4Error, Verifier, claimed_service},
};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 24 May 2013, 00:00:00 UTC.
const NOW: u64 = 1_369_353_600;
const TIME: &str = "20130524T000000Z";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Credentials that can be replaced.
struct Replaceable(Mutex<Option<Arc<Credential>>>);

impl Replaceable {
    fn set(&self, secret: Option<&str>) {
        *self.0.lock().unwrap() = secret.map(|secret| {
            Arc::new(Credential {
                principal: Principal::root("123456789012".parse().unwrap()),
                secret: SecretAccessKey::new(secret).unwrap(),
            })
        });
    }
}

impl Credentials for Replaceable {
    fn lookup(&self, access_key: &AccessKeyId) -> Option<Arc<Credential>> {
        (access_key.as_str() == "AKIDEXAMPLE")
            .then(|| self.0.lock().unwrap().clone())
            .flatten()
    }
}

fn setup() -> (Verifier, Arc<Replaceable>) {
    let credentials = Arc::new(Replaceable(Mutex::new(None)));
    credentials.set(Some(SECRET));
    let options = sigv4::Options::new("eu-west-1".parse().unwrap());
    (
        Verifier::new(options, Arc::clone(&credentials) as Arc<dyn Credentials>),
        credentials,
    )
}

/// A request to be signed. What stands here is what the client signs; `canonical_path` is given
/// apart, so that the verifier's own canonical form is tested against it.
struct Signer<'a> {
    method: &'a str,
    target: &'a str,
    canonical_path: &'a str,
    canonical_query: &'a str,
    service: &'a str,
    region: &'a str,
    headers: &'a [(&'a str, &'a str)],
    payload: &'a str,
}

impl Default for Signer<'_> {
    fn default() -> Self {
        Self {
            method: "GET",
            target: "/",
            canonical_path: "/",
            canonical_query: "",
            service: "s3",
            region: "eu-west-1",
            headers: &[
                ("host", "h"),
                ("x-amz-content-sha256", EMPTY),
                ("x-amz-date", TIME),
            ],
            payload: EMPTY,
        }
    }
}

impl Signer<'_> {
    fn signature(&self) -> (String, String) {
        let sign = |key: &[u8], data: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes())
                .as_ref()
                .to_vec()
        };
        let signed: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let signed = signed.join(";");
        let headers: String = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{signed}\n{}",
            self.method, self.canonical_path, self.canonical_query, self.payload
        );
        let scope = format!("20130524/{}/{}/aws4_request", self.region, self.service);
        let canonical = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let time = self
            .headers
            .iter()
            .find(|(name, value)| *name == "x-amz-date" && value.ends_with('Z'))
            .map_or(TIME, |(_, value)| value);
        let mut key = format!("AWS4{SECRET}").into_bytes();
        for part in scope.split('/') {
            key = sign(&key, part);
        }
        let signature = sign(
            &key,
            &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}"),
        );
        (format!("AKIDEXAMPLE/{scope}"), hex::encode(signature))
    }

    fn authorization(&self) -> String {
        let (credential, signature) = self.signature();
        let signed: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        format!(
            "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={}, Signature={signature}",
            signed.join(";")
        )
    }

    fn request(&self) -> Parts {
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(self.target);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        request
            .header("authorization", self.authorization())
            .body(())
            .unwrap()
            .into_parts()
            .0
    }
}

fn verify(request: &Parts) -> Result<sigv4::Verified, SigV4Error> {
    setup().0.verify(request, Body::Unread, at(NOW))
}

#[test]
fn the_clock_may_be_a_quarter_of_an_hour_off_and_no_more() {
    let request = Signer::default().request();
    let (verifier, _) = setup();
    for now in [NOW - 900, NOW, NOW + 900] {
        assert!(verifier.verify(&request, Body::Unread, at(now)).is_ok());
    }
    for now in [NOW - 901, NOW + 901] {
        let error = verifier
            .verify(&request, Body::Unread, at(now))
            .unwrap_err();
        assert_eq!(
            error,
            SigV4Error::Skewed {
                signed_at: TIME.into()
            }
        );
    }
}

#[test]
fn an_unknown_access_key_and_a_wrong_secret_are_told_apart_as_aws_does() {
    let request = Signer::default().request();
    let (verifier, credentials) = setup();
    assert!(verifier.verify(&request, Body::Unread, at(NOW)).is_ok());
    credentials.set(Some("another secret".replace(' ', "-").as_str()));
    let replaced = verifier.verify(&request, Body::Unread, at(NOW));
    assert_eq!(
        replaced.unwrap_err(),
        SigV4Error::Mismatch,
        "the cached key is not used any more"
    );
    credentials.set(None);
    let gone = verifier.verify(&request, Body::Unread, at(NOW));
    assert_eq!(
        gone.unwrap_err(),
        SigV4Error::UnknownAccessKey("AKIDEXAMPLE".into())
    );
    credentials.set(Some(SECRET));
    assert!(verifier.verify(&request, Body::Unread, at(NOW)).is_ok());
}

#[test]
fn each_region_served_may_be_named_and_global_services_fall_back_to_the_first() {
    let credentials = Arc::new(Replaceable(Mutex::new(None)));
    credentials.set(Some(SECRET));
    let mut options = sigv4::Options::new("eu-west-1".parse().unwrap());
    options.more_regions = vec!["us-east-1".parse().unwrap()];
    let verifier = Verifier::new(options, credentials as Arc<dyn Credentials>);
    let verify = |region, service| {
        let request = Signer {
            region,
            service,
            ..Signer::default()
        }
        .request();
        verifier.verify(&request, Body::Unread, at(NOW))
    };
    for region in ["eu-west-1", "us-east-1"] {
        for service in ["s3", "sts"] {
            assert_eq!(verify(region, service).unwrap().region.as_str(), region);
        }
    }
    for service in ["s3", "sts"] {
        let error = verify("eu-west-2", service).unwrap_err();
        assert!(
            matches!(&error, SigV4Error::WrongRegion { expected, .. } if expected.as_str() == "eu-west-1"),
            "{error:?}"
        );
    }
}

#[test]
fn the_scope_names_our_region_and_the_day_of_the_request() {
    let error = verify(
        &Signer {
            region: "us-east-1",
            ..Signer::default()
        }
        .request(),
    )
    .unwrap_err();
    assert_eq!(
        error,
        SigV4Error::WrongRegion {
            form: Form::Header,
            expected: "eu-west-1".parse().unwrap(),
            found: "us-east-1".to_owned(),
        }
    );
    // STS and IAM were global once.
    let sts = Signer {
        region: "us-east-1",
        service: "sts",
        ..Signer::default()
    }
    .request();
    assert_eq!(verify(&sts).unwrap().region.as_str(), "eu-west-1");

    let headers = [
        ("host", "h"),
        ("x-amz-content-sha256", EMPTY),
        ("x-amz-date", "20130523T235959Z"),
    ];
    let error = verify(
        &Signer {
            headers: &headers,
            ..Signer::default()
        }
        .request(),
    )
    .unwrap_err();
    assert!(matches!(error, SigV4Error::Header(_)), "{error:?}");
}

#[test]
fn host_and_every_amz_header_must_be_signed() {
    let without_host = [("x-amz-content-sha256", EMPTY), ("x-amz-date", TIME)];
    let mut request = Signer {
        headers: &without_host,
        ..Signer::default()
    }
    .request();
    request.headers.insert("host", "h".parse().unwrap());
    assert_eq!(
        verify(&request).unwrap_err(),
        SigV4Error::NotSigned("host".into())
    );

    let mut request = Signer::default().request();
    request
        .headers
        .insert("x-amz-copy-source", "/b/k".parse().unwrap());
    let error = verify(&request).unwrap_err();
    assert_eq!(error, SigV4Error::NotSigned("x-amz-copy-source".into()));

    let mut request = Signer::default().request();
    request
        .headers
        .insert("content-type", "text/plain".parse().unwrap());
    assert!(
        verify(&request).is_ok(),
        "a header that is not AWS's own may go unsigned"
    );
}

#[test]
fn a_header_that_counts_cannot_be_there_twice() {
    for name in [
        "host",
        "x-amz-date",
        "x-amz-content-sha256",
        "authorization",
    ] {
        let mut request = Signer::default().request();
        let value = request.headers[name].clone();
        request.headers.append(name, value);
        let error = verify(&request).unwrap_err();
        assert!(matches!(error, SigV4Error::Header(_)), "{name}: {error:?}");
    }
}

#[test]
fn a_signed_header_must_be_there_and_unchanged() {
    let mut request = Signer {
        headers: &[
            ("host", "h"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", TIME),
        ],
        ..Signer::default()
    }
    .request();
    assert!(verify(&request).is_ok());
    request
        .headers
        .insert("range", "bytes=0-99".parse().unwrap());
    assert_eq!(verify(&request).unwrap_err(), SigV4Error::Mismatch);
    request.headers.remove("range");
    assert!(matches!(verify(&request), Err(SigV4Error::Header(_))));
}

#[test]
fn the_target_and_the_host_header_must_agree() {
    let agreeing = Signer {
        target: "http://h/",
        ..Signer::default()
    }
    .request();
    assert!(verify(&agreeing).is_ok());
    let other = Signer {
        target: "http://other/",
        ..Signer::default()
    }
    .request();
    assert!(matches!(verify(&other), Err(SigV4Error::Ambiguous(_))));
}

#[test]
fn paths_are_signed_as_each_service_signs_them() {
    let target = "/a//b/../c%20d/%2F+";
    for (service, canonical_path) in [
        ("s3", "/a//b/../c%20d//%2B"),
        ("ebs", "/a/c%2520d/%252F%2B"),
    ] {
        let signer = Signer {
            target,
            canonical_path,
            service,
            ..Signer::default()
        };
        assert!(verify(&signer.request()).is_ok(), "{service}");
        let other = if service == "s3" { "ebs" } else { "s3" };
        let signer = Signer {
            target,
            canonical_path,
            service: other,
            ..Signer::default()
        };
        assert_eq!(
            verify(&signer.request()).unwrap_err(),
            SigV4Error::Mismatch,
            "{service}"
        );
    }
    let broken = Signer {
        target: "/a%2",
        canonical_path: "/a%252",
        ..Signer::default()
    };
    assert_eq!(verify(&broken.request()).unwrap_err(), SigV4Error::Uri);
}

#[test]
fn only_s3_leaves_a_body_unsigned() {
    for payload in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
        let headers = [
            ("host", "h"),
            ("x-amz-content-sha256", payload),
            ("x-amz-date", TIME),
        ];
        let signer = Signer {
            headers: &headers,
            payload,
            ..Signer::default()
        };
        assert!(verify(&signer.request()).is_ok());
        let signer = Signer {
            service: "kms",
            ..signer
        };
        assert_eq!(
            verify(&signer.request()).unwrap_err(),
            SigV4Error::InvalidContentSha256
        );
    }
    for payload in ["", "unsigned-payload", &EMPTY.to_uppercase(), &EMPTY[1..]] {
        let headers = [
            ("host", "h"),
            ("x-amz-content-sha256", payload),
            ("x-amz-date", TIME),
        ];
        let error = verify(
            &Signer {
                headers: &headers,
                payload,
                ..Signer::default()
            }
            .request(),
        );
        assert_eq!(error.unwrap_err(), SigV4Error::InvalidContentSha256);
    }
    let headers = [("host", "h"), ("x-amz-date", TIME)];
    let s3 = Signer {
        headers: &headers,
        ..Signer::default()
    }
    .request();
    assert_eq!(verify(&s3).unwrap_err(), SigV4Error::MissingContentSha256);
}

#[test]
fn without_a_digest_in_the_head_the_body_is_hashed() {
    let headers = [
        ("host", "h"),
        ("x-amz-date", TIME),
        ("x-amz-target", "TrentService.ListKeys"),
    ];
    let payload = hex::encode(digest::digest(&digest::SHA256, b"{}"));
    let kms = Signer {
        method: "POST",
        service: "kms",
        headers: &headers,
        payload: &payload,
        ..Signer::default()
    }
    .request();
    let (verifier, _) = setup();
    assert_eq!(claimed_service(&kms).as_deref(), Some("kms"));
    let pending = verifier.begin(&kms, at(NOW)).unwrap();
    assert!(pending.needs_body());
    assert_eq!(pending.service(), "kms");
    let verified = pending.finish(Body::Whole(b"{}")).unwrap();
    assert!(matches!(verified.payload, Payload::Sha256(_)));
    assert_eq!(
        verifier
            .verify(&kms, Body::Whole(b"{ }"), at(NOW))
            .unwrap_err(),
        SigV4Error::Mismatch
    );
    let unread = verifier.verify(&kms, Body::Unread, at(NOW));
    assert_eq!(unread.unwrap_err(), SigV4Error::MissingContentSha256);
}

#[test]
fn the_date_header_serves_where_there_is_no_amz_date() {
    let headers = [
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("host", "h"),
        ("x-amz-content-sha256", EMPTY),
    ];
    let request = Signer {
        headers: &headers,
        ..Signer::default()
    }
    .request();
    assert!(verify(&request).is_ok());
    let headers = [("host", "h"), ("x-amz-content-sha256", EMPTY)];
    let request = Signer {
        headers: &headers,
        ..Signer::default()
    }
    .request();
    assert!(matches!(verify(&request), Err(SigV4Error::Date(_))));
}

#[test]
fn a_presigned_get_caller_identity_covers_its_empty_body() {
    let query = format!(
        "Action=GetCallerIdentity&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=\
         AKIDEXAMPLE%2F20130524%2Feu-west-1%2Fsts%2Faws4_request&X-Amz-Date={TIME}\
         &X-Amz-Expires=60&X-Amz-SignedHeaders=host"
    );
    let signer = Signer {
        service: "sts",
        headers: &[("host", "h")],
        canonical_query: &query,
        ..Signer::default()
    };
    let (_, signature) = signer.signature();
    let request = http::Request::get(format!("/?{query}&X-Amz-Signature={signature}"))
        .header("host", "h")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    let (verifier, _) = setup();
    assert!(verifier.verify(&request, Body::Whole(b""), at(NOW)).is_ok());
    assert!(
        verifier
            .verify(&request, Body::Whole(b"x"), at(NOW))
            .is_err()
    );
    assert_eq!(
        verifier
            .verify(&request, Body::Whole(b""), at(NOW + 61))
            .unwrap_err(),
        SigV4Error::Expired
    );
}

#[test]
fn an_unsigned_request_is_anonymous_and_not_verified() {
    let request = http::Request::get("/b/k?prefix=X-Amz-Signature").header("host", "h");
    let (request, ()) = request.body(()).unwrap().into_parts();
    assert_eq!(claimed_service(&request), None);
    assert_eq!(verify(&request).unwrap_err(), SigV4Error::Missing);
}

#[test]
fn a_session_token_is_refused_while_nobody_issues_any() {
    let mut request = Signer::default().request();
    request
        .headers
        .insert("x-amz-security-token", "t".parse().unwrap());
    assert_eq!(verify(&request).unwrap_err(), SigV4Error::Token);
}
