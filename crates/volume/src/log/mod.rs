//! The metadata log: what the map was at the last durable point, and how it got there.
//!
//! An append-only file of frames; a frame is a sequence of [`Record`]s under a checksum and a MAC. Records are appended
//! before the change they speak of is answered, and synced with the next flush. Now and then the whole map is written to a
//! new file that takes the old one's place, so the log stays bounded. `FORMAT.md` has every field.
//!
//! What it promises:
//! - [`replay`](replay::replay) gives every record that was synced, in order, and of those that were not as many as
//!   reached the disk without a gap; after the death of the process alone, that is all of them.
//! - A torn tail is dropped. It is told from damage: the file is zero where nothing was written, so what a crash did not
//!   write is zero up to a block's end or the frame's, and what is neither zero nor right was changed by something else.
//! - Damage before the last durable point is found and located, wherever a later frame shows that there was one.
//! - For a sealed volume, frames are authentic: nobody without the data key can make, change, move or mix them. What an
//!   attacker with the disk can do is put back an earlier state of the whole log, or cut its tail.

pub(crate) mod folder;
pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod sums;
pub(crate) mod writer;

pub(crate) use record::{Batch, Record};
