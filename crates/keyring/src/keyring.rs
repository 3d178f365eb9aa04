//! The keyring itself: what it is made of.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use audit::AuditLog;
use catalogue::{Catalogue, Sequence};
use crypto::random::Random;
use host::Clock;
use iam::{AccountId, Arn, Authorizer, Region};
use moka::sync::Cache;
use parking_lot::RwLock;
use root::{Reseal, StoreKey};
use tokio::sync::{Mutex, Semaphore};

use crate::{
    error::KeyringError,
    event::KeyEvent,
    key::{KeyArn, KeyId},
    key_state::KeyState,
    material::Material,
    metadata::{MaterialId, Service},
    observer::Observer,
    records::Records,
    snapshot::Snapshot,
    wall::Wall,
};

/// Opened materials kept in memory: of a symmetric key 32 bytes each, and what the cache adds.
pub(crate) const OPENED_MAX: u64 = 16_384;
/// Reads of the store at a time, for backing keys that are not in memory.
pub(crate) const COLD_READS_MAX: usize = 2;
/// Bounds of a ciphertext blob, in bytes (API, `CiphertextType`).
pub(crate) const BLOB_LEN_MAX: usize = 6144;

/// A material, ready for use.
#[derive(Clone)]
pub(crate) struct OpenedMaterial {
    pub(crate) material: Arc<dyn Material>,
    /// Its name: a digest, made once.
    pub(crate) id: MaterialId,
}

/// What a keyring is made of.
pub struct Options {
    /// Where records are kept.
    pub catalogue: Arc<dyn Catalogue>,
    /// What they are sealed under; of the same store as the catalogue.
    pub store_key: StoreKey,
    /// Where every use is written.
    pub audit: AuditLog,
    /// Dates of records, deletion and rotation; durations of requests. A wall clock that steps back does no harm but
    /// one: a key past its deletion date stays usable until the date comes anew, if it was not yet swept.
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
    pub(crate) _following: Following,
    pub(crate) owners: Vec<Arc<dyn Reseal>>,
}

/// The task that follows what other processes change. Ends it when it is dropped.
pub(crate) struct Following(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) type Listener = Arc<dyn Fn(&KeyEvent) + Send + Sync>;

pub(crate) struct Inner {
    pub(crate) records: Records,
    pub(crate) audit: AuditLog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) account: AccountId,
    pub(crate) region: Region,
    /// The name of every key together.
    pub(crate) everything: Arn,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) opened: Cache<(KeyId, u32), OpenedMaterial>,
    pub(crate) cold_reads: Semaphore,
    /// Whether the wall clock is to be believed with what cannot be undone.
    pub(crate) wall: Wall,
    /// Up to which commit others' changes are in the snapshot. Held while the snapshot is changed: one
    /// change at a time.
    pub(crate) followed: Mutex<Sequence>,
    /// Why changes of other processes are not seen at the moment.
    pub(crate) behind: parking_lot::Mutex<Option<Arc<str>>>,
    pub(crate) listeners: RwLock<Vec<Listener>>,
    pub(crate) owned: [OnceLock<KeyArn>; Service::ALL.len()],
    /// Why nothing is done any more, once what the catalogue holds is not known.
    pub(crate) stopped: OnceLock<Arc<str>>,
}

impl Keyring {
    /// Fails if no key is used any more: the audit log failed, or what the catalogue holds is
    /// not known. Both stay so until the keyring is opened anew. Fails too while changes of other
    /// processes are not seen because the catalogue does not answer.
    pub fn healthy(&self) -> Result<(), KeyringError> {
        self.inner.check_running()?;
        match self.inner.behind.lock().clone() {
            None => Ok(()),
            Some(why) => Err(KeyringError::Behind(why)),
        }
    }

    /// Fails if no key may be used now, whoever asks: the audit log takes no records, or what the catalogue holds is not
    /// known. For caches of what a key opened: what is cached is used no more then than what is not. Waits for nothing.
    pub fn may_use_keys(&self) -> Result<(), KeyringError> {
        self.inner.check_running()
    }

    /// Whether the key may be used at this moment. No lock, no store, no audit record.
    ///
    /// For caches of what a key opened: put in first, ask then, and take out again if the answer is
    /// no. A change that was told before the putting in is seen by the asking.
    pub fn is_enabled(&self, key: &KeyArn) -> bool {
        let snapshot = self.inner.snapshot.load();
        snapshot
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
