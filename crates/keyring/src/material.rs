//! What seals and opens under a key, wherever it is.

use std::sync::Arc;

use async_trait::async_trait;
use crypto::{
    context::EncryptionContext,
    random::Random,
    secret::SecretVec,
    wrap::{BackingKey, BlobHeader, KeyBlob, KeyBlobRef, PLAINTEXT_LEN_MAX},
};

use crate::{error::KeyringError, spec::KeySpec};

/// One version of a key's material.
///
/// It may be in memory or in another machine: callers wait for it and hold no lock meanwhile. Each
/// operation may be cancelled anywhere. What a kind of material does not do it answers with
/// [`KeyringError::UnsupportedOperation`].
#[async_trait]
pub trait Material: Send + Sync {
    /// Seals 1 to 4096 bytes under `context` into a ciphertext blob that says `header`.
    async fn seal(
        &self,
        _header: BlobHeader,
        _context: &EncryptionContext,
        _plaintext: &SecretVec,
    ) -> Result<Vec<u8>, KeyringError> {
        Err(unsupported("Encrypt"))
    }

    /// Opens a blob; [`KeyringError::InvalidCiphertext`] for every reason why it does not open.
    async fn open(
        &self,
        _blob: &KeyBlobRef<'_>,
        _context: &EncryptionContext,
    ) -> Result<SecretVec, KeyringError> {
        Err(unsupported("Decrypt"))
    }

    /// The signature of `message`.
    async fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, KeyringError> {
        Err(unsupported("Sign"))
    }

    /// The MAC of `message`.
    async fn mac(&self, _message: &[u8]) -> Result<Vec<u8>, KeyringError> {
        Err(unsupported("GenerateMac"))
    }

    /// The part that is not secret: a SubjectPublicKeyInfo in DER (RFC 5280, 4.1.2.7).
    async fn public_part(&self) -> Result<Vec<u8>, KeyringError> {
        Err(unsupported("GetPublicKey"))
    }
}

fn unsupported(operation: &str) -> KeyringError {
    KeyringError::UnsupportedOperation(format!(
        "{operation} is not supported by the material of this key."
    ))
}

/// New material for a key of this spec, as its record keeps it.
pub(crate) fn generate(spec: KeySpec, random: &dyn Random) -> SecretVec {
    match spec {
        KeySpec::SymmetricDefault => SecretVec::random(32, random),
    }
}

/// The material that a record keeps, or what is wrong with it.
pub(crate) fn from_record(
    spec: KeySpec,
    kept: &SecretVec,
    random: &Arc<dyn Random>,
) -> Result<Arc<dyn Material>, &'static str> {
    match spec {
        KeySpec::SymmetricDefault => {
            let secret = kept.to_secret_bytes().map_err(|_| "it is not 32 bytes")?;
            Ok(Arc::new(Symmetric {
                key: BackingKey::from_secret(secret),
                random: Arc::clone(random),
            }))
        }
    }
}

/// `SYMMETRIC_DEFAULT`: an AES-256 key in memory.
struct Symmetric {
    key: BackingKey,
    random: Arc<dyn Random>,
}

#[async_trait]
impl Material for Symmetric {
    async fn seal(
        &self,
        header: BlobHeader,
        context: &EncryptionContext,
        plaintext: &SecretVec,
    ) -> Result<Vec<u8>, KeyringError> {
        let random = self.random.as_ref();
        KeyBlob::seal(&self.key, header, context, plaintext.expose(), random).map_err(|_| {
            KeyringError::Validation(format!(
                "Plaintext must have a length between 1 and {PLAINTEXT_LEN_MAX}."
            ))
        })
    }

    async fn open(
        &self,
        blob: &KeyBlobRef<'_>,
        context: &EncryptionContext,
    ) -> Result<SecretVec, KeyringError> {
        blob.open(&self.key, context)
            .map_err(|_| KeyringError::InvalidCiphertext)
    }
}

#[cfg(test)]
mod tests {
    use crypto::random::SeededRandom;

    use super::*;

    const HEADER: BlobHeader = BlobHeader {
        key_id: [7; 16],
        multi_region: false,
        material: 1,
    };

    fn symmetric(seed: u64) -> Arc<dyn Material> {
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(seed));
        let kept = generate(KeySpec::SymmetricDefault, random.as_ref());
        from_record(KeySpec::SymmetricDefault, &kept, &random).unwrap()
    }

    #[tokio::test]
    async fn symmetric_material_opens_what_it_sealed_and_nothing_else() {
        let (ours, other) = (symmetric(1), symmetric(2));
        let context = EncryptionContext::new();
        let plaintext = SecretVec::from_slice(b"a secret");
        let blob = ours.seal(HEADER, &context, &plaintext).await.unwrap();
        let blob = KeyBlob::parse(&blob).unwrap();
        let opened = ours.open(&blob, &context).await.unwrap();
        assert_eq!(opened.expose(), b"a secret");
        let refused = other.open(&blob, &context).await.unwrap_err();
        assert_eq!(refused.code(), "InvalidCiphertextException");
        for len in [0, PLAINTEXT_LEN_MAX + 1] {
            let plaintext = SecretVec::from_vec(vec![0; len]);
            let refused = ours.seal(HEADER, &context, &plaintext).await.unwrap_err();
            assert_eq!(refused.code(), "ValidationException");
        }
    }

    #[tokio::test]
    async fn symmetric_material_neither_signs_nor_authenticates_and_has_no_public_part() {
        let material = symmetric(1);
        for refused in [
            material.sign(b"m").await,
            material.mac(b"m").await,
            material.public_part().await,
        ] {
            assert_eq!(refused.unwrap_err().code(), "UnsupportedOperationException");
        }
    }

    #[test]
    fn material_that_is_not_as_its_spec_says_is_refused() {
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        for len in [0, 31, 33] {
            let kept = SecretVec::from_vec(vec![1; len]);
            assert!(from_record(KeySpec::SymmetricDefault, &kept, &random).is_err());
        }
    }
}
