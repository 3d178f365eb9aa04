//! Files and Argon2 block, so they run on the runtime's blocking threads.

use crate::error::RootError;

/// Runs `work` off the runtime's workers. If the caller stops waiting, it runs to its end all the same.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RootError> + Send + 'static,
) -> Result<T, RootError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RootError::ShuttingDown),
        },
    }
}
