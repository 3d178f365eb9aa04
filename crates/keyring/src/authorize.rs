//! Naming keys, and the permission to use them.

use std::sync::Arc;

use crypto::{context::EncryptionContext, wrap::KeyBlob};
use iam::{Action, Arn, Authorized, Caller, Denied, Resource, Revision, Standing, Via};

use crate::{
    error::KeyringError,
    key::{AliasName, KeyArgument, KeyArn, KeyId},
    keyring::{BLOB_LEN_MAX, Inner, Keyring},
    metadata::Tier,
    resource::{AllKeys, KeyResource, NamedAlias, NamedKey, SealedBlob},
    snapshot::KeyEntry,
    state,
    trail::operation,
};

/// What a permission may be asked for. Sealed: `&KeyArgument`, [`KeyUse`], [`BlobUse`],
/// `&AliasName` and [`Account`].
pub trait Target: private::Find {}

/// The key that `key` names, to be used under `context`.
#[derive(Debug)]
pub struct KeyUse<'a> {
    /// The key. An alias is resolved now: the permission is for the key it points to. A managed
    /// key's alias makes the key if its service asks.
    pub key: &'a KeyArgument,
    /// The encryption context.
    pub context: EncryptionContext,
}

/// The key that sealed `blob`, to open it under `context`.
#[derive(Debug)]
pub struct BlobUse<'a, 'k> {
    /// The ciphertext blob.
    pub blob: &'a [u8],
    /// The key that must have sealed it, if given.
    pub key: Option<&'k KeyArgument>,
    /// The encryption context.
    pub context: EncryptionContext,
}

/// The account: CreateKey, ListKeys, ListAliases, GenerateRandom.
#[derive(Debug, Clone, Copy)]
pub struct Account;

impl Target for &KeyArgument {}
impl Target for KeyUse<'_> {}
impl Target for BlobUse<'_, '_> {}
impl Target for &AliasName {}
impl Target for Account {}

impl Keyring {
    /// The permission to do `A` to `target`, which it carries on to the operation. A refusal is
    /// recorded; a permission is when it is used.
    pub async fn authorize<A: Action, T: Target>(
        &self,
        caller: Caller<'_>,
        target: T,
    ) -> Result<Authorized<A, T::Resource>, KeyringError> {
        let started = self.inner.clock.elapsed();
        let result = match target.alias() {
            Some(alias) => self.make_if_managed(caller.via(), alias).await,
            None => Ok(()),
        };
        let mut finding = Finding {
            inner: &self.inner,
            caller,
            key: None,
            alias: None,
        };
        let result = result.and_then(|()| {
            let found = target.find::<A>(&mut finding)?;
            self.inner.ask(caller, found)
        });
        let Finding { key, alias, .. } = finding;
        match result {
            Ok(permission) => Ok(permission),
            Err(error) => {
                // Not made before: most are granted, and leave their trail when they are used.
                let mut trail = self.inner.caller_trail(operation::<A>(), caller);
                trail.started = started;
                (trail.key, trail.alias) = (key, alias);
                self.inner.finish(trail, Err(error)).await
            }
        }
    }

    /// Decides again about what stands: whether who asked first may still do `A` to the key, and
    /// the key's state allows it. If not, `standing` stays as it was: not current. No key is used,
    /// so nothing is recorded.
    pub fn renew<A: Action>(
        &self,
        standing: &mut Standing<A, NamedKey>,
    ) -> Result<(), KeyringError> {
        let mut now = standing.resource().clone();
        now.revision = self.inner.authorizer.revision();
        self.inner
            .admit_key::<A>(standing.caller(), now.key.key_id())?;
        Ok(self.inner.authorizer.renew(standing, now)?)
    }

    /// Answers a request with DryRun: [`KeyringError::DryRun`] if the permission and the key's state
    /// allow it. Always an error, and recorded as one.
    pub async fn dry_run<A: Action, R: KeyResource>(
        &self,
        authorized: Authorized<A, R>,
    ) -> KeyringError {
        let trail = self.inner.trail(&authorized);
        let result = match self.inner.admit(&authorized) {
            Ok(_) => Err(KeyringError::DryRun),
            Err(error) => Err(error),
        };
        match self.inner.finish::<()>(trail, result).await {
            Err(error) => error,
            Ok(()) => KeyringError::DryRun,
        }
    }
}

mod private {
    use super::*;

    /// For whom a target is looked up, and what is noted of it.
    pub struct Finding<'a> {
        pub(super) inner: &'a Inner,
        pub(super) caller: Caller<'a>,
        pub(super) key: Option<KeyArn>,
        pub(super) alias: Option<AliasName>,
    }

    /// How a target is found.
    pub trait Find: Sized {
        type Resource: Resource;

        /// The alias that it was named by.
        fn alias(&self) -> Option<&AliasName> {
            None
        }

        /// Fails as an operation on it would: what the caller may not know of does not exist.
        fn find<A: Action>(self, finding: &mut Finding<'_>)
        -> Result<Self::Resource, KeyringError>;
    }
}
use private::{Find, Finding};

impl Find for KeyUse<'_> {
    type Resource = NamedKey;

    fn alias(&self) -> Option<&AliasName> {
        match self.key {
            KeyArgument::Alias(name) | KeyArgument::AliasArn(_, name) => Some(name),
            KeyArgument::Id(_) | KeyArgument::Arn(_) => None,
        }
    }

    fn find<A: Action>(self, finding: &mut Finding<'_>) -> Result<NamedKey, KeyringError> {
        let revision = finding.inner.authorizer.revision();
        let entry = finding.inner.find_named::<A>(finding.caller, self.key)?;
        finding.note::<A>(&entry, self.context, revision)
    }
}

impl Find for &KeyArgument {
    type Resource = NamedKey;

    fn alias(&self) -> Option<&AliasName> {
        match self {
            KeyArgument::Alias(name) | KeyArgument::AliasArn(_, name) => Some(name),
            KeyArgument::Id(_) | KeyArgument::Arn(_) => None,
        }
    }

    fn find<A: Action>(self, finding: &mut Finding<'_>) -> Result<NamedKey, KeyringError> {
        let context = EncryptionContext::new();
        KeyUse { key: self, context }.find::<A>(finding)
    }
}

impl<'a> Find for BlobUse<'a, '_> {
    type Resource = SealedBlob<'a>;

    fn find<A: Action>(self, finding: &mut Finding<'_>) -> Result<SealedBlob<'a>, KeyringError> {
        let Self {
            blob: bytes,
            key,
            context,
        } = self;
        if bytes.is_empty() || bytes.len() > BLOB_LEN_MAX {
            return Err(KeyringError::Validation(format!(
                "CiphertextBlob must have a length between 1 and {BLOB_LEN_MAX}."
            )));
        }
        // What the header says is not authenticated yet. It only finds the key; it is authenticated
        // when the blob is opened.
        let blob = KeyBlob::parse(bytes).map_err(|_| KeyringError::InvalidCiphertext)?;
        let header = blob.header();
        let id = KeyId::from_parts(header.key_id, header.multi_region);
        let (inner, caller) = (finding.inner, finding.caller);
        let revision = inner.authorizer.revision();
        let snapshot = inner.snapshot.load();
        let sealed_by = snapshot
            .key(id, inner.now())
            .filter(|entry| entry.is_visible(caller.via()));
        let key = match key {
            None => {
                let entry = sealed_by.ok_or(KeyringError::InvalidCiphertext)?;
                finding.note::<A>(entry, context, revision)?
            }
            Some(key) => {
                let entry = inner.find_named::<A>(caller, key)?;
                let key = finding.note::<A>(&entry, context, revision)?;
                // Which key sealed the blob is told to those alone who may use the one they named.
                inner.check_may::<A>(caller, key.arn())?;
                match sealed_by {
                    None => return Err(KeyringError::InvalidCiphertext),
                    Some(entry) if entry.arn == key.key => key,
                    Some(_) => return Err(KeyringError::IncorrectKey),
                }
            }
        };
        Ok(SealedBlob { key, blob, bytes })
    }
}

impl Find for &AliasName {
    type Resource = NamedAlias;

    fn find<A: Action>(self, finding: &mut Finding<'_>) -> Result<NamedAlias, KeyringError> {
        finding.alias = Some(self.clone());
        let key = KeyArgument::Alias(self.clone());
        Ok(NamedAlias {
            key: (&key).find::<A>(finding)?,
            name: self.clone(),
        })
    }
}

impl Find for Account {
    type Resource = AllKeys;

    fn find<A: Action>(self, finding: &mut Finding<'_>) -> Result<AllKeys, KeyringError> {
        Ok(AllKeys {
            arn: finding.inner.everything.clone(),
        })
    }
}

impl Finding<'_> {
    /// The key that was found, if its tier allows the action.
    fn note<A: Action>(
        &mut self,
        entry: &KeyEntry,
        context: EncryptionContext,
        revision: Revision,
    ) -> Result<NamedKey, KeyringError> {
        self.key = Some(entry.arn.clone());
        check_tier::<A>(self.caller, entry)?;
        Ok(NamedKey {
            key: entry.arn.clone(),
            context,
            revision,
        })
    }
}

/// A name that is asked about before it is known whether there is such a key.
struct Name<'a>(&'a Arn);

impl Resource for Name<'_> {
    fn arn(&self) -> &Arn {
        self.0
    }
}

impl Inner {
    fn ask<A: Action, R: Resource>(
        &self,
        caller: Caller<'_>,
        resource: R,
    ) -> Result<Authorized<A, R>, KeyringError> {
        Ok(self.authorizer.authorize(caller, resource)?)
    }

    fn check_may<A: Action>(&self, caller: Caller<'_>, arn: &Arn) -> Result<(), KeyringError> {
        let _: Authorized<A, _> = self.ask(caller, Name(arn))?;
        Ok(())
    }

    fn find_named<A: Action>(
        &self,
        caller: Caller<'_>,
        key: &KeyArgument,
    ) -> Result<Arc<KeyEntry>, KeyringError> {
        let arn = match key {
            KeyArgument::Arn(arn) => Some(arn.as_arn()),
            KeyArgument::AliasArn(arn, _) => Some(arn),
            KeyArgument::Id(_) | KeyArgument::Alias(_) => None,
        };
        // Whether another account has such a key is not ours to say: the decision comes first.
        if let Some(arn) = arn
            && arn.account() != Some(&self.account)
        {
            self.check_may::<A>(caller, arn)?;
        }
        self.resolve(key, caller.via())
    }

    /// The key that `key` names, as far as a caller through `via` may know of it.
    pub(crate) fn resolve(
        &self,
        key: &KeyArgument,
        via: Via,
    ) -> Result<Arc<KeyEntry>, KeyringError> {
        if let KeyArgument::Arn(arn) = key {
            self.check_region(arn.as_arn())?;
        }
        if let KeyArgument::AliasArn(arn, _) = key {
            self.check_region(arn)?;
        }
        let snapshot = self.snapshot.load();
        let now = self.now();
        let found = match key {
            KeyArgument::Id(id) => snapshot.key(*id, now),
            KeyArgument::Arn(arn) => snapshot.key(arn.key_id(), now),
            KeyArgument::Alias(name) | KeyArgument::AliasArn(_, name) => {
                snapshot.aliased(name, now)
            }
        };
        match (found, key) {
            (Some(entry), _) if entry.is_visible(via) => Ok(Arc::clone(entry)),
            (_, KeyArgument::Id(id)) => Err(self.no_key(*id)),
            (_, KeyArgument::Arn(arn)) => Err(self.no_key(arn.key_id())),
            (_, KeyArgument::Alias(name) | KeyArgument::AliasArn(_, name)) => {
                Err(self.no_alias(name))
            }
        }
    }

    fn check_region(&self, arn: &Arn) -> Result<(), KeyringError> {
        if arn.account() == Some(&self.account) && arn.region() == Some(self.region.as_str()) {
            Ok(())
        } else {
            Err(KeyringError::NotFound(format!("Invalid arn {arn}")))
        }
    }

    pub(crate) fn no_key(&self, id: KeyId) -> KeyringError {
        let arn = Arn::kms_key(&self.region, &self.account, &id.to_string());
        KeyringError::NotFound(format!("Key '{arn}' does not exist"))
    }

    pub(crate) fn no_alias(&self, name: &AliasName) -> KeyringError {
        let arn = Arn::kms_alias(&self.region, &self.account, name.as_str());
        KeyringError::NotFound(format!("Alias {arn} is not found."))
    }

    /// The key that `authorized` is for, as it is now, if its state allows the action.
    ///
    /// Every operation on a key begins here, also one whose permission was not made by
    /// [`Keyring::authorize`].
    pub(crate) fn admit<A: Action, R: KeyResource>(
        &self,
        authorized: &Authorized<A, R>,
    ) -> Result<Arc<KeyEntry>, KeyringError> {
        self.admit_key::<A>(authorized.caller(), authorized.resource().key().key_id())
    }

    fn admit_key<A: Action>(
        &self,
        caller: Caller<'_>,
        id: KeyId,
    ) -> Result<Arc<KeyEntry>, KeyringError> {
        self.check_running()?;
        let snapshot = self.snapshot.load();
        let entry = snapshot
            .key(id, self.now())
            .filter(|entry| entry.is_visible(caller.via()))
            .ok_or_else(|| self.no_key(id))?;
        check_tier::<A>(caller, entry)?;
        state::check(&entry.arn, entry.record.state, A::NAME)?;
        Ok(Arc::clone(entry))
    }
}

/// What a key's tier allows, before any policy: a service's key is used through that service alone,
/// and changed by nobody.
fn check_tier<A: Action>(caller: Caller<'_>, entry: &KeyEntry) -> Result<(), KeyringError> {
    let operation = operation::<A>();
    let is_use = matches!(
        operation,
        "Encrypt"
            | "Decrypt"
            | "ReEncryptFrom"
            | "ReEncryptTo"
            | "GenerateDataKey"
            | "GenerateDataKeyWithoutPlaintext"
    );
    let is_look = matches!(
        operation,
        "DescribeKey"
            | "GetKeyPolicy"
            | "GetKeyRotationStatus"
            | "ListKeyRotations"
            | "ListKeyPolicies"
            | "ListResourceTags"
            | "ListAliases"
    );
    let allowed = match entry.record.tier {
        Tier::Customer => true,
        Tier::Managed(service) => is_look || (is_use && caller.via() == service.via()),
        Tier::Owned(service) => is_use && caller.via() == service.via(),
    };
    if allowed {
        return Ok(());
    }
    Err(Denied::new::<A>(caller, entry.arn.as_arn()).into())
}
