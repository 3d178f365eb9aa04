//! The stamp in the object index, and the look through one that is too long to be read at a start.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parts::{Part, Stamp, StampError, Stamped, Stamps};
use s3::store::StoreError;
use s3::store::local::{LocalStore, Through, stamp};
use tokio::sync::watch;

use super::wrong;

/// Between two steps of a look through the index: requests come first.
const PAUSE: Duration = Duration::from_millis(20);

/// The stamp in the object index.
pub(super) struct IndexStamp {
    pub(super) folder: PathBuf,
    /// Once it is open, the only way to it.
    pub(super) store: OnceLock<Arc<LocalStore>>,
    pub(super) stamps: Arc<Stamps>,
    /// Whether an index that is not open is looked at page by page, however long it is.
    pub(super) whole: AtomicBool,
}

impl IndexStamp {
    async fn bytes(&self) -> Result<Option<Vec<u8>>, StampError> {
        let read = match self.store.get() {
            Some(store) => store.stamp().await,
            None => {
                let (folder, whole) = (self.folder.clone(), self.whole.load(Ordering::Relaxed));
                tokio::task::spawn_blocking(move || stamp::inspect(&folder, whole))
                    .await
                    .unwrap_or(Err(StoreError::Closed))
            }
        };
        read.map_err(wrong::of_index)
    }
}

#[async_trait]
impl Stamped for IndexStamp {
    fn part(&self) -> Part {
        Part::Index
    }

    async fn read(&self) -> Result<Option<Stamp>, StampError> {
        match self.bytes().await? {
            None => Ok(None),
            Some(bytes) => self.stamps.open(Part::Index, &bytes).map(Some),
        }
    }

    async fn write(&self, new: Stamp) -> Result<(), String> {
        let sealing = self.stamps.sealing();
        let bytes = self.stamps.seal(&sealing, Part::Index, new);
        let store = self.store.get().cloned();
        let folder = self.folder.clone();
        // A task of its own: given up half-way, a rotation would go on before it is known what the index has.
        let written = tokio::spawn(async move {
            let written = match store {
                Some(store) => store.set_stamp(bytes).await,
                None => tokio::task::spawn_blocking(move || stamp::replace(&folder, &bytes))
                    .await
                    .unwrap_or(Err(StoreError::Closed)),
            };
            drop(sealing);
            written
        });
        match written.await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn is_stale(&self) -> Result<bool, String> {
        let bytes = self.bytes().await.map_err(|error| error.to_string())?;
        Ok(bytes.is_some_and(|bytes| self.stamps.is_stale(&bytes)))
    }
}

/// Looks through an index that was too long to be read before the start, once, until `stop`. Damage stops the store, which
/// says so by itself.
pub(crate) async fn look_through(objects: Arc<LocalStore>, mut stop: watch::Receiver<bool>) {
    if objects.was_looked_at() {
        return;
    }
    let mut at = Through::default();
    loop {
        match objects.look_through(at).await {
            Ok(Some(next)) => at = next,
            Ok(None) => break,
            Err(StoreError::Closed | StoreError::Stopped(_) | StoreError::DamagedIndex(_)) => {
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the object index could not be looked through for damage");
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
    tracing::info!("the object index was looked through: no page of it is damaged");
}
