//! What a kind of job implements.

use std::time::Duration;

use async_trait::async_trait;
use host::Clock;
use parking_lot::Mutex;

use crate::{
    error::WorkError,
    job::{JobId, Progress, ServicePrincipal},
    rate::Bucket,
};

/// One kind of job. A step is done again after a crash in its middle, or when another process took the job over, so
/// doing it twice must come to the same.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// The kind's name: lower-case letters and hyphens. Part of every job's record: it never changes.
    fn kind(&self) -> &'static str;

    /// Does the next piece. May be dropped at any await, when the job is cancelled, its lease is lost or the process
    /// stops. A step of a few seconds is right: what a crash repeats is one step.
    async fn step(&self, step: &Step<'_>) -> Result<Advance, WorkError>;

    /// Cleans up after a cancelled or failed job; called again after a crash until it succeeds. The cursor is the last
    /// durable one, and what a dropped step did after it may be there or not.
    async fn undo(&self, step: &Step<'_>) -> Result<(), WorkError>;
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advance {
    /// There is more to do, from this cursor (at most 64 KiB) on.
    More {
        /// Where the next step begins, in the form that the kind knows.
        cursor: Vec<u8>,
        /// How far the job has come.
        progress: Progress,
    },
    /// The job is done.
    Done {
        /// How far it has come: all.
        progress: Progress,
    },
}

/// What a step is given.
pub struct Step<'a> {
    pub(crate) id: JobId,
    pub(crate) principal: &'a ServicePrincipal,
    pub(crate) subject: &'a str,
    pub(crate) input: &'a [u8],
    pub(crate) cursor: &'a [u8],
    pub(crate) progress: Progress,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) bucket: Option<&'a Mutex<Bucket>>,
}

impl Step<'_> {
    /// The job's name.
    pub fn job(&self) -> JobId {
        self.id
    }

    /// The service that the job acts as.
    pub fn principal(&self) -> &ServicePrincipal {
        self.principal
    }

    /// What the job works on.
    pub fn subject(&self) -> &str {
        self.subject
    }

    /// What the job is about, as it was submitted.
    pub fn input(&self) -> &[u8] {
        self.input
    }

    /// Where the step before ended; empty at the first.
    pub fn cursor(&self) -> &[u8] {
        self.cursor
    }

    /// How far the job has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Waits until the job's rate allows `units` more. Cancel-safe; what was taken counts as used.
    pub async fn take(&self, units: u64) {
        let Some(bucket) = self.bucket else { return };
        let wait = bucket.lock().take(units, self.clock);
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
    }
}
