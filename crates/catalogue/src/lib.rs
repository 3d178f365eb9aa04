//! Sealed records in named tables: what exists, decided in one place.
//!
//! A [`Catalogue`] holds opaque records under a table, an account, a region and an id. Callers seal and open: it takes
//! [`SealedRecord`]s, which `crypto` alone makes, and returns [`Record`]s, which are not trusted until they open in the
//! place and version they were found in. It holds no key.
//!
//! Promises: a [`Batch`] is applied whole or not at all, and is durable when [`Catalogue::commit`] returns `Ok`; one
//! whose expectations do not hold changes nothing; every commit gets the next [`Sequence`], and who follows the changes
//! sees each of them, from any process, within a second. Nothing assumes that one process alone uses it.
//!
//! Does not promise to notice changed bytes: sealing does.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
pub mod database;
mod error;
#[cfg(any(test, feature = "test-util"))]
mod faulty;
pub mod limits;
#[cfg(any(test, feature = "test-util"))]
mod memory;
mod record;
mod scopes;
pub mod sqlite;

use async_trait::async_trait;
pub use batch::{Batch, Expect, Write};
pub use crypto::record::SealedRecord;
pub use error::CatalogueError;
#[cfg(any(test, feature = "test-util"))]
pub use faulty::{Call, Fault, FaultyCatalogue};
#[cfg(any(test, feature = "test-util"))]
pub use memory::MemoryCatalogue;
pub use record::{Changed, Changes, Key, Page, Record, Scope, Sequence, StoreId, Table};
pub use scopes::scopes;

/// Keeps sealed records. Requests that break one of the [`limits`] are [`CatalogueError::Invalid`].
#[async_trait]
pub trait Catalogue: Send + Sync + 'static {
    /// Which store this is.
    async fn store_id(&self) -> Result<StoreId, CatalogueError>;

    /// One record.
    async fn get(&self, table: Table, key: &Key) -> Result<Option<Record>, CatalogueError>;

    /// Records of a table in the order of their keys (account, region, id, each by its bytes): those of `scope`, or
    /// all if it is `None`, that come after `after`; at most `limit` of them, and fewer only at the end or where a
    /// page grows too long. One page is one moment; two are not.
    async fn page(
        &self,
        table: Table,
        scope: Option<&Scope>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, CatalogueError>;

    /// Applies `batch`, durably, and returns the sequence it got, also if it only checks. Cancelled, it is applied
    /// or not.
    async fn commit(&self, batch: Batch) -> Result<Sequence, CatalogueError>;

    /// The sequence of the last commit.
    async fn sequence(&self) -> Result<Sequence, CatalogueError>;

    /// What was changed by commits after `after`, oldest first, whole commits only, about `limit` changes at most.
    /// [`CatalogueError::Trimmed`] if some of it is no longer kept or `after` was not reached yet.
    async fn changes(&self, after: Sequence, limit: usize) -> Result<Changes, CatalogueError>;

    /// Waits until the sequence is greater than `after` and returns it. Sees commits of other processes within a
    /// second. [`CatalogueError::Trimmed`] if `after` was not reached yet. Cancel-safe.
    async fn wait(&self, after: Sequence) -> Result<Sequence, CatalogueError>;

    /// Makes erased and replaced records unrecoverable as far as the store can. The changes that tell of them, keys
    /// included, stay until they are trimmed.
    async fn purge(&self) -> Result<(), CatalogueError>;
}
