//! Signing keys, and the cache of those that have proved right.
//!
//! A signing key is HMAC(HMAC(HMAC(HMAC("AWS4" + secret, date), region), service), "aws4_request").
//! It costs four HMACs, which is more than the rest of a small request's verification, and it is
//! good for a day: so it is kept. The cache's key is the credential as the client sent it, which
//! names access key, date, region and service. A key enters only after a signature under it was
//! right, and counts only while the credential it came from is still the one on record.
//!
//! AWS-LC wipes an HMAC context when it is freed. The intermediate tags of the derivation are on the
//! stack of this function alone and are not wiped.
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::identity::{self, SecretAccessKey};

/// Derives the key that signs requests of one day (eight digits, `20130524`), region and service.
pub fn derive(secret: &SecretAccessKey, date: &str, region: &str, service: &str) -> hmac::Key {
    let mut start = Zeroizing::new(Vec::with_capacity(4 + secret.expose().len()));
    start.extend_from_slice(b"AWS4");
    start.extend_from_slice(secret.expose().as_bytes());
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, &start);
    for part in [date, region, service, "aws4_request"] {
        key = hmac::Key::new(
            hmac::HMAC_SHA256,
            hmac::sign(&key, part.as_bytes()).as_ref(),
        );
    }
    key
}

#[derive(Clone)]
struct Cached {
    key: Arc<hmac::Key>,
    from: Weak<identity::Credential>,
}

/// A bounded cache of signing keys.
#[derive(Clone)]
pub struct SigningKeys {
    keys: moka::sync::Cache<Box<str>, Cached>,
}

impl SigningKeys {
    /// At most `capacity` keys, each for at most a day.
    pub fn new(capacity: u64) -> Self {
        let keys = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .time_to_live(Duration::from_secs(24 * 60 * 60))
            .build();
        Self { keys }
    }

    /// The key for `credential` if it was derived from `record`.
    pub fn get(
        &self,
        credential: &str,
        record: &Arc<identity::Credential>,
    ) -> Option<Arc<hmac::Key>> {
        let cached = self.keys.get(credential)?;
        // A Weak keeps its allocation, so an equal address is the same credential.
        std::ptr::eq(cached.from.as_ptr(), Arc::as_ptr(record)).then_some(cached.key)
    }

    /// Keeps a key under which a signature was right.
    pub fn keep(
        &self,
        credential: Box<str>,
        record: &Arc<identity::Credential>,
        key: Arc<hmac::Key>,
    ) {
        self.keys.insert(
            credential,
            Cached {
                key,
                from: Arc::downgrade(record),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Principal;

    fn credential() -> Arc<identity::Credential> {
        Arc::new(identity::Credential {
            principal: Principal::root("123456789012".parse().unwrap()),
            secret: SecretAccessKey::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").unwrap(),
        })
    }

    /// From AWS's "Examples of how to derive a signing key": a known string signed under the key
    /// derived for 20150830, us-east-1, iam.
    #[test]
    fn the_key_of_the_documentation_is_derived() {
        let key = derive(&credential().secret, "20150830", "us-east-1", "iam");
        let string_to_sign = "AWS4-HMAC-SHA256\n20150830T123600Z\n\
             20150830/us-east-1/iam/aws4_request\n\
             f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
        assert_eq!(
            hex::encode(hmac::sign(&key, string_to_sign.as_bytes())),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn a_key_is_not_used_once_its_credential_was_replaced() {
        let keys = SigningKeys::new(10);
        let (old, new) = (credential(), credential());
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, b"k"));
        keys.keep("AK/1/r/s/aws4_request".into(), &old, key);
        assert!(keys.get("AK/1/r/s/aws4_request", &old).is_some());
        assert!(keys.get("AK/1/r/s/aws4_request", &new).is_none());
        assert!(keys.get("AK/2/r/s/aws4_request", &old).is_none());
    }
}
