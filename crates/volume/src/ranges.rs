//! Locks on ranges of a volume, by chunk.
//!
//! Reads share, changes exclude, so that a sector is seen old or new, and a read-modify-write of part of a sector loses
//! nothing. There are 1024 locks for any number of chunks. Whoever needs several takes those of one window (an aligned
//! group of 16 chunks) in rising order, and never two windows at a time, so nobody waits in a circle.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::geometry::{CHUNK_LEN, Chunk};

/// Chunks of a window. 8 MiB: an I/O of that length is as fast as a longer one.
pub(crate) const WINDOW_CHUNKS: u32 = 16;
/// Bytes of a window. A whole number of them makes a key region, so no run of sectors crosses from one to another.
pub(crate) const WINDOW_LEN: u64 = CHUNK_LEN * WINDOW_CHUNKS as u64;
/// A multiple of the window's chunks, so that a window's locks are neighbours.
const LOCKS: usize = 1024;

/// The locks of one volume.
pub(crate) struct Ranges {
    locks: Box<[RwLock<()>]>,
}

/// Locks, held until dropped and for nothing else.
pub(crate) enum Held<G> {
    /// The usual case, without an allocation.
    One(#[allow(dead_code)] G),
    /// Some chunks of a window.
    Many(#[allow(dead_code)] Vec<G>),
}

impl Ranges {
    pub(crate) fn new() -> Self {
        Self {
            locks: (0..LOCKS).map(|_| RwLock::new(())).collect(),
        }
    }

    fn of(&self, first: Chunk, last: Chunk) -> &[RwLock<()>] {
        assert!(
            first <= last && first.0 / WINDOW_CHUNKS == last.0 / WINDOW_CHUNKS,
            "a lock is taken within one window"
        );
        let at = first.0 as usize % LOCKS;
        &self.locks[at..=at + (last.0 - first.0) as usize]
    }

    /// Waits until nobody changes these chunks, all of one window, and keeps it so.
    pub(crate) fn read(&self, first: Chunk, last: Chunk) -> Held<RwLockReadGuard<'_, ()>> {
        match self.of(first, last) {
            [one] => Held::One(one.read()),
            many => Held::Many(many.iter().map(RwLock::read).collect()),
        }
    }

    /// Waits until nobody uses these chunks, all of one window, and keeps it so.
    pub(crate) fn write(&self, first: Chunk, last: Chunk) -> Held<RwLockWriteGuard<'_, ()>> {
        match self.of(first, last) {
            [one] => Held::One(one.write()),
            many => Held::Many(many.iter().map(RwLock::write).collect()),
        }
    }
}

/// Cuts `len` bytes from `offset` into pieces that lie within one window each: offset and length.
pub(crate) fn windows(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let piece = (at, (WINDOW_LEN - at % WINDOW_LEN).min(end - at));
            at += piece.1;
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::REGION_LEN;

    #[test]
    fn a_window_never_crosses_a_key_region() {
        assert_eq!(REGION_LEN % WINDOW_LEN, 0);
    }

    #[test]
    fn windows_cover_a_range_without_gaps() {
        let pieces: Vec<_> = windows(WINDOW_LEN - 5, WINDOW_LEN + 10).collect();
        assert_eq!(
            pieces,
            [
                (WINDOW_LEN - 5, 5),
                (WINDOW_LEN, WINDOW_LEN),
                (2 * WINDOW_LEN, 5)
            ]
        );
        assert_eq!(windows(7, 0).count(), 0);
    }

    #[test]
    fn a_change_excludes_and_reads_share() {
        let ranges = Ranges::new();
        let held = ranges.read(Chunk(0), Chunk(3));
        let _also = ranges.read(Chunk(3), Chunk(3));
        assert!(ranges.of(Chunk(3), Chunk(3))[0].try_write().is_none());
        drop(held);
        assert!(ranges.of(Chunk(2), Chunk(2))[0].try_write().is_some());
    }

    #[test]
    #[should_panic(expected = "within one window")]
    fn locks_of_two_windows_are_not_taken_at_once() {
        let ranges = Ranges::new();
        let _held = ranges.read(Chunk(15), Chunk(16));
    }
}
