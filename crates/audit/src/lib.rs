//! The audit log: one JSON line for every request, durable before the request is answered.
//!
//! Callers hand their [`Event`] to [`AuditLog::record`] and wait. Whatever has gathered since the last sync is
//! numbered, chained and written as one group with one `fdatasync` (group commit): a lone caller waits for one
//! sync, many callers share one. A group goes to the journal first, a file beside the folder that is written over and
//! over, and from there into the segments, which hold nothing but records.
//!
//! A change of what is managed leaves two records: its [intent](AuditLog::intent) before it is made, and its
//! [outcome](Intent::outcome) after. An intent whose outcome a crash took gets the outcome `Unknown` at the next
//! start.
//!
//! It promises: when [`AuditLog::record`] returns `Ok`, the record and all with lower numbers are durable, and stand
//! in the live segment for whoever follows it. No number is used twice. Each record carries a digest over itself and
//! the digest before it, so that [`verify`](verify::verify) finds records that were dropped, put in another order, cut
//! off or rewritten. Opening refuses a log that is behind what the journal knows, or damaged, and says where: a torn
//! tail is only what was on its way when the machine stopped, and it is never cut off in silence.
//! A failed sync is final: every later record fails until the log is opened anew. A full disk is not: records fail
//! while it is full, and are taken again when there is space.
//!
//! It does not promise to notice that somebody who has the disk rewrote all of it, journal included: the digests
//! have no key. `FORMAT.md` has the fields.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod chain;
mod event;
mod journal;
mod recover;
mod segment;
pub mod verify;
mod writer;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use host::{Clock, Disk, OsDisk, SystemClock};

pub use accept::accept_loss;
pub use event::Event;
use writer::{Kind, Shared};

/// Greatest length of one record, in bytes. Two encryption contexts of the greatest length, every
/// byte escaped, fit three times.
pub(crate) const RECORD_LEN_MAX: usize = 256 << 10;

/// Why a record is not durable, or the log does not open. Ours or the disk's fault.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A write or sync failed, and what is on the disk is not known; no record is accepted until the log is opened
    /// anew.
    #[error("the log failed and takes no more records: {0}")]
    Failed(Arc<str>),
    /// The disk is full. The log tries again by itself; the record may yet appear in it.
    #[error("the disk is full: no record is taken until there is space")]
    Full,
    /// The record is longer than any record should be. Nothing was written.
    #[error("a record of {len} bytes is too long")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Bytes that are neither a record in its turn nor what a crash can leave.
    #[error(
        "{file} is damaged at byte {offset}: {why}. Put it back from a copy, or go on without what is lost: sealgate doctor --accept-older audit"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What did not hold.
        why: &'static str,
    },
    /// Records that were durable are not there.
    #[error(
        "{what}. Put back what is missing, or go on without it: sealgate doctor --accept-older audit"
    )]
    Lost {
        /// What is missing.
        what: String,
    },
    /// A format that this build does not know.
    #[error("{file} has format {version}, which this build does not know")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u16,
    },
    /// A file or folder cannot be opened, read or written.
    #[error("{path}: {message}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

impl AuditError {
    fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            message: error.to_string(),
        }
    }
}

/// How a log is kept.
#[derive(Clone)]
pub struct AuditOptions {
    /// Its folder, made if it is not there (mode 0700). The journal stands beside it, its name ending in `.journal`.
    pub dir: PathBuf,
    /// A segment is closed before it is longer than this, in bytes; one group may be longer.
    pub segment_len: u64,
    /// Records waiting for the disk, at most; then callers wait.
    pub queue_len: usize,
    /// Whether [`AuditLog::data_event`] records anything.
    pub data_events: bool,
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// Tells the time of the records that the log itself makes.
    pub clock: Arc<dyn Clock>,
}

impl AuditOptions {
    /// The defaults: segments of 64 MiB, 1024 records waiting, no data events, the operating system's disk and clock.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_len: 64 << 20,
            queue_len: writer::GROUP_RECORDS_MAX,
            data_events: false,
            disk: Arc::new(OsDisk),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        journal_of(&self.dir)
    }
}

impl std::fmt::Debug for AuditOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditOptions")
            .field("dir", &self.dir)
            .field("segment_len", &self.segment_len)
            .field("queue_len", &self.queue_len)
            .field("data_events", &self.data_events)
            .finish_non_exhaustive()
    }
}

pub(crate) fn journal_of(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".journal");
    dir.with_file_name(name)
}

/// The last durable record: what another part keeps to know when this one is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its number; 0 before the first.
    pub sequence: u64,
    /// Its digest.
    pub digest: [u8; 32],
}

/// The log. Cheap to clone. When the last clone is dropped, what was accepted is written, the
/// segment is synced and the threads joined.
#[derive(Clone)]
pub struct AuditLog {
    shared: Arc<Owner>,
}

/// Ends the threads when the last log is gone.
struct Owner(Arc<Shared>, Vec<std::thread::JoinHandle<()>>);

/// A change that was announced: what is to follow is its outcome. Dropped without one, it gets the outcome `Unknown`
/// when the log is opened the next time.
#[must_use = "a change that was announced needs an outcome"]
#[derive(Debug)]
pub struct Intent {
    log: AuditLog,
    sequence: u64,
}

impl AuditLog {
    /// Opens the log in `options.dir`, or makes it, and starts its threads. Blocking.
    ///
    /// A log that is behind its journal or damaged is refused, with nothing changed. Intents without an
    /// outcome get one, and numbers that were given out and never became durable are named in a record of their own.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        let opened = recover::open(&options)?;
        Self::start(opened, &options)
    }

    fn start(opened: recover::Opened, options: &AuditOptions) -> Result<Self, AuditError> {
        let notes = opened.notes.clone();
        let shared = Arc::new(Shared::new(opened, options));
        shared.note(notes)?;
        let threads = (0..2)
            .map(|n| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("audit-{n}"))
                    .spawn(move || shared.run())
            })
            .collect::<Result<Vec<_>, _>>();
        match threads {
            Ok(threads) => Ok(Self {
                shared: Arc::new(Owner(shared, threads)),
            }),
            Err(error) => {
                shared.close();
                Err(AuditError::Failed(error.to_string().into()))
            }
        }
    }

    /// Records `event`; returns its number when it is durable.
    ///
    /// Cancelled while it waits for room in the queue, nothing is written; cancelled later, the
    /// record is written all the same.
    pub async fn record(&self, event: &Event<'_>) -> Result<u64, AuditError> {
        self.shared.0.record(event, Kind::Plain).await
    }

    /// Records that what `event` says is about to be done, and is durable when it returns: the change comes after it,
    /// and its outcome after the change. `event.outcome` is not used; the record says `Intended`.
    pub async fn intent(&self, event: &Event<'_>) -> Result<Intent, AuditError> {
        let event = Event {
            outcome: "Intended",
            ..event.clone()
        };
        let sequence = self.shared.0.record(&event, Kind::Intent).await?;
        Ok(Intent {
            log: self.clone(),
            sequence,
        })
    }

    /// Hands over the record of an access to data, if those are recorded at all ([`AuditOptions::data_events`]). It
    /// shares the next group with whatever else there is; nobody waits until it is durable, only for room in the queue.
    pub async fn data_event(&self, event: &Event<'_>) -> Result<(), AuditError> {
        if self.shared.0.data_events {
            self.shared.0.hand_over(event, Kind::Plain).await?;
        }
        Ok(())
    }

    /// Fails if the log takes no records now: for good, or because the disk is full.
    pub fn check(&self) -> Result<(), AuditError> {
        self.shared.0.check()
    }

    /// The last record that is durable.
    pub fn mark(&self) -> Mark {
        self.shared.0.mark()
    }
}

impl Intent {
    /// The number of its record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Records what came of it: `Success`, the code of an exception, or `Unknown`. Returns the record's number when it
    /// is durable; cancelled earlier, it is written all the same unless the queue had no room.
    pub async fn outcome(self, event: &Event<'_>) -> Result<u64, AuditError> {
        let kind = Kind::Outcome(self.sequence);
        self.log.shared.0.record(event, kind).await
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog")
            .field("mark", &self.mark())
            .field("state", &self.check())
            .finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
        for thread in self.1.drain(..) {
            // A panic there has failed the log already; there is nobody left to tell.
            let _ = thread.join();
        }
        self.0.finish();
    }
}
