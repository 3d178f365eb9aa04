//! The keyring's part in a rotation of the store key: its records, sealed anew.
//!
//! Those of every account and region: whose keyring is not open would lose its keys with the old generation.

use std::sync::Arc;

use async_trait::async_trait;
use catalogue::{Batch, CatalogueError, Expect, Key, Record, Scope, Table};
use root::{Page, Reseal, ResealError};

use crate::{
    error::KeyringError,
    keyring::{Inner, Keyring},
    vault::TABLES,
};

/// Records of a page: of the longest ones, fewer than a batch may hold.
const PAGE: usize = 32;

/// One table.
struct Resealing {
    inner: Arc<Inner>,
    table: Table,
}

impl Keyring {
    /// The owners of the keyring's records, for [`root::Rotation::run`].
    pub fn owners(&self) -> Vec<Arc<dyn Reseal>> {
        let owner = |table| {
            let inner = Arc::clone(&self.inner);
            Arc::new(Resealing { inner, table }) as Arc<dyn Reseal>
        };
        TABLES.into_iter().map(owner).collect()
    }
}

#[async_trait]
impl Reseal for Resealing {
    fn name(&self) -> &str {
        self.table.name()
    }

    async fn reseal(&self, after: Option<&[u8]>) -> Result<Page, ResealError> {
        let after = match after {
            Some(cursor) => Some(decode(cursor).ok_or("the cursor is none of ours")?),
            None => None,
        };
        let catalogue = &self.inner.records.catalogue;
        let page = catalogue
            .page(self.table, None, after.as_ref(), PAGE)
            .await?;
        let is_stale = |record: &&Record| {
            let vault = &self.inner.records.vault;
            vault.record_key(self.table).is_stale(&record.sealed)
        };
        let stale: Vec<&Record> = page.records.iter().filter(is_stale).collect();
        let resealed = match self.commit(&stale).await {
            Err(KeyringError::Catalogue(CatalogueError::Conflict { .. })) => {
                self.commit_each(&stale).await?
            }
            committed => committed.map(|()| stale.len() as u64)?,
        };
        Ok(Page {
            next: page.next.as_ref().map(encode),
            resealed,
        })
    }
}

impl Resealing {
    /// Seals `records` anew, all or none.
    async fn commit(&self, records: &[&Record]) -> Result<(), KeyringError> {
        if records.is_empty() {
            return Ok(());
        }
        let Inner { records: ours, .. } = &*self.inner;
        let sealing = ours.vault.record_key(self.table).sealing();
        let mut batch = Batch::new();
        for record in records {
            let expect = Expect::Version(record.version);
            let sealed =
                ours.vault
                    .seal_again(&sealing, self.table, record, expect.next_version())?;
            batch = batch.put(self.table, record.key.clone(), expect, sealed);
        }
        ours.catalogue.commit(batch).await?;
        Ok(())
    }

    /// Seals `records` anew, but for those that somebody else wrote or erased meanwhile; how many.
    async fn commit_each(&self, records: &[&Record]) -> Result<u64, KeyringError> {
        let mut resealed = 0;
        for record in records {
            match self.commit(&[*record]).await {
                Ok(()) => resealed += 1,
                Err(KeyringError::Catalogue(CatalogueError::Conflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(resealed)
    }
}

/// A cursor: account, region and id, each but the last followed by a zero byte, which no scope has.
fn encode(key: &Key) -> Vec<u8> {
    let Scope { account, region } = &key.scope;
    [account.as_bytes(), b"\0", region.as_bytes(), b"\0", &key.id].concat()
}

fn decode(cursor: &[u8]) -> Option<Key> {
    let mut parts = cursor.splitn(3, |byte| *byte == 0);
    let mut text = || String::from_utf8(parts.next()?.to_vec()).ok();
    let scope = Scope {
        account: text()?,
        region: text()?,
    };
    Some(Key::new(scope, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_where_it_stood() {
        let scope = Scope {
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
        };
        for key in [
            Key::new(scope, b"\0a\0\xff".as_slice()),
            Key::new(Scope::default(), b"alias/x".as_slice()),
        ] {
            assert_eq!(decode(&encode(&key)), Some(key));
        }
        assert_eq!(decode(b"123456789012\0us-east-1"), None);
    }
}
