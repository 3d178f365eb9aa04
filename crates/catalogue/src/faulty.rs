//! A catalogue that fails when it is told to, for tests: each way that the trait documents, at the n-th call of a
//! kind.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    Batch, Catalogue, CatalogueError, Changes, Key, Page, Record, Scope, Sequence, StoreId, Table,
};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Catalogue::store_id`].
    StoreId,
    /// [`Catalogue::get`].
    Get,
    /// [`Catalogue::page`].
    Page,
    /// [`Catalogue::commit`].
    Commit,
    /// [`Catalogue::sequence`].
    Sequence,
    /// [`Catalogue::changes`].
    Changes,
    /// [`Catalogue::wait`].
    Wait,
    /// [`Catalogue::purge`].
    Purge,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// [`CatalogueError::Full`]; nothing was done.
    Full,
    /// [`CatalogueError::Unavailable`]; nothing was done.
    Unavailable,
    /// [`CatalogueError::Damaged`]; nothing was done.
    Damaged,
    /// [`CatalogueError::Trimmed`]; nothing was done.
    Trimmed,
    /// [`CatalogueError::Unknown`], and it was done. The handle stops.
    UnknownDone,
    /// [`CatalogueError::Unknown`], and it was not done. The handle stops.
    UnknownNotDone,
}

/// A handle that passes calls on to another, but for those it is told to fail. Once the fate of a call is unknown, it
/// answers [`CatalogueError::Stopped`] until [`reopen`](Self::reopen).
#[derive(Debug)]
pub struct FaultyCatalogue<C> {
    inner: Arc<C>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    planned: Vec<Planned>,
    stopped: bool,
}

#[derive(Debug)]
struct Planned {
    call: Call,
    /// Calls of the kind that still pass.
    passing: u64,
    fault: Fault,
}

impl<C: Catalogue> FaultyCatalogue<C> {
    /// A handle that fails no call yet.
    pub fn new(inner: Arc<C>) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }

    /// Fails the `n`-th call of a kind from now, counted from 1, once.
    pub fn fail(&self, call: Call, n: u64, fault: Fault) {
        self.state.lock().planned.push(Planned {
            call,
            passing: n.saturating_sub(1),
            fault,
        });
    }

    /// Whether every fault that was planned has happened.
    pub fn has_failed(&self) -> bool {
        self.state.lock().planned.is_empty()
    }

    /// Opens the catalogue anew: a handle that had stopped serves again.
    pub fn reopen(&self) {
        self.state.lock().stopped = false;
    }

    /// The fault that this call is to meet; an error if the handle has stopped.
    fn enter(&self, call: Call) -> Result<Option<Fault>, CatalogueError> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(CatalogueError::Stopped("an injected fault".to_owned()));
        }
        let mut due = None;
        state.planned.retain_mut(|planned| {
            if planned.call != call || due.is_some() {
                return true;
            }
            if planned.passing == 0 {
                due = Some(planned.fault);
                return false;
            }
            planned.passing -= 1;
            true
        });
        if matches!(due, Some(Fault::UnknownDone | Fault::UnknownNotDone)) {
            state.stopped = true;
        }
        Ok(due)
    }

    async fn pass<T>(
        &self,
        call: Call,
        inner: impl Future<Output = Result<T, CatalogueError>> + Send,
    ) -> Result<T, CatalogueError> {
        let what = || "an injected fault".to_owned();
        match self.enter(call)? {
            None => inner.await,
            Some(Fault::Full) => Err(CatalogueError::Full),
            Some(Fault::Unavailable) => Err(CatalogueError::Unavailable(what())),
            Some(Fault::Damaged) => Err(CatalogueError::Damaged(what())),
            Some(Fault::Trimmed) => Err(CatalogueError::Trimmed),
            Some(Fault::UnknownDone) => {
                inner.await?;
                Err(CatalogueError::Unknown(what()))
            }
            Some(Fault::UnknownNotDone) => Err(CatalogueError::Unknown(what())),
        }
    }
}

#[async_trait]
impl<C: Catalogue> Catalogue for FaultyCatalogue<C> {
    async fn store_id(&self) -> Result<StoreId, CatalogueError> {
        self.pass(Call::StoreId, self.inner.store_id()).await
    }

    async fn get(&self, table: Table, key: &Key) -> Result<Option<Record>, CatalogueError> {
        self.pass(Call::Get, self.inner.get(table, key)).await
    }

    async fn page(
        &self,
        table: Table,
        scope: Option<&Scope>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, CatalogueError> {
        let page = self.inner.page(table, scope, after, limit);
        self.pass(Call::Page, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Sequence, CatalogueError> {
        self.pass(Call::Commit, self.inner.commit(batch)).await
    }

    async fn sequence(&self) -> Result<Sequence, CatalogueError> {
        self.pass(Call::Sequence, self.inner.sequence()).await
    }

    async fn changes(&self, after: Sequence, limit: usize) -> Result<Changes, CatalogueError> {
        self.pass(Call::Changes, self.inner.changes(after, limit))
            .await
    }

    async fn wait(&self, after: Sequence) -> Result<Sequence, CatalogueError> {
        self.pass(Call::Wait, self.inner.wait(after)).await
    }

    async fn purge(&self) -> Result<(), CatalogueError> {
        self.pass(Call::Purge, self.inner.purge()).await
    }
}

#[cfg(test)]
mod tests {
    use crypto::{random::SeededRandom, record::SealedRecord, store_key::GenerationKey};

    use super::*;
    use crate::{Expect, MemoryCatalogue};

    const TABLE: Table = Table::new("t");

    fn key() -> Key {
        Key::new(Scope::default(), *b"k")
    }

    fn sealed() -> SealedRecord {
        let root = GenerationKey::generate(&SeededRandom::new(1));
        let key = key();
        let place = key.place(TABLE, 1);
        root.record_key("t")
            .seal_at(&place, 1, b"p", &SeededRandom::new(2))
    }

    fn faulty() -> FaultyCatalogue<MemoryCatalogue> {
        FaultyCatalogue::new(Arc::new(MemoryCatalogue::new(StoreId([1; 16]))))
    }

    fn batch() -> Batch {
        Batch::new().put(TABLE, key(), Expect::Absent, sealed())
    }

    #[tokio::test]
    async fn a_commit_that_was_refused_changed_nothing_and_may_be_tried_again() {
        for fault in [Fault::Full, Fault::Unavailable] {
            let store = faulty();
            store.fail(Call::Commit, 1, fault);
            let error = store.commit(batch()).await.unwrap_err();
            match fault {
                Fault::Full => assert!(matches!(error, CatalogueError::Full)),
                _ => assert!(matches!(error, CatalogueError::Unavailable(_))),
            }
            assert!(store.has_failed());
            assert_eq!(store.get(TABLE, &key()).await.unwrap(), None);
            assert_eq!(store.commit(batch()).await.unwrap(), Sequence(1));
        }
    }

    #[tokio::test]
    async fn a_commit_of_unknown_fate_was_made_or_not_and_the_handle_stops() {
        for (fault, made) in [(Fault::UnknownDone, true), (Fault::UnknownNotDone, false)] {
            let store = faulty();
            store.fail(Call::Commit, 1, fault);
            let error = store.commit(batch()).await.unwrap_err();
            assert!(matches!(error, CatalogueError::Unknown(_)), "{error}");
            let stopped = |error| matches!(error, CatalogueError::Stopped(_));
            assert!(stopped(store.get(TABLE, &key()).await.unwrap_err()));
            assert!(stopped(store.commit(batch()).await.unwrap_err()));
            assert!(stopped(store.sequence().await.unwrap_err()));
            store.reopen();
            assert_eq!(store.get(TABLE, &key()).await.unwrap().is_some(), made);
        }
    }

    #[tokio::test]
    async fn the_nth_call_of_its_kind_fails_and_no_other() {
        let store = faulty();
        store.fail(Call::Get, 3, Fault::Unavailable);
        store.commit(batch()).await.unwrap();
        for _ in 0..2 {
            store.get(TABLE, &key()).await.unwrap();
            store.sequence().await.unwrap();
        }
        assert!(store.get(TABLE, &key()).await.is_err());
        assert!(store.get(TABLE, &key()).await.is_ok());
    }
}
