//! What an open volume knows of its owner table: the header of the slot file, and allocation sequences.

use std::{
    io,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use parking_lot::Mutex;

use crate::{owner::SlotHeader, protection::Protection, slot_file::SlotFile};

/// So many allocation sequences are set aside each time a volume is opened.
const SEQUENCES: u64 = 1 << 32;

/// What an open volume knows of its owner table.
pub(super) struct Owners {
    pub(super) header: Mutex<SlotHeader>,
    /// The next allocation sequence, and where those end that were set aside.
    next: AtomicU64,
    end: u64,
    /// An owner of a free slot could not be cleared.
    pub(super) unclear: AtomicBool,
}

impl Owners {
    /// Sets allocation sequences aside, and says in the slot file that the volume is in use; durable after the next sync.
    pub(super) fn begin<P: Protection>(
        store: &SlotFile<P>,
        protection: &P,
        found: SlotHeader,
    ) -> io::Result<Self> {
        let end = found.sequence.checked_add(SEQUENCES);
        let end = end.ok_or_else(|| io::Error::other("no allocation sequence is left"))?;
        let header = SlotHeader {
            closed: false,
            sequence: end,
            revision: found.revision + 1,
            ..found
        };
        store.write_header(protection.owner_key(), &header)?;
        Ok(Self {
            header: Mutex::new(header),
            next: found.sequence.into(),
            end,
            unclear: false.into(),
        })
    }

    /// Says in the slot file that the table is as the log says, which is durable up to there.
    pub(super) fn end<P: Protection>(
        &self,
        store: &SlotFile<P>,
        protection: &P,
        log_epoch: u64,
        log_durable: u64,
    ) -> io::Result<()> {
        let mut header = self.header.lock();
        let closed = SlotHeader {
            closed: true,
            // What was not used is used by the next.
            sequence: self.next.load(SeqCst),
            log_epoch,
            log_durable,
            revision: header.revision + 1,
            ..*header
        };
        store.write_header(protection.owner_key(), &closed)?;
        *header = closed;
        Ok(())
    }

    /// A sequence that no slot was taken with.
    pub(super) fn next(&self) -> io::Result<u64> {
        let next = self.next.fetch_add(1, Relaxed);
        if next < self.end {
            Ok(next)
        } else {
            Err(io::Error::other(
                "too many slots were taken: attach the volume again",
            ))
        }
    }
}
