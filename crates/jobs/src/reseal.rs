//! Re-sealing tables of the catalogue when the store key is rotated: the jobs', and those of who asks for it.

use std::sync::Arc;

use async_trait::async_trait;
use catalogue::{Batch, Catalogue, CatalogueError, Expect, Key, Record, Scope, Table};
use crypto::random::Random;
use root::{Page, RecordKey, Reseal, ResealError, StoreKey};

use crate::record::{SUBJECTS, TABLE};

/// Records read at a time, and re-sealed in one batch: as many of the longest that any of these tables has are no longer
/// than a batch.
const PAGE: usize = 16;

/// The owners of the jobs' tables, of all accounts and regions.
pub fn owners(
    catalogue: &Arc<dyn Catalogue>,
    store_key: &StoreKey,
    random: &Arc<dyn Random>,
) -> Vec<Arc<dyn Reseal>> {
    [TABLE, SUBJECTS]
        .map(|table| table_owner(table, catalogue, store_key, random))
        .to_vec()
}

/// The owner of one table of the catalogue, of all accounts and regions, for whoever keeps records in one: sealed under
/// the store key's record key of the table's name, for the place and version in which they stand.
pub fn table_owner(
    table: Table,
    catalogue: &Arc<dyn Catalogue>,
    store_key: &StoreKey,
    random: &Arc<dyn Random>,
) -> Arc<dyn Reseal> {
    Arc::new(Rows {
        table,
        key: store_key.table(table.name()),
        catalogue: Arc::clone(catalogue),
        random: Arc::clone(random),
    })
}

/// The records of one table.
struct Rows {
    table: Table,
    key: RecordKey,
    catalogue: Arc<dyn Catalogue>,
    random: Arc<dyn Random>,
}

/// A record that cannot be sealed again because it does not open.
#[derive(Debug, thiserror::Error)]
#[error("record {id} of table {table}: {source}")]
struct Closed {
    table: Table,
    /// In hexadecimal.
    id: String,
    source: root::RootError,
}

/// A text that no page of these tables ends with.
#[derive(Debug, thiserror::Error)]
#[error("the place in the pass does not read")]
struct NoPlace;

#[async_trait]
impl Reseal for Rows {
    fn name(&self) -> &str {
        self.table.name()
    }

    async fn reseal(&self, after: Option<&[u8]>) -> Result<Page, ResealError> {
        let after = match after {
            Some(after) => Some(read_place(after).ok_or(NoPlace)?),
            None => None,
        };
        let page = self
            .catalogue
            .page(self.table, None, after.as_ref(), PAGE)
            .await?;
        let stale: Vec<&Record> = page
            .records
            .iter()
            .filter(|record| self.key.is_stale(&record.sealed))
            .collect();
        let mut resealed = 0;
        if !stale.is_empty() && !self.write(&stale).await? {
            // One of them was written by somebody else meanwhile, and is under the newest generation already.
            for record in stale {
                resealed += u64::from(self.write(&[record]).await?);
            }
        } else {
            resealed = stale.len() as u64;
        }
        Ok(Page {
            next: page.next.as_ref().map(place),
            resealed,
        })
    }
}

impl Rows {
    /// Seals `records` anew, all or none; false if one was written by somebody else meanwhile.
    async fn write(&self, records: &[&Record]) -> Result<bool, ResealError> {
        let sealing = self.key.sealing();
        let mut batch = Batch::new();
        for record in records {
            let opened = self.key.open(&record.place(self.table), &record.sealed);
            let contents = opened.map_err(|source| Closed {
                table: self.table,
                id: hex::encode(&record.key.id),
                source,
            })?;
            let expect = Expect::Version(record.version);
            let to = record.key.place(self.table, expect.next_version());
            let sealed = sealing.seal(&to, contents.expose(), self.random.as_ref());
            batch = batch.put(self.table, record.key.clone(), expect, sealed);
        }
        match self.catalogue.commit(batch).await {
            Ok(_) => Ok(true),
            Err(CatalogueError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Account and region, each behind its length (one byte), then the id.
fn place(key: &Key) -> Vec<u8> {
    let mut place = Vec::new();
    for part in [&key.scope.account, &key.scope.region] {
        place.push(u8::try_from(part.len()).expect("the catalogue takes 64 bytes at most"));
        place.extend(part.as_bytes());
    }
    place.extend(&key.id);
    place
}

fn read_place(mut bytes: &[u8]) -> Option<Key> {
    let mut part = || {
        let len = *bytes.split_off_first()?;
        let text = std::str::from_utf8(bytes.split_off(..usize::from(len))?);
        text.ok().map(str::to_owned)
    };
    let (account, region) = (part()?, part()?);
    Some(Key::new(Scope { account, region }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let scope = Scope {
            account: "123456789012".to_owned(),
            region: String::new(),
        };
        for key in [
            Key::new(scope, b"\x00id\x00\xff".as_slice()),
            Key::new(Scope::default(), b"alias/x".as_slice()),
        ] {
            assert_eq!(read_place(&place(&key)), Some(key));
        }
        assert_eq!(read_place(b""), None);
        assert_eq!(read_place(b"\x05abc"), None);
    }
}
