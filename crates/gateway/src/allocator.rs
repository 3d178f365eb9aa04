//! The allocator, told to give memory back.
//!
//! Two of its habits keep memory that nobody uses. It asks the kernel for huge pages, so that the first byte of a buffer
//! takes 2 MiB: the process refuses them ([`refuse_huge_pages`]). And it gives freed memory back when it next frees some,
//! a second later or more: after the last request of a burst that is never, so it is asked to now and then
//! ([`give_back`]). Giving back at each free would cost a page fault for each page of each buffer under load.
#![allow(
    unsafe_code,
    reason = "the allocator has no safe call that gives memory back"
)]

use std::time::Duration;

/// Requests a second were 1.17 times those of glibc's allocator, in the same run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often it is asked to give back. With nothing to give back it takes some microseconds.
pub(crate) const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(5);

/// Refuses transparent huge pages for the whole process, from now on. Where the kernel does not know the call, it has none.
pub(crate) fn refuse_huge_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Gives back to the system what was freed, by this thread or by those that have ended, and what all threads have freed of
/// large blocks.
pub(crate) fn give_back() {
    // SAFETY: takes no pointer; may be called by any thread at any time (mimalloc's manual, `mi_collect`).
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_refused_and_memory_stays_usable_when_it_is_given_back() {
        refuse_huge_pages();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
        let kept = vec![7_u8; 8 << 20];
        drop(vec![1_u8; 64 << 20]);
        give_back();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
