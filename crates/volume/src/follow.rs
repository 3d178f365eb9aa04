//! Changes that other processes made, seen here within a second.
//!
//! A task waits for commits, reads the changed rows and takes them over. It ends with the registry. While the
//! catalogue does not answer, volumes are served as they were last known.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use catalogue::{CatalogueError, Key, Sequence};

use crate::{
    registry::Registry,
    vault::{TABLE, volume_id},
};

/// Changes that are looked at together.
const CHANGES: usize = 500;
/// How long to wait before a catalogue that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// The task. Ends it when it is dropped.
pub(crate) struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows until the registry is dropped or has stopped. Needs a tokio runtime.
pub(crate) fn follow(registry: &Arc<Registry>) -> Following {
    let weak = Arc::downgrade(registry);
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
async fn step(weak: &Weak<Registry>, after: &mut Sequence) -> Option<bool> {
    let catalogue = Arc::clone(&weak.upgrade()?.options.catalogue);
    let waited = catalogue.wait(*after).await;
    let registry = weak.upgrade()?;
    let caught_up = match waited {
        Ok(_) | Err(CatalogueError::Trimmed) => {
            let mut followed = registry.followed.lock().await;
            let caught_up = registry.catch_up(&mut followed).await;
            *after = *followed;
            caught_up
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &caught_up {
        tracing::warn!(%error, "changes that other processes make to volumes are not seen");
        registry.judge(error);
    }
    registry.check_running().ok()?;
    Some(caught_up.is_err())
}

impl Registry {
    /// Takes over what was committed after `followed`. The caller has the turn.
    async fn catch_up(&self, followed: &mut Sequence) -> Result<(), CatalogueError> {
        loop {
            let catalogue = &self.options.catalogue;
            let changes = match catalogue.changes(*followed, CHANGES).await {
                Err(CatalogueError::Trimmed) => {
                    self.load(followed).await?;
                    return Ok(());
                }
                changes => changes?,
            };
            let changed: BTreeSet<Key> = changes
                .changes
                .into_iter()
                .filter(|change| change.table == TABLE.name() && change.key.scope == self.scope)
                .map(|change| change.key)
                .collect();
            for key in changed {
                let found = catalogue.get(TABLE, &key).await?;
                if let Some(id) = volume_id(&key) {
                    self.take_over(id, found.as_ref());
                }
            }
            if changes.upto == *followed {
                return Ok(());
            }
            *followed = changes.upto;
        }
    }
}
