//! The thread that numbers records and writes them in groups.

use std::{
    io::Write as _,
    sync::{Arc, OnceLock},
};

use tokio::sync::{mpsc, oneshot};

use super::{AuditError, AuditSink, Pending};

/// A group is written when it is this long, in bytes, even if more records wait. Recovery relies
/// on it: what a crash can tear is never longer than this and one record.
pub(super) const GROUP_LEN_MAX: usize = 1 << 20;

/// Records taken from the queue at a time.
const GROUP_RECORDS_MAX: usize = 1024;

pub(super) struct Writer {
    sink: Box<dyn AuditSink>,
    next: u64,
    failure: Arc<OnceLock<Arc<str>>>,
    lines: Vec<u8>,
    waiting: Vec<(u64, oneshot::Sender<Result<u64, AuditError>>)>,
}

impl Writer {
    pub(super) fn new(
        sink: Box<dyn AuditSink>,
        next: u64,
        failure: Arc<OnceLock<Arc<str>>>,
    ) -> Self {
        Self {
            sink,
            next,
            failure,
            lines: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        // If the sink panics, nobody may believe the log still works.
        let mut guard = FailOnPanic(Some(Arc::clone(&self.failure)));
        let mut group = Vec::with_capacity(GROUP_RECORDS_MAX);
        while queue.blocking_recv_many(&mut group, GROUP_RECORDS_MAX) > 0 {
            for pending in group.drain(..) {
                self.number(pending);
                if self.lines.len() >= GROUP_LEN_MAX {
                    self.write();
                }
            }
            self.write();
        }
        guard.0 = None;
    }

    fn number(&mut self, pending: Pending) {
        let sequence = self.next + self.waiting.len() as u64;
        write!(self.lines, "{{\"seq\":{sequence},").expect("into memory");
        self.lines.extend_from_slice(&pending.rest);
        self.waiting.push((sequence, pending.durable));
    }

    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.failure.get().is_none() {
            match self.sink.append(self.next, &self.lines) {
                Ok(()) => self.next += self.waiting.len() as u64,
                Err(error) => {
                    tracing::error!(%error, "audit log failed: no key is used any more");
                    // Set once: only this thread sets it.
                    let _ = self.failure.set(error.to_string().into());
                }
            }
        }
        let failed = self.failure.get().cloned().map(AuditError::Failed);
        for (sequence, durable) in self.waiting.drain(..) {
            // One who no longer waits does not need the answer.
            let _ = durable.send(match &failed {
                None => Ok(sequence),
                Some(error) => Err(error.clone()),
            });
        }
        self.lines.clear();
    }
}

struct FailOnPanic(Option<Arc<OnceLock<Arc<str>>>>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if let Some(failure) = self.0.take() {
            let _ = failure.set("its thread panicked".into());
        }
    }
}
