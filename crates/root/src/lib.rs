//! The key that every record of a store hangs from, and the providers that guard it.
//!
//! A [`RootKeyProvider`] wraps and unwraps the **store key** and never shows its own key, so it may be a file, a
//! passphrase, and later an HSM, a TPM or another key service. The wrapped store key stands in the store's **header**
//! (`root.header` and its copy, `FORMAT.md`), so replacing the root key rewrites one record. [`StoreKey::table`] gives
//! the key that seals the records of one table.
//!
//! What it promises:
//! - Nothing is derived from the root key but its public id.
//! - A header is replaced whole, twice; one damaged copy is noticed, named and made again from the other.
//! - A header is made only where the caller says that the store is empty: a new store key beside existing records
//!   would lock every one of them out for good.
//! - Rotations may be cut off after any step; the store then opens under the old root key or the new one, and a
//!   rotation of the store key goes on where it stood.
//!
//! What it does not: it never sees a record (their owners re-seal them, [`Reseal`]), and it does not notice a header
//! that was put back to an older, whole state; marks outside it do ([`StoreKey::status`] has its sequence).
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blocking;
mod error;
mod file;
mod generations;
mod header;
mod header_file;
mod id;
mod pass;
mod passphrase;
mod provider;
mod reseal;
mod store_key;

#[cfg(fuzzing)]
pub mod fuzzing;

pub use error::RootError;
pub use file::{FileProvider, replace_root_key_file};
pub use generations::{RecordKey, Sealing};
pub use header_file::{COPY_NAME, HEADER_NAME};
pub use id::{RootKeyId, StoreId};
pub use pass::{Advanced, Pass};
pub use passphrase::{Argon2Cost, PassphraseProvider};
pub use provider::{Kind, RootKeyProvider, Wrapped};
pub use reseal::{Page, Reseal, ResealError};
pub use store_key::{Options, Rotation, Status, StoreKey, inspect};
