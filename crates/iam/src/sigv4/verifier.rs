//! The verifier: from a request's head to a [`Verified`] identity.
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{constant_time, digest, hmac};
use http::{HeaderMap, HeaderName, header, request::Parts};

use super::{
    Payload, SigV4Error, StreamingSignature,
    authorization::{
        ALGORITHM, Authorization, Credential, Form, Malformed, SignedHeaders, parse_digest,
    },
    canonical::{self, Pair, PathStyle},
    signing_key::{SigningKeys, derive},
    timestamp::Timestamp,
};
use crate::identity::{self, AccessKeyId, Credentials, Principal, Region};

/// A presigned request is good for a week at most.
const EXPIRES_MAX_S: u64 = 7 * 24 * 60 * 60;

static CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
static AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
static SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// How a [`Verifier`] judges.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first region that credential scopes may name; told to clients that name one that is not served.
    pub region: Region,
    /// The other ones.
    pub more_regions: Vec<Region>,
    /// How far the client's clock may be from ours, either way. AWS allows 15 minutes.
    pub skew: Duration,
    /// Signing keys kept at most.
    pub cached_keys: u64,
}

impl Options {
    /// AWS's own bounds, in `region`.
    pub fn new(region: Region) -> Self {
        Self {
            region,
            more_regions: Vec::new(),
            skew: Duration::from_secs(15 * 60),
            cached_keys: 1024,
        }
    }
}

/// The body, as far as the signature needs it.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Not in memory: it streams, and `x-amz-content-sha256` stands for it.
    Unread,
    /// All of it: it is hashed, and compared with the header if there is one.
    Whole(&'a [u8]),
}

/// A request whose signature is right.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verified {
    /// Who signed it.
    pub principal: Principal,
    /// With which key.
    pub access_key: AccessKeyId,
    /// For which service, as in the credential scope: `s3`, `kms`, `ec2`, `sts`...
    pub service: String,
    /// For which region: one of those served, the first for a request of a global service that
    /// names another one.
    pub region: Region,
    /// How the body is covered.
    pub payload: Payload,
    /// Where the signature stood.
    pub form: Form,
    /// When it was signed, by the client's clock.
    pub signed_at: SystemTime,
}

/// Verifies requests. One for the whole process; share it behind an `Arc`.
pub struct Verifier {
    options: Options,
    credentials: Arc<dyn Credentials>,
    keys: SigningKeys,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier over `credentials`.
    pub fn new(options: Options, credentials: Arc<dyn Credentials>) -> Self {
        let keys = SigningKeys::new(options.cached_keys);
        Self {
            options,
            credentials,
            keys,
        }
    }

    /// [`begin`](Self::begin) and [`finish`](Pending::finish) in one.
    pub fn verify(
        &self,
        head: &Parts,
        body: Body<'_>,
        now: SystemTime,
    ) -> Result<Verified, SigV4Error> {
        self.begin(head, now)?.finish(body)
    }

    /// Everything that can be judged without the body.
    pub fn begin(&self, head: &Parts, now: SystemTime) -> Result<Pending, SigV4Error> {
        match Found::find(head)? {
            Found::Nothing => Err(SigV4Error::Missing),
            Found::Header(parameters) => {
                let pairs = canonical::pairs(head.uri.query().unwrap_or_default())
                    .ok_or(SigV4Error::Uri)?;
                let authorization = Authorization::parse(parameters).map_err(in_header)?;
                let timestamp = header_time(&head.headers)?;
                if timestamp.distance(now) > self.options.skew {
                    return Err(SigV4Error::Skewed {
                        signed_at: timestamp.to_string(),
                    });
                }
                let content = content_sha256(&head.headers)?;
                self.pend(
                    head,
                    &pairs,
                    Form::Header,
                    authorization,
                    timestamp,
                    content,
                )
            }
            Found::Query(pairs) => {
                let parameters = QueryParameters::find(&pairs)?;
                let authorization = parameters.authorization()?;
                let timestamp = Timestamp::parse(parameters.date).ok_or_else(|| {
                    query_error(
                        "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"",
                    )
                })?;
                let expires = parameters.expires()?;
                if timestamp.after(now) > self.options.skew {
                    return Err(SigV4Error::NotYetValid);
                }
                if timestamp.age(now) > expires {
                    return Err(SigV4Error::Expired);
                }
                let content = match (content_sha256(&head.headers)?, parameters.content_sha256) {
                    (Some(header), Some(query)) if header != query => {
                        return Err(SigV4Error::Ambiguous(
                            "x-amz-content-sha256 is given twice, with different values.",
                        ));
                    }
                    (Some(content), _) | (None, Some(content)) => Some(content),
                    (None, None) if authorization.credential.service == "s3" => {
                        Some("UNSIGNED-PAYLOAD")
                    }
                    (None, None) => None,
                };
                self.pend(
                    head,
                    &pairs,
                    Form::Presigned,
                    authorization,
                    timestamp,
                    content,
                )
            }
        }
    }

    /// The region served that a credential scope names.
    fn region(&self, form: Form, credential: &Credential<'_>) -> Result<Region, SigV4Error> {
        let first = &self.options.region;
        let served = std::iter::once(first).chain(&self.options.more_regions);
        let mut named = served.filter(|region| region.as_str() == credential.region);
        // IAM and STS were global before they were regional: their clients may name us-east-1.
        let global =
            matches!(credential.service, "iam" | "sts") && credential.region == "us-east-1";
        match named.next() {
            Some(region) => Ok(region.clone()),
            None if global => Ok(first.clone()),
            None => Err(SigV4Error::WrongRegion {
                form,
                expected: first.clone(),
                found: credential.region.to_owned(),
            }),
        }
    }

    fn pend(
        &self,
        head: &Parts,
        pairs: &[Pair],
        form: Form,
        authorization: Authorization<'_>,
        timestamp: Timestamp,
        content: Option<&str>,
    ) -> Result<Pending, SigV4Error> {
        let malformed = match form {
            Form::Header => in_header,
            Form::Presigned => in_query,
        };
        let Authorization {
            credential,
            signed_headers,
            signature,
        } = authorization;
        if credential.date != timestamp.date() {
            return Err(malformed(Malformed(
                "Invalid credential date. It must be the same as the date of the request.",
            )));
        }
        let region = self.region(form, &credential)?;
        let unknown = || SigV4Error::UnknownAccessKey(credential.access_key.to_owned());
        let access_key: AccessKeyId = credential.access_key.parse().map_err(|_| unknown())?;
        let record = self.credentials.lookup(&access_key).ok_or_else(unknown)?;

        let host = check_host(head)?;
        check_signed(&head.headers, signed_headers)?;
        let covered = Covered::parse(content, credential.service)?;
        let style = PathStyle::of_service(credential.service);
        let path = canonical::path(head.uri.path(), style).ok_or(SigV4Error::Uri)?;
        let query = canonical::query(pairs);
        let canonical =
            canonical::head(head, &path, &query, signed_headers, host).ok_or_else(|| {
                malformed(Malformed(
                    "a header in SignedHeaders is not in the request.",
                ))
            })?;
        let mut canonical_digest = digest::Context::new(&digest::SHA256);
        canonical_digest.update(&canonical);

        let cached = self.keys.get(credential.text, &record);
        let keep = cached.is_none().then(|| self.keys.clone());
        let key = cached.unwrap_or_else(|| {
            Arc::new(derive(
                &record.secret,
                credential.date,
                credential.region,
                credential.service,
            ))
        });
        Ok(Pending {
            canonical_digest,
            covered,
            content: content.map(Box::from),
            signature,
            key,
            keep,
            record,
            access_key,
            credential: credential.text.into(),
            scope_at: credential.text.len() - credential.scope.len(),
            service: credential.service.to_owned(),
            region,
            timestamp,
            form,
        })
    }
}

/// A request that is well-formed, in time and signed by a key that exists; whether rightly is still
/// to be seen.
pub struct Pending {
    canonical_digest: digest::Context,
    covered: Covered,
    content: Option<Box<str>>,
    signature: [u8; 32],
    key: Arc<hmac::Key>,
    /// Where to keep the key if it proves right and is not kept yet.
    keep: Option<SigningKeys>,
    record: Arc<identity::Credential>,
    access_key: AccessKeyId,
    credential: Box<str>,
    /// Where in it the scope begins.
    scope_at: usize,
    service: String,
    region: Region,
    timestamp: Timestamp,
    form: Form,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

impl Pending {
    /// The service in the credential scope.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Whether [`finish`](Self::finish) needs the whole body, because no header stands for it.
    pub fn needs_body(&self) -> bool {
        matches!(self.covered, Covered::Body)
    }

    /// Compares the signature. With [`Body::Whole`], the body is thereby verified too, unless the
    /// request leaves it unsigned ([`Payload::Unsigned`]).
    pub fn finish(self, body: Body<'_>) -> Result<Verified, SigV4Error> {
        let body_digest = match body {
            Body::Unread => None,
            Body::Whole(bytes) => Some(sha256(bytes)),
        };
        let computed;
        let content: &str = match (&self.content, body_digest) {
            (Some(content), _) => content,
            (None, Some(digest)) => {
                computed = digits(&digest);
                std::str::from_utf8(&computed).expect("digits")
            }
            (None, None) => return Err(SigV4Error::MissingContentSha256),
        };
        let mut canonical_digest = self.canonical_digest;
        canonical_digest.update(content.as_bytes());
        let canonical_digest = digits(canonical_digest.finish().as_ref());

        let timestamp = self.timestamp.as_str();
        let scope = &self.credential[self.scope_at..];
        let string_to_sign: [&[u8]; 4] = [
            ALGORITHM.as_bytes(),
            timestamp.as_bytes(),
            scope.as_bytes(),
            &canonical_digest,
        ];
        let string_to_sign = string_to_sign.join(&b'\n');
        hmac::verify(&self.key, &string_to_sign, &self.signature)
            .map_err(|_| SigV4Error::Mismatch)?;

        let payload = match self.covered {
            Covered::Digest(signed) => {
                if body_digest.is_some_and(|actual| {
                    constant_time::verify_slices_are_equal(&actual, &signed).is_err()
                }) {
                    return Err(SigV4Error::ContentSha256Mismatch);
                }
                Payload::Sha256(signed)
            }
            Covered::Body => Payload::Sha256(body_digest.ok_or(SigV4Error::MissingContentSha256)?),
            Covered::Nothing => Payload::Unsigned,
            Covered::UnsignedTrailer => Payload::StreamingUnsignedTrailer,
            Covered::Chunks { trailer } => {
                let signature = StreamingSignature {
                    key: Arc::clone(&self.key),
                    timestamp: timestamp.into(),
                    scope: scope.into(),
                    seed: self.signature,
                };
                if trailer {
                    Payload::StreamingSignedTrailer(signature)
                } else {
                    Payload::StreamingSigned(signature)
                }
            }
        };
        if let Some(keys) = self.keep {
            keys.keep(self.credential, &self.record, self.key);
        }
        Ok(Verified {
            principal: self.record.principal.clone(),
            access_key: self.access_key,
            service: self.service,
            region: self.region,
            payload,
            form: self.form,
            signed_at: self.timestamp.time(),
        })
    }
}

/// What `x-amz-content-sha256` says.
enum Covered {
    Digest([u8; 32]),
    /// Nothing is said: the digest is that of the body, which therefore has to be there.
    Body,
    Nothing,
    Chunks {
        trailer: bool,
    },
    UnsignedTrailer,
}

impl Covered {
    fn parse(content: Option<&str>, service: &str) -> Result<Self, SigV4Error> {
        let covered = match content {
            None if service == "s3" => return Err(SigV4Error::MissingContentSha256),
            None => Self::Body,
            Some("UNSIGNED-PAYLOAD") => Self::Nothing,
            Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD") => Self::Chunks { trailer: false },
            Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") => Self::Chunks { trailer: true },
            Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => Self::UnsignedTrailer,
            Some(digest) => Self::Digest(
                parse_digest(digest.as_bytes()).ok_or(SigV4Error::InvalidContentSha256)?,
            ),
        };
        // Only S3 lets a body go unsigned or in chunks; elsewhere the body is the request.
        match covered {
            Self::Digest(_) | Self::Body => Ok(covered),
            _ if service == "s3" => Ok(covered),
            _ => Err(SigV4Error::InvalidContentSha256),
        }
    }
}

/// Where a request carries its signature.
enum Found<'a> {
    Nothing,
    /// What follows the algorithm's name in `Authorization`.
    Header(&'a str),
    /// All parameters of the query, decoded.
    Query(Vec<Pair>),
}

impl<'a> Found<'a> {
    fn find(head: &'a Parts) -> Result<Self, SigV4Error> {
        let in_header = single(&head.headers, &header::AUTHORIZATION)?;
        // The names are looked for undecoded first: most requests have none of them.
        let query = head.uri.query().unwrap_or_default();
        let mut presigned = None;
        if query.contains("X-Amz-") || query.contains("AWSAccessKeyId") || query.contains('%') {
            let pairs = canonical::pairs(query).ok_or(SigV4Error::Uri)?;
            let has = |name: &str| pairs.iter().any(|(found, _)| found == name.as_bytes());
            if has("AWSAccessKeyId") {
                return Err(SigV4Error::Unsupported);
            }
            if ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"]
                .into_iter()
                .any(has)
            {
                presigned = Some(pairs);
            }
        }
        if head.headers.contains_key(&SECURITY_TOKEN) {
            return Err(SigV4Error::Token);
        }
        match (in_header, presigned) {
            (None, None) => Ok(Self::Nothing),
            (None, Some(pairs)) => Ok(Self::Query(pairs)),
            (Some(_), Some(_)) => Err(SigV4Error::Ambiguous(
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, \
                 Signature query string parameter or the Authorization header should be specified",
            )),
            (Some(value), None) => match value.split_once(' ') {
                Some((ALGORITHM, parameters)) => Ok(Self::Header(parameters)),
                _ => Err(SigV4Error::Unsupported),
            },
        }
    }
}

/// The authentication parameters of a presigned query, each there once.
struct QueryParameters<'a> {
    algorithm: &'a str,
    credential: &'a str,
    date: &'a str,
    expires: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    content_sha256: Option<&'a str>,
}

impl<'a> QueryParameters<'a> {
    fn find(pairs: &'a [Pair]) -> Result<Self, SigV4Error> {
        let once = |name: &str| -> Result<Option<&'a str>, SigV4Error> {
            let mut values = pairs.iter().filter(|(found, _)| found == name.as_bytes());
            let value = values.next().map(|(_, value)| value);
            if values.next().is_some() {
                return Err(query_error(&format!("{name} is given twice")));
            }
            value
                .map(|value| std::str::from_utf8(value))
                .transpose()
                .map_err(|_| query_error(&format!("{name} is not valid")))
        };
        let required = |name: &str| {
            once(name)?.ok_or_else(|| {
                query_error(
                    "Query-string authentication version 4 requires the X-Amz-Algorithm, \
                     X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and \
                     X-Amz-Expires parameters.",
                )
            })
        };
        if once("X-Amz-Security-Token")?.is_some() {
            return Err(SigV4Error::Token);
        }
        let found = Self {
            algorithm: required("X-Amz-Algorithm")?,
            credential: required("X-Amz-Credential")?,
            date: required("X-Amz-Date")?,
            expires: required("X-Amz-Expires")?,
            signed_headers: required("X-Amz-SignedHeaders")?,
            signature: required("X-Amz-Signature")?,
            content_sha256: once("X-Amz-Content-Sha256")?,
        };
        if found.algorithm != ALGORITHM {
            return Err(query_error(
                "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"",
            ));
        }
        Ok(found)
    }

    fn authorization(&self) -> Result<Authorization<'a>, SigV4Error> {
        Ok(Authorization {
            credential: Credential::parse(self.credential).map_err(in_query)?,
            signed_headers: SignedHeaders::parse(self.signed_headers).map_err(in_query)?,
            signature: parse_digest(self.signature.as_bytes()).ok_or_else(|| {
                query_error("X-Amz-Signature must be 64 lower-case hexadecimal digits")
            })?,
        })
    }

    fn expires(&self) -> Result<Duration, SigV4Error> {
        let digits = self.expires.len() <= 20 && self.expires.bytes().all(|b| b.is_ascii_digit());
        let seconds: u64 = (digits.then_some(self.expires))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| query_error("X-Amz-Expires should be a number"))?;
        match seconds {
            0 => Err(query_error("X-Amz-Expires must be at least 1 second")),
            1..=EXPIRES_MAX_S => Ok(Duration::from_secs(seconds)),
            _ => Err(query_error(
                "X-Amz-Expires must be less than a week (in seconds); that is, the given \
                 X-Amz-Expires must be less than 604800 seconds",
            )),
        }
    }
}

fn in_header(malformed: Malformed) -> SigV4Error {
    SigV4Error::Header(malformed.to_string())
}

fn in_query(malformed: Malformed) -> SigV4Error {
    SigV4Error::Query(format!(
        "Error parsing the X-Amz-Credential parameter; {malformed}"
    ))
}

fn query_error(text: &str) -> SigV4Error {
    SigV4Error::Query(text.to_owned())
}

/// A SHA-256 digest in lower-case hexadecimal.
fn digits(digest: &[u8]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    digits
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// The value of a header that may be there once; text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, SigV4Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(SigV4Error::Header(format!(
            "the header {name} is given twice."
        )));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| SigV4Error::Header(format!("the header {name} is not valid.")))
}

fn content_sha256(headers: &HeaderMap) -> Result<Option<&str>, SigV4Error> {
    single(headers, &CONTENT_SHA256)
}

/// `X-Amz-Date`, or `Date` if there is none. Either is covered by the string to sign.
fn header_time(headers: &HeaderMap) -> Result<Timestamp, SigV4Error> {
    const WRONG: &str = "AWS authentication requires a valid Date or x-amz-date header";
    let timestamp = if let Some(date) = single(headers, &AMZ_DATE)? {
        Timestamp::parse(date)
    } else if let Some(date) = single(headers, &header::DATE)? {
        Timestamp::parse(date).or_else(|| Timestamp::parse_http(date))
    } else {
        None
    };
    timestamp.ok_or(SigV4Error::Date(WRONG))
}

/// The host is named once. Answers the authority of the target, for where there is no header.
fn check_host(head: &Parts) -> Result<Option<&str>, SigV4Error> {
    let host = single(&head.headers, &header::HOST)?;
    let authority = head.uri.authority().map(|authority| authority.as_str());
    match (host, authority) {
        (None, None) => Err(SigV4Error::NotSigned("host".to_owned())),
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => Err(
            SigV4Error::Ambiguous("The Host header and the request target disagree."),
        ),
        (_, authority) => Ok(authority),
    }
}

/// `host` and every `x-amz-*` header must be signed.
fn check_signed(headers: &HeaderMap, signed: SignedHeaders<'_>) -> Result<(), SigV4Error> {
    let must_be = headers
        .keys()
        .map(HeaderName::as_str)
        .filter(|name| name.starts_with("x-amz-"));
    let mut unsigned = std::iter::once("host")
        .chain(must_be)
        .filter(|name| !signed.contains(name));
    match unsigned.next() {
        None => Ok(()),
        Some(first) => {
            let all: Vec<&str> = std::iter::once(first).chain(unsigned).collect();
            Err(SigV4Error::NotSigned(all.join(", ")))
        }
    }
}
