//! The volumes as this process knows them, and how their rows change.
//!
//! A change is committed and taken over in one turn (`followed`), as are changes that other processes made; so an older
//! state of a volume is never taken over after a newer one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use catalogue::{Batch, Catalogue, CatalogueError, Expect, Key, Record, Scope, Sequence};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::{
    VolumeError, VolumeId, VolumeState,
    attached::Unflushed,
    descriptor::Row,
    entry::{Entry, Known},
    options::Options,
    token::{TOKENS, Tokens, token_key},
    vault::{Seals, TABLE, Vault, row_key, volume_id},
};

/// Rows read at a time.
pub(crate) const PAGE: usize = 500;

pub(crate) struct Registry {
    pub(crate) options: Options,
    pub(crate) vault: Vault,
    pub(crate) tokens: Tokens,
    /// Whose volumes these are.
    pub(crate) scope: Scope,
    pub(crate) entries: RwLock<BTreeMap<VolumeId, Arc<Entry>>>,
    /// Up to which commit others' changes are known. Held while a change is committed and taken over.
    pub(crate) followed: Mutex<Sequence>,
    /// Why nothing is changed or attached any more, once what the catalogue holds is not known.
    stopped: OnceLock<Arc<str>>,
    /// What could not be flushed when it was detached.
    pub(crate) unflushed: Arc<Unflushed>,
}

/// The rows there are.
pub(crate) struct Rows {
    /// Of our account and region.
    pub(crate) ours: Vec<Record>,
    /// Every volume that has a row, whoever's.
    pub(crate) all: BTreeSet<VolumeId>,
}

/// The accounts and regions that have volumes in `catalogue`: each wants a registry of its own. May be cancelled.
///
/// # Errors
/// Those of the catalogue.
pub async fn scopes(catalogue: &dyn Catalogue) -> Result<Vec<Scope>, CatalogueError> {
    catalogue::scopes(catalogue, TABLE).await
}

impl Registry {
    pub(crate) fn new(options: Options) -> Self {
        let vault = Vault::new(&options.store_key, Arc::clone(&options.random));
        let scope = Scope {
            account: options.authorizer.account().to_string(),
            region: options.region.to_string(),
        };
        Self {
            tokens: Tokens::new(&options.store_key),
            options,
            vault,
            scope,
            entries: RwLock::default(),
            followed: Mutex::default(),
            stopped: OnceLock::new(),
            unflushed: Arc::default(),
        }
    }

    pub(crate) fn key(&self, id: VolumeId) -> Key {
        row_key(&self.scope, id)
    }

    pub(crate) fn entry(&self, id: &VolumeId) -> Option<Arc<Entry>> {
        self.entries.read().get(id).cloned()
    }

    pub(crate) fn check_running(&self) -> Result<(), VolumeError> {
        match self.stopped.get() {
            Some(why) => Err(VolumeError::Unknown(Arc::clone(why))),
            None => Ok(()),
        }
    }

    /// From now on nothing is changed or attached any more: what the catalogue holds is not known.
    fn stop(&self, why: &CatalogueError) {
        if self.stopped.set(why.to_string().into()).is_ok() {
            tracing::error!(%why, "the catalogue failed: volumes are neither changed nor attached any more");
        }
    }

    /// All rows. Pages are of several moments.
    pub(crate) async fn rows(&self) -> Result<Rows, CatalogueError> {
        let mut rows = Rows {
            ours: Vec::new(),
            all: BTreeSet::new(),
        };
        let mut after = None;
        loop {
            let catalogue = &self.options.catalogue;
            let page = catalogue.page(TABLE, None, after.as_ref(), PAGE).await?;
            for record in page.records {
                rows.all.extend(volume_id(&record.key));
                if record.key.scope == self.scope {
                    rows.ours.push(record);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(rows),
            }
        }
    }

    /// Reads every row anew. The caller has the turn.
    pub(crate) async fn load(&self, followed: &mut Sequence) -> Result<Rows, CatalogueError> {
        let from = self.options.catalogue.sequence().await?;
        let rows = self.rows().await?;
        let ours: BTreeSet<VolumeId> = rows
            .ours
            .iter()
            .filter_map(|row| volume_id(&row.key))
            .collect();
        let known: Vec<VolumeId> = self.entries.read().keys().copied().collect();
        for gone in known.iter().filter(|id| !ours.contains(id)) {
            self.take_over(*gone, None);
        }
        for row in &rows.ours {
            if let Some(id) = volume_id(&row.key) {
                self.take_over(id, Some(row));
            }
        }
        *followed = from;
        Ok(rows)
    }

    /// Makes what was read of a row known. The caller has the turn.
    pub(crate) fn take_over(&self, id: VolumeId, found: Option<&Record>) {
        let read = found.map(|record| (record.version, self.vault.open_row(record)));
        let mut entries = self.entries.write();
        let (version, descriptor) = match read {
            None | Some((_, Ok(Row::Deleting))) => {
                if let Some(entry) = entries.remove(&id) {
                    *entry.state.lock() = VolumeState::Deleting;
                }
                return;
            }
            Some((version, Ok(Row::Present(descriptor)))) => (version, Ok(*descriptor)),
            Some((version, Err(error))) => {
                tracing::error!(volume = %id, %error, "the volume is not served");
                (version, Err(error))
            }
        };
        let known = Known {
            version,
            descriptor,
        };
        match entries.get(&id) {
            Some(entry) => entry.learn(known),
            None => {
                entries.insert(id, Entry::new(id, known));
            }
        }
    }

    /// Reads one row again.
    pub(crate) async fn refresh(&self, id: VolumeId) -> Result<Option<Record>, VolumeError> {
        let _turn = self.followed.lock().await;
        let found = self.options.catalogue.get(TABLE, &self.key(id)).await;
        let found = found.inspect_err(|error| self.judge(error))?;
        self.take_over(id, found.as_ref());
        Ok(found)
    }

    /// The volume that a client token has made, and the version of the claim; `None` if nobody has used the token.
    pub(crate) async fn claim(&self, token: &str) -> Result<Option<(VolumeId, u64)>, VolumeError> {
        let key = token_key(&self.scope, token);
        let found = self.options.catalogue.get(TOKENS, &key).await;
        match found.inspect_err(|error| self.judge(error))? {
            Some(record) => Ok(Some((self.tokens.open(&record)?, record.version))),
            None => Ok(None),
        }
    }

    /// Writes a row and takes it over. Whoever calls it holds `seals` until this returns.
    pub(crate) async fn put(
        &self,
        seals: &Seals,
        id: VolumeId,
        expect: Expect,
        row: &Row,
    ) -> Result<(), CatalogueError> {
        self.put_with(Batch::new(), seals, id, expect, row).await
    }

    /// As [`put`](Self::put), in one batch with other steps, none of them about a row.
    pub(crate) async fn put_with(
        &self,
        others: Batch,
        seals: &Seals,
        id: VolumeId,
        expect: Expect,
        row: &Row,
    ) -> Result<(), CatalogueError> {
        let key = self.key(id);
        let version = expect.next_version();
        let sealed = self.vault.seal_row(seals, &key, version, row);
        let record = Record {
            key: key.clone(),
            version,
            sealed: sealed.as_bytes().to_vec(),
        };
        self.commit(id, others.put(TABLE, key, expect, sealed), Some(&record))
            .await
    }

    /// Erases the row of a volume whose folder is gone.
    pub(crate) async fn erase(&self, id: VolumeId, version: u64) -> Result<(), CatalogueError> {
        let batch = Batch::new().erase(TABLE, self.key(id), version);
        self.commit(id, batch, None).await
    }

    async fn commit(
        &self,
        id: VolumeId,
        batch: Batch,
        record: Option<&Record>,
    ) -> Result<(), CatalogueError> {
        let mut followed = self.followed.lock().await;
        let committed = self.options.catalogue.commit(batch).await;
        let sequence = committed.inspect_err(|error| self.judge(error))?;
        if sequence.0 == followed.0 + 1 {
            // Nobody else was in between: this commit needs no reading back.
            *followed = sequence;
        }
        self.take_over(id, record);
        Ok(())
    }

    /// Stops at an error after which it is not known what the catalogue holds.
    pub(crate) fn judge(&self, error: &CatalogueError) {
        if !refused(error) && !matches!(error, CatalogueError::Trimmed) {
            self.stop(error);
        }
    }
}

/// Whether an error says that nothing was changed.
pub(crate) fn refused(error: &CatalogueError) -> bool {
    matches!(
        error,
        CatalogueError::Conflict { .. }
            | CatalogueError::Invalid(_)
            | CatalogueError::Full
            | CatalogueError::Unavailable(_)
    )
}
