//! Errors of the machinery, and those a step can return to it.

use catalogue::CatalogueError;

use crate::JobId;

/// Errors a call on the jobs can return.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// There is no such job, or no longer.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The job has ended: it cannot be cancelled.
    #[error("job {0} has ended")]
    Ended(JobId),
    /// The same work is under way already.
    #[error("job {0} does this already")]
    Exists(JobId),
    /// The caller's input is longer than a job's may be.
    #[error("a job's input is {len} bytes, {max} at most")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The greatest length.
        max: usize,
    },
    /// A job's record does not open or does not read.
    #[error("the record of job {id} is damaged: {why}")]
    Damaged {
        /// Its id, in hexadecimal if it is none.
        id: String,
        /// What did not hold.
        why: &'static str,
    },
    /// The catalogue's.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// Errors a step can return.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// It may succeed later: the job waits, longer each time, and tries the step again.
    #[error("{0}")]
    Retry(String),
    /// It never will: the job fails.
    #[error("{0}")]
    Fail(String),
}
