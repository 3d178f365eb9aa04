//! The keyring itself: opening it, naming keys in it, and the permission to use them.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use audit::AuditLog;
use crypto::{
    random::Random,
    record::RecordKey,
    wrap::{BackingKey, KeyBlob},
};
use iam::{AccountId, Action, Arn, Authorized, Authorizer, Caller, Region, Via};
use moka::sync::Cache;
use parking_lot::RwLock;
use root::StoreId;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    catalogue::{Catalogue, KeyEntry},
    clock::Clock,
    error::KeyringError,
    event::KeyEvent,
    key::{AliasName, KeyArgument, KeyArn, KeyId, KeyState},
    metadata::{Service, Tier},
    observer::Observer,
    state,
    store::{Change, Expect, KeyStore, Table},
    trail::{Trail, operation},
    vault::{HEADER_ID, HeaderRecord, Vault, belongs_to},
};

/// Opened backing keys kept in memory: 32 bytes of key each, and what the cache adds.
const OPENED_MAX: u64 = 16_384;
/// Reads of the store at a time, for backing keys that are not in memory.
const COLD_READS_MAX: usize = 2;
/// Bounds of a ciphertext blob, in bytes (API, `CiphertextType`).
pub(crate) const BLOB_LEN_MAX: usize = 6144;

/// The label of the keyring's records.
pub const RECORD_LABEL: &str = "keyring";

/// What a keyring is made of.
pub struct Options {
    /// Where records are kept.
    pub store: Arc<dyn KeyStore>,
    /// What they are sealed under: the store key's record key for the label [`RECORD_LABEL`].
    pub records: RecordKey,
    /// The store that this is a part of.
    pub part_of: StoreId,
    /// Where every use is written.
    pub audit: AuditLog,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Keys and nonces.
    pub random: Arc<dyn Random>,
    /// Whose keys these are.
    pub account: AccountId,
    /// In which region they say they are.
    pub region: Region,
    /// Told of every request.
    pub observer: Arc<dyn Observer>,
}

/// Keys with KMS semantics.
///
/// Every operation takes an [`Authorized`] of its action, from [`Keyring::authorize`] and its
/// kin, and answers after its audit record is durable. Operations that change keys run to their
/// end even if the caller stops waiting; the others may be cancelled anywhere, and then nothing
/// leaves the keyring. All need a tokio runtime; a warm encrypt or decrypt takes no lock and
/// touches no store.
pub struct Keyring {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) type Listener = Arc<dyn Fn(&KeyEvent) + Send + Sync>;

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) audit: AuditLog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) account: AccountId,
    pub(crate) region: Region,
    pub(crate) authorizer: Authorizer,
    pub(crate) catalogue: ArcSwap<Catalogue>,
    pub(crate) opened: Cache<(KeyId, u32), Arc<BackingKey>>,
    pub(crate) cold_reads: Semaphore,
    /// Held while the catalogue is changed: one change at a time.
    pub(crate) writer: Arc<Mutex<()>>,
    pub(crate) listeners: RwLock<Vec<Listener>>,
    pub(crate) owned: [OnceLock<KeyArn>; Service::ALL.len()],
    /// Why nothing is done any more, once what the store holds is not known.
    pub(crate) stopped: OnceLock<Arc<str>>,
}

impl Keyring {
    /// Opens the keyring in `options.store`, or makes one if the store is empty.
    ///
    /// Blocking: reads and opens every record, and destroys keys whose deletion date has passed.
    /// The header of another store, a wrong account or region, and a record that was changed or moved are
    /// errors, with nothing changed; so are a lost key and a lost material. A lost alias is not
    /// noticed, nor is an old copy of a record in its own row, unless a rotation lies between.
    pub fn open(options: Options) -> Result<Arc<Self>, KeyringError> {
        let Options {
            store,
            records,
            part_of,
            audit,
            clock,
            random,
            account,
            region,
            observer,
        } = options;
        let vault = Arc::new(Vault::new(records, part_of, Arc::clone(&random)));
        let header = HeaderRecord {
            account: account.to_string(),
            region: region.to_string(),
            created: clock.now().into(),
        };
        open_header(store.as_ref(), &vault, header)?;
        let catalogue = Catalogue::load(store.as_ref(), &vault, &region, &account)?;
        let inner = Inner {
            store,
            vault,
            audit,
            clock,
            random,
            observer,
            account,
            region,
            authorizer: Authorizer::new(account),
            catalogue: ArcSwap::from_pointee(catalogue),
            opened: Cache::new(OPENED_MAX),
            cold_reads: Semaphore::new(COLD_READS_MAX),
            writer: Arc::new(Mutex::new(())),
            listeners: RwLock::default(),
            owned: [const { OnceLock::new() }; Service::ALL.len()],
            stopped: OnceLock::new(),
        };
        let keyring = Arc::new(Self {
            inner: Arc::new(inner),
        });
        keyring.inner.sweep_at_open()?;
        Ok(keyring)
    }

    /// Fails if no key is used any more: the audit log failed, or what the store holds is not
    /// known. Both stay so until the keyring is opened anew.
    pub fn healthy(&self) -> Result<(), KeyringError> {
        self.inner.check_running()
    }

    /// Whether the key may be used at this moment. No lock, no store, no audit record.
    ///
    /// For caches of what a key opened: put in first, ask then, and take out again if the answer is
    /// no. A change that was told before the putting in is seen by the asking.
    pub fn is_enabled(&self, key: &KeyArn) -> bool {
        let catalogue = self.inner.catalogue.load();
        catalogue
            .key(key.key_id(), self.inner.now())
            .is_some_and(|entry| entry.record.state == KeyState::Enabled)
    }

    /// Whose keys these are.
    pub fn account(&self) -> &AccountId {
        &self.inner.account
    }

    /// The region they say they are in.
    pub fn region(&self) -> &Region {
        &self.inner.region
    }

    /// Calls `listener` synchronously on every change of a key, before the change is answered.
    /// It must be quick and must not call the keyring.
    pub fn on_change(&self, listener: Box<dyn Fn(&KeyEvent) + Send + Sync>) {
        self.inner.listeners.write().push(Arc::from(listener));
    }

    /// The permission to do `A` to the key that `key` names.
    ///
    /// An alias is resolved now: the permission is for the key it points to. A managed key's alias
    /// makes the key if its service asks. A refusal is recorded.
    pub async fn authorize<A: Action>(
        &self,
        caller: &Caller,
        key: &KeyArgument,
    ) -> Result<Authorized<A>, KeyringError> {
        let mut trail = Trail::new(operation::<A>(), caller);
        let result = match self.make_if_managed(caller.via, key).await {
            Ok(()) => self.inner.authorize_named::<A>(&mut trail, caller, key),
            Err(error) => Err(error),
        };
        self.inner.refuse(trail, result).await
    }

    /// The permission to do `A` in the account: CreateKey, ListKeys, ListAliases, GenerateRandom.
    /// A refusal is recorded.
    pub async fn authorize_account<A: Action>(
        &self,
        caller: &Caller,
    ) -> Result<Authorized<A>, KeyringError> {
        let everything = Arn::every("kms", &self.inner.region, &self.inner.account);
        let result = self.inner.ask(caller, &everything);
        self.inner
            .refuse(Trail::new(operation::<A>(), caller), result)
            .await
    }

    /// The permission to do `A` (Decrypt, ReEncryptFrom) with the key that `blob` names, which
    /// must be the one that `key` names if given. A refusal is recorded.
    pub async fn authorize_blob<A: Action>(
        &self,
        caller: &Caller,
        blob: &[u8],
        key: Option<&KeyArgument>,
    ) -> Result<Authorized<A>, KeyringError> {
        let mut trail = Trail::new(operation::<A>(), caller);
        let result = self
            .inner
            .authorize_sealed_by::<A>(&mut trail, caller, blob, key);
        self.inner.refuse(trail, result).await
    }

    /// [`Keyring::authorize_blob`] for Decrypt.
    pub async fn authorize_decrypt(
        &self,
        caller: &Caller,
        blob: &[u8],
        key: Option<&KeyArgument>,
    ) -> Result<Authorized<iam::Decrypt>, KeyringError> {
        self.authorize_blob(caller, blob, key).await
    }

    /// The permission to delete `alias`, asked of the key it points to. A refusal is recorded.
    pub async fn authorize_delete_alias(
        &self,
        caller: &Caller,
        alias: &AliasName,
    ) -> Result<Authorized<iam::DeleteAlias>, KeyringError> {
        let mut trail =
            Trail::new(operation::<iam::DeleteAlias>(), caller).with_alias(alias.clone());
        let key = KeyArgument::Alias(alias.clone());
        let result = self.inner.authorize_named(&mut trail, caller, &key);
        self.inner.refuse(trail, result).await
    }

    /// Answers a request with DryRun: [`KeyringError::DryRun`] if the permission and the key's state
    /// allow it. Always an error, and recorded as one.
    pub async fn dry_run<A: Action>(&self, authorized: Authorized<A>) -> KeyringError {
        let trail = Trail::of(&authorized);
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

/// Checks the header, or writes it if the store is empty.
fn open_header(
    store: &dyn KeyStore,
    vault: &Vault,
    ours: HeaderRecord,
) -> Result<(), KeyringError> {
    if belongs_to(store)?.is_none() {
        store.commit(&vec![Change::Put {
            table: Table::Header,
            id: HEADER_ID.to_vec(),
            expect: Expect::Absent,
            record: vault.seal_header(&ours),
        }])?;
        return Ok(());
    }
    let stored = store
        .get(Table::Header, HEADER_ID)?
        .expect("found a moment ago, and the store is ours alone");
    let header = vault.open_header(&stored)?;
    if (&header.account, &header.region) == (&ours.account, &ours.region) {
        Ok(())
    } else {
        Err(KeyringError::WrongAccount {
            account: header.account,
            region: header.region,
        })
    }
}

impl Inner {
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(crate) fn check_running(&self) -> Result<(), KeyringError> {
        if let Some(why) = self.stopped.get() {
            return Err(KeyringError::Stopped(Arc::clone(why)));
        }
        self.audit.check()?;
        Ok(())
    }

    /// Records a refusal; a permission is recorded when it is used.
    async fn refuse<T>(
        &self,
        trail: Trail,
        result: Result<T, KeyringError>,
    ) -> Result<T, KeyringError> {
        match result {
            Ok(permission) => Ok(permission),
            Err(error) => self.finish(trail, Err(error)).await,
        }
    }

    fn ask<A: Action>(
        &self,
        caller: &Caller,
        resource: &Arn,
    ) -> Result<Authorized<A>, KeyringError> {
        self.authorizer
            .authorize(caller, resource)
            .map_err(|denied| KeyringError::AccessDenied(denied.to_string()))
    }

    fn authorize_named<A: Action>(
        &self,
        trail: &mut Trail,
        caller: &Caller,
        key: &KeyArgument,
    ) -> Result<Authorized<A>, KeyringError> {
        let (arn, account) = match key {
            KeyArgument::Arn(arn) => (arn.as_arn().clone(), arn.as_arn().account()),
            KeyArgument::AliasArn(arn, _) => (arn.clone(), arn.account()),
            KeyArgument::Id(_) | KeyArgument::Alias(_) => {
                let entry = self.resolve(key, caller.via)?;
                return self.authorize_entry(trail, caller, &entry);
            }
        };
        // Whether another account has such a key is not ours to say: the decision comes first.
        if account != Some(&self.account) {
            let _: Authorized<A> = self.ask(caller, &arn)?;
        }
        let entry = self.resolve(key, caller.via)?;
        self.authorize_entry(trail, caller, &entry)
    }

    fn authorize_sealed_by<A: Action>(
        &self,
        trail: &mut Trail,
        caller: &Caller,
        blob: &[u8],
        key: Option<&KeyArgument>,
    ) -> Result<Authorized<A>, KeyringError> {
        if blob.is_empty() || blob.len() > BLOB_LEN_MAX {
            return Err(KeyringError::Validation(format!(
                "CiphertextBlob must have a length between 1 and {BLOB_LEN_MAX}."
            )));
        }
        // What the header says is not authenticated yet. It only finds the key; it is authenticated
        // when the blob is opened.
        let header = *KeyBlob::parse(blob)
            .map_err(|_| KeyringError::InvalidCiphertext)?
            .header();
        let id = KeyId::from_parts(header.key_id, header.multi_region);
        let catalogue = self.catalogue.load();
        let sealed_by = catalogue
            .key(id, self.now())
            .filter(|entry| entry.is_visible(caller.via));
        let Some(key) = key else {
            let entry = sealed_by.ok_or(KeyringError::InvalidCiphertext)?;
            return self.authorize_entry(trail, caller, entry);
        };
        let permission = self.authorize_named(trail, caller, key)?;
        match sealed_by {
            None => Err(KeyringError::InvalidCiphertext),
            Some(entry) if entry.arn.as_arn() == permission.resource() => Ok(permission),
            Some(_) => Err(KeyringError::IncorrectKey),
        }
    }

    fn authorize_entry<A: Action>(
        &self,
        trail: &mut Trail,
        caller: &Caller,
        entry: &KeyEntry,
    ) -> Result<Authorized<A>, KeyringError> {
        trail.key = Some(entry.arn.clone());
        check_tier::<A>(caller, entry)?;
        self.ask(caller, entry.arn.as_arn())
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
        let catalogue = self.catalogue.load();
        let now = self.now();
        let found = match key {
            KeyArgument::Id(id) => catalogue.key(*id, now),
            KeyArgument::Arn(arn) => catalogue.key(arn.key_id(), now),
            KeyArgument::Alias(name) | KeyArgument::AliasArn(_, name) => {
                catalogue.aliased(name, now)
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
    pub(crate) fn admit<A: Action>(
        &self,
        authorized: &Authorized<A>,
    ) -> Result<Arc<KeyEntry>, KeyringError> {
        self.check_running()?;
        let arn = KeyArn::try_from(authorized.resource())?;
        let entry = self.resolve(&KeyArgument::Arn(arn), authorized.caller().via)?;
        check_tier::<A>(authorized.caller(), &entry)?;
        state::check(&entry.arn, entry.record.state, A::NAME)?;
        Ok(entry)
    }
}

/// What a key's tier allows, before any policy: a service's key is used through that service alone,
/// and changed by nobody.
fn check_tier<A: Action>(caller: &Caller, entry: &KeyEntry) -> Result<(), KeyringError> {
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
        Tier::Managed(service) => is_look || (is_use && caller.via == service.via()),
        Tier::Owned(service) => is_use && caller.via == service.via(),
    };
    if allowed {
        return Ok(());
    }
    let denied = iam::Denied {
        principal: caller.principal.arn(),
        action: A::NAME,
        resource: entry.arn.as_arn().clone(),
    };
    Err(KeyringError::AccessDenied(denied.to_string()))
}
