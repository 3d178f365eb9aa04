//! Where work that may block runs: the runtime's blocking threads, of which each kind of work gets a bounded number.
//!
//! The runtime has one pool of such threads for everything. Were it used freely, slow work of one kind (bulk data on a
//! slow disk) would take every thread, and quick work of another kind (a key, an index) would wait for it. A [`Lane`]
//! lets so many run at a time and keeps the others in line, outside the pool; the lanes of a process together are
//! fewer than the pool has threads.

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// One kind of work.
#[derive(Debug)]
pub struct Lane {
    places: Semaphore,
}

/// The runtime is shutting down, and the work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShuttingDown;

impl Lane {
    /// At most `width` of this kind run at a time.
    pub const fn new(width: usize) -> Self {
        Self {
            places: Semaphore::const_new(width),
        }
    }

    /// Runs `work` off the runtime's workers. If the caller stops waiting before it has begun, it is not done; after
    /// that it runs to its end all the same.
    ///
    /// # Errors
    /// [`ShuttingDown`]
    ///
    /// # Panics
    /// If `work` does.
    pub async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ShuttingDown> {
        joined(self.start(work).await?.await)
    }

    /// Begins `work` as soon as there is a place for it, without waiting for its end: [`joined`] does. Cancel-safe.
    ///
    /// # Errors
    /// [`ShuttingDown`]
    pub async fn start<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, ShuttingDown> {
        let place = self.places.acquire().await.map_err(|_| ShuttingDown)?;
        Ok(tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        }))
    }
}

/// What [`Lane::start`]ed work came to.
///
/// # Errors
/// [`ShuttingDown`]
///
/// # Panics
/// If the work did.
pub fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> Result<T, ShuttingDown> {
    ended.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => ShuttingDown,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_lane_that_is_full_of_stuck_work_holds_up_no_other() {
        static SLOW: Lane = Lane::new(2);
        static QUICK: Lane = Lane::new(1);
        let (release, stuck) = mpsc::channel::<()>();
        let stuck = std::sync::Arc::new(parking_lot::Mutex::new(stuck));
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let stuck = stuck.clone();
                tokio::spawn(SLOW.run(move || stuck.lock().recv().is_ok()))
            })
            .collect();
        while SLOW.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(QUICK.run(|| 7).await, Ok(7));
        for _ in 0..8 {
            release.send(()).unwrap();
        }
        for wait in waits {
            assert_eq!(wait.await.unwrap(), Ok(true));
        }
        assert_eq!(SLOW.places.available_permits(), 2);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        static LANE: Lane = Lane::new(1);
        let failed = tokio::spawn(LANE.run(|| panic!("as it happens"))).await;
        assert!(failed.unwrap_err().is_panic());
        assert_eq!(LANE.run(|| 7).await, Ok(7));
    }
}
