//! Buckets that other processes make, change and delete, seen here within a second.

use std::sync::{Arc, Weak};
use std::time::Duration;

use catalogue::{CatalogueError, Sequence};

use super::registry::Registry;
use crate::error::Error;

/// How long to wait before a catalogue that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// The task that follows; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows until what it returns, or the registry, is dropped, or the catalogue has stopped. Needs a tokio runtime.
pub(crate) fn follow(registry: &Arc<Registry>) -> Following {
    let weak = Arc::downgrade(registry);
    Following(tokio::spawn(async move {
        let mut after = Sequence(0);
        while let Some(result) = step(&weak, &mut after).await {
            let Err(error) = result else { continue };
            tracing::warn!(%error, "changes of buckets by other processes are not seen");
            if let Error::Catalogue(CatalogueError::Stopped(_)) = error {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }))
}

/// Waits for a commit after `after` and catches up with it. `None` if the registry is gone.
async fn step(weak: &Weak<Registry>, after: &mut Sequence) -> Option<Result<(), Error>> {
    // Not held while waiting: who drops the registry is not held up.
    let catalogue = Arc::clone(&weak.upgrade()?.catalogue);
    let waited = catalogue.wait(*after).await;
    let registry = weak.upgrade()?;
    match waited {
        Ok(_) | Err(CatalogueError::Trimmed) => {
            let mut followed = registry.followed.lock().await;
            let caught_up = registry.catch_up(&mut followed).await;
            *after = *followed;
            Some(caught_up)
        }
        Err(error) => Some(Err(error.into())),
    }
}
