//! Re-sealing marks and stamps when the store key is rotated.

use std::sync::Arc;

use async_trait::async_trait;
use root::{Page, Reseal, ResealError};

use crate::{
    ledger::{Ledger, TABLE, key},
    stamp::Stamped,
};

/// Marks and stamps as records sealed under the store key.
struct Owner {
    ledger: Arc<Ledger>,
    stamped: Vec<Arc<dyn Stamped>>,
}

impl Ledger {
    /// The owner of the marks and of these parts' stamps.
    pub fn owner(self: &Arc<Self>, stamped: Vec<Arc<dyn Stamped>>) -> Arc<dyn Reseal> {
        Arc::new(Owner {
            ledger: Arc::clone(self),
            stamped,
        })
    }
}

#[async_trait]
impl Reseal for Owner {
    fn name(&self) -> &str {
        "parts"
    }

    async fn reseal(&self, _: Option<&[u8]>) -> Result<Page, ResealError> {
        let record = self.ledger.catalogue.get(TABLE, &key()).await?;
        let mut stale =
            u64::from(record.is_some_and(|record| self.ledger.key.is_stale(&record.sealed)));
        for stamped in &self.stamped {
            stale += u64::from(stamped.is_stale().await?);
        }
        if stale > 0 {
            // All of them are written anew at once, as ever.
            self.ledger.keep(&self.stamped, &[], true).await?;
        }
        Ok(Page {
            next: None,
            resealed: stale,
        })
    }
}
