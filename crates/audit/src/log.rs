//! The log as its callers see it.

use std::sync::Arc;

use crate::{
    chain::Mark,
    error::AuditError,
    event::Event,
    group::Kind,
    options::AuditOptions,
    recover::{self, Opened},
    writer::Shared,
};

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

/// Looks at the log in `options.dir`, whose owner must be stopped, and says what its last durable record is; refuses what
/// [`AuditLog::open`] refuses. A log that is not there ends with record 0. Changes nothing. Blocking.
pub fn inspect(options: &AuditOptions) -> Result<Mark, AuditError> {
    let head = recover::plan(options)?.head;
    Ok(Mark {
        sequence: head.last,
        digest: head.link,
    })
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

    /// Starts the threads on a log that was opened.
    pub(crate) fn start(opened: Opened, options: &AuditOptions) -> Result<Self, AuditError> {
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

    /// Records an access to data, if those are recorded at all ([`AuditOptions::data_events`]). It shares the next group
    /// with whatever else there is, and is durable when this returns. Cancelled as [`record`](Self::record) is.
    pub async fn data_event(&self, event: &Event<'_>) -> Result<(), AuditError> {
        if self.shared.0.data_events {
            self.shared.0.record(event, Kind::Plain).await?;
        }
        Ok(())
    }

    /// Whether [`data_event`](Self::data_event) records anything.
    pub fn records_data_events(&self) -> bool {
        self.shared.0.data_events
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
