//! Where work runs that may block, and changes that must not be left half-way.

use host::lane::{Lane, ShuttingDown};

use crate::VolumeError;

/// Opening a volume may be long; beyond so many, the next waits.
static LANE: Lane = Lane::new(64);

/// Runs a change to its end, also if its caller stops waiting.
pub(crate) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, VolumeError>> + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::spawn(change)
        .await
        .map_err(|_| VolumeError::ShuttingDown)?
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    LANE.run(work)
        .await
        .map_err(|ShuttingDown| VolumeError::ShuttingDown)?
}
