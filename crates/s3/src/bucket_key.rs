//! Bucket keys: one call of the keyring for many objects.
//!
//! A bucket key is a data key the keyring generates for a bucket; object keys
//! are wrapped under it here. It is cached, so that the keyring is asked once a
//! period and not once an object. Every object keeps the bucket key's wrapped
//! form and stays readable by itself.
//!
//! Promises:
//! - An entry belongs to one bucket, KMS key, encryption context **and
//!   requester**: whoever uses a bucket key has an audit record of his own in
//!   the period.
//! - The caller's permission is asked of the keyring on every use, hit or miss.
//! - An entry serves for at most the configured lifetime, and seals at most the
//!   configured number of objects.
//! - On any change of any key ([`Keyring::on_change`]) the caches are emptied
//!   before the change is answered; a key fetched before and stored after the
//!   change is never found, because entries carry the epoch they were fetched in.
//! - Concurrent misses for one entry make one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crypto::bucket_key::BucketKey;
use crypto::context::EncryptionContext;
use crypto::hash::Sha256;
use crypto::secret::SecretVec;
use iam::{Arn, Authorized, Decrypt, GenerateDataKey};
use keyring::{Clock, DataKeyLen, KeyArn, Keyring, KeyringError};
use moka::future::Cache;

use crate::error::Error;
use crate::observer::Observer;

/// When a cached bucket key is no longer used.
#[derive(Debug, Clone, Copy)]
pub struct BucketKeyPolicy {
    /// For how long, from the keyring's answer.
    pub lifetime: Duration,
    /// How many objects one seals at most.
    pub uses_max: u64,
    /// How many are cached for sealing, and as many for opening.
    pub entries_max: u64,
}

impl Default for BucketKeyPolicy {
    /// Five minutes, a million objects, 10 000 entries.
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            uses_max: 1 << 20,
            entries_max: 10_000,
        }
    }
}

/// A bucket key and the form the objects keep.
pub(crate) struct Held {
    /// The key itself.
    pub(crate) key: BucketKey,
    /// The key as the keyring wrapped it.
    pub(crate) blob: Vec<u8>,
    fetched: SystemTime,
    uses: AtomicU64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct SealEntry {
    bucket: String,
    kms_key: Arn,
    context: [u8; 32],
    requester: Arn,
    epoch: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct OpenEntry {
    bucket: String,
    blob: [u8; 32],
    context: [u8; 32],
    requester: Arn,
    epoch: u64,
}

/// The two caches.
pub(crate) struct BucketKeys {
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    policy: BucketKeyPolicy,
    caches: Arc<Caches>,
}

struct Caches {
    sealing: Cache<SealEntry, Arc<Held>>,
    opening: Cache<OpenEntry, Arc<Held>>,
    epoch: AtomicU64,
}

impl BucketKeys {
    /// Registers with the keyring's changes.
    pub(crate) fn new(
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        policy: BucketKeyPolicy,
    ) -> Self {
        fn cache<K, V>(policy: &BucketKeyPolicy) -> Cache<K, V>
        where
            K: Eq + std::hash::Hash + Send + Sync + 'static,
            V: Clone + Send + Sync + 'static,
        {
            // By the machine's time; `usable` holds the same limit by the clock given.
            Cache::builder()
                .max_capacity(policy.entries_max)
                .time_to_live(policy.lifetime)
                .build()
        }
        let caches = Arc::new(Caches {
            sealing: cache(&policy),
            opening: cache(&policy),
            epoch: AtomicU64::new(0),
        });
        let listener = Arc::clone(&caches);
        keyring.on_change(Box::new(move |_event| {
            listener.epoch.fetch_add(1, Ordering::SeqCst);
            listener.sealing.invalidate_all();
            listener.opening.invalidate_all();
            // moka frees what is invalid when it is next used. Keys are to go also if it is not.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let caches = Arc::clone(&listener);
                runtime.spawn(async move {
                    caches.sealing.run_pending_tasks().await;
                    caches.opening.run_pending_tasks().await;
                });
            }
        }));
        Self {
            keyring,
            clock,
            observer,
            policy,
            caches,
        }
    }

    /// How many keys are in memory, usable or not.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.caches.sealing.entry_count() + self.caches.opening.entry_count()
    }

    /// Lets counts catch up with what was put in.
    #[cfg(test)]
    pub(crate) async fn settle(&self) {
        self.caches.sealing.run_pending_tasks().await;
        self.caches.opening.run_pending_tasks().await;
    }

    /// A bucket key to seal an object with.
    pub(crate) async fn for_sealing(
        &self,
        bucket: &str,
        may: Authorized<GenerateDataKey>,
        context: EncryptionContext,
    ) -> Result<Arc<Held>, Error> {
        let entry = SealEntry {
            bucket: bucket.to_owned(),
            kms_key: may.resource().clone(),
            context: digest(&context.canonical()),
            requester: may.caller().principal.arn(),
            epoch: self.caches.epoch.load(Ordering::SeqCst),
        };
        if let Some(held) = self.caches.sealing.get(&entry).await {
            if self.usable(&held, &entry.kms_key)
                && held.uses.fetch_add(1, Ordering::Relaxed) < self.policy.uses_max
            {
                self.observer.bucket_key(true);
                return Ok(held);
            }
            self.caches.sealing.invalidate(&entry).await;
        }
        self.observer.bucket_key(false);
        let held = self
            .caches
            .sealing
            .try_get_with(entry, async {
                let data_key = self
                    .keyring
                    .generate_data_key(may, DataKeyLen::AES_256, context)
                    .await?;
                self.hold(&data_key.plaintext, data_key.ciphertext)
            })
            .await
            .map_err(Error::Keyring)?;
        held.uses.fetch_add(1, Ordering::Relaxed);
        Ok(held)
    }

    /// The bucket key an object was sealed with.
    pub(crate) async fn for_opening(
        &self,
        bucket: &str,
        may: Authorized<Decrypt>,
        blob: &[u8],
        context: EncryptionContext,
    ) -> Result<Arc<Held>, Error> {
        let entry = OpenEntry {
            bucket: bucket.to_owned(),
            blob: digest(blob),
            context: digest(&context.canonical()),
            requester: may.caller().principal.arn(),
            epoch: self.caches.epoch.load(Ordering::SeqCst),
        };
        if let Some(held) = self.caches.opening.get(&entry).await {
            if self.usable(&held, may.resource()) {
                self.observer.bucket_key(true);
                return Ok(held);
            }
            self.caches.opening.invalidate(&entry).await;
        }
        self.observer.bucket_key(false);
        self.caches
            .opening
            .try_get_with(entry, async {
                let opened = self.keyring.decrypt(may, blob, context).await?;
                self.hold(&opened.plaintext, blob.to_vec())
            })
            .await
            .map_err(Error::Keyring)
    }

    /// Whether an entry still serves: its KMS key is enabled at this moment,
    /// whatever events are on their way, and it is young enough.
    fn usable(&self, held: &Held, kms_key: &Arn) -> bool {
        let enabled = KeyArn::try_from(kms_key).is_ok_and(|key| self.keyring.is_enabled(&key));
        // A clock that stepped back makes the age negative: not fresh.
        enabled
            && self
                .clock
                .now()
                .duration_since(held.fetched)
                .is_ok_and(|age| age < self.policy.lifetime)
    }

    fn hold(&self, key: &SecretVec, blob: Vec<u8>) -> Result<Arc<Held>, KeyringError> {
        let key = key
            .to_secret_bytes()
            .map_err(|_| KeyringError::InvalidCiphertext)?;
        Ok(Arc::new(Held {
            key: BucketKey::from_secret(key),
            blob,
            fetched: self.clock.now(),
            uses: AtomicU64::new(0),
        }))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.finish()
}
