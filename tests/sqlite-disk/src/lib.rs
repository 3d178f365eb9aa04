//! For tests: a SQLite VFS over [`host::Disk`], so that a database runs on the simulated disk.
//!
//! It behaves as SQLite's own unix VFS does where that matters to what survives: it reports
//! `SQLITE_IOCAP_POWERSAFE_OVERWRITE` and nothing else, syncs the folder when a journal or write-ahead log is first
//! synced (and does not look whether that failed) and when a file is deleted durably, and never the folder of the
//! database itself. A full disk is told from another failure in a write alone.
//!
//! Connections to one database share locks and the index of its write-ahead log as those of one process do, in memory
//! that is gone with the last of them. Locks are not waited for.
//!
//! Why not a crate: `sqlite-plugin` needs libclang to build its bindings; `sqlite-vfs` is not kept any more. The calls
//! are those of <https://www.sqlite.org/c3ref/vfs.html> and <https://www.sqlite.org/c3ref/io_methods.html>.
#![deny(unsafe_code)]

mod memory;
mod vfs;

pub use vfs::{Registered, register};
