//! Long work that survives a restart: background fill, copies, re-keying, re-wrapping, life cycles, exports, scrubs.
//!
//! A job is a record in the catalogue: of which kind, for what (its input), under which service's name, how far it has
//! come (its cursor), how fast it may go. Whoever owns a kind of job implements [`Work`] and registers it; any process
//! that has the kind registered may run the job. What a step does is not known here.
//!
//! Promises:
//! - What a step returned as its cursor is durable before the next step begins. After a crash the job goes on from the
//!   last durable cursor, so a step may be done twice and must bear that.
//! - One process at a time works on a job: it holds a lease in the job's record and renews it. A process whose lease
//!   was taken over cannot write the job's cursor any more, and drops the step it is in.
//! - A cancelled job is cleaned up after ([`Work::undo`]) before it counts as cancelled; that survives a restart too.
//! - A job acts as the service that it was submitted for, never as the caller who asked for it.
//!
//! Does not promise that two processes never run a step at the same moment: when the clock jumps or a process is stopped
//! for longer than its lease, the old one may be in the middle of a step that the new one repeats.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod job;
mod observer;
mod queue;
mod rate;
mod record;
mod reseal;
mod run;
mod work;

pub use error::{JobError, WorkError};
pub use job::{Job, JobId, NewJob, Outcome, Progress, ServicePrincipal, State};
pub use observer::{NoObserver, Observer};
pub use queue::{JobPage, Jobs, Options};
pub use rate::RateLimit;
pub use reseal::{owners, table_owner};
pub use work::{Advance, Step, Work};
