//! A catalogue in memory, for tests: what the others are compared with.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Batch, Catalogue, CatalogueError, Changed, Changes, Key, Page, Record, Scope, Sequence,
    StoreId, Table, Write,
    limits::{self, CHANGES_KEPT, PAGE_LEN_MAX},
};

/// A handle of a catalogue in memory. Its clones are further handles of the same one.
#[derive(Debug, Clone)]
pub struct MemoryCatalogue {
    store: Arc<Store>,
}

#[derive(Debug)]
struct Store {
    id: StoreId,
    changes_kept: u64,
    state: Mutex<State>,
    sequence: watch::Sender<Sequence>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<(Table, Key), (u64, Vec<u8>)>,
    changes: VecDeque<Changed>,
    sequence: Sequence,
    /// Changes up to this one are gone.
    trimmed: Sequence,
}

impl MemoryCatalogue {
    /// An empty store.
    pub fn new(id: StoreId) -> Self {
        Self::keeping(id, CHANGES_KEPT)
    }

    /// An empty store that keeps `changes_kept` changes.
    pub fn keeping(id: StoreId, changes_kept: u64) -> Self {
        Self {
            store: Arc::new(Store {
                id,
                changes_kept,
                state: Mutex::default(),
                sequence: watch::Sender::new(Sequence(0)),
            }),
        }
    }

    /// Puts a version and bytes where a record stands, or takes it away, as someone with the disk would: no commit is
    /// counted and no change is told.
    pub fn tamper(&self, table: Table, key: &Key, record: Option<(u64, Vec<u8>)>) {
        let place = (table, key.clone());
        let records = &mut self.store.state.lock().records;
        match record {
            Some(record) => records.insert(place, record),
            None => records.remove(&place),
        };
    }
}

#[async_trait]
impl Catalogue for MemoryCatalogue {
    async fn store_id(&self) -> Result<StoreId, CatalogueError> {
        Ok(self.store.id)
    }

    async fn get(&self, table: Table, key: &Key) -> Result<Option<Record>, CatalogueError> {
        limits::check_key(key)?;
        let state = self.store.state.lock();
        let found = state.records.get_key_value(&(table, key.clone()));
        Ok(found.map(record))
    }

    async fn page(
        &self,
        table: Table,
        scope: Option<&Scope>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, CatalogueError> {
        let limit = limits::check_page(scope, after, limit)?;
        let first = Key::new(scope.cloned().unwrap_or_default(), Vec::new());
        let from = match after {
            Some(after) if *after >= first => Bound::Excluded((table, after.clone())),
            _ => Bound::Included((table, first)),
        };
        let state = self.store.state.lock();
        let mut page = Page::default();
        let mut len = 0;
        for (place, stored) in state.records.range((from, Bound::Unbounded)) {
            if place.0 != table || scope.is_some_and(|scope| *scope != place.1.scope) {
                break;
            }
            if page.records.len() == limit || len >= PAGE_LEN_MAX {
                page.next = page.records.last().map(|last| last.key.clone());
                break;
            }
            len += stored.1.len();
            page.records.push(record((place, stored)));
        }
        Ok(page)
    }

    async fn commit(&self, batch: Batch) -> Result<Sequence, CatalogueError> {
        limits::check_batch(&batch)?;
        let sequence = self
            .store
            .state
            .lock()
            .apply(batch, self.store.changes_kept)?;
        self.store.sequence.send_if_modified(|seen| {
            let newer = sequence > *seen;
            *seen = sequence.max(*seen);
            newer
        });
        Ok(sequence)
    }

    async fn sequence(&self) -> Result<Sequence, CatalogueError> {
        Ok(self.store.state.lock().sequence)
    }

    async fn changes(&self, after: Sequence, limit: usize) -> Result<Changes, CatalogueError> {
        let limit = limits::check_changes(limit)?;
        let state = self.store.state.lock();
        if after < state.trimmed || after > state.sequence {
            return Err(CatalogueError::Trimmed);
        }
        let from = state
            .changes
            .partition_point(|change| change.sequence <= after);
        let upto = match state.changes.get(from + limit - 1) {
            Some(last) => last.sequence,
            None => state.sequence,
        };
        let end = state
            .changes
            .partition_point(|change| change.sequence <= upto);
        Ok(Changes {
            changes: state.changes.range(from..end).cloned().collect(),
            upto,
        })
    }

    async fn wait(&self, after: Sequence) -> Result<Sequence, CatalogueError> {
        let mut sequence = self.store.sequence.subscribe();
        if after > self.store.state.lock().sequence {
            return Err(CatalogueError::Trimmed);
        }
        let reached = sequence.wait_for(|sequence| *sequence > after).await;
        Ok(*reached.expect("the store, which has the sender, is borrowed"))
    }

    async fn purge(&self) -> Result<(), CatalogueError> {
        Ok(())
    }
}

impl State {
    fn apply(&mut self, batch: Batch, changes_kept: u64) -> Result<Sequence, CatalogueError> {
        for write in batch.writes() {
            let (table, key) = write.target();
            let version = self.records.get(&(table, key.clone())).map(|found| found.0);
            if !write.expect().holds(version) {
                return Err(CatalogueError::Conflict {
                    table,
                    key: key.clone(),
                });
            }
        }
        self.sequence.0 += 1;
        for write in batch.writes() {
            let (table, key) = write.target();
            let version = match write {
                Write::Put { expect, record, .. } => {
                    let version = expect.next_version();
                    let stored = (version, record.as_bytes().to_vec());
                    self.records.insert((table, key.clone()), stored);
                    Some(version)
                }
                Write::Erase { .. } => {
                    self.records.remove(&(table, key.clone()));
                    None
                }
                Write::Check { .. } => continue,
            };
            self.changes.push_back(Changed {
                sequence: self.sequence,
                table: table.name().to_owned(),
                key: key.clone(),
                version,
            });
        }
        self.trim(changes_kept);
        Ok(self.sequence)
    }

    /// Forgets the oldest commits, whole, until no more than `kept` changes are there.
    fn trim(&mut self, kept: u64) {
        while self.changes.len() as u64 > kept {
            let Some(oldest) = self.changes.pop_front() else {
                return;
            };
            self.trimmed = oldest.sequence;
            while self
                .changes
                .front()
                .is_some_and(|next| next.sequence == oldest.sequence)
            {
                self.changes.pop_front();
            }
        }
    }
}

fn record(((_, key), (version, sealed)): (&(Table, Key), &(u64, Vec<u8>))) -> Record {
    Record {
        key: key.clone(),
        version: *version,
        sealed: sealed.clone(),
    }
}
