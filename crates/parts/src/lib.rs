//! How the parts of a data directory know each other.
//!
//! A data directory is several parts, and each can be lost, restored from an older backup or taken from another store
//! alone. The catalogue keeps a [`Mark`] of each: how far it was. Parts that can keep something carry a [`Stamp`]: whose
//! they are, how often they were stamped, and how far the catalogue was then. A stamp in a file beside what it stands for
//! does not go back with it, so how far that was is marked too. [`Ledger::keep`] brings both up to date, at
//! every stop and every few seconds; at a start, [`Ledger::check_stamp`] and [`Ledger::check_mark`] refuse a part that is
//! missing, older than its mark, damaged or of another store, and a catalogue that is behind a stamp. A [`Refusal`] names
//! the part, what is wrong with it and the way out.
//!
//! It does not promise to see a data directory that was set back as a whole, nor what happened since the marks were last
//! kept. It changes nothing in a start that it refuses. `FORMAT.md` has the fields.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod folder;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod ledger;
mod mark;
mod part;
mod reseal;
mod stamp;

pub use error::{PartsError, Refusal, WayOut, Wrong};
pub use folder::{FolderStamp, STAMP_FILE};
pub use ledger::Ledger;
pub use mark::Mark;
pub use part::Part;
pub use stamp::{Stamp, StampError, Stamped, Stamps};
