//! Files and Argon2 block, so they run on the runtime's blocking threads.

use host::lane::{Lane, ShuttingDown};

use crate::error::RootError;

/// A file of a few kilobytes, or one passphrase.
static LANE: Lane = Lane::new(8);

/// Runs `work` off the runtime's workers. If the caller stops waiting, it runs to its end all the same.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RootError> + Send + 'static,
) -> Result<T, RootError> {
    match LANE.run(work).await {
        Ok(done) => done,
        Err(ShuttingDown) => Err(RootError::ShuttingDown),
    }
}
