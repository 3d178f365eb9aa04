//! Object keys under a bucket key.
//!
//! A bucket key stands between a key of the keyring and the keys of a bucket's objects; it never leaves the process, so
//! what it wraps needs no header. Layouts: `FORMAT.md`.

use crate::CryptoError;
use crate::chunk::ObjectKey;
use crate::committing;
use crate::random::Random;
use crate::secret::secret_key;

/// First byte of a wrapped object key.
const VERSION: u8 = 1;
const OBJECT_KEY_LABEL: &[u8] = b"sealgate object key v1";

/// Length of a wrapped object key in bytes.
pub const WRAPPED_OBJECT_KEY_LEN: usize = 1 + committing::OVERHEAD + ObjectKey::LEN;

secret_key! {
    /// Wraps the keys of a bucket's objects, so that the keyring is asked once a
    /// period and not once an object.
    BucketKey
}

/// Wraps `key` under `bucket_key`, bound to `aad` (the caller's canonical form
/// of bucket, object and whatever must not change).
pub fn wrap_object_key(
    bucket_key: &BucketKey,
    key: &ObjectKey,
    aad: &[u8],
    random: &dyn Random,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(WRAPPED_OBJECT_KEY_LEN);
    out.push(VERSION);
    let plaintext = key.secret().expose();
    committing::seal_onto(
        &mut out,
        bucket_key.secret(),
        OBJECT_KEY_LABEL,
        &[VERSION],
        aad,
        plaintext,
        random,
    );
    out
}

/// Opens what [`wrap_object_key`] made under the same key and `aad`; all else is
/// [`CryptoError::Unauthentic`].
pub fn unwrap_object_key(
    bucket_key: &BucketKey,
    wrapped: &[u8],
    aad: &[u8],
) -> Result<ObjectKey, CryptoError> {
    match wrapped {
        [VERSION, sealed @ ..] if wrapped.len() == WRAPPED_OBJECT_KEY_LEN => committing::open(
            bucket_key.secret(),
            OBJECT_KEY_LABEL,
            &[VERSION],
            aad,
            sealed,
        )?
        .to_secret_bytes()
        .map(ObjectKey::from_secret),
        _ => Err(CryptoError::Unauthentic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn an_object_key_comes_back_only_under_its_bucket_key_and_place() {
        let random = SeededRandom::new(2);
        let bucket = BucketKey::generate(&random);
        let object = ObjectKey::generate(&random);
        let wrapped = wrap_object_key(&bucket, &object, b"bucket/key", &random);
        assert_eq!(wrapped.len(), WRAPPED_OBJECT_KEY_LEN);
        let back = unwrap_object_key(&bucket, &wrapped, b"bucket/key").unwrap();
        assert_eq!(back.secret().expose(), object.secret().expose());
        assert!(unwrap_object_key(&bucket, &wrapped, b"bucket/kez").is_err());
        let other = BucketKey::generate(&random);
        assert!(unwrap_object_key(&other, &wrapped, b"bucket/key").is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_wrapped_object_key_is_refused() {
        let random = SeededRandom::new(3);
        let bucket = BucketKey::generate(&random);
        let wrapped = wrap_object_key(&bucket, &ObjectKey::generate(&random), b"place", &random);
        let refused = |wrapped: &[u8]| unwrap_object_key(&bucket, wrapped, b"place").is_err();
        for bit in 0..wrapped.len() * 8 {
            let mut bad = wrapped.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&bad), "bit {bit}");
        }
        for len in 0..wrapped.len() {
            assert!(refused(&wrapped[..len]), "{len}");
        }
        assert!(refused(&[&wrapped[..], &[0]].concat()));
        assert!(!refused(&wrapped));
    }
}
