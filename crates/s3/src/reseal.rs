//! What this crate seals under the store key, sealed anew when that is rotated: buckets in the catalogue, and the
//! envelopes in the store of objects.

use std::sync::Arc;

use async_trait::async_trait;
use catalogue::Catalogue;
use crypto::random::Random;
use root::{Page, Reseal, ResealError, StoreKey};

use crate::bucket;
use crate::envelope::Envelopes;
use crate::store::{ObjectStore, Resealed, SealedAt};

/// Envelopes read at a time, and put anew in one change: a few tens of milliseconds of the store's time.
const PAGE: usize = 256;

/// The owners of everything that is sealed here.
pub(crate) fn owners(
    catalogue: &Arc<dyn Catalogue>,
    store_key: &StoreKey,
    random: &Arc<dyn Random>,
    store: &Arc<dyn ObjectStore>,
) -> Vec<Arc<dyn Reseal>> {
    let table = |table| jobs::table_owner(table, catalogue, store_key, random);
    vec![
        table(bucket::TABLE),
        table(bucket::NAMES),
        Arc::new(StoredEnvelopes {
            store: Arc::clone(store),
            envelopes: Envelopes::new(store_key, Arc::clone(random)),
        }),
    ]
}

/// The envelopes of objects, uploads and parts.
struct StoredEnvelopes {
    store: Arc<dyn ObjectStore>,
    envelopes: Envelopes,
}

#[async_trait]
impl Reseal for StoredEnvelopes {
    fn name(&self) -> &str {
        "objects"
    }

    async fn reseal(&self, after: Option<&[u8]>) -> Result<Page, ResealError> {
        let after = match after {
            Some(cursor) => Some(decode(cursor).ok_or("the cursor is none of ours")?),
            None => None,
        };
        let page = self.store.sealed(after.as_ref(), PAGE).await?;
        // Held until the store has answered.
        let seals = self.envelopes.seals();
        let mut anew = Vec::new();
        for row in &page.entries {
            if !self.envelopes.is_stale(row) {
                continue;
            }
            match self.envelopes.seal_again(&seals, row) {
                Ok(envelope) => anew.push(Resealed {
                    row: row.clone(),
                    envelope,
                }),
                // It opens under no key that there is, and does not stand in the way of the others.
                Err(_) => {
                    tracing::error!(at = ?row.at, "a record in the object store is damaged: it is left as it is")
                }
            }
        }
        // At the end the store is asked even for nothing: one that has stopped for a commit of unknown fate may hold,
        // after the next start, a record that no page shows now, and must not let the rotation end.
        let resealed = if anew.is_empty() && page.truncated {
            0
        } else {
            self.store.reseal(anew).await?
        };
        drop(seals);
        let last = page.entries.last().filter(|_| page.truncated);
        Ok(Page {
            next: last.map(|row| encode(&row.at)),
            resealed,
        })
    }
}

/// A cursor: 1 object, 2 upload or 3 part, then for a part what it is of (u64) and its number (u32), and otherwise the
/// bucket's id behind its length (one byte), for an upload its number (u64), and the key. Integers are big endian.
fn encode(at: &SealedAt) -> Vec<u8> {
    let in_bucket = |kind, bucket: &str| {
        let len = u8::try_from(bucket.len()).expect("ids of buckets have 32 characters");
        [&[kind, len], bucket.as_bytes()].concat()
    };
    match at {
        SealedAt::Object { bucket, key } => [&in_bucket(1, bucket), key.as_bytes()].concat(),
        SealedAt::Upload {
            bucket,
            key,
            number,
        } => [
            &in_bucket(2, bucket)[..],
            &number.to_be_bytes(),
            key.as_bytes(),
        ]
        .concat(),
        SealedAt::Part { of, number } => {
            [&[3][..], &of.to_be_bytes(), &number.to_be_bytes()].concat()
        }
    }
}

fn decode(mut bytes: &[u8]) -> Option<SealedAt> {
    fn text(bytes: &[u8]) -> Option<String> {
        Some(std::str::from_utf8(bytes).ok()?.to_owned())
    }
    let number = |bytes: &mut &[u8]| {
        let number = bytes.split_off(..8)?.try_into().ok()?;
        Some(u64::from_be_bytes(number))
    };
    let bytes = &mut bytes;
    match bytes.split_off_first()? {
        kind @ (1 | 2) => {
            let len = usize::from(*bytes.split_off_first()?);
            let bucket = text(bytes.split_off(..len)?)?;
            Some(if *kind == 1 {
                let key = text(bytes)?;
                SealedAt::Object { bucket, key }
            } else {
                let number = number(bytes)?;
                let key = text(bytes)?;
                SealedAt::Upload {
                    bucket,
                    key,
                    number,
                }
            })
        }
        3 => {
            let of = number(bytes)?;
            let number = u32::from_be_bytes((*bytes).try_into().ok()?);
            Some(SealedAt::Part { of, number })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_where_it_stood() {
        let (bucket, key) = ("ab".repeat(16), "k/\u{e4}\0".to_owned());
        let upload = SealedAt::Upload {
            bucket: bucket.clone(),
            key: key.clone(),
            number: 1 << 40,
        };
        let part = SealedAt::Part {
            of: u64::MAX,
            number: 10_000,
        };
        for at in [SealedAt::Object { bucket, key }, upload, part] {
            let cursor = encode(&at);
            assert_eq!(decode(&cursor), Some(at));
            for len in 0..9 {
                assert_eq!(decode(&cursor[..len]), None, "{len}");
            }
        }
        assert_eq!(decode(b"\x04"), None);
    }

    /// Fails every `reseal`, as a store that has stopped does.
    #[tokio::test]
    async fn a_store_that_has_stopped_lets_no_rotation_end() {
        use crate::store::faulty::{Faults, FaultyStore};
        use crate::store::memory::MemoryStore;

        let random: Arc<dyn Random> = Arc::new(crypto::random::SeededRandom::new(1));
        let key = crate::tests::store_key_on(Arc::new(host::disk::sim::SimDisk::new(1))).await;
        let entropy = Arc::new(host::entropy::SeededEntropy::new(1));
        let faults = Faults {
            lose_answer_per_mille: 1000,
            ..Faults::default()
        };
        let store = FaultyStore::new(MemoryStore::new(Arc::clone(&random)), faults, entropy);
        let owner = StoredEnvelopes {
            store: Arc::new(store),
            envelopes: Envelopes::new(&key, random),
        };
        assert!(owner.reseal(None).await.is_err());
    }
}
