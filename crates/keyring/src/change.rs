//! How keys change: planned on one moment of the snapshot, written, published, told, recorded.
//!
//! One change at a time in this process, and any number of processes. The order is: the record of the
//! intent (durable), the catalogue (durable), the snapshot (what every request sees from now on), the
//! revision (no decision made before stands), the listeners (caches drop), the record of the outcome
//! (durable), the answer. A change runs in a task of its own, so that a caller who goes away leaves no
//! half of it behind.
//!
//! If the record of the outcome cannot be made durable, the change stands and the answer is an error. A
//! log known to have failed is asked before the catalogue is written, so these are only the changes that
//! were on their way when it failed. Killed between the two records, the log says at its next start that
//! the outcome is unknown.
//!
//! When the commit fails: another process was first, and the change is planned anew on what is there
//! now; a full disk or a catalogue that does not answer has changed nothing. After any other failure
//! it is not known what the catalogue holds: caches are told as if the change had been made, and the
//! keyring stops (`Stopped`) until it is opened anew.

use std::{sync::Arc, time::SystemTime};

use catalogue::{Batch, CatalogueError, Expect, Sequence};
use crypto::secret::SecretVec;

use crate::{
    error::KeyringError,
    event::{KeyChange, KeyEvent},
    key::{AliasName, KeyId},
    keyring::Inner,
    records::Records,
    snapshot::{AliasEntry, KeyEntry, Snapshot},
    trail::Trail,
    vault::{ALIASES, KEYS, MATERIALS, Seals, material_id},
};

/// How often a change that lost a race to another process is planned anew.
const RACES_MAX: u32 = 8;

/// One step of a change.
pub(crate) enum Edit {
    /// A key's record, new if its version is 1.
    Key(KeyEntry),
    /// New material of a key, as its record keeps it.
    Material(KeyId, u32, SecretVec),
    /// An alias's record, new if its version is 1.
    Alias(AliasEntry),
    /// An alias that was written this often.
    EraseAlias(AliasName, u64),
    /// A key that was written this often, and so many materials of it.
    EraseKey {
        key: KeyId,
        version: u64,
        materials: u32,
    },
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
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) now: SystemTime,
}

impl Inner {
    /// Plans and makes a change, and records it under `trail`. Runs to its end even if the caller
    /// stops waiting. `plan` is asked again each time another process was first.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        mut trail: Trail,
        plan: impl Fn(&Self, &Moment, &mut Trail) -> Result<Plan<T>, KeyringError> + Send + 'static,
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
        plan: impl Fn(&Self, &Moment, &mut Trail) -> Result<Plan<T>, KeyringError> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let mut followed = self.followed.lock().await;
        let mut races = 0;
        loop {
            // A log that is known to have failed would take no record of the change.
            self.check_running()?;
            let moment = Moment {
                snapshot: self.snapshot.load_full(),
                now: self.now(),
            };
            let plan = plan(self, &moment, trail)?;
            if !plan.edits.is_empty() {
                self.announce(trail).await?;
            }
            match self.make(&moment.snapshot, &mut followed, plan).await {
                Err(KeyringError::Catalogue(CatalogueError::Conflict { table, key }))
                    if races < RACES_MAX =>
                {
                    races += 1;
                    // The record in the way too: its change may have been told before.
                    self.catch_up(&mut followed, Some((table.name(), key)))
                        .await?;
                }
                made => {
                    trail.judge(&made);
                    return made;
                }
            }
        }
    }

    /// Writes, publishes and tells. The caller has the writer's turn.
    async fn make<T>(
        &self,
        current: &Snapshot,
        followed: &mut Sequence,
        plan: Plan<T>,
    ) -> Result<T, KeyringError> {
        let Plan {
            edits,
            events,
            answer,
        } = plan;
        if edits.is_empty() {
            return Ok(answer);
        }
        let seals = self.records.vault.seals();
        let batch = batch(&self.records, &seals, &edits).await?;
        let committed = self.records.catalogue.commit(batch).await;
        // Its fate is known, or it is known that it is not.
        drop(seals);
        match committed {
            // Nobody else was in between: this commit needs no reading back.
            Ok(sequence) if sequence.0 == followed.0 + 1 => *followed = sequence,
            Ok(_) => {}
            Err(
                error @ (CatalogueError::Conflict { .. }
                | CatalogueError::Full
                | CatalogueError::Unavailable(_)
                | CatalogueError::Invalid(_)),
            ) => return Err(error.into()),
            Err(error) => {
                self.stop(&error);
                // What was to change may have changed: caches may not rely on it.
                self.authorizer.changed();
                self.tell(&events);
                return Err(KeyringError::Unknown(error));
            }
        }
        let erases = edits
            .iter()
            .any(|edit| matches!(edit, Edit::EraseKey { .. }));
        let alters = erases
            || edits
                .iter()
                .any(|edit| matches!(edit, Edit::Key(entry) if entry.version > 1));
        let mut next = current.clone();
        for edit in edits {
            apply(&mut next, edit);
        }
        self.snapshot.store(Arc::new(next));
        if alters {
            // After the snapshot: a decision made at the new revision has seen the key as it is now.
            self.authorizer.changed();
        }
        if erases {
            self.drop_opened_of_erased();
            if let Err(error) = self.records.catalogue.purge().await {
                tracing::warn!(%error, "erased key material may still be in the catalogue's log");
            }
        }
        self.tell(&events);
        Ok(answer)
    }

    /// Drops opened materials of keys that are no more; the wiping is done when this returns unless
    /// a request still holds one.
    pub(crate) fn drop_opened_of_erased(&self) {
        let snapshot = self.snapshot.load();
        for (at, _) in &self.opened {
            if !snapshot.keys.contains_key(&at.0) {
                self.opened.invalidate(at.as_ref());
            }
        }
        self.opened.run_pending_tasks();
    }

    /// From now on nothing is done any more: what the catalogue holds is not known.
    pub(crate) fn stop(&self, why: &dyn std::error::Error) {
        tracing::error!(%why, "the catalogue failed: no key is used any more");
        let _ = self.stopped.set(why.to_string().into());
    }

    pub(crate) fn tell(&self, events: &[KeyEvent]) {
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

fn apply(next: &mut Snapshot, edit: Edit) {
    match edit {
        Edit::Key(entry) => next.put_key(entry),
        Edit::Alias(entry) => next.put_alias(entry),
        // Opened when it is first used.
        Edit::Material(..) => {}
        Edit::EraseAlias(name, _) => {
            next.aliases.remove(&name);
        }
        Edit::EraseKey { key, .. } => {
            next.keys.remove(&key);
        }
    }
}

async fn batch(records: &Records, seals: &Seals, edits: &[Edit]) -> Result<Batch, CatalogueError> {
    let vault = &records.vault;
    let mut batch = Batch::new();
    let expect = |version: u64| match version {
        1 => Expect::Absent,
        next => Expect::Version(next - 1),
    };
    for edit in edits {
        batch = match edit {
            Edit::Key(entry) => {
                let expect = expect(entry.version);
                let version = expect.next_version();
                let sealed = vault.seal_key(seals, entry.id(), version, &entry.record);
                batch.put(KEYS, records.key_at(entry.id()), expect, sealed)
            }
            Edit::Material(key, number, material) => {
                let sealed = vault.seal_material(seals, *key, *number, material);
                let at = vault.at(material_id(*key, *number));
                batch.put(MATERIALS, at, Expect::Absent, sealed)
            }
            Edit::Alias(entry) => {
                let expect = expect(entry.version);
                let version = expect.next_version();
                let sealed = vault.seal_alias(seals, &entry.name, version, &entry.record);
                batch.put(ALIASES, records.alias_at(&entry.name), expect, sealed)
            }
            Edit::EraseAlias(name, version) => {
                batch.erase(ALIASES, records.alias_at(name), *version)
            }
            Edit::EraseKey {
                key,
                version,
                materials,
            } => {
                let mut batch = batch.erase(KEYS, records.key_at(*key), *version);
                // A rotation of the store key writes materials without anybody's knowing here.
                for (at, version) in records.material_versions(*key, *materials).await? {
                    batch = batch.erase(MATERIALS, at, version);
                }
                batch
            }
        };
    }
    Ok(batch)
}
