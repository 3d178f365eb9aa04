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
        let (access_key, scope) = cut(text, b'/').ok_or(FORM)?;
        let (date, rest) = cut(scope, b'/').ok_or(FORM)?;
        let (region, rest) = cut(rest, b'/').ok_or(FORM)?;
        let (service, terminator) = cut(rest, b'/').ok_or(FORM)?;
        if terminator != "aws4_request" || access_key.is_empty() {
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

/// What stands before and behind the first `at`. For names of a few bytes, where a search that is made for long texts
/// takes longer to begin than to end.
fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let index = text.bytes().position(|byte| byte == at)?;
    Some((text.get(..index)?, text.get(index + 1..)?))
}

/// Without blanks and tabs at either end.
fn without_blanks(mut text: &str) -> &str {
    while let Some(rest) = text.strip_prefix([' ', '\t']) {
        text = rest;
    }
    while let Some(rest) = text.strip_suffix([' ', '\t']) {
        text = rest;
    }
    text
}

/// Whether a header's name may have this byte (RFC 9110, section 5.6.2) and it is no capital.
const fn is_lower_case_token(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'
    )
}

/// [`is_lower_case_token`] of each byte.
static LOWER_CASE_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)] // below 256
        let is_token = is_lower_case_token(byte as u8);
        table[byte] = is_token;
        byte += 1;
    }
    table
};

/// What a lower-case hexadecimal digit stands for; 16 and more for any other byte.
static NIBBLES: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut nibble = 0;
    while nibble < 16 {
        table[b"0123456789abcdef"[nibble as usize] as usize] = nibble;
        nibble += 1;
    }
    table
};

/// `host;range;x-amz-date`: lower-case, sorted, without repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHeaders<'a>(&'a str);

impl<'a> SignedHeaders<'a> {
    /// Parses the list.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut last = "";
        let mut count = 0;
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (name, next) = match cut(text, b';') {
                Some((name, next)) => (name, Some(next)),
                None => (text, None),
            };
            rest = next;
            let is_token = |byte| LOWER_CASE_TOKEN[usize::from(byte)];
            if name.is_empty() || !name.bytes().all(is_token) || name <= last {
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
        let mut rest = Some(self.0);
        std::iter::from_fn(move || {
            let text = rest?;
            let (name, next) = match cut(text, b';') {
                Some((name, next)) => (name, Some(next)),
                None => (text, None),
            };
            rest = next;
            Some(name)
        })
    }

    /// Whether `name` (lower-case) is signed.
    pub fn contains(&self, name: &str) -> bool {
        let mut names = self.0.as_bytes().split(|&byte| byte == b';');
        names.any(|signed| signed == name.as_bytes())
    }
}

/// 64 lower-case hexadecimal digits.
pub fn parse_digest(text: &[u8]) -> Option<[u8; 32]> {
    let text: &[u8; 64] = text.try_into().ok()?;
    let mut digest = [0; 32];
    let mut seen = 0;
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    (seen < 16).then_some(digest)
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
        let mut rest = Some(parameters);
        while let Some(text) = rest {
            let (parameter, next) = match cut(text, b',') {
                Some((parameter, next)) => (parameter, Some(next)),
                None => (text, None),
            };
            rest = next;
            let (name, value) = cut(without_blanks(parameter), b'=')
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
