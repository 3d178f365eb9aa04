//! How the owners of records take part in a rotation of the store key.

use async_trait::async_trait;

/// Why an owner could not re-seal its records.
pub type ResealError = Box<dyn std::error::Error + Send + Sync>;

/// One page of a pass over an owner's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Where the next page begins; `None` at the end of the pass. The owner's own, at most a few hundred bytes.
    pub next: Option<Vec<u8>>,
    /// Records of this page that were sealed under an older generation and are now, durably, under the newest.
    pub resealed: u64,
}

/// An owner of records: a table, or a folder of sealed copies.
#[async_trait]
pub trait Reseal: Send + Sync {
    /// Whose records these are, for progress and messages.
    fn name(&self) -> &str;

    /// Seals anew those records of a page that are not under the newest generation, and returns when that is durable.
    ///
    /// `after` is `None` for the first page, then what the page before gave. A record that somebody else writes
    /// meanwhile (a lost race) is under the newest generation already and counts for nothing. May be called for a
    /// page again after a kill, which then finds less to do. A page is small enough to be re-sealed in well under a
    /// second.
    async fn reseal(&self, after: Option<&[u8]>) -> Result<Page, ResealError>;
}
