//! Sealing and opening under a key: Encrypt, Decrypt, ReEncrypt, data keys, random bytes.
//!
//! Each operation is one moment of the key: its state is checked, then its material is used. A key
//! that is disabled while an operation runs may still serve that one; every operation that begins
//! after DisableKey was answered is refused.

use crypto::{context::EncryptionContext, secret::SecretVec, wrap::BlobHeader};
use iam::{Action, Authorized};

use crate::{
    error::KeyringError,
    key::KeyArn,
    keyring::{BLOB_LEN_MAX, Inner, Keyring, OpenedMaterial},
    metadata::{DataKeyLen, MaterialId},
    resource::{AllKeys, NamedKey, SealedBlob},
    snapshot::KeyEntry,
};

/// The answer of Encrypt.
#[derive(Debug)]
pub struct Encrypted {
    /// The ciphertext blob.
    pub ciphertext: Vec<u8>,
    /// The key it is sealed under.
    pub key: KeyArn,
}

/// The answer of Decrypt.
#[derive(Debug)]
pub struct Decrypted {
    /// What was sealed.
    pub plaintext: SecretVec,
    /// The key it was sealed under.
    pub key: KeyArn,
    /// The version of the key's material.
    pub material: MaterialId,
}

/// The answer of ReEncrypt.
#[derive(Debug)]
pub struct ReEncrypted {
    /// The new blob.
    pub ciphertext: Vec<u8>,
    /// The key it was sealed under.
    pub source: KeyArn,
    /// The material it was sealed under.
    pub source_material: MaterialId,
    /// The key it is sealed under now.
    pub destination: KeyArn,
    /// The material it is sealed under now.
    pub destination_material: MaterialId,
}

/// The answer of GenerateDataKey.
#[derive(Debug)]
pub struct DataKey {
    /// The key itself.
    pub plaintext: SecretVec,
    /// The key, sealed.
    pub ciphertext: Vec<u8>,
    /// The key it is sealed under.
    pub key: KeyArn,
    /// The version of that key's material.
    pub material: MaterialId,
}

/// The answer of GenerateDataKeyWithoutPlaintext.
#[derive(Debug)]
pub struct WrappedDataKey {
    /// The key, sealed.
    pub ciphertext: Vec<u8>,
    /// The key it is sealed under.
    pub key: KeyArn,
    /// The version of that key's material.
    pub material: MaterialId,
}

impl Keyring {
    /// Seals 1 to 4096 bytes under the key and the encryption context that `authorized` is for.
    pub async fn encrypt(
        &self,
        authorized: Authorized<iam::Encrypt, NamedKey>,
        plaintext: SecretVec,
    ) -> Result<Encrypted, KeyringError> {
        let inner = &self.inner;
        let mut trail = inner.trail(&authorized);
        let result = async {
            let entry = inner.admit(&authorized)?;
            let context = authorized.resource().context();
            let (ciphertext, used) = inner.seal(&entry, context, &plaintext).await?;
            trail.material = Some(used.number);
            Ok(Encrypted {
                ciphertext,
                key: entry.arn.clone(),
            })
        }
        .await;
        trail.context = Some(authorized.into_resource().context);
        inner.finish(trail, result).await
    }

    /// Opens the blob that `authorized` is for, under the encryption context it is for.
    pub async fn decrypt(
        &self,
        authorized: Authorized<iam::Decrypt, SealedBlob<'_>>,
    ) -> Result<Decrypted, KeyringError> {
        let inner = &self.inner;
        let mut trail = inner.trail(&authorized);
        let result = async {
            let entry = inner.admit(&authorized)?;
            let (plaintext, used) = inner.open(&entry, authorized.resource()).await?;
            trail.material = Some(used.number);
            Ok(Decrypted {
                plaintext,
                key: entry.arn.clone(),
                material: used.id,
            })
        }
        .await;
        trail.context = Some(authorized.into_resource().key.context);
        inner.finish(trail, result).await
    }

    /// Opens the blob that `source` is for and seals what was in it under the key and the context
    /// that `destination` is for; the plaintext does not leave. One audit record names both keys.
    pub async fn re_encrypt(
        &self,
        source: Authorized<iam::ReEncryptFrom, SealedBlob<'_>>,
        destination: Authorized<iam::ReEncryptTo, NamedKey>,
    ) -> Result<ReEncrypted, KeyringError> {
        let inner = &self.inner;
        let mut trail = inner.trail(&source).named("ReEncrypt");
        trail.destination_key = Some(destination.resource().key.clone());
        let result = async {
            let from = inner.admit(&source)?;
            let to = inner.admit(&destination)?;
            let (plaintext, old) = inner.open(&from, source.resource()).await?;
            let context = destination.resource().context();
            let (ciphertext, new) = inner.seal(&to, context, &plaintext).await?;
            trail.material = Some(old.number);
            Ok(ReEncrypted {
                ciphertext,
                source: from.arn.clone(),
                source_material: old.id,
                destination: to.arn.clone(),
                destination_material: new.id,
            })
        }
        .await;
        trail.context = Some(source.into_resource().key.context);
        trail.destination_context = Some(destination.into_resource().context);
        inner.finish(trail, result).await
    }

    /// Makes a data key and seals it under the key and the encryption context that `authorized` is
    /// for.
    pub async fn generate_data_key(
        &self,
        authorized: Authorized<iam::GenerateDataKey, NamedKey>,
        len: DataKeyLen,
    ) -> Result<DataKey, KeyringError> {
        self.generate(authorized, len).await
    }

    /// Makes a data key as [`Keyring::generate_data_key`] does, and returns it sealed only.
    pub async fn generate_data_key_without_plaintext(
        &self,
        authorized: Authorized<iam::GenerateDataKeyWithoutPlaintext, NamedKey>,
        len: DataKeyLen,
    ) -> Result<WrappedDataKey, KeyringError> {
        let made = self.generate(authorized, len).await?;
        Ok(WrappedDataKey {
            ciphertext: made.ciphertext,
            key: made.key,
            material: made.material,
        })
    }

    async fn generate<A: Action>(
        &self,
        authorized: Authorized<A, NamedKey>,
        len: DataKeyLen,
    ) -> Result<DataKey, KeyringError> {
        let inner = &self.inner;
        let mut trail = inner.trail(&authorized);
        let result = async {
            let entry = inner.admit(&authorized)?;
            let plaintext = SecretVec::random(len.get(), inner.random.as_ref());
            let context = authorized.resource().context();
            let (ciphertext, used) = inner.seal(&entry, context, &plaintext).await?;
            trail.material = Some(used.number);
            Ok(DataKey {
                plaintext,
                ciphertext,
                key: entry.arn.clone(),
                material: used.id,
            })
        }
        .await;
        trail.context = Some(authorized.into_resource().context);
        inner.finish(trail, result).await
    }

    /// 1 to 1024 random bytes.
    pub async fn generate_random(
        &self,
        authorized: Authorized<iam::GenerateRandom, AllKeys>,
        len: DataKeyLen,
    ) -> Result<SecretVec, KeyringError> {
        let inner = &self.inner;
        let result = inner
            .check_running()
            .map(|()| SecretVec::random(len.get(), inner.random.as_ref()));
        inner.finish(inner.account_trail(&authorized), result).await
    }
}

/// The material that an operation used.
#[derive(Debug, Clone, Copy)]
struct Used {
    number: u32,
    id: MaterialId,
}

impl Inner {
    /// Seals under the key's current material; returns which that is too.
    async fn seal(
        &self,
        entry: &KeyEntry,
        context: &EncryptionContext,
        plaintext: &SecretVec,
    ) -> Result<(Vec<u8>, Used), KeyringError> {
        let number = entry.record.current();
        let OpenedMaterial { material, id } = self.material(entry, number).await?;
        let header = BlobHeader {
            key_id: *entry.id().as_bytes(),
            multi_region: entry.id().is_multi_region(),
            material: number,
        };
        let blob = material.seal(header, context, plaintext).await?;
        debug_assert!(blob.len() <= BLOB_LEN_MAX);
        Ok((blob, Used { number, id }))
    }

    /// Opens what was sealed under any material of the key.
    async fn open(
        &self,
        entry: &KeyEntry,
        sealed: &SealedBlob<'_>,
    ) -> Result<(SecretVec, Used), KeyringError> {
        let header = *sealed.blob.header();
        debug_assert_eq!(header.key_id, *entry.id().as_bytes(), "found by it");
        let number = header.material;
        if !(1..=entry.record.current()).contains(&number) {
            return Err(KeyringError::InvalidCiphertext);
        }
        let OpenedMaterial { material, id } = self.material(entry, number).await?;
        let plaintext = material.open(&sealed.blob, &sealed.key.context).await?;
        Ok((plaintext, Used { number, id }))
    }

    /// A material of a key, from memory or else from the catalogue.
    async fn material(
        &self,
        entry: &KeyEntry,
        number: u32,
    ) -> Result<OpenedMaterial, KeyringError> {
        let at = (entry.id(), number);
        if let Some(opened) = self.opened.get(&at) {
            return Ok(opened);
        }
        let _permit = self.cold_reads.acquire().await.expect("never closed");
        if let Some(opened) = self.opened.get(&at) {
            return Ok(opened);
        }
        let opened = OpenedMaterial {
            material: self.records.material(entry, number, &self.random).await?,
            id: MaterialId::of(entry.id(), number),
        };
        self.opened.insert(at, opened.clone());
        // A key erased meanwhile has dropped what was opened of it, perhaps before this one came.
        if !self.snapshot.load().keys.contains_key(&at.0) {
            self.opened.invalidate(&at);
            return Err(self.no_key(at.0));
        }
        Ok(opened)
    }
}
