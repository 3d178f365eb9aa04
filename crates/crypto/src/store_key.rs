//! The two keys above every record: the root key, and the store key that it wraps.
//!
//! Nothing is derived from the root key but its public id. It wraps the store key, one random secret a generation,
//! and the record keys are derived from that. So the root key may live where it can only wrap and unwrap (an HSM, a
//! TPM, another key service), and replacing it touches no record. Layouts: `FORMAT.md`.

use crate::{
    CryptoError, committing,
    derive::hkdf_sha256,
    mac::MacKey,
    random::Random,
    record::RecordKey,
    secret::{SecretBytes, secret_key},
};

/// First byte of a wrapped store key.
const VERSION: u8 = 1;
const LABEL: &[u8] = b"sealgate store key v1";
const ID_SALT: &[u8; 32] = b"sealgate root key id\0\0\0\0\0\0\0\0\0\0\0\0";

/// Length of a wrapped store key in bytes.
pub const WRAPPED_STORE_KEY_LEN: usize = 1 + committing::OVERHEAD + GenerationKey::LEN;

secret_key! {
    /// A root key that is held in memory: from a file or a passphrase. It wraps store keys and does nothing else.
    RootKey
}

secret_key! {
    /// The secret of one generation of the store key: record keys are derived from it.
    GenerationKey
}

impl RootKey {
    /// Wraps `key`, bound to `aad` (the store and the generation). The result is [`WRAPPED_STORE_KEY_LEN`] bytes.
    pub fn wrap(&self, key: &GenerationKey, aad: &[u8], random: &dyn Random) -> Vec<u8> {
        let mut out = Vec::with_capacity(WRAPPED_STORE_KEY_LEN);
        out.push(VERSION);
        let plaintext = key.secret().expose();
        committing::seal_onto(&mut out, &self.0, LABEL, &[VERSION], aad, plaintext, random);
        out
    }

    /// Opens what [`wrap`](Self::wrap) made under the same root key and `aad`; all else is
    /// [`CryptoError::Unauthentic`].
    pub fn unwrap(&self, wrapped: &[u8], aad: &[u8]) -> Result<GenerationKey, CryptoError> {
        match wrapped {
            [VERSION, sealed @ ..] if wrapped.len() == WRAPPED_STORE_KEY_LEN => {
                committing::open(&self.0, LABEL, &[VERSION], aad, sealed)?
                    .to_secret_bytes()
                    .map(GenerationKey::from_secret)
            }
            _ => Err(CryptoError::Unauthentic),
        }
    }

    /// The key's public name, 16 bytes: tells root keys apart and says nothing of them. Who can guess the key (a weak
    /// passphrase) can check the guess against it, as against anything that the key has wrapped.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        hkdf_sha256(
            ID_SALT,
            self.0.expose(),
            &[b"sealgate root verifier v1"],
            &mut id,
        );
        id
    }
}

impl GenerationKey {
    /// The key of one kind of records. Equal labels give equal keys.
    pub fn record_key(&self, label: &str) -> RecordKey {
        RecordKey::derive(&self.0, label)
    }

    /// The key that authenticates the header which the wrapped store keys stand in.
    pub fn header_mac(&self) -> MacKey {
        MacKey::new(&SecretBytes::init_with(|key| {
            hkdf_sha256(b"", self.0.expose(), &[b"sealgate root header mac v1"], key);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn a_store_key_comes_back_only_under_its_root_key_and_place() {
        let random = SeededRandom::new(1);
        let root = RootKey::generate(&random);
        let key = GenerationKey::generate(&random);
        let wrapped = root.wrap(&key, b"store 1", &random);
        assert_eq!(wrapped.len(), WRAPPED_STORE_KEY_LEN);
        let back = root.unwrap(&wrapped, b"store 1").unwrap();
        assert_eq!(back.secret().expose(), key.secret().expose());
        assert!(root.unwrap(&wrapped, b"store 2").is_err());
        let other = RootKey::generate(&random);
        assert_ne!(other.id(), root.id());
        assert!(other.unwrap(&wrapped, b"store 1").is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_wrapped_store_key_is_refused() {
        let random = SeededRandom::new(2);
        let root = RootKey::generate(&random);
        let wrapped = root.wrap(&GenerationKey::generate(&random), b"", &random);
        for bit in 0..wrapped.len() * 8 {
            let mut bad = wrapped.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(root.unwrap(&bad, b"").is_err(), "bit {bit}");
        }
        for len in 0..wrapped.len() {
            assert!(root.unwrap(&wrapped[..len], b"").is_err(), "cut to {len}");
        }
        assert!(root.unwrap(&[&wrapped[..], &[0]].concat(), b"").is_err());
    }
}
