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
mod accepted;
mod chain;
mod change;
mod error;
mod event;
#[cfg(test)]
mod golden;
mod group;
mod journal;
mod log;
mod note;
mod options;
mod recover;
mod segment;
pub mod verify;
mod writer;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use accept::accept_loss;
pub use chain::Mark;
pub use change::Change;
pub use error::AuditError;
pub use event::Event;
pub use log::{AuditLog, Intent, inspect};
pub use options::AuditOptions;
