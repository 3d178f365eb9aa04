//! Changes that other processes made, seen here within a second.
//!
//! A task waits for commits that are not this process's own, reads the changed records, and publishes
//! and tells what became of them as if it had been done here. It ends with the keyring. While the
//! catalogue does not answer, keys are used as they were last known and the keyring is not healthy; a
//! record that does not open stops it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use catalogue::{CatalogueError, Key, Sequence};

use crate::{
    error::KeyringError,
    event::{KeyChange, KeyEvent},
    key_state::KeyState,
    keyring::{Following, Inner},
    snapshot::{KeyEntry, Snapshot},
    vault::{ALIASES, KEYS},
};

/// Changes that are looked at together.
const CHANGES: usize = 500;
/// How long to wait before a catalogue that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// Follows until the keyring is dropped or has stopped. Needs a tokio runtime.
pub(crate) fn follow(inner: &Arc<Inner>) -> Following {
    let weak = Arc::downgrade(inner);
    Following(tokio::spawn(async move {
        let mut after = Sequence(0);
        while let Some(failed) = step(&weak, &mut after).await {
            if failed {
                tokio::time::sleep(RETRY).await;
            }
        }
    }))
}

/// Waits for a commit after `after` and catches up with it; whether that failed. `None` at the end.
async fn step(weak: &Weak<Inner>, after: &mut Sequence) -> Option<bool> {
    let catalogue = Arc::clone(&weak.upgrade()?.records.catalogue);
    let waited = catalogue.wait(*after).await;
    let inner = weak.upgrade()?;
    let caught_up = match waited {
        Ok(_) | Err(CatalogueError::Trimmed) => {
            let mut followed = inner.followed.lock().await;
            let caught_up = inner.catch_up(&mut followed, None).await;
            *after = *followed;
            caught_up
        }
        Err(error) => Err(inner.failed_to_read(error.into())),
    };
    if inner.stopped.get().is_some() {
        return None;
    }
    *inner.behind.lock() = caught_up
        .as_ref()
        .err()
        .map(|error| error.to_string().into());
    Some(caught_up.is_err())
}

impl Inner {
    /// Applies what was committed after `followed`, and what stands at `also`. The caller has the
    /// writer's turn.
    pub(crate) async fn catch_up(
        &self,
        followed: &mut Sequence,
        also: Option<(&str, Key)>,
    ) -> Result<(), KeyringError> {
        let caught_up = self.try_to_catch_up(followed, also).await;
        caught_up.map_err(|error| self.failed_to_read(error))
    }

    async fn try_to_catch_up(
        &self,
        followed: &mut Sequence,
        also: Option<(&str, Key)>,
    ) -> Result<(), KeyringError> {
        let mut changed = Changed::default();
        if let Some((table, key)) = also {
            changed.note(table, key);
        }
        loop {
            let changes = match self.records.catalogue.changes(*followed, CHANGES).await {
                Ok(changes) => changes,
                Err(CatalogueError::Trimmed) => {
                    let (snapshot, from) = self.records.load().await?;
                    self.publish(snapshot);
                    *followed = from;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            for change in changes.changes {
                if change.key.scope == *self.records.vault.scope() {
                    changed.note(&change.table, change.key);
                }
            }
            let end = changes.upto == *followed;
            self.apply_changed(std::mem::take(&mut changed)).await?;
            *followed = changes.upto;
            if end {
                return Ok(());
            }
        }
    }

    async fn apply_changed(&self, changed: Changed) -> Result<(), KeyringError> {
        if changed.keys.is_empty() && changed.aliases.is_empty() {
            return Ok(());
        }
        let mut next = Snapshot::clone(&self.snapshot.load());
        for at in &changed.keys {
            match self.records.key(at).await? {
                Some(entry) => next.put_key(entry),
                None => next.remove_key_at(&at.id),
            }
        }
        for at in &changed.aliases {
            match self.records.alias(at).await? {
                Some(entry) => next.put_alias(entry),
                None => next.remove_alias_at(&at.id),
            }
        }
        self.publish(next);
        Ok(())
    }

    /// Makes `next` what every request sees, and tells what became of each key: in the order of an own
    /// change.
    fn publish(&self, next: Snapshot) {
        let next = Arc::new(next);
        let before = self.snapshot.swap(Arc::clone(&next));
        let mut events = Vec::new();
        let (mut alters, mut erases) = (false, false);
        for (id, old) in &before.keys {
            let new = next.keys.get(id);
            if new.is_some_and(|new| Arc::ptr_eq(new, old)) {
                continue;
            }
            alters |= new.is_none_or(|new| new.record != old.record);
            erases |= new.is_none();
            let change = new.map_or(Some(KeyChange::Destroyed), |new| became(old, new));
            events.extend(change.map(|change| KeyEvent {
                key: old.arn.clone(),
                change,
            }));
        }
        if alters {
            self.authorizer.changed();
        }
        if erases {
            self.drop_opened_of_erased();
        }
        self.tell(&events);
    }

    /// An error of reading: nothing is done any more unless the catalogue merely did not answer.
    fn failed_to_read(&self, error: KeyringError) -> KeyringError {
        match &error {
            KeyringError::Catalogue(
                CatalogueError::Unavailable(_) | CatalogueError::Full | CatalogueError::Trimmed,
            ) => tracing::warn!(%error, "changes of other processes are not seen"),
            _ => self.stop(&error),
        }
        error
    }
}

/// What caches are to know of a key that is `new` and was `old`.
fn became(old: &KeyEntry, new: &KeyEntry) -> Option<KeyChange> {
    let pending = old.record.state == KeyState::PendingDeletion;
    if old.record.state != new.record.state {
        return Some(match new.record.state {
            KeyState::Enabled => KeyChange::Enabled,
            KeyState::PendingDeletion => KeyChange::DeletionScheduled,
            _ if pending => KeyChange::DeletionCancelled,
            _ => KeyChange::Disabled,
        });
    }
    let rotated = old.record.current() != new.record.current();
    rotated.then_some(KeyChange::Rotated)
}

/// Records to be read anew. Materials are not among them: one is written once, and what it opens does
/// not change when it is sealed again.
#[derive(Default)]
struct Changed {
    keys: BTreeSet<Key>,
    aliases: BTreeSet<Key>,
}

impl Changed {
    fn note(&mut self, table: &str, key: Key) {
        if table == KEYS.name() {
            self.keys.insert(key);
        } else if table == ALIASES.name() {
            self.aliases.insert(key);
        }
    }
}
