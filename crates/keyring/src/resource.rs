//! What a permission of the keyring is for, as it was found when the permission was asked for.
//!
//! None of these can be made outside of the keyring, and each carries on what was parsed to find it:
//! an operation takes its permission and parses neither a name nor a blob's header again. What may have
//! changed in between, the key's state, is looked up by the key's id.
//!
//! Having one is no permission.

use std::collections::BTreeMap;

use crypto::{context::EncryptionContext, wrap::KeyBlobRef};
use iam::{Arn, Resource, Revision};

use crate::key::{AliasName, KeyArn};

mod private {
    pub trait Sealed {}
    impl Sealed for super::NamedKey {}
    impl Sealed for super::SealedBlob<'_> {}
    impl Sealed for super::NamedAlias {}
}

/// A resource that is one key, however it was named. Sealed.
pub trait KeyResource: Resource + private::Sealed {
    /// The key.
    fn key(&self) -> &KeyArn;
}

/// A key, and the encryption context it is to be used under.
#[derive(Debug, Clone)]
pub struct NamedKey {
    pub(crate) key: KeyArn,
    pub(crate) context: EncryptionContext,
    pub(crate) revision: Revision,
}

/// A ciphertext blob, the key it says it was sealed under, and the encryption context it is to be
/// opened under. What the blob says is true only once it is opened.
///
/// A permission to use a key opens no blob: it has to be asked for that blob.
/// ```compile_fail,E0308
/// fn open(keyring: &keyring::Keyring, may: iam::Authorized<iam::Decrypt, keyring::NamedKey>) {
///     let _ = keyring.decrypt(may);
/// }
/// ```
#[derive(Debug)]
pub struct SealedBlob<'a> {
    pub(crate) key: NamedKey,
    pub(crate) blob: KeyBlobRef<'a>,
    pub(crate) bytes: &'a [u8],
}

/// An alias, and the key it pointed to.
#[derive(Debug)]
pub struct NamedAlias {
    pub(crate) key: NamedKey,
    pub(crate) name: AliasName,
}

/// Every key of the account: what CreateKey, ListKeys, ListAliases and GenerateRandom are about.
#[derive(Debug)]
pub struct AllKeys {
    pub(crate) arn: Arn,
}

impl NamedKey {
    /// The encryption context.
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }
}

impl<'a> SealedBlob<'a> {
    /// The encryption context.
    pub fn context(&self) -> &EncryptionContext {
        &self.key.context
    }

    /// The blob.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The key and the context, without the blob: what may be kept after the call.
    pub fn to_key(&self) -> NamedKey {
        self.key.clone()
    }
}

impl KeyResource for NamedKey {
    fn key(&self) -> &KeyArn {
        &self.key
    }
}

impl KeyResource for SealedBlob<'_> {
    fn key(&self) -> &KeyArn {
        &self.key.key
    }
}

impl KeyResource for NamedAlias {
    fn key(&self) -> &KeyArn {
        &self.key.key
    }
}

impl Resource for NamedKey {
    fn arn(&self) -> &Arn {
        self.key.as_arn()
    }

    fn encryption_context(&self) -> Option<&BTreeMap<String, String>> {
        Some(self.context.as_map())
    }

    fn revision(&self) -> Option<Revision> {
        Some(self.revision)
    }
}

impl Resource for SealedBlob<'_> {
    fn arn(&self) -> &Arn {
        self.key.arn()
    }

    fn encryption_context(&self) -> Option<&BTreeMap<String, String>> {
        self.key.encryption_context()
    }

    fn revision(&self) -> Option<Revision> {
        self.key.revision()
    }
}

impl Resource for NamedAlias {
    fn arn(&self) -> &Arn {
        self.key.arn()
    }

    fn revision(&self) -> Option<Revision> {
        self.key.revision()
    }
}

impl Resource for AllKeys {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}
