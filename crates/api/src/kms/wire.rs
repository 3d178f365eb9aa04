//! How values stand in JSON: blobs in base64, times as seconds, contexts as objects whose names may
//! not repeat.
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, display::Base64Display, engine::general_purpose::STANDARD};
use bytes::Bytes;
use keyring::{EncryptionContext, SecretVec};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use super::fault::Fault;
use crate::model::{Members, SecretText, Value};

/// Largest blob a request may hold, before its own bound is looked at: an import of key material is
/// 6144 bytes, everything else is smaller.
const BLOB_LEN_MAX: usize = 8192;

/// Writes an answer that holds no secret.
pub(super) fn answer<T: Serialize>(value: &T) -> Result<Bytes, Fault> {
    Ok(serde_json::to_vec(value)
        .expect("strings and numbers always serialize")
        .into())
}

/// `{}`.
pub(super) fn empty() -> Result<Bytes, Fault> {
    Ok(Bytes::from_static(b"{}"))
}

/// A member of an answer that holds plaintext.
#[derive(Clone, Copy)]
pub(super) enum Member<'a> {
    /// No secret.
    Text(&'a str),
    /// Bytes, written in base64.
    Blob(&'a [u8]),
}

/// Writes an answer that holds plaintext: into a buffer that is just as long, is never moved, and is wiped when the last
/// handle to it goes. The names need no escapes.
pub(super) fn secret_answer<const N: usize>(
    members: [(&'static str, Member<'_>); N],
) -> Result<Bytes, Fault> {
    // A text that needs escapes is written apart first; none of ours does.
    let escaped: [Option<String>; N] = members.map(|(_, member)| match member {
        Member::Text(text) if !is_plain(text) => {
            Some(serde_json::to_string(text).expect("a string, into memory"))
        }
        _ => None,
    });
    let values = || members.iter().zip(&escaped);
    let len_of = |(&(name, member), escaped): (&(&str, Member<'_>), &Option<String>)| {
        let value = match (escaped, member) {
            (Some(escaped), _) => escaped.len(),
            (None, Member::Text(text)) => text.len() + 2,
            (None, Member::Blob(bytes)) => bytes.len().div_ceil(3) * 4 + 2,
        };
        // In quotes, before a colon; a comma or the last brace behind the value.
        name.len() + 4 + value
    };
    let len = 1 + values().map(len_of).sum::<usize>();
    let buffer = SecretVec::init_with(len, |out| {
        let mut out = Cursor { out, at: 0 };
        for (index, (&(name, member), escaped)) in values().enumerate() {
            out.put(if index == 0 { b"{\"" } else { b",\"" });
            out.put(name.as_bytes());
            out.put(b"\":");
            match (escaped, member) {
                (Some(escaped), _) => out.put(escaped.as_bytes()),
                (None, Member::Text(text)) => {
                    out.put(b"\"");
                    out.put(text.as_bytes());
                    out.put(b"\"");
                }
                (None, Member::Blob(bytes)) => {
                    out.put(b"\"");
                    let written = STANDARD.encode_slice(bytes, &mut out.out[out.at..]);
                    out.at += written.expect("counted above");
                    out.put(b"\"");
                }
            }
        }
        out.put(b"}");
    });
    Ok(Bytes::from_owner(SecretAnswer(buffer)))
}

/// Whether a text stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    // To the end without a branch, so that many bytes are compared at a time.
    let plain = |byte: u8| (byte >= 0x20) & (byte != b'"') & (byte != b'\\');
    text.bytes().fold(true, |all, byte| all & plain(byte))
}

/// A place in memory that is written from its start.
struct Cursor<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

struct SecretAnswer(SecretVec);

impl AsRef<[u8]> for SecretAnswer {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// Bytes on their way out, written in base64 without an intermediate string.
pub(super) struct Base64<'a>(pub(super) &'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// Bytes that came in base64. Always treated as secret.
pub(super) struct Blob(pub(super) SecretVec);

impl Blob {
    /// Decodes what should have `len` bytes; or says why it cannot.
    fn decode(text: &SecretText<'_>, len: Option<u64>) -> Result<Self, &'static str> {
        const NOT_BASE64: &str = "a blob is not in base64";
        if text.expose().len() > BLOB_LEN_MAX / 3 * 4 {
            return Err("a blob is too long");
        }
        let len = len
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(NOT_BASE64)?;
        let decode = |bytes: &mut [u8]| match STANDARD.decode_slice(text.expose(), bytes) {
            Ok(decoded) if decoded == len => Ok(()),
            _ => Err(NOT_BASE64),
        };
        SecretVec::try_init_with(len, decode).map(Self)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretText::deserialize(deserializer)?;
        Self::decode(&text, text.base64_len()).map_err(D::Error::custom)
    }
}

/// A value of a checked request that is not of the type that was asked for, or does not decode: the request is parsed
/// anew for the words that say so.
pub(super) struct Unlike;

/// A member that may be left out, as a type of an operation.
pub(super) trait FromValue: Sized {
    /// Takes the value.
    fn from_value(value: Value<'_>) -> Result<Self, Unlike>;

    /// The member of this name, if it is there.
    fn take(members: &mut Members<'_>, name: &str) -> Result<Option<Self>, Unlike> {
        members.take(name).map(Self::from_value).transpose()
    }
}

impl FromValue for Blob {
    fn from_value(value: Value<'_>) -> Result<Self, Unlike> {
        match value {
            Value::Blob(len, text) => Self::decode(&text, Some(len)).map_err(|_| Unlike),
            _ => Err(Unlike),
        }
    }
}

impl FromValue for String {
    fn from_value(value: Value<'_>) -> Result<Self, Unlike> {
        match value {
            Value::Text(text) => Ok(text.into_owned()),
            _ => Err(Unlike),
        }
    }
}

impl FromValue for bool {
    fn from_value(value: Value<'_>) -> Result<Self, Unlike> {
        match value {
            Value::Boolean(value) => Ok(value),
            _ => Err(Unlike),
        }
    }
}

impl FromValue for IgnoredAny {
    fn from_value(_: Value<'_>) -> Result<Self, Unlike> {
        Ok(Self)
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: Value<'_>) -> Result<Self, Unlike> {
        match value {
            Value::List(values) => values.into_iter().map(String::from_value).collect(),
            _ => Err(Unlike),
        }
    }
}

impl FromValue for Context {
    fn from_value(value: Value<'_>) -> Result<Self, Unlike> {
        let Value::Map(entries) = value else {
            return Err(Unlike);
        };
        let mut context = EncryptionContext::new();
        for (name, value) in entries {
            // No name is there twice: the map has none so.
            let value = String::from_value(value)?;
            if context.insert(name.into_owned(), value).is_err() {
                return Ok(Self(None));
            }
        }
        Ok(Self(Some(context)))
    }
}

/// An encryption context that came as an object; `None` if it is longer than the keyring takes.
pub(super) struct Context(pub(super) Option<EncryptionContext>);

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Context;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Context, A::Error> {
                let mut context = EncryptionContext::new();
                let mut fits = true;
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if context.get(&name).is_some() {
                        return Err(A::Error::custom("duplicate name in an encryption context"));
                    }
                    fits = fits && context.insert(name, value).is_ok();
                }
                Ok(Context(fits.then_some(context)))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The context of a request; none is the empty one.
pub(super) fn context(context: Option<Context>, member: &str) -> Result<EncryptionContext, Fault> {
    match context {
        None => Ok(EncryptionContext::new()),
        Some(Context(Some(context))) => Ok(context),
        Some(Context(None)) => Err(Fault::Validation(format!(
            "1 validation error detected: Value at '{member}' failed to satisfy constraint: \
             names and values, each with 8 bytes more a pair, must have 8188 bytes or fewer"
        ))),
    }
}

/// A time, as seconds since 1970 with milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self
            .0
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        #[allow(clippy::cast_precision_loss)] // exact for 285 thousand years
        serializer.serialize_f64(millis as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_standard_base64() {
        let read =
            |text: &str| serde_json::from_str::<Blob>(text).map(|blob| blob.0.expose().to_vec());
        assert_eq!(read(r#""aGk/""#).unwrap(), b"hi?");
        assert_eq!(read(r#""aGk\/""#).unwrap(), b"hi?", "an escaped slash");
        assert_eq!(read(r#""""#).unwrap(), b"");
        for bad in [r#""aGk""#, r#""aGk_""#, r#""aGk/ ""#, "5", "null"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Base64(b"hi?")).unwrap(), r#""aGk/""#);
    }

    #[test]
    fn a_secret_answer_of_any_length_is_what_it_would_be_in_the_open() {
        for len in [0, 1, 2, 3, 4, 700, 1024, 5000, 16 * 1024] {
            let blob = vec![0xa5; len];
            for text in [
                "plain",
                "",
                "a \"quote\", a \\ and a \u{1}",
                "\u{e9}\u{1f512}",
            ] {
                let answer = secret_answer([
                    ("First", Member::Text(text)),
                    ("Second", Member::Blob(&blob)),
                    ("Third", Member::Text(text)),
                ])
                .unwrap();
                let open = format!(
                    r#"{{"First":{0},"Second":{1},"Third":{0}}}"#,
                    serde_json::to_string(text).unwrap(),
                    serde_json::to_string(&Base64(&blob)).unwrap(),
                );
                assert_eq!(answer, open);
            }
        }
    }

    #[test]
    fn a_context_does_not_take_a_name_twice() {
        let read = serde_json::from_str::<Context>;
        assert_eq!(
            read(r#"{"a":"1","b":"2"}"#).unwrap().0.unwrap().get("b"),
            Some("2")
        );
        for bad in [
            r#"{"a":"1","a":"1"}"#,
            r#"{"a":"1","\u0061":"1"}"#,
            r#"{"a":1}"#,
            "[]",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_context_has_8_kib_and_names_are_compared_beyond_it_too() {
        let pair = |name: &str, len: usize| format!(r#""{name}":"{}""#, "v".repeat(len));
        let read = |pairs: &[String]| {
            serde_json::from_str::<Context>(&format!("{{{}}}", pairs.join(","))).map(|read| read.0)
        };
        assert!(read(&[pair("n", 8192 - 4 - 8 - 1)]).unwrap().is_some());
        assert!(read(&[pair("n", 8192 - 4 - 8)]).unwrap().is_none());
        assert!(read(&[pair("n", 1), pair("m", 9000), pair("n", 1)]).is_err());
    }

    #[test]
    fn times_are_seconds_with_milliseconds() {
        let time = UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
        assert_eq!(
            serde_json::to_string(&Time(time)).unwrap(),
            "1700000000.123"
        );
    }
}
