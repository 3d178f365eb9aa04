//! The canonical request: what both sides hash.
//!
//! ```text
//! METHOD LF canonical-path LF canonical-query LF (name ":" value LF)* LF signed-names LF payload
//! ```
//!
//! The payload's hash comes last, so everything before it is one buffer that can be built from the
//! head alone. Source: "Create a signed AWS API request" and "Signature Calculations for the
//! Authorization Header" of the S3 API reference.
use std::borrow::Cow;

use http::{HeaderMap, request::Parts};

use super::authorization::SignedHeaders;
use crate::uri;

/// How a service treats the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathStyle {
    /// S3: encoded once, `//`, `.` and `..` left alone, because they may be in a key.
    Object,
    /// Every other service: normalised, then what was sent is encoded once more.
    Normalised,
}

impl PathStyle {
    /// The style of the service in a credential scope.
    pub fn of_service(service: &str) -> Self {
        if service == "s3" {
            Self::Object
        } else {
            Self::Normalised
        }
    }
}

/// The path in canonical form; `None` if a percent sign is not followed by two hexadecimal digits.
pub fn path(raw: &str, style: PathStyle) -> Option<Cow<'static, str>> {
    // Of the services that are not S3 nearly every request has it.
    if matches!(raw, "" | "/") {
        return Some(Cow::Borrowed("/"));
    }
    match style {
        PathStyle::Object => Some(Cow::Owned(
            uri::encode_path(&decode(raw.as_bytes(), false)?).to_string(),
        )),
        PathStyle::Normalised => {
            let mut segments: Vec<&str> = Vec::new();
            for segment in raw.split('/') {
                match segment {
                    "" | "." => {}
                    ".." => {
                        segments.pop();
                    }
                    other => segments.push(other),
                }
            }
            let mut out = String::with_capacity(raw.len() + 8);
            for segment in &segments {
                out.push('/');
                out.extend(uri::encode(segment));
            }
            let ends_in_directory = ["/", "/.", "/.."].iter().any(|end| raw.ends_with(end));
            if segments.is_empty() || ends_in_directory {
                out.push('/');
            }
            Some(Cow::Owned(out))
        }
    }
}

/// One parameter of a query, decoded.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The parameters of a query, decoded, in their order; `None` if one does not decode. A plus sign is
/// a space, as S3 and the Query APIs read it.
pub fn pairs(query: &str) -> Option<Vec<Pair>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((
                decode(name.as_bytes(), true)?,
                decode(value.as_bytes(), true)?,
            ))
        })
        .collect()
}

/// The query in canonical form, without `X-Amz-Signature`.
pub fn query(pairs: &[Pair]) -> String {
    let mut encoded: Vec<(String, String)> = pairs
        .iter()
        .filter(|(name, _)| name != b"X-Amz-Signature")
        .map(|(name, value)| {
            (
                uri::encode(name).to_string(),
                uri::encode(value).to_string(),
            )
        })
        .collect();
    encoded.sort_unstable();
    let mut out = String::new();
    for (name, value) in &encoded {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
    out
}

/// Everything of the canonical request but the payload's hash; `None` if a signed header is not in
/// the request. `host` is used where there is no `Host` header (HTTP/2).
pub fn head(
    head: &Parts,
    path: &str,
    query: &str,
    signed: SignedHeaders<'_>,
    host: Option<&str>,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(512 + path.len() + query.len());
    for part in [head.method.as_str(), path, query] {
        out.extend_from_slice(part.as_bytes());
        out.push(b'\n');
    }
    for name in signed.iter() {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        if !append_values(&mut out, &head.headers, name) {
            match (name, host) {
                ("host", Some(host)) => out.extend_from_slice(host.as_bytes()),
                _ => return None,
            }
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed.as_str().as_bytes());
    out.push(b'\n');
    Some(out)
}

/// All values of a header, joined with commas, each trimmed and with runs of blanks made one.
fn append_values(out: &mut Vec<u8>, headers: &HeaderMap, name: &str) -> bool {
    let mut found = false;
    // Not looked up: to compare with each of a dozen names takes less than to hash one.
    let values = headers.iter().filter(|(header, _)| header.as_str() == name);
    for (_, value) in values {
        if found {
            out.push(b',');
        }
        found = true;
        let value = value.as_bytes().trim_ascii();
        if !value.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
            out.extend_from_slice(value);
            continue;
        }
        let mut words = value
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|word| !word.is_empty());
        out.extend_from_slice(words.next().unwrap_or_default());
        for word in words {
            out.push(b' ');
            out.extend_from_slice(word);
        }
    }
    found
}

/// Undoes percent-encoding, strictly.
fn decode(text: &[u8], plus_is_space: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = match first {
            b'%' => {
                let [high, low, tail @ ..] = tail else {
                    return None;
                };
                let digit = |b: &u8| char::from(*b).to_digit(16);
                let value = digit(high)? << 4 | digit(low)?;
                out.push(u8::try_from(value).expect("two hexadecimal digits"));
                tail
            }
            b'+' if plus_is_space => {
                out.push(b' ');
                tail
            }
            other => {
                out.push(*other);
                tail
            }
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_paths_are_encoded_once_and_left_as_they_are() {
        let object = |raw| path(raw, PathStyle::Object).unwrap();
        assert_eq!(object(""), "/");
        assert_eq!(object("/b/a%20b"), "/b/a%20b");
        assert_eq!(object("/b//a/../c/."), "/b//a/../c/.");
        assert_eq!(
            object("/b/$a(1)!*'+:@,;=~"),
            "/b/%24a%281%29%21%2A%27%2B%3A%40%2C%3B%3D~"
        );
        assert_eq!(object("/b/%2f%2F%e1%88%b4"), "/b///%E1%88%B4");
        assert_eq!(path("/b/%2", PathStyle::Object), None);
        assert_eq!(path("/b/%zz", PathStyle::Object), None);
    }

    #[test]
    fn other_paths_are_normalised_and_encoded_twice() {
        let normalised = |raw| path(raw, PathStyle::Normalised).unwrap();
        for (raw, expected) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/./", "/"),
            ("/..", "/"),
            ("/example/..", "/"),
            ("/example1/example2/../..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("//example//", "/example/"),
            ("/./example", "/example"),
            ("/a%20b", "/a%2520b"),
            (
                "/documents%20and%20settings/",
                "/documents%2520and%2520settings/",
            ),
            ("/-._~09AZaz", "/-._~09AZaz"),
        ] {
            assert_eq!(normalised(raw), expected, "{raw}");
        }
    }

    #[test]
    fn queries_are_sorted_by_encoded_name_and_value() {
        let canonical = |raw| query(&pairs(raw).unwrap());
        for (raw, expected) in [
            ("", ""),
            ("lifecycle", "lifecycle="),
            ("max-keys=2&prefix=J", "max-keys=2&prefix=J"),
            ("Param2=value2&Param1=value1", "Param1=value1&Param2=value2"),
            ("Param1=value2&Param1=Value1", "Param1=Value1&Param1=value2"),
            ("a=1&&b", "a=1&b="),
            ("p=a+b&q=a%2Bb&r=a%2fb", "p=a%20b&q=a%2Bb&r=a%2Fb"),
            ("=x&a==", "=x&a=%3D"),
            ("b=2&X-Amz-Signature=0&a=1", "a=1&b=2"),
        ] {
            assert_eq!(canonical(raw), expected, "{raw}");
        }
        assert_eq!(pairs("a=%"), None);
    }
}
