//! The keyring itself: what it is made of, and opening it.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use audit::AuditLog;
use crypto::{random::Random, record::RecordKey, wrap::BackingKey};
use iam::{AccountId, Arn, Authorizer, Region};
use moka::sync::Cache;
use parking_lot::RwLock;
use root::StoreId;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    catalogue::Catalogue,
    clock::Clock,
    error::KeyringError,
    event::KeyEvent,
    key::{KeyArn, KeyId, KeyState},
    metadata::Service,
    observer::Observer,
    store::{Change, Expect, KeyStore, Table},
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
    /// Decides; whose account it decides for is whose keys these are.
    pub authorizer: Arc<Authorizer>,
    /// In which region they say they are.
    pub region: Region,
    /// Told of every request.
    pub observer: Arc<dyn Observer>,
}

/// Keys with KMS semantics.
///
/// Every operation takes an [`Authorized`](iam::Authorized) of its action, from
/// [`Keyring::authorize`], and answers after its audit record is durable. Operations that change keys run to their
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
    /// The name of every key together.
    pub(crate) everything: Arn,
    pub(crate) authorizer: Arc<Authorizer>,
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
            authorizer,
            region,
            observer,
        } = options;
        let account = *authorizer.account();
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
            everything: Arn::every("kms", &region, &account),
            account,
            region,
            authorizer,
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
}
