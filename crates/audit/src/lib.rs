//! The audit log: one JSON line for every request, durable before the request is answered.
//!
//! Callers hand their [`Event`] to [`AuditLog::append`] and wait. One thread gives the records their
//! sequence numbers and writes whatever has gathered since the last sync in one piece with one
//! `fdatasync` (group commit): a lone caller waits for one sync, many callers share one.
//!
//! It promises: when `append` returns `Ok`, the record and all with lower numbers are durable; the
//! numbers rise by one without gaps, across segments and restarts. A failed write or sync is
//! sticky: nothing is retried and then called good, every later `append` fails until the log is
//! opened anew. A last write torn by a crash is cut off when the log is opened, which is logged,
//! and what was cut off is kept beside it.
//!
//! It does not promise to notice that somebody with the disk rewrote the log: there is no chain of
//! hashes yet. `FORMAT.md` has the fields.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod event;
mod segment;
mod writer;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};

pub use event::Event;
pub use segment::SegmentSink;

/// Greatest length of one record, in bytes. Two encryption contexts of the greatest length, every
/// byte escaped, fit three times.
pub(crate) const RECORD_LEN_MAX: usize = 256 << 10;

/// Why a record is not durable. Ours or the disk's fault.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A write or sync failed; no record is accepted until the log is opened anew.
    #[error("the log failed and takes no more records: {0}")]
    Failed(Arc<str>),
    /// The record is longer than any record should be. Nothing was written.
    #[error("a record of {len} bytes is too long")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Damage before the last record that may have been torn.
    #[error("segment {segment} is damaged at byte {offset}: {why}")]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where.
        offset: u64,
        /// What did not hold.
        why: &'static str,
    },
    /// The directory cannot be opened or written.
    #[error("{path}: {message}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Where batches of records go. [`SegmentSink`] is the real one; tests fail on purpose.
pub trait AuditSink: Send + 'static {
    /// Makes `lines` (whole lines, the first numbered `first`) durable, or fails for good: after an
    /// error it is not called again.
    fn append(&mut self, first: u64, lines: &[u8]) -> std::io::Result<()>;
}

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Its directory, made if it is not there (mode 0700).
    pub dir: PathBuf,
    /// A segment is closed when it is this long, in bytes.
    pub segment_len: u64,
    /// Records waiting for the disk, at most; then callers wait.
    pub queue_len: usize,
}

impl AuditOptions {
    /// The defaults: segments of 64 MiB, 4096 records waiting.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_len: 64 << 20,
            queue_len: 4096,
        }
    }
}

/// The log. Cheap to clone. When the last clone is dropped, what was accepted is written, the
/// segment is closed and the thread joined.
#[derive(Clone)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Option<mpsc::Sender<Pending>>,
    failure: Arc<OnceLock<Arc<str>>>,
    thread: Option<JoinHandle<()>>,
}

/// A record on its way to the thread.
struct Pending {
    /// The record's JSON object from after `{"seq":N,`, with its newline.
    rest: Vec<u8>,
    durable: oneshot::Sender<Result<u64, AuditError>>,
}

impl AuditLog {
    /// Opens the log in `options.dir`, cuts a torn last write off and starts its thread. Blocking.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        let (sink, next) = SegmentSink::open(&options.dir, options.segment_len)?;
        Self::with_sink(Box::new(sink), next, options.queue_len)
    }

    /// A log that writes to `sink`, the next record being number `next`.
    pub fn with_sink(
        sink: Box<dyn AuditSink>,
        next: u64,
        queue_len: usize,
    ) -> Result<Self, AuditError> {
        let (queue, pending) = mpsc::channel(queue_len.max(1));
        let failure = Arc::new(OnceLock::new());
        let writer = writer::Writer::new(sink, next, Arc::clone(&failure));
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(pending))
            .map_err(|error| AuditError::Failed(error.to_string().into()))?;
        Ok(Self {
            shared: Arc::new(Shared {
                queue: Some(queue),
                failure,
                thread: Some(thread),
            }),
        })
    }

    /// Writes `event`; returns its sequence number when it is durable.
    ///
    /// Cancelled while it waits for room in the queue, nothing is written; cancelled later, the
    /// record is written all the same.
    pub async fn append(&self, event: &Event<'_>) -> Result<u64, AuditError> {
        self.check()?;
        let rest = event.to_line();
        if rest.len() > RECORD_LEN_MAX {
            return Err(AuditError::TooLong { len: rest.len() });
        }
        let (durable, done) = oneshot::channel();
        let queue = self.shared.queue.as_ref().expect("taken only on drop");
        let ended = || AuditError::Failed("its thread has ended".into());
        queue
            .send(Pending { rest, durable })
            .await
            .map_err(|_| ended())?;
        done.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Fails if the log takes no more records.
    pub fn check(&self) -> Result<(), AuditError> {
        match self.shared.failure.get() {
            Some(why) => Err(AuditError::Failed(Arc::clone(why))),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog")
            .field("failure", &self.shared.failure.get())
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has failed the log already; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
