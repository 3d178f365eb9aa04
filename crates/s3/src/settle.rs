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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_change_goes_on_and_holds_what_it_holds_when_its_caller_goes_away() {
        let (go, gone) = oneshot::channel::<()>();
        let held = Arc::new(());
        let (done, ended) = oneshot::channel();
        let guard = Arc::clone(&held);
        let mut change = Box::pin(to_the_end(async move {
            let _guard = guard;
            let _ = gone.await;
            let _ = done.send(());
            Ok::<(), StoreError>(())
        }));
        assert!(change.as_mut().now_or_never().is_none());
        drop(change);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 2);
        go.send(()).unwrap();
        ended.await.unwrap();
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_change_says_is_passed_on() {
        let refused = to_the_end(async { Err::<(), _>(StoreError::NoSuchKey) }).await;
        assert!(matches!(refused, Err(StoreError::NoSuchKey)));
    }
}
