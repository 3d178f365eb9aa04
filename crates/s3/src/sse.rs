//! What a request says about encryption, read once and checked as S3 checks it.
//!
//! Promises: the headers are read here and nowhere else and never reach s3s,
//! whose DTOs would print the customer's key; the key lives in a type that
//! wipes itself; every wrong combination has S3's own code and message.
//!
//! Not promised: the header map hyper filled is freed without being wiped.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto::context::EncryptionContext;
use crypto::hash::Md5;
use crypto::secret::SecretBytes;
use http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::Error;

const MODE: &str = "x-amz-server-side-encryption";
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";

/// Names of one customer-key trio.
struct Trio {
    algorithm: &'static str,
    key: &'static str,
    key_md5: &'static str,
}

const TARGET: Trio = Trio {
    algorithm: "x-amz-server-side-encryption-customer-algorithm",
    key: "x-amz-server-side-encryption-customer-key",
    key_md5: "x-amz-server-side-encryption-customer-key-md5",
};
const SOURCE: Trio = Trio {
    algorithm: "x-amz-copy-source-server-side-encryption-customer-algorithm",
    key: "x-amz-copy-source-server-side-encryption-customer-key",
    key_md5: "x-amz-copy-source-server-side-encryption-customer-key-md5",
};

/// A key the client sent and wants forgotten.
#[derive(Debug)]
pub(crate) struct CustomerKey {
    /// The 256-bit key.
    pub(crate) key: SecretBytes<32>,
    /// Base64 of its MD5, as the client sent it and answers repeat it.
    pub(crate) md5: String,
}

/// How a new object is to be sealed, as far as the request says.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Nothing said: the bucket's default. A bucket-key wish may stand alone.
    Default {
        /// `x-amz-server-side-encryption-bucket-key-enabled`.
        bucket_key: Option<bool>,
    },
    /// `AES256`.
    Owned,
    /// `aws:kms`.
    Kms {
        /// Key id, ARN, alias or alias ARN as sent; none means `alias/aws/s3`.
        key: Option<String>,
        /// The client's own encryption context.
        context: EncryptionContext,
        /// `x-amz-server-side-encryption-bucket-key-enabled`.
        bucket_key: Option<bool>,
    },
    /// SSE-C.
    Customer(CustomerKey),
}

/// Whether customer keys may be read from this request at all: TLS, or a
/// connection that does not leave the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confidential(pub(crate) bool);

/// Reads the headers of PUT, COPY and CreateMultipartUpload.
pub(crate) fn wanted(headers: &HeaderMap, transport: Confidential) -> Result<Wanted, Error> {
    let mode = text(headers, MODE)?;
    let key = text(headers, KMS_KEY)?;
    let context = text(headers, CONTEXT)?;
    let bucket_key = flag(headers)?;
    if let Some(customer) = customer(headers, &TARGET, transport)? {
        if mode.is_some() || key.is_some() || context.is_some() {
            return Err(Error::invalid_argument(
                "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
            ));
        }
        return Ok(Wanted::Customer(customer));
    }
    match mode.as_deref() {
        Some("aws:kms") => Ok(Wanted::Kms {
            key: key.map(Cow::into_owned).filter(|key| !key.is_empty()),
            context: context.map_or_else(|| Ok(EncryptionContext::new()), |c| parse_context(&c))?,
            bucket_key,
        }),
        Some("aws:kms:dsse") => Err(Error::not_implemented(
            "Dual-layer server-side encryption with KMS keys (aws:kms:dsse) is not implemented by this gateway yet; use aws:kms",
        )),
        Some("AES256") | None if key.is_some() || context.is_some() => {
            Err(Error::invalid_argument(
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms",
            ))
        }
        Some("AES256") => Ok(Wanted::Owned),
        None => Ok(Wanted::Default { bucket_key }),
        Some(_) => Err(Error::invalid_argument(
            "The encryption method specified is not supported",
        )),
    }
}

/// Reads the headers of GET, HEAD, attributes, parts and completion, which take
/// a customer key and nothing else.
pub(crate) fn customer_only(
    headers: &HeaderMap,
    transport: Confidential,
) -> Result<Option<CustomerKey>, Error> {
    for name in [MODE, KMS_KEY, CONTEXT, BUCKET_KEY] {
        if headers.contains_key(name) {
            return Err(Error::invalid_argument(format!(
                "{name} header is not supported for this operation."
            )));
        }
    }
    customer(headers, &TARGET, transport)
}

/// Reads the key for the source of a copy.
pub(crate) fn copy_source(
    headers: &HeaderMap,
    transport: Confidential,
) -> Result<Option<CustomerKey>, Error> {
    customer(headers, &SOURCE, transport)
}

fn customer(
    headers: &HeaderMap,
    names: &Trio,
    transport: Confidential,
) -> Result<Option<CustomerKey>, Error> {
    let algorithm = text(headers, names.algorithm)?;
    // Not through `text`: its error would name the value's header only, but the
    // value must not be copied into an ordinary string either.
    let key = headers.get(names.key).filter(|value| !value.is_empty());
    let md5 = text(headers, names.key_md5)?;
    if algorithm.is_none() && key.is_none() && md5.is_none() {
        return Ok(None);
    }
    if !transport.0 {
        return Err(Error::invalid_request(
            "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection.",
        ));
    }
    match algorithm.as_deref() {
        None => {
            return Err(Error::invalid_argument(
                "Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption algorithm.",
            ));
        }
        Some("AES256") => {}
        Some(_) => {
            return Err(Error::client(
                StatusCode::BAD_REQUEST,
                "InvalidEncryptionAlgorithmError",
                "The Encryption request you specified is not valid. Supported value: AES256.",
            ));
        }
    }
    let Some(key) = key else {
        return Err(Error::invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret key.",
        ));
    };
    let Some(md5) = md5 else {
        return Err(Error::invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide the client calculated MD5 of the secret key.",
        ));
    };
    let wrong_size =
        || Error::invalid_argument("The secret key was invalid for the specified algorithm.");
    let bytes = Zeroizing::new(STANDARD.decode(key.as_bytes()).map_err(|_| wrong_size())?);
    let key = SecretBytes::from_slice(&bytes).map_err(|_| wrong_size())?;
    let mut hasher = Md5::new();
    hasher.update(key.expose());
    let computed = hasher.finish();
    let sent = STANDARD.decode(md5.as_bytes()).unwrap_or_default();
    if !bool::from(computed.as_slice().ct_eq(&sent)) {
        return Err(Error::invalid_argument(
            "The calculated MD5 hash of the key did not match the hash that was provided.",
        ));
    }
    Ok(Some(CustomerKey {
        key,
        md5: md5.into_owned(),
    }))
}

/// Base64 of a JSON object with string values.
pub(crate) fn parse_context(value: &str) -> Result<EncryptionContext, Error> {
    let invalid = || {
        Error::invalid_argument(
            "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which represents a string-string map",
        )
    };
    let json = STANDARD.decode(value).map_err(|_| invalid())?;
    // A list of pairs, so that a name given twice is an error and not a choice.
    let pairs: Pairs = serde_json::from_slice(&json).map_err(|_| invalid())?;
    EncryptionContext::from_pairs(pairs.0).map_err(|_| invalid())
}

/// A JSON object as the pairs that stand in it.
struct Pairs(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with string values")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A context as answers repeat it: base64 of JSON, names sorted.
pub(crate) fn context_header(context: &EncryptionContext) -> Option<String> {
    if context.is_empty() {
        return None;
    }
    let map: std::collections::BTreeMap<&str, &str> = context.iter().collect();
    let json = serde_json::to_vec(&map).ok()?;
    Some(STANDARD.encode(json))
}

fn flag(headers: &HeaderMap) -> Result<Option<bool>, Error> {
    match text(headers, BUCKET_KEY)?.as_deref() {
        None => Ok(None),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(Error::invalid_argument(
            "x-amz-server-side-encryption-bucket-key-enabled must be true or false.",
        )),
    }
}

/// A header that may come once and must be ASCII.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<Cow<'h, str>>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Error::invalid_argument(format!(
            "The header {name} is given twice."
        )));
    }
    let value = value
        .to_str()
        .map_err(|_| Error::invalid_argument(format!("The header {name} is not ASCII.")))?;
    Ok(Some(Cow::Borrowed(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const MD5: &str = "tP/LI3N87DFaSk0aoqYgzg==";
    const OTHER_MD5: &str = "1B2M2Y8AsgTpgAmY7PhCfg==";
    const ALG: &str = "x-amz-server-side-encryption-customer-algorithm";
    const CKEY: &str = "x-amz-server-side-encryption-customer-key";
    const CMD5: &str = "x-amz-server-side-encryption-customer-key-md5";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap()))
            .collect()
    }

    fn md5_of_key() -> String {
        let mut hasher = Md5::new();
        hasher.update(&STANDARD.decode(KEY).unwrap());
        STANDARD.encode(hasher.finish())
    }

    #[test]
    fn each_wrong_combination_has_its_own_code_and_message() {
        let md5 = md5_of_key();
        assert_eq!(md5, MD5);
        let mut messages = Vec::new();
        for (pairs, code) in [
            (
                vec![(ALG, "AES256"), (CKEY, KEY), (CMD5, MD5), (MODE, "AES256")],
                "InvalidArgument",
            ),
            (
                vec![(ALG, "AES128"), (CKEY, KEY), (CMD5, MD5)],
                "InvalidEncryptionAlgorithmError",
            ),
            (vec![(CKEY, KEY), (CMD5, MD5)], "InvalidArgument"),
            (vec![(ALG, "AES256"), (CMD5, MD5)], "InvalidArgument"),
            (
                vec![(ALG, "AES256"), (CKEY, "AAECAw=="), (CMD5, MD5)],
                "InvalidArgument",
            ),
            (
                vec![(ALG, "AES256"), (CKEY, KEY), (CMD5, OTHER_MD5)],
                "InvalidArgument",
            ),
            (vec![(ALG, "AES256"), (CKEY, KEY)], "InvalidArgument"),
            (vec![(KMS_KEY, "k")], "InvalidArgument"),
            (vec![(MODE, "AES257")], "InvalidArgument"),
            (vec![(MODE, "aws:kms:dsse")], "NotImplemented"),
            (
                vec![(MODE, "aws:kms"), (CONTEXT, "bm90IGpzb24=")],
                "InvalidArgument",
            ),
            (
                vec![(MODE, "aws:kms"), (BUCKET_KEY, "maybe")],
                "InvalidArgument",
            ),
        ] {
            let error = wanted(&headers(&pairs), Confidential(true)).unwrap_err();
            assert_eq!(error.code(), code, "{pairs:?}");
            messages.push(error.message().into_owned());
        }
        let count = messages.len();
        messages.sort();
        messages.dedup();
        assert_eq!(messages.len(), count, "the messages are distinct");
        let error = wanted(
            &headers(&[(MODE, "AES256"), (KMS_KEY, "k")]),
            Confidential(true),
        );
        assert_eq!(error.unwrap_err().code(), "InvalidArgument");
    }

    #[test]
    fn a_customer_key_is_refused_on_an_open_wire_and_never_printed() {
        let headers = headers(&[(ALG, "AES256"), (CKEY, KEY), (CMD5, MD5)]);
        let error = wanted(&headers, Confidential(false)).unwrap_err();
        assert_eq!(error.code(), "InvalidRequest");
        let Wanted::Customer(key) = wanted(&headers, Confidential(true)).unwrap() else {
            panic!("a customer key was sent");
        };
        let printed = format!("{key:?}");
        assert!(
            !printed.contains(KEY) && printed.contains("redacted"),
            "{printed}"
        );
    }

    #[test]
    fn a_context_is_a_base64_json_map_without_repeated_names() {
        let encode = |json: &str| STANDARD.encode(json);
        let context = parse_context(&encode(r#"{"b":"2","a":"1"}"#)).unwrap();
        assert_eq!(context.get("a"), Some("1"));
        assert_eq!(
            context_header(&context),
            Some(encode(r#"{"a":"1","b":"2"}"#))
        );
        for bad in [r#"{"a":"1","a":"2"}"#, r#"{"a":1}"#, r#"["a"]"#, "x"] {
            assert!(parse_context(&encode(bad)).is_err(), "{bad}");
        }
        assert_eq!(context_header(&EncryptionContext::new()), None);
    }

    #[test]
    fn reads_take_no_mode_header() {
        let error = customer_only(&headers(&[(MODE, "aws:kms")]), Confidential(true)).unwrap_err();
        assert_eq!(error.code(), "InvalidArgument");
        assert!(
            customer_only(&headers(&[]), Confidential(true))
                .unwrap()
                .is_none()
        );
    }
}
