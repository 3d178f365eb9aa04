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
//! - An entry serves for as long as the decision it was fetched under stands: a
//!   key fetched before a change of any key and stored after it is never found,
//!   because entries carry the revision of their decision.
//! - On any change of any key ([`Keyring::on_change`]) the caches are emptied
//!   before the change is answered.
//! - Concurrent misses for one entry make one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crypto::bucket_key::BucketKey;
use crypto::hash::Sha256;
use crypto::secret::SecretVec;
use host::Clock;
use iam::{Action, Arn, Authorized, Decrypt, GenerateDataKey, Revision, Standing};
use keyring::{DataKeyLen, KeyArn, KeyResource, Keyring, KeyringError, NamedKey, SealedBlob};
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
pub(crate) struct Held<A: Action> {
    /// The decision it was fetched under.
    standing: Standing<A, NamedKey>,
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
    kms_key: KeyArn,
    context: [u8; 32],
    requester: Arn,
    revision: Revision,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct OpenEntry {
    bucket: String,
    blob: [u8; 32],
    context: [u8; 32],
    requester: Arn,
    revision: Revision,
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
    sealing: Cache<SealEntry, Arc<Held<GenerateDataKey>>>,
    opening: Cache<OpenEntry, Arc<Held<Decrypt>>>,
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
        });
        let listener = Arc::clone(&caches);
        keyring.on_change(Box::new(move |_event| {
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

    /// A bucket key to seal an object with, under the key and the context that
    /// `may` is for.
    pub(crate) async fn for_sealing(
        &self,
        bucket: &str,
        may: Authorized<GenerateDataKey, NamedKey>,
    ) -> Result<Arc<Held<GenerateDataKey>>, Error> {
        let entry = SealEntry {
            bucket: bucket.to_owned(),
            kms_key: may.resource().key().clone(),
            context: digest(&may.resource().context().canonical()),
            requester: may.caller().context().principal_arn().clone(),
            revision: may.revision(),
        };
        // Before the look: what is cached stays for when the log takes records again.
        self.keyring.may_use_keys()?;
        if let Some(held) = self.caches.sealing.get(&entry).await {
            if self.usable(&held)
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
                let standing = may.standing(may.resource().clone());
                let data_key = self
                    .keyring
                    .generate_data_key(may, DataKeyLen::AES_256)
                    .await?;
                self.hold(standing, &data_key.plaintext, data_key.ciphertext)
            })
            .await
            .map_err(Error::Keyring)?;
        held.uses.fetch_add(1, Ordering::Relaxed);
        Ok(held)
    }

    /// The bucket key that an object was sealed with and `may` is for.
    pub(crate) async fn for_opening(
        &self,
        bucket: &str,
        may: Authorized<Decrypt, SealedBlob<'_>>,
    ) -> Result<Arc<Held<Decrypt>>, Error> {
        let blob = may.resource().bytes();
        let entry = OpenEntry {
            bucket: bucket.to_owned(),
            blob: digest(blob),
            context: digest(&may.resource().context().canonical()),
            requester: may.caller().context().principal_arn().clone(),
            revision: may.revision(),
        };
        self.keyring.may_use_keys()?;
        if let Some(held) = self.caches.opening.get(&entry).await {
            if self.usable(&held) {
                self.observer.bucket_key(true);
                return Ok(held);
            }
            self.caches.opening.invalidate(&entry).await;
        }
        self.observer.bucket_key(false);
        self.caches
            .opening
            .try_get_with(entry, async {
                let standing = may.standing(may.resource().to_key());
                let opened = self.keyring.decrypt(may).await?;
                self.hold(standing, &opened.plaintext, blob.to_vec())
            })
            .await
            .map_err(Error::Keyring)
    }

    /// Whether an entry still serves: nothing that decides has changed since it
    /// was fetched, its KMS key is enabled at this moment, and it is young enough.
    fn usable<A: Action>(&self, held: &Held<A>) -> bool {
        // A clock that stepped back makes the age negative: not fresh.
        held.standing.is_current()
            && self.keyring.is_enabled(held.standing.resource().key())
            && self
                .clock
                .now()
                .duration_since(held.fetched)
                .is_ok_and(|age| age < self.policy.lifetime)
    }

    fn hold<A: Action>(
        &self,
        standing: Standing<A, NamedKey>,
        key: &SecretVec,
        blob: Vec<u8>,
    ) -> Result<Arc<Held<A>>, KeyringError> {
        let key = key
            .to_secret_bytes()
            .map_err(|_| KeyringError::InvalidCiphertext)?;
        Ok(Arc::new(Held {
            standing,
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
