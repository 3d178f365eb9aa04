//! A limit on what all requests together hold in memory.
//!
//! A request takes a [`Share`] before it buffers, once, for all it will need, and gives it back by dropping it. Since none
//! takes a second share while it holds one, none waits for another that waits for it. A request that finds too little
//! waits in line, first come first served, for as long as the limit is patient, and is refused then.
//!
//! Whoever knows the clients may make room for those that wait: [`Memory::scarce`] says when, and an [`Account`] which
//! clients hold anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What is counted in: bytes of a share are rounded up to it.
const UNIT: u64 = 1024;
/// A part of the memory is kept for small shares: those that use a key must not wait for those that move data.
const KEPT: u64 = 8;
/// Small is up to this many bytes.
const SMALL_LEN_MAX: u64 = 64 << 10;

/// The limit. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Memory {
    free: Arc<Semaphore>,
    units: u32,
    /// For small shares when `free` has none left.
    kept: Arc<Semaphore>,
    patience: Duration,
    waiting: watch::Sender<usize>,
}

/// Too little memory was free for as long as the limit is patient. Another try may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// What one client holds.
#[derive(Debug, Default)]
pub struct Account(AtomicU64);

impl Account {
    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A part of the memory; given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    permit: OwnedSemaphorePermit,
    account: Arc<Account>,
}

impl Share {
    fn new(permit: OwnedSemaphorePermit, account: &Arc<Account>) -> Self {
        let share = Self {
            permit,
            account: Arc::clone(account),
        };
        share.account.0.fetch_add(share.len(), Ordering::Relaxed);
        share
    }

    fn len(&self) -> u64 {
        self.permit.num_permits() as u64 * UNIT
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.len(), Ordering::Relaxed);
    }
}

/// Counts one that waits, also if it stops waiting.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|waiting| *waiting += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Memory {
    /// `bytes` in all; a request waits up to `patience` for its share.
    pub fn new(bytes: u64, patience: Duration) -> Arc<Self> {
        let units = |bytes: u64| u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        let kept = bytes / KEPT;
        let (kept, units) = (units(kept), units(bytes - kept));
        Arc::new(Self {
            kept: Arc::new(Semaphore::new(kept as usize)),
            free: Arc::new(Semaphore::new(units as usize)),
            units,
            patience,
            waiting: watch::Sender::new(0),
        })
    }

    /// Takes `bytes`, waiting for them if need be; all there is if that is less, but for what is kept for small shares.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Exhausted`] if they do not come free in time.
    pub async fn take(&self, account: &Arc<Account>, bytes: u64) -> Result<Share, Exhausted> {
        let units = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .min(self.units);
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(units) {
            return Ok(Share::new(permit, account));
        }
        if bytes <= SMALL_LEN_MAX
            && let Ok(permit) = Arc::clone(&self.kept).try_acquire_many_owned(units)
        {
            return Ok(Share::new(permit, account));
        }
        let _waiting = Waiting::new(&self.waiting);
        let permit = Arc::clone(&self.free).acquire_many_owned(units);
        match tokio::time::timeout(self.patience, permit).await {
            Ok(Ok(permit)) => Ok(Share::new(permit, account)),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Exhausted),
        }
    }

    /// Returns when a request waits, with how many do. Cancel-safe.
    pub async fn scarce(&self) -> usize {
        let mut waiting = self.waiting.subscribe();
        let found = waiting.wait_for(|waiting| *waiting > 0).await;
        // The sender is `self`'s.
        found.map_or(0, |waiting| *waiting)
    }

    /// Bytes that are free now.
    pub fn free(&self) -> u64 {
        (self.free.available_permits() + self.kept.available_permits()) as u64 * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// 7 MiB for all, and one more for small shares.
    fn memory() -> Arc<Memory> {
        Memory::new(8 * MIB, Duration::from_secs(5))
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_comes_back_when_it_is_dropped_and_who_waits_is_next() {
        let memory = memory();
        let (a, b) = (Arc::new(Account::default()), Arc::new(Account::default()));
        let first = memory.take(&a, 6 * MIB - 1).await.unwrap();
        assert_eq!((a.held(), memory.free()), (6 * MIB, 2 * MIB));
        let second = memory.take(&b, 3 * MIB);
        let release = async {
            assert_eq!(memory.scarce().await, 1);
            drop(first);
        };
        let (second, ()) = tokio::join!(second, release);
        let second = second.unwrap();
        assert_eq!((a.held(), b.held()), (0, 3 * MIB));
        drop(second);
        assert_eq!(memory.free(), 8 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused_and_waits_no_more() {
        let memory = memory();
        let account = Arc::new(Account::default());
        let _all = memory.take(&account, 7 * MIB).await.unwrap();
        let refused = memory.take(&account, MIB).await;
        assert_eq!(refused.unwrap_err(), Exhausted);
        assert_eq!(*memory.waiting.borrow(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_share_does_not_wait_for_those_that_take_all() {
        let memory = memory();
        let account = Arc::new(Account::default());
        let _all = memory.take(&account, u64::MAX).await.unwrap();
        assert_eq!((account.held(), memory.free()), (7 * MIB, MIB));
        let small: Vec<_> = small_shares(&memory, &account, 16).await;
        assert_eq!((small.len(), memory.free()), (16, 0));
        assert_eq!(
            memory.take(&account, 1).await.unwrap_err(),
            Exhausted,
            "the limit holds for them too"
        );
    }

    async fn small_shares(memory: &Memory, account: &Arc<Account>, count: usize) -> Vec<Share> {
        let mut shares = Vec::new();
        for _ in 0..count {
            shares.push(memory.take(account, SMALL_LEN_MAX).await.unwrap());
        }
        shares
    }
}
