//! The buckets there are: known by heart, changed in the catalogue and in the store of objects.
//!
//! The store keeps, under the bucket's id, whether it takes objects; it checks that in the same step in which it
//! commits one. That fences the catalogue, which the store's commits cannot see, and fixes the order:
//! - **Made**: opened in the store under a new id, then written in the catalogue. Between the two nobody knows the id.
//! - **Deleted**: closed in the store, which is possible only while it is empty and lets nothing in any more; erased
//!   in the catalogue; deleted in the store, with its uploads. What is refused half-way opens it again.
//!
//! So no object is ever in a bucket that the catalogue does not have. What a kill leaves half-done is put right at the
//! next start, by what the catalogue says: a bucket that it has is opened, uploads and all, and what it does not have
//! is deleted if nothing is in it. Anything else stays where it is, is reported, and is reached by no name.
//!
//! Every change runs to its end, also if its caller goes away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use catalogue::{Batch, Catalogue, CatalogueError, Expect, Scope, Sequence};
use crypto::random::Random;
use http::StatusCode;
use parking_lot::RwLock;
use root::StoreKey;
use tokio::sync::{Mutex, MutexGuard};

use super::id::BucketId;
use super::record::{BucketRecord, NAMES, Records, TABLE};
use crate::bucket_default::BucketDefault;
use crate::error::Error;
use crate::store::{ObjectStore, Page, StoreError, UploadQuery};

/// Records read at a time.
const PAGE: usize = 500;
/// Changes of other processes that are looked at together.
const CHANGES: usize = 500;
/// How often a change is planned anew after another writer was first.
const ATTEMPTS: u32 = 16;

/// A bucket as it is known.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) id: BucketId,
    /// How often its record was written.
    version: u64,
    record: BucketRecord,
}

impl Bucket {
    pub(crate) fn name(&self) -> &str {
        &self.record.name
    }

    pub(crate) fn created(&self) -> SystemTime {
        self.record.created()
    }

    /// What new objects get when their request says nothing.
    pub(crate) fn default_encryption(&self) -> BucketDefault {
        self.record.encryption.clone().unwrap_or_default()
    }
}

/// What became of making a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// It was made.
    New,
    /// It was there, and is ours.
    Ours,
    /// Another bucket of our account has the name, in another region.
    OursElsewhere,
    /// Another account's has the name.
    Taken,
}

/// What a registry is made of.
pub(crate) struct RegistryOptions<'a> {
    pub(crate) catalogue: Arc<dyn Catalogue>,
    pub(crate) store_key: &'a StoreKey,
    pub(crate) scope: Scope,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) store: Arc<dyn ObjectStore>,
    /// No more are made; all are held in memory.
    pub(crate) buckets_max: usize,
}

#[derive(Default)]
struct Known {
    by_name: BTreeMap<String, Arc<Bucket>>,
    names: HashMap<BucketId, String>,
}

impl Known {
    fn put(&mut self, bucket: Arc<Bucket>) {
        let name = bucket.name().to_owned();
        self.names.insert(bucket.id.clone(), name.clone());
        self.by_name.insert(name, bucket);
    }

    fn remove(&mut self, id: &BucketId) {
        let Some(name) = self.names.remove(id) else {
            return;
        };
        // A bucket that was deleted may have a successor by that name already.
        if self.by_name.get(&name).is_some_and(|found| found.id == *id) {
            self.by_name.remove(&name);
        }
    }
}

/// The accounts and regions that have buckets in `catalogue`: each wants a gateway of its own. May be cancelled.
///
/// # Errors
/// Those of the catalogue.
pub async fn scopes(catalogue: &dyn Catalogue) -> Result<Vec<Scope>, CatalogueError> {
    catalogue::scopes(catalogue, TABLE).await
}

/// The buckets of one account and region.
pub(crate) struct Registry {
    pub(super) catalogue: Arc<dyn Catalogue>,
    records: Records,
    store: Arc<dyn ObjectStore>,
    buckets_max: usize,
    known: RwLock<Known>,
    /// The turn of who changes something here, and up to where changes of others were looked at.
    pub(super) followed: Mutex<Sequence>,
}

impl Registry {
    /// Reads the buckets, and puts right in the store of objects what a kill left half-done.
    ///
    /// A record that does not open is [`Error::Integrity`]; nothing was changed then.
    pub(crate) async fn open(options: RegistryOptions<'_>) -> Result<Arc<Self>, Error> {
        let records = Records::new(options.store_key, options.scope, options.random);
        let registry = Self {
            catalogue: options.catalogue,
            records,
            store: options.store,
            buckets_max: options.buckets_max,
            known: RwLock::default(),
            followed: Mutex::default(),
        };
        let (known, all, from) = registry.load().await?;
        *registry.known.write() = known;
        *registry.followed.lock().await = from;
        registry.put_right(&all).await?;
        Ok(Arc::new(registry))
    }

    /// Our buckets, the ids of everybody's, and the sequence from which on changes may be missing.
    async fn load(&self) -> Result<(Known, HashSet<BucketId>, Sequence), Error> {
        let from = self.catalogue.sequence().await?;
        let (mut known, mut all) = (Known::default(), HashSet::new());
        let mut after = None;
        loop {
            let page = self.catalogue.page(TABLE, None, after.as_ref(), PAGE);
            let page = page.await?;
            for stored in page.records {
                let id = stored.key.id[..].try_into().map_err(|_| Error::Integrity)?;
                all.insert(BucketId::from_bytes(id));
                if stored.key.scope == *self.records.scope() {
                    known.put(Arc::new(self.open_record(&stored)?));
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((known, all, from)),
            }
        }
    }

    fn open_record(&self, stored: &catalogue::Record) -> Result<Bucket, Error> {
        let opened = self.records.open(stored).inspect_err(|_| {
            let id = hex::encode(&stored.key.id);
            tracing::error!(id, "a bucket's record in the catalogue is damaged");
        });
        let (id, record) = opened?;
        Ok(Bucket {
            id,
            version: stored.version,
            record,
        })
    }

    /// Makes the store of objects agree with the catalogue, which has the buckets `all`.
    async fn put_right(&self, all: &HashSet<BucketId>) -> Result<(), Error> {
        let (mut open, mut after) = (HashSet::new(), None);
        loop {
            let page = self.store.buckets(after.as_deref(), PAGE).await?;
            for found in &page.entries {
                let id = BucketId::parse(&found.id);
                if let Some(id) = id.filter(|id| all.contains(id)) {
                    if !found.closed {
                        open.insert(id);
                    }
                } else if !found.closed && self.has_uploads(&found.id).await? {
                    // Nothing that may be somebody's is deleted because its owner is not found.
                    tracing::error!(
                        bucket = found.id,
                        "the object store has uploads in a bucket that the catalogue does not have: they are kept"
                    );
                } else {
                    match self.store.delete_bucket(&found.id).await {
                        Ok(()) => {}
                        Err(StoreError::BucketNotEmpty) => tracing::error!(
                            bucket = found.id,
                            "the object store has objects in a bucket that the catalogue does not have: they are kept"
                        ),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            after = page.entries.last().map(|found| found.id.clone());
            if !page.truncated {
                break;
            }
        }
        for id in all.difference(&open) {
            self.store.create_bucket(id.as_str()).await?;
        }
        Ok(())
    }

    async fn has_uploads(&self, bucket: &str) -> Result<bool, Error> {
        let query = UploadQuery {
            limit: 1,
            ..UploadQuery::default()
        };
        Ok(!self.store.uploads(bucket, &query).await?.entries.is_empty())
    }

    /// Whose buckets these are.
    pub(crate) fn scope(&self) -> &Scope {
        self.records.scope()
    }

    /// The bucket of this name, as it was last seen: within a second of what other processes do.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Bucket>> {
        self.known.read().by_name.get(name).cloned()
    }

    /// Lists buckets by name: those that begin with `prefix` and come after `after`.
    pub(crate) fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Page<Arc<Bucket>> {
        let known = self.known.read();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries: Vec<Arc<Bucket>> = known
            .by_name
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(_, bucket)| bucket)
            .take_while(|bucket| bucket.name().starts_with(prefix))
            .take(limit.saturating_add(1))
            .cloned()
            .collect();
        let truncated = entries.len() > limit && limit > 0;
        entries.truncate(limit);
        Page { entries, truncated }
    }

    /// Waits until it is its caller's turn to change something, and knows what others have changed before.
    async fn turn(&self) -> Result<MutexGuard<'_, Sequence>, Error> {
        let mut followed = self.followed.lock().await;
        self.catch_up(&mut followed).await?;
        Ok(followed)
    }

    /// Makes a bucket.
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: &str,
        created: SystemTime,
    ) -> Result<Created, Error> {
        let (registry, name) = (Arc::clone(self), name.to_owned());
        crate::settle::to_the_end(async move { registry.create_now(&name, created).await }).await
    }

    async fn create_now(&self, name: &str, created: SystemTime) -> Result<Created, Error> {
        let mut followed = self.turn().await?;
        if self.get(name).is_some() {
            return Ok(Created::Ours);
        }
        if self.known.read().by_name.len() >= self.buckets_max {
            return Err(Error::client(
                StatusCode::BAD_REQUEST,
                "TooManyBuckets",
                "You have attempted to create more buckets than allowed",
            ));
        }
        let id = self.records.draw_id();
        self.store.create_bucket(id.as_str()).await?;
        let record = BucketRecord::new(name, created);
        let committed = {
            let seals = self.records.seals();
            let sealed = self.records.seal(&seals, &id, Expect::Absent, &record);
            let claim = self.records.seal_claim(&seals, name, &id);
            let batch = Batch::new()
                .put(NAMES, Records::name_at(name), Expect::Absent, claim)
                .put(TABLE, self.records.at(&id), Expect::Absent, sealed);
            self.catalogue.commit(batch).await
        };
        match committed {
            Ok(_) => {
                let version = Expect::Absent.next_version();
                self.known.write().put(Arc::new(Bucket {
                    id,
                    version,
                    record,
                }));
                Ok(Created::New)
            }
            Err(error) if changed_nothing(&error) => {
                if let Err(left) = self.store.delete_bucket(id.as_str()).await {
                    tracing::warn!(bucket = %id, error = %left, "an unused bucket is left in the object store until the next start");
                }
                match error {
                    CatalogueError::Conflict { .. } => self.whose(name, &mut followed).await,
                    error => Err(error.into()),
                }
            }
            // It may be there after the next start, and is open then.
            Err(error) => Err(error.into()),
        }
    }

    /// Whose bucket has the name that another writer was first to claim.
    async fn whose(&self, name: &str, followed: &mut Sequence) -> Result<Created, Error> {
        match self.catalogue.get(NAMES, &Records::name_at(name)).await? {
            Some(stored) => {
                let claim = self.records.open_claim(&stored)?;
                let scope = self.scope();
                if claim.account != scope.account {
                    return Ok(Created::Taken);
                }
                if claim.region != scope.region {
                    return Ok(Created::OursElsewhere);
                }
                self.catch_up(followed).await?;
                Ok(Created::Ours)
            }
            // Claimed and given up again meanwhile.
            None => Err(Error::operation_aborted()),
        }
    }

    /// Deletes a bucket that holds no objects, with its uploads.
    pub(crate) async fn delete(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let (registry, name) = (Arc::clone(self), name.to_owned());
        crate::settle::to_the_end(async move { registry.delete_now(&name).await }).await
    }

    async fn delete_now(&self, name: &str) -> Result<(), Error> {
        let mut followed = self.turn().await?;
        let id = self.get(name).ok_or(StoreError::NoSuchBucket)?.id.clone();
        self.store.close_bucket(id.as_str()).await?;
        match self.erase(name, &id, &mut followed).await {
            Ok(()) => {
                if let Err(left) = self.store.delete_bucket(id.as_str()).await {
                    tracing::warn!(bucket = %id, error = %left, "a deleted bucket is left in the object store until the next start");
                }
                Ok(())
            }
            // Whether it is deleted is not known before the next start, which goes by the catalogue.
            Err(Error::Catalogue(error)) if !changed_nothing(&error) => Err(error.into()),
            Err(error) => {
                if let Err(closed) = self.store.create_bucket(id.as_str()).await {
                    tracing::error!(bucket = %id, error = %closed, "a bucket that was not deleted is closed until the next start");
                }
                Err(error)
            }
        }
    }

    /// Erases a closed bucket from the catalogue.
    async fn erase(&self, name: &str, id: &BucketId, followed: &mut Sequence) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let bucket = self.get(name).filter(|bucket| bucket.id == *id);
            let bucket = bucket.ok_or(StoreError::NoSuchBucket)?;
            let name_at = Records::name_at(name);
            let claim = self.catalogue.get(NAMES, &name_at).await?;
            let claim = claim.ok_or(Error::Integrity)?;
            if self.records.open_claim(&claim)?.bucket != id.as_str() {
                return Err(Error::Integrity);
            }
            let batch = Batch::new().erase(NAMES, name_at, claim.version).erase(
                TABLE,
                self.records.at(id),
                bucket.version,
            );
            match self.catalogue.commit(batch).await {
                Ok(_) => {
                    self.known.write().remove(id);
                    return Ok(());
                }
                Err(CatalogueError::Conflict { .. }) => self.catch_up(followed).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::operation_aborted())
    }

    /// Sets the default encryption, or sets none.
    pub(crate) async fn set_encryption(
        self: &Arc<Self>,
        name: &str,
        encryption: Option<BucketDefault>,
    ) -> Result<(), Error> {
        let (registry, name) = (Arc::clone(self), name.to_owned());
        crate::settle::to_the_end(async move { registry.set_now(&name, encryption).await }).await
    }

    async fn set_now(&self, name: &str, encryption: Option<BucketDefault>) -> Result<(), Error> {
        let mut followed = self.turn().await?;
        for _ in 0..ATTEMPTS {
            let bucket = self.get(name).ok_or(StoreError::NoSuchBucket)?;
            if bucket.record.encryption == encryption {
                return Ok(());
            }
            let record = BucketRecord {
                encryption: encryption.clone(),
                ..bucket.record.clone()
            };
            let expect = Expect::Version(bucket.version);
            let committed = {
                let seals = self.records.seals();
                let sealed = self.records.seal(&seals, &bucket.id, expect, &record);
                let batch = Batch::new().put(TABLE, self.records.at(&bucket.id), expect, sealed);
                self.catalogue.commit(batch).await
            };
            match committed {
                Ok(_) => {
                    self.known.write().put(Arc::new(Bucket {
                        id: bucket.id.clone(),
                        version: expect.next_version(),
                        record,
                    }));
                    return Ok(());
                }
                Err(CatalogueError::Conflict { .. }) => self.catch_up(&mut followed).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::operation_aborted())
    }

    /// Looks at what was committed after `followed`; the caller has the turn.
    pub(super) async fn catch_up(&self, followed: &mut Sequence) -> Result<(), Error> {
        loop {
            let changes = match self.catalogue.changes(*followed, CHANGES).await {
                Ok(changes) => changes,
                Err(CatalogueError::Trimmed) => {
                    let (known, _, from) = self.load().await?;
                    *self.known.write() = known;
                    *followed = from;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            for change in &changes.changes {
                let ours = change.key.scope == *self.records.scope();
                let Ok(id) = change.key.id[..].try_into().map(BucketId::from_bytes) else {
                    continue;
                };
                if !ours || change.table != TABLE.name() {
                    continue;
                }
                // As it is now, which may be later than this change.
                match self.catalogue.get(TABLE, &change.key).await? {
                    Some(stored) => {
                        let bucket = self.open_record(&stored)?;
                        self.known.write().put(Arc::new(bucket));
                    }
                    None => self.known.write().remove(&id),
                }
            }
            let end = changes.upto == *followed;
            *followed = changes.upto;
            if end {
                return Ok(());
            }
        }
    }
}

/// Whether a commit that failed so certainly changed nothing, and the catalogue goes on.
fn changed_nothing(error: &CatalogueError) -> bool {
    matches!(
        error,
        CatalogueError::Conflict { .. }
            | CatalogueError::Invalid(_)
            | CatalogueError::Full
            | CatalogueError::Unavailable(_)
    )
}

#[cfg(test)]
mod tests;
