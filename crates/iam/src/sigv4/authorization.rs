//! The parts of a signature as a request carries them: the `Authorization` header, the credential
//! scope, the list of signed headers.
//!
//! Parsing is strict. Every part must be there exactly once, nothing else may be, hexadecimal is
//! lower-case and signed headers are lower-case, sorted and not repeated: whoever signs as AWS
//! documents it never sends anything else, and what cannot be read two ways cannot be read wrongly.

/// The one algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signed headers at most; hyper itself takes a hundred.
const SIGNED_HEADERS_MAX: usize = 128;

/// Where the signature stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the `Authorization` header.
    Header,
    /// In the query string.
    Presigned,
}

/// What does not parse, as the end of a sentence for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) &'static str);

/// `AKID/20130524/us-east-1/s3/aws4_request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    /// All of it.
    pub text: &'a str,
    /// The access key id, not yet checked.
    pub access_key: &'a str,
    /// Everything after the access key id.
    pub scope: &'a str,
    /// Eight digits, `20130524`; not necessarily a day of the calendar.
    pub date: &'a str,
    /// The region.
    pub region: &'a str,
    /// The service.
    pub service: &'a str,
}

impl<'a> Credential<'a> {
    /// Parses a credential with its scope.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        const FORM: Malformed = Malformed(
            "the Credential is mal-formed; expecting \
             \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
        );
        let (access_key, scope) = text.split_once('/').ok_or(FORM)?;
        let mut fields = scope.split('/');
        let mut field = || fields.next().ok_or(FORM);
        let (date, region, service, terminator) = (field()?, field()?, field()?, field()?);
        if fields.next().is_some() || terminator != "aws4_request" || access_key.is_empty() {
            return Err(FORM);
        }
        if date.len() != 8 || !date.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Malformed(
                "incorrect date format. This date in the credential must be in the format \"yyyyMMdd\".",
            ));
        }
        let plain = |name: &str| {
            (1..=32).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !plain(region) || !plain(service) {
            return Err(FORM);
        }
        Ok(Self {
            text,
            access_key,
            scope,
            date,
            region,
            service,
        })
    }
}

/// Whether a header's name may have this byte (RFC 9110, section 5.6.2) and it is no capital.
fn is_lower_case_token(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'
    )
}

/// `host;range;x-amz-date`: lower-case, sorted, without repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHeaders<'a>(&'a str);

impl<'a> SignedHeaders<'a> {
    /// Parses the list.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut last = "";
        let mut count = 0;
        for name in text.split(';') {
            if name.is_empty() || !name.bytes().all(is_lower_case_token) || name <= last {
                return Err(Malformed(
                    "SignedHeaders must be lower-case header names, sorted, without repetition.",
                ));
            }
            last = name;
            count += 1;
        }
        if count > SIGNED_HEADERS_MAX {
            return Err(Malformed("SignedHeaders holds too many names."));
        }
        Ok(Self(text))
    }

    /// The list as text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.split(';')
    }

    /// Whether `name` (lower-case) is signed.
    pub fn contains(&self, name: &str) -> bool {
        let mut names = self.0.as_bytes().split(|&byte| byte == b';');
        names.any(|signed| signed == name.as_bytes())
    }
}

/// 64 lower-case hexadecimal digits.
pub fn parse_digest(text: &[u8]) -> Option<[u8; 32]> {
    if text.len() != 64 || text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

/// An `Authorization` header:
/// `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// Who says it signed, and for what.
    pub credential: Credential<'a>,
    /// Which headers are signed.
    pub signed_headers: SignedHeaders<'a>,
    /// The signature.
    pub signature: [u8; 32],
}

impl<'a> Authorization<'a> {
    /// Parses what follows the algorithm's name in the header.
    pub fn parse(parameters: &'a str) -> Result<Self, Malformed> {
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for parameter in parameters.split(',') {
            let (name, value) = parameter
                .trim_matches([' ', '\t'])
                .split_once('=')
                .ok_or(Malformed("a parameter has no value."))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(Malformed("it holds an unknown parameter.")),
            };
            if slot.replace(value).is_some() {
                return Err(Malformed("a parameter is given twice."));
            }
        }
        let credential = credential.ok_or(Malformed("it lacks 'Credential'."))?;
        let signed_headers = signed_headers.ok_or(Malformed("it lacks 'SignedHeaders'."))?;
        let signature = signature.ok_or(Malformed("it lacks 'Signature'."))?;
        Ok(Self {
            credential: Credential::parse(credential)?,
            signed_headers: SignedHeaders::parse(signed_headers)?,
            signature: parse_digest(signature.as_bytes()).ok_or(Malformed(
                "'Signature' must be 64 lower-case hexadecimal digits.",
            ))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";

    fn header(credential: &str, signed: &str, signature: &str) -> String {
        format!("Credential={credential}, SignedHeaders={signed},Signature={signature}")
    }

    #[test]
    fn the_header_of_the_documentation_parses() {
        let text = header(
            "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request",
            "host;range",
            SIGNATURE,
        );
        let parsed = Authorization::parse(&text).unwrap();
        assert_eq!(parsed.credential.access_key, "AKIAIOSFODNN7EXAMPLE");
        assert_eq!(
            parsed.credential.scope,
            "20130524/us-east-1/s3/aws4_request"
        );
        assert_eq!(parsed.credential.service, "s3");
        assert!(parsed.signed_headers.contains("range"));
        assert!(!parsed.signed_headers.contains("ran"));
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let good = "AK/20130524/us-east-1/s3/aws4_request";
        for (credential, signed, signature) in [
            ("AK/20130524/us-east-1/s3", "host", SIGNATURE),
            ("AK/20130524/us-east-1/s3/aws4_request/", "host", SIGNATURE),
            ("AK/20130524/us-east-1/s3/AWS4_REQUEST", "host", SIGNATURE),
            ("AK/2013052/us-east-1/s3/aws4_request", "host", SIGNATURE),
            ("/20130524/us-east-1/s3/aws4_request", "host", SIGNATURE),
            ("AK/20130524//s3/aws4_request", "host", SIGNATURE),
            (good, "", SIGNATURE),
            (good, "Host", SIGNATURE),
            (good, "host;host", SIGNATURE),
            (good, "range;host", SIGNATURE),
            (good, "host;", SIGNATURE),
            (good, "host", &SIGNATURE[1..]),
            (good, "host", &SIGNATURE.to_uppercase()),
        ] {
            let text = header(credential, signed, signature);
            assert!(Authorization::parse(&text).is_err(), "{text}");
        }
        for text in [
            String::new(),
            format!("{},Signature={SIGNATURE}", header(good, "host", SIGNATURE)),
            format!("{},Extra=1", header(good, "host", SIGNATURE)),
            format!("Credential={good}, SignedHeaders=host"),
        ] {
            assert!(Authorization::parse(&text).is_err(), "{text}");
        }
    }
}
