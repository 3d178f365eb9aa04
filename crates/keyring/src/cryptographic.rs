//! Sealing and opening under a key: Encrypt, Decrypt, ReEncrypt, data keys, random bytes.
//!
//! Each operation is one moment of the key: its state is checked, then its material is used. A key
//! that is disabled while an operation runs may still serve that one; every operation that begins
//! after DisableKey was answered is refused.

use std::sync::Arc;

use crypto::{
    context::EncryptionContext,
    secret::SecretVec,
    wrap::{BackingKey, BlobHeader, KeyBlob, PLAINTEXT_LEN_MAX},
};
use iam::Authorized;

use crate::{
    catalogue::KeyEntry,
    error::KeyringError,
    key::KeyArn,
    keyring::{BLOB_LEN_MAX, Inner, Keyring},
    metadata::{DataKeyLen, MaterialId},
    store::Table,
    trail::Trail,
    vault::{damaged, material_id},
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
    /// Seals 1 to 4096 bytes.
    pub async fn encrypt(
        &self,
        authorized: Authorized<iam::Encrypt>,
        plaintext: SecretVec,
        context: EncryptionContext,
    ) -> Result<Encrypted, KeyringError> {
        let inner = &self.inner;
        let mut trail = Trail::of(&authorized).with_context(context);
        let result = async {
            let entry = inner.admit(&authorized)?;
            let (ciphertext, number) = inner.seal(&entry, trail.context(), &plaintext).await?;
            trail.material = Some(number);
            Ok(Encrypted {
                ciphertext,
                key: entry.arn.clone(),
            })
        }
        .await;
        inner.finish(trail, result).await
    }

    /// Opens a blob; `authorized` must be for the key the blob was sealed under
    /// ([`Keyring::authorize_decrypt`]).
    pub async fn decrypt(
        &self,
        authorized: Authorized<iam::Decrypt>,
        blob: &[u8],
        context: EncryptionContext,
    ) -> Result<Decrypted, KeyringError> {
        let inner = &self.inner;
        let mut trail = Trail::of(&authorized).with_context(context);
        let result = async {
            let entry = inner.admit(&authorized)?;
            let (plaintext, number) = inner.open(&entry, trail.context(), blob).await?;
            trail.material = Some(number);
            Ok(Decrypted {
                plaintext,
                key: entry.arn.clone(),
                material: MaterialId::of(entry.id(), number),
            })
        }
        .await;
        inner.finish(trail, result).await
    }

    /// Opens a blob and seals what was in it under another key or context; the plaintext does not
    /// leave. One audit record names both keys.
    pub async fn re_encrypt(
        &self,
        source: Authorized<iam::ReEncryptFrom>,
        blob: &[u8],
        source_context: EncryptionContext,
        destination: Authorized<iam::ReEncryptTo>,
        destination_context: EncryptionContext,
    ) -> Result<ReEncrypted, KeyringError> {
        let inner = &self.inner;
        let mut trail = Trail::of(&source)
            .named("ReEncrypt")
            .with_context(source_context);
        trail.destination_key = KeyArn::try_from(destination.resource()).ok();
        let result = async {
            let from = inner.admit(&source)?;
            let to = inner.admit(&destination)?;
            let (plaintext, old) = inner.open(&from, trail.context(), blob).await?;
            let (ciphertext, new) = inner.seal(&to, &destination_context, &plaintext).await?;
            trail.material = Some(old);
            Ok(ReEncrypted {
                ciphertext,
                source: from.arn.clone(),
                source_material: MaterialId::of(from.id(), old),
                destination: to.arn.clone(),
                destination_material: MaterialId::of(to.id(), new),
            })
        }
        .await;
        trail.destination_context = Some(destination_context);
        inner.finish(trail, result).await
    }

    /// Makes a data key and seals it.
    pub async fn generate_data_key(
        &self,
        authorized: Authorized<iam::GenerateDataKey>,
        len: DataKeyLen,
        context: EncryptionContext,
    ) -> Result<DataKey, KeyringError> {
        let inner = &self.inner;
        let mut trail = Trail::of(&authorized).with_context(context);
        let result = async {
            let entry = inner.admit(&authorized)?;
            let plaintext = SecretVec::random(len.get(), inner.random.as_ref());
            let (ciphertext, number) = inner.seal(&entry, trail.context(), &plaintext).await?;
            trail.material = Some(number);
            Ok(DataKey {
                plaintext,
                ciphertext,
                key: entry.arn.clone(),
                material: MaterialId::of(entry.id(), number),
            })
        }
        .await;
        inner.finish(trail, result).await
    }

    /// Makes a data key and returns it sealed only.
    pub async fn generate_data_key_without_plaintext(
        &self,
        authorized: Authorized<iam::GenerateDataKeyWithoutPlaintext>,
        len: DataKeyLen,
        context: EncryptionContext,
    ) -> Result<WrappedDataKey, KeyringError> {
        let inner = &self.inner;
        let mut trail = Trail::of(&authorized).with_context(context);
        let result = async {
            let entry = inner.admit(&authorized)?;
            let plaintext = SecretVec::random(len.get(), inner.random.as_ref());
            let (ciphertext, number) = inner.seal(&entry, trail.context(), &plaintext).await?;
            trail.material = Some(number);
            Ok(WrappedDataKey {
                ciphertext,
                key: entry.arn.clone(),
                material: MaterialId::of(entry.id(), number),
            })
        }
        .await;
        inner.finish(trail, result).await
    }

    /// 1 to 1024 random bytes.
    pub async fn generate_random(
        &self,
        authorized: Authorized<iam::GenerateRandom>,
        len: DataKeyLen,
    ) -> Result<SecretVec, KeyringError> {
        let inner = &self.inner;
        let result = inner
            .check_running()
            .map(|()| SecretVec::random(len.get(), inner.random.as_ref()));
        inner.finish(Trail::of(&authorized), result).await
    }
}

impl Inner {
    /// Seals under the key's current material; returns its number too.
    async fn seal(
        &self,
        entry: &KeyEntry,
        context: &EncryptionContext,
        plaintext: &SecretVec,
    ) -> Result<(Vec<u8>, u32), KeyringError> {
        let number = entry.record.current();
        let material = self.material(entry, number).await?;
        let header = BlobHeader {
            key_id: *entry.id().as_bytes(),
            multi_region: entry.id().is_multi_region(),
            material: number,
        };
        let blob = KeyBlob::seal(
            &material,
            header,
            context,
            plaintext.expose(),
            self.random.as_ref(),
        )
        .map_err(|_| {
            KeyringError::Validation(format!(
                "Plaintext must have a length between 1 and {PLAINTEXT_LEN_MAX}."
            ))
        })?;
        debug_assert!(blob.len() <= BLOB_LEN_MAX);
        Ok((blob, number))
    }

    /// Opens what was sealed under any material of the key.
    async fn open(
        &self,
        entry: &KeyEntry,
        context: &EncryptionContext,
        blob: &[u8],
    ) -> Result<(SecretVec, u32), KeyringError> {
        if blob.is_empty() || blob.len() > BLOB_LEN_MAX {
            return Err(KeyringError::InvalidCiphertext);
        }
        let blob = KeyBlob::parse(blob).map_err(|_| KeyringError::InvalidCiphertext)?;
        let header = *blob.header();
        let known = 1..=entry.record.current();
        if header.key_id != *entry.id().as_bytes()
            || header.multi_region != entry.id().is_multi_region()
            || !known.contains(&header.material)
        {
            return Err(KeyringError::InvalidCiphertext);
        }
        let number = header.material;
        let material = self.material(entry, number).await?;
        let plaintext = blob
            .open(&material, context)
            .map_err(|_| KeyringError::InvalidCiphertext)?;
        Ok((plaintext, number))
    }

    /// A material of a key, from memory or else from the store.
    async fn material(
        &self,
        entry: &KeyEntry,
        number: u32,
    ) -> Result<Arc<BackingKey>, KeyringError> {
        let at = (entry.id(), number);
        if let Some(material) = self.opened.get(&at) {
            return Ok(material);
        }
        let _permit = self.cold_reads.acquire().await.expect("never closed");
        if let Some(material) = self.opened.get(&at) {
            return Ok(material);
        }
        let (store, vault) = (Arc::clone(&self.store), Arc::clone(&self.vault));
        let id = material_id(entry.id(), number);
        let read = tokio::task::spawn_blocking(move || match store.get(Table::Material, &id)? {
            Some(stored) if stored.id == id => vault.open_material(&stored),
            _ => Err(damaged(Table::Material, &id, "it is missing")),
        });
        let material = Arc::new(read.await.map_err(|_| KeyringError::ShuttingDown)??);
        self.opened.insert(at, Arc::clone(&material));
        // A key erased meanwhile has dropped what was opened of it, perhaps before this one came.
        if !self.catalogue.load().keys.contains_key(&at.0) {
            self.opened.invalidate(&at);
            return Err(self.no_key(at.0));
        }
        Ok(material)
    }
}
