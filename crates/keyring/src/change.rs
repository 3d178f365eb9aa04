//! How keys change: planned on one moment of the catalogue, written, published, told, recorded.
//!
//! One change at a time. The order is: the store (durable), the catalogue (what every request sees
//! from now on), the revision (no decision made before stands), the listeners (caches drop), the audit
//! record (durable), the answer. A change runs
//! in a task of its own, so that a caller who goes away leaves no half of it behind.
//!
//! If the record cannot be made durable, the change stands and the answer is an error. A log known
//! to have failed is asked before the store is written, so these are only the changes that were on
//! their way when it failed.
//!
//! When the store fails, a full disk or a lost race has changed nothing; after any other failure
//! the store is read anew, so that memory says what the disk says, and if that fails too the
//! keyring stops (`Stopped`) until it is opened anew.

use std::{sync::Arc, time::SystemTime};

use crypto::wrap::BackingKey;

use crate::{
    catalogue::{AliasEntry, Catalogue, KeyEntry},
    error::KeyringError,
    event::{KeyChange, KeyEvent},
    key::{AliasName, KeyId},
    keyring::Inner,
    store::{Batch, Change, Expect, StoreError, Table},
    trail::Trail,
    vault::{Vault, material_id},
};

/// One step of a change.
pub(crate) enum Edit {
    /// A key's record, new if its version is 1.
    Key(KeyEntry),
    /// New material of a key.
    Material(KeyId, u32, BackingKey),
    /// An alias's record, new if its version is 1.
    Alias(AliasEntry),
    EraseAlias(AliasName),
    /// A key and so many materials of it.
    EraseKey(KeyId, u32),
}

/// A change that was decided on.
pub(crate) struct Plan<T> {
    pub(crate) edits: Vec<Edit>,
    pub(crate) events: Vec<KeyEvent>,
    pub(crate) answer: T,
}

impl<T> Plan<T> {
    /// Changes nothing.
    pub(crate) fn nothing(answer: T) -> Self {
        Self {
            edits: Vec::new(),
            events: Vec::new(),
            answer,
        }
    }

    pub(crate) fn edit(answer: T, edits: Vec<Edit>) -> Self {
        Self {
            edits,
            ..Self::nothing(answer)
        }
    }

    pub(crate) fn and_tell(mut self, key: &KeyEntry, change: KeyChange) -> Self {
        self.events.push(KeyEvent {
            key: key.arn.clone(),
            change,
        });
        self
    }
}

/// The moment a change is planned on. Nothing else changes while it is.
pub(crate) struct Moment {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) now: SystemTime,
}

impl Inner {
    /// Plans and makes a change, and records it under `trail`. Runs to its end even if the caller
    /// stops waiting.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        mut trail: Trail,
        plan: impl FnOnce(&Self, &Moment, &mut Trail) -> Result<Plan<T>, KeyringError> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let result = inner.write(&mut trail, plan).await;
            inner.finish(trail, result).await
        });
        task.await.map_err(|_| KeyringError::ShuttingDown)?
    }

    async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        trail: &mut Trail,
        plan: impl FnOnce(&Self, &Moment, &mut Trail) -> Result<Plan<T>, KeyringError> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        // A log that is known to have failed would take no record of the change.
        self.check_running()?;
        let moment = Moment {
            catalogue: self.catalogue.load_full(),
            now: self.now(),
        };
        let plan = plan(self, &moment, trail)?;
        let inner = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            // The turn ends with the writing, also when nobody waits for this task any more.
            let _writer = writer;
            inner.make(&moment.catalogue, plan)
        });
        task.await.map_err(|_| KeyringError::ShuttingDown)?
    }

    /// Writes, publishes and tells. Blocking; the caller has the writer's turn.
    pub(crate) fn make<T>(&self, current: &Catalogue, plan: Plan<T>) -> Result<T, KeyringError> {
        let Plan {
            edits,
            events,
            answer,
        } = plan;
        if edits.is_empty() {
            return Ok(answer);
        }
        let batch = batch(&self.vault, &edits);
        if let Err(error) = self.store.commit(&batch) {
            if !matches!(error, StoreError::Full) {
                self.read_anew(&error);
                // What was to change may have changed: caches may not rely on it.
                self.authorizer.changed();
                self.tell(&events);
            }
            return Err(error.into());
        }
        let erases = edits.iter().any(|edit| matches!(edit, Edit::EraseKey(..)));
        let alters = erases
            || edits
                .iter()
                .any(|edit| matches!(edit, Edit::Key(entry) if entry.version > 1));
        let mut next = current.clone();
        for edit in edits {
            self.apply(&mut next, edit);
        }
        self.catalogue.store(Arc::new(next));
        if alters {
            // After the catalogue: a decision made at the new revision has seen the key as it is now.
            self.authorizer.changed();
        }
        if erases {
            self.drop_opened_of_erased();
            if let Err(error) = self.store.purge() {
                tracing::warn!(%error, "erased key material may still be in the store's log");
            }
        }
        self.tell(&events);
        Ok(answer)
    }

    fn apply(&self, next: &mut Catalogue, edit: Edit) {
        match edit {
            Edit::Key(entry) => next.put_key(entry),
            Edit::Alias(entry) => next.put_alias(entry),
            Edit::Material(key, number, material) => {
                self.opened.insert((key, number), Arc::new(material));
            }
            Edit::EraseAlias(name) => {
                next.aliases.remove_mut(&name);
            }
            Edit::EraseKey(id, _) => {
                next.keys.remove_mut(&id);
            }
        }
    }

    /// Drops opened materials of keys that are no more; the wiping is done when this returns unless
    /// a request still holds one.
    fn drop_opened_of_erased(&self) {
        let catalogue = self.catalogue.load();
        for (at, _) in &self.opened {
            if !catalogue.keys.contains_key(&at.0) {
                self.opened.invalidate(at.as_ref());
            }
        }
        self.opened.run_pending_tasks();
    }

    fn read_anew(&self, failure: &StoreError) {
        match Catalogue::load(
            self.store.as_ref(),
            &self.vault,
            &self.region,
            &self.account,
        ) {
            Ok(catalogue) => {
                tracing::warn!(%failure, "key store failed a write; its state was read anew");
                self.catalogue.store(Arc::new(catalogue));
                self.drop_opened_of_erased();
            }
            Err(error) => {
                tracing::error!(%failure, %error, "key store failed: no key is used any more");
                let _ = self.stopped.set(format!("{failure}; then {error}").into());
            }
        }
    }

    fn tell(&self, events: &[KeyEvent]) {
        if events.is_empty() {
            return;
        }
        let listeners = self.listeners.read().clone();
        for event in events {
            for listener in &listeners {
                listener(event);
            }
        }
    }
}

fn batch(vault: &Vault, edits: &[Edit]) -> Batch {
    let mut batch = Batch::new();
    let expect = |version: u64| match version {
        1 => Expect::Absent,
        next => Expect::Version(next - 1),
    };
    for edit in edits {
        match edit {
            Edit::Key(entry) => batch.push(Change::Put {
                table: Table::Key,
                id: entry.id().as_bytes().to_vec(),
                expect: expect(entry.version),
                record: vault.seal_key(entry.id(), &entry.record),
            }),
            Edit::Material(key, number, material) => batch.push(Change::Put {
                table: Table::Material,
                id: material_id(*key, *number),
                expect: Expect::Absent,
                record: vault.seal_material(*key, *number, material),
            }),
            Edit::Alias(entry) => batch.push(Change::Put {
                table: Table::Alias,
                id: entry.name.as_str().as_bytes().to_vec(),
                expect: expect(entry.version),
                record: vault.seal_alias(&entry.name, &entry.record),
            }),
            Edit::EraseAlias(name) => batch.push(Change::Erase {
                table: Table::Alias,
                id: name.as_str().as_bytes().to_vec(),
            }),
            Edit::EraseKey(key, materials) => {
                batch.push(Change::Erase {
                    table: Table::Key,
                    id: key.as_bytes().to_vec(),
                });
                batch.extend((1..=*materials).map(|number| Change::Erase {
                    table: Table::Material,
                    id: material_id(*key, number),
                }));
            }
        }
    }
    batch
}
