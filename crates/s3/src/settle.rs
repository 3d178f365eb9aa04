//! Changes that run to their end.
//!
//! A request may go away while its change waits for a disk, and the change may be made all the same. Who holds
//! something until the change's fate is known (the right to seal, a turn) must not let go of it then: the change runs
//! as a task of its own.

use std::future::Future;

use crate::store::StoreError;

/// Runs `change` to its end, also if the caller goes away before. Needs a tokio runtime, and ends only with that.
pub(crate) async fn to_the_end<T, E>(
    change: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(StoreError::Closed.into()),
        },
    }
}
