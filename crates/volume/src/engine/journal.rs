//! The log as requests use it: changes of the map are queued in order, and written before they are answered.
//!
//! A change is queued under the range locks of its chunks, so the log has the changes of a chunk in the order in which the
//! map had them. Whoever needs its change written takes the file's lock and writes whatever is queued by then, as frames of
//! one call: threads that change the map at the same time share that call. Nothing is synced here but by
//! [`commit`](super::commit).
//!
//! Space comes first: [`Journal::claim`] sets it aside, or fails before anything has changed. Two locks, taken in this
//! order: the file's, the queue's.

use std::io;

use crypto::mac::MacKey;
use parking_lot::{Mutex, MutexGuard};

use crate::log::{
    Batch,
    writer::{LogFile, MARKS_LEN, Position, RESERVE_LEN},
};

/// A queue longer than this is written, whether or not somebody waits for it.
const QUEUE_LEN_MAX: usize = 64 << 10;

/// When the log has more than so many bytes of changes that are not flushed, they are flushed in the background: it bounds
/// what is compared after a crash, and how long overwriting what is new takes a record. At 64 bytes a sector these are
/// 256 MiB.
const UNSETTLED_LEN_MAX: u64 = if cfg!(test) { 16 << 10 } else { 4 << 20 };

/// The metadata log of a volume in use.
pub(super) struct Journal {
    queue: Mutex<Queue>,
    file: Mutex<Current>,
}

struct Queue {
    batch: Batch,
    /// How many changes were ever queued.
    queued: u64,
    /// Bytes set aside for changes that are not queued yet.
    claimed: u64,
    /// Bytes that the file has ready for all of this.
    room: u64,
    /// Rises with each round of flush.
    epoch: u64,
}

/// The file, and what is known of it.
pub(super) struct Current {
    pub(super) log: LogFile,
    /// How many of the changes that were queued are written.
    written: u64,
    /// An append has failed, or panicked: what was queued may be lost.
    broken: bool,
    /// Where the first frame is that no mark speaks of, roughly.
    pub(super) unsettled_from: u64,
    /// Where the log is to be written anew.
    pub(super) checkpoint_at: u64,
}

impl Current {
    /// Whether the log is to be written anew.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.log.end() > self.checkpoint_at
    }

    /// Whether what it says is to be flushed.
    pub(super) fn wants_flush(&self) -> bool {
        self.log.end() > self.unsettled_from + UNSETTLED_LEN_MAX
    }
}

/// How much of the reserve a change may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Takes space, so it leaves the reserve alone.
    Space,
    /// Frees space, or changes what has space.
    NoSpace,
    /// Says, when the volume is opened, what of the log was not borne out. All but the mark of the flush that follows.
    Correction,
    /// Makes durable what was answered.
    Mark,
}

impl Need {
    fn keep(self) -> u64 {
        match self {
            Self::Space => RESERVE_LEN,
            Self::NoSpace => MARKS_LEN,
            Self::Correction => MARK_LEN_MAX as u64,
            Self::Mark => 0,
        }
    }
}

/// Space in the log that was set aside. Given back when dropped; by then the change is queued, and counts itself.
pub(super) struct Claim<'a> {
    queue: &'a Mutex<Queue>,
    len: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.queue.lock().claimed -= self.len;
    }
}

/// A change that was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    number: u64,
    /// Which round of flush it is before.
    pub(super) epoch: u64,
    /// Whether the queue is long.
    pub(super) long: bool,
}

/// A point in the log, everything before which is written.
pub(super) struct Written {
    pub(super) position: Position,
    /// Changes before have this epoch or an earlier one.
    pub(super) epoch: u64,
    /// Whether a mark speaks of everything before.
    pub(super) settled: bool,
}

impl Journal {
    /// Goes on with a log. `checkpoint_at`: where it is to be written anew.
    pub(super) fn new(log: LogFile, checkpoint_at: u64) -> Self {
        Self {
            queue: Mutex::new(Queue {
                batch: Batch::default(),
                queued: 0,
                claimed: 0,
                room: log.room(),
                epoch: 1,
            }),
            file: Mutex::new(Current {
                written: 0,
                broken: false,
                unsettled_from: log.end(),
                checkpoint_at,
                log,
            }),
        }
    }

    /// Sets aside space for a change of at most `len` bytes, frames included. An error has changed nothing.
    pub(super) fn claim(&self, len: usize, need: Need) -> io::Result<Claim<'_>> {
        let len = len as u64;
        loop {
            if let Some(claim) = self.try_claim(len, need) {
                return Ok(claim);
            }
            let mut file = self.file.lock();
            self.prepare(&mut file.log, len, need)?;
        }
    }

    fn try_claim(&self, len: u64, need: Need) -> Option<Claim<'_>> {
        let mut queue = self.queue.lock();
        if queue.spoken_for() + len + need.keep() > queue.room {
            return None;
        }
        queue.claimed += len;
        Some(Claim {
            queue: &self.queue,
            len,
        })
    }

    /// Makes the file longer, if it has no room for `len` more bytes.
    fn prepare(&self, log: &mut LogFile, len: u64, need: Need) -> io::Result<()> {
        // The file's lock is held, so nothing that is queued can leave the queue meanwhile; more may come, and is seen by
        // the next try.
        let spoken_for = self.queue.lock().spoken_for();
        log.prepare(spoken_for + len, need.keep())?;
        self.queue.lock().room = log.room();
        Ok(())
    }

    /// Queues a change, for which there is a [`Claim`]. Call it under the range locks of the chunks that it is of.
    pub(super) fn put(&self, change: impl FnOnce(&mut Batch)) -> Ticket {
        let mut queue = self.queue.lock();
        change(&mut queue.batch);
        queue.queued += 1;
        Ticket {
            number: queue.queued,
            epoch: queue.epoch,
            long: queue.batch.len() > QUEUE_LEN_MAX,
        }
    }

    /// Sees to it that a change and all before it are written. An error is final. Gives the file, if it has grown.
    pub(super) fn write(
        &self,
        key: &MacKey,
        ticket: Ticket,
    ) -> io::Result<Option<MutexGuard<'_, Current>>> {
        let mut file = self.file.lock();
        if file.broken {
            return Err(broken());
        }
        if file.written >= ticket.number {
            return Ok(None);
        }
        self.drain(key, &mut file, false)?;
        Ok(Some(file))
    }

    /// Writes all that is queued. `next`: what is queued from now on is of the next epoch.
    fn drain(&self, key: &MacKey, file: &mut Current, next: bool) -> io::Result<u64> {
        if file.broken {
            return Err(broken());
        }
        file.broken = true;
        let (batch, queued, epoch) = {
            let mut queue = self.queue.lock();
            let batch = std::mem::take(&mut queue.batch);
            // What is appended is no room any more; how much exactly is known afterwards.
            queue.room = queue.room.saturating_sub(batch.len() as u64);
            let epoch = queue.epoch;
            queue.epoch += u64::from(next);
            (batch, queue.queued, epoch)
        };
        let payloads = batch.finish();
        if !payloads.is_empty() {
            file.log.append(key, &payloads)?;
        }
        file.written = queued;
        file.broken = false;
        self.queue.lock().room = file.log.room();
        Ok(epoch)
    }

    /// Writes all that is queued, and ends the epoch if `next`. An error is final.
    pub(super) fn write_all(&self, key: &MacKey, next: bool) -> io::Result<Written> {
        let mut file = self.file.lock();
        let epoch = self.drain(key, &mut file, next)?;
        let position = file.log.position();
        Ok(Written {
            position,
            epoch,
            settled: file.log.settled() == position.sequence,
        })
    }

    /// Sets aside space for a mark, and appends it. The error within is final, the one without has changed nothing.
    pub(super) fn mark(&self, key: &MacKey, up_to: Position) -> io::Result<io::Result<()>> {
        let _claim = self.claim(MARK_LEN_MAX, Need::Mark)?;
        let mut file = self.file.lock();
        let mut append = || {
            if file.broken {
                return Err(broken());
            }
            file.broken = true;
            file.log.mark(key, up_to.sequence)?;
            file.broken = false;
            file.unsettled_from = up_to.offset;
            Ok(())
        };
        let outcome = append();
        self.queue.lock().room = file.log.room();
        Ok(outcome)
    }

    /// The file, locked.
    pub(super) fn file(&self) -> MutexGuard<'_, Current> {
        self.file.lock()
    }

    /// Puts another file in the place of this one: writes what is queued, lets `switch` make the other one of it, and gives
    /// that the space that was promised. An error of `switch` leaves the old one.
    pub(super) fn replace<E>(
        &self,
        key: &MacKey,
        on_error: impl FnOnce(io::Error) -> E,
        switch: impl FnOnce(&mut Current, u64) -> Result<LogFile, E>,
    ) -> Result<(), E> {
        let mut file = self.file.lock();
        if let Err(error) = self.drain(key, &mut file, false) {
            return Err(on_error(error));
        }
        // What may still be claimed while the other file is made is what that one must have room for.
        let promised = {
            let mut queue = self.queue.lock();
            queue.room = queue.room.min(queue.claimed + RESERVE_LEN);
            queue.room
        };
        let outcome = switch(&mut file, promised).map(|log| file.log = log);
        self.queue.lock().room = file.log.room();
        outcome
    }
}

/// Longest frame of a mark.
const MARK_LEN_MAX: usize = 256;

impl Queue {
    /// Bytes that are set aside or queued.
    fn spoken_for(&self) -> u64 {
        self.batch.len() as u64 + self.claimed
    }
}

fn broken() -> io::Error {
    io::Error::other("an earlier append failed")
}
