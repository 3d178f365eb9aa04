//! What all cases need: tables, keys, sealing and opening.

use std::sync::Arc;

use catalogue::{Batch, Catalogue, Expect, Key, Record, Scope, SealedRecord, StoreId, Table};
use crypto::{
    random::SystemRandom, record::RecordKey, secret::SecretBytes, store_key::GenerationKey,
};

pub(crate) const KEYS: Table = Table::new("keys");
pub(crate) const VOLUMES: Table = Table::new("volumes");
pub(crate) const STORE: StoreId = StoreId([7; 16]);
/// What the catalogues under test keep.
pub(crate) const CHANGES_KEPT: u64 = 1000;

/// Two handles of one empty catalogue that keeps [`CHANGES_KEPT`] changes.
pub(crate) struct Pair {
    pub(crate) a: Arc<dyn Catalogue>,
    pub(crate) b: Arc<dyn Catalogue>,
    /// What must outlive them: a folder, a process.
    pub(crate) _ground: Box<dyn Send + Sync>,
}

pub(crate) fn record_key() -> RecordKey {
    GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(7))).record_key("conformance")
}

pub(crate) fn scope(account: &str, region: &str) -> Scope {
    Scope {
        account: account.to_owned(),
        region: region.to_owned(),
    }
}

/// A key of the account that most cases use.
pub(crate) fn key(id: impl AsRef<[u8]>) -> Key {
    Key::new(scope("123456789012", "us-east-1"), id.as_ref())
}

pub(crate) fn seal(table: Table, key: &Key, expect: Expect, plaintext: &[u8]) -> SealedRecord {
    let place = key.place(table, expect.next_version());
    record_key().seal_at(&place, 1, plaintext, &SystemRandom)
}

pub(crate) fn open(table: Table, record: &Record) -> Vec<u8> {
    let opened = record_key().open_at(&record.place(table), &record.sealed);
    opened
        .expect("it was sealed for this place")
        .expose()
        .to_vec()
}

/// `batch` and one record more.
pub(crate) fn put(batch: Batch, key: &Key, expect: Expect, plaintext: &[u8]) -> Batch {
    batch.put(
        KEYS,
        key.clone(),
        expect,
        seal(KEYS, key, expect, plaintext),
    )
}

/// One record.
pub(crate) fn one(key: &Key, expect: Expect, plaintext: &[u8]) -> Batch {
    put(Batch::new(), key, expect, plaintext)
}

/// What a handle says is at a key: its version and what is in it.
pub(crate) async fn look(handle: &dyn Catalogue, key: &Key) -> Option<(u64, Vec<u8>)> {
    let record = handle.get(KEYS, key).await.unwrap()?;
    assert_eq!(record.key, *key);
    Some((record.version, open(KEYS, &record)))
}
