//! The threads that may wait for the disk.

use host::lane::{Lane, ShuttingDown};

use crate::store::StoreError;

/// Where data files are read and written; and where the index is, so that no data holds up a look-up.
pub(super) static BULK: Lane = Lane::new(32);
pub(super) static INDEX: Lane = Lane::new(32);

/// Reads and writes data files off the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    in_lane(&BULK, work).await
}

pub(super) async fn in_lane<T: Send + 'static>(
    lane: &'static Lane,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match lane.run(work).await {
        Ok(done) => done,
        Err(ShuttingDown) => Err(StoreError::Closed),
    }
}

pub(super) fn joined<T>(
    result: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    match host::lane::joined(result) {
        Ok(done) => done,
        Err(ShuttingDown) => Err(StoreError::Closed),
    }
}
