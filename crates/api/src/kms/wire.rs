//! How values stand in JSON: blobs in base64, times as seconds, contexts as objects whose names may
//! not repeat.
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use bytes::Bytes;
use keyring::{EncryptionContext, SecretVec};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
};

use super::fault::Fault;
use crate::model::SecretText;

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

/// Room for an answer that holds plaintext, in bytes: for a data key and a few ARNs, and for the largest, two blobs
/// in base64.
const SECRET_ANSWER_LENS: [usize; 2] = [1024, 32 * 1024];

/// Writes an answer that holds plaintext: into a buffer that is never moved, and wiped when the last handle to it
/// goes. The whole buffer is wiped, so it is no larger than it has to be.
pub(super) fn secret_answer<T: Serialize>(value: &T) -> Result<Bytes, Fault> {
    let (buffer, len) = SECRET_ANSWER_LENS
        .into_iter()
        .find_map(|room| written_within(room, value))
        .expect("the largest answer is below 16 KiB");
    Ok(Bytes::from_owner(SecretAnswer { buffer, len }))
}

/// The answer in a buffer of `room` bytes, and its length; `None` if it does not fit, and what was written is wiped.
fn written_within<T: Serialize>(room: usize, value: &T) -> Option<(SecretVec, usize)> {
    let mut left = room;
    let buffer = SecretVec::try_init_with(room, |mut out| {
        let written = serde_json::to_writer(&mut out, value);
        left = out.len();
        written
    });
    Some((buffer.ok()?, room - left))
}

struct SecretAnswer {
    buffer: SecretVec,
    len: usize,
}

impl AsRef<[u8]> for SecretAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer.expose()[..self.len]
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

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretText::deserialize(deserializer)?;
        if text.expose().len() > BLOB_LEN_MAX / 3 * 4 {
            return Err(D::Error::custom("a blob is too long"));
        }
        let not_base64 = || D::Error::custom("a blob is not in base64");
        let len = text
            .base64_len()
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(not_base64)?;
        let decode = |bytes: &mut [u8]| match base64::Engine::decode_slice(
            &STANDARD,
            text.expose(),
            bytes,
        ) {
            Ok(decoded) if decoded == len => Ok(()),
            _ => Err(not_base64()),
        };
        SecretVec::try_init_with(len, decode).map(Blob)
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
        for len in [0, 700, 1020, 1022, 1023, 1024, 1025, 5000, 16 * 1024] {
            let text = "s".repeat(len);
            let answer = secret_answer(&text).unwrap();
            assert_eq!(answer, serde_json::to_vec(&text).unwrap());
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
