//! The two records of a bucket in the catalogue: itself, and the claim on its name.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catalogue::{Expect, Key, Record, Scope, SealedRecord, Table};
use crypto::random::Random;
use root::{RecordKey, Sealing, StoreKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::id::BucketId;
use crate::bucket_default::BucketDefault;
use crate::error::Error;

/// Buckets; id: the bucket's 16 bytes.
pub(crate) const TABLE: Table = Table::new("bucket");
/// Claims on names, in no account's and no region's scope; id: the name.
pub(crate) const NAMES: Table = Table::new("bucket-name");
/// The first byte of a record's contents.
const FORMAT: u8 = 1;

/// How a bucket is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketRecord {
    pub(crate) name: String,
    /// Milliseconds since 1970, UTC.
    pub(super) created: u64,
    /// The default encryption, if one was set.
    pub(crate) encryption: Option<BucketDefault>,
}

impl BucketRecord {
    pub(crate) fn new(name: &str, created: SystemTime) -> Self {
        let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            name: name.to_owned(),
            created: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            encryption: None,
        }
    }

    /// To the millisecond.
    pub(crate) fn created(&self) -> SystemTime {
        // Bounded so that the sum exists: year 9999.
        UNIX_EPOCH + Duration::from_millis(self.created.min(253_402_300_799_999))
    }
}

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    /// The id of the bucket that has it.
    pub(crate) bucket: String,
    pub(crate) account: String,
    pub(crate) region: String,
}

/// Seals and opens the records of one account and region.
pub(crate) struct Records {
    scope: Scope,
    buckets: RecordKey,
    names: RecordKey,
    random: Arc<dyn Random>,
}

/// The right to seal records of both tables, held until the fate of their commit is known.
pub(crate) struct Seals {
    buckets: Sealing,
    names: Sealing,
}

impl Records {
    pub(crate) fn new(store_key: &StoreKey, scope: Scope, random: Arc<dyn Random>) -> Self {
        Self {
            scope,
            buckets: store_key.table(TABLE.name()),
            names: store_key.table(NAMES.name()),
            random,
        }
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn draw_id(&self) -> BucketId {
        BucketId::draw(&*self.random)
    }

    pub(crate) fn seals(&self) -> Seals {
        Seals {
            buckets: self.buckets.sealing(),
            names: self.names.sealing(),
        }
    }

    /// Where a bucket of ours stands.
    pub(crate) fn at(&self, id: &BucketId) -> Key {
        Key::new(self.scope.clone(), id.as_bytes().as_slice())
    }

    /// Where the claim on a name stands.
    pub(crate) fn name_at(name: &str) -> Key {
        Key::new(Scope::default(), name)
    }

    pub(crate) fn seal(
        &self,
        seals: &Seals,
        id: &BucketId,
        expect: Expect,
        record: &BucketRecord,
    ) -> SealedRecord {
        let at = self.at(id);
        let place = at.place(TABLE, expect.next_version());
        seals
            .buckets
            .seal(&place, &encode(record), self.random.as_ref())
    }

    pub(crate) fn seal_claim(&self, seals: &Seals, name: &str, bucket: &BucketId) -> SealedRecord {
        let claim = Claim {
            bucket: bucket.to_string(),
            account: self.scope.account.clone(),
            region: self.scope.region.clone(),
        };
        let at = Self::name_at(name);
        let place = at.place(NAMES, Expect::Absent.next_version());
        seals
            .names
            .seal(&place, &encode(&claim), self.random.as_ref())
    }

    /// A record that was changed, moved, or is of an unknown format is [`Error::Integrity`].
    pub(crate) fn open(&self, stored: &Record) -> Result<(BucketId, BucketRecord), Error> {
        let id = stored.key.id[..].try_into().map_err(|_| Error::Integrity)?;
        let contents = self.buckets.open(&stored.place(TABLE), &stored.sealed);
        let contents = contents.map_err(|_| Error::Integrity)?;
        Ok((BucketId::from_bytes(id), decode(contents.expose())?))
    }

    /// As [`open`](Self::open).
    pub(crate) fn open_claim(&self, stored: &Record) -> Result<Claim, Error> {
        let contents = self.names.open(&stored.place(NAMES), &stored.sealed);
        let claim: Claim = decode(contents.map_err(|_| Error::Integrity)?.expose())?;
        BucketId::parse(&claim.bucket).ok_or(Error::Integrity)?;
        Ok(claim)
    }
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut contents = vec![FORMAT];
    serde_json::to_writer(&mut contents, record).expect("plain strings and numbers, into memory");
    contents
}

fn decode<T: DeserializeOwned>(contents: &[u8]) -> Result<T, Error> {
    match contents.split_first() {
        Some((&FORMAT, json)) => serde_json::from_slice(json).map_err(|_| Error::Integrity),
        _ => Err(Error::Integrity),
    }
}

/// For the fuzz targets: what is read is written so that it is read the same.
#[cfg(any(fuzzing, test))]
pub(crate) fn decode_any(contents: &[u8]) {
    if let Ok(record) = decode::<BucketRecord>(contents) {
        assert_eq!(decode::<BucketRecord>(&encode(&record)).ok(), Some(record));
    }
    if let Ok(claim) = decode::<Claim>(contents) {
        assert_eq!(decode::<Claim>(&encode(&claim)).ok(), Some(claim));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("golden/bucket.record");
    const GOLDEN_CLAIM: &[u8] = include_bytes!("golden/name.record");

    fn record() -> BucketRecord {
        BucketRecord {
            encryption: Some(BucketDefault::Kms {
                key: Some("alias/a".to_owned()),
                bucket_key: true,
            }),
            ..BucketRecord::new(
                "first",
                UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
            )
        }
    }

    fn claim() -> Claim {
        Claim {
            bucket: "00112233445566778899aabbccddeeff".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    #[test]
    fn the_golden_records_are_read_and_written_the_same() {
        assert_eq!(decode::<BucketRecord>(GOLDEN).unwrap(), record());
        assert_eq!(encode(&record()), GOLDEN);
        assert_eq!(decode::<Claim>(GOLDEN_CLAIM).unwrap(), claim());
        assert_eq!(encode(&claim()), GOLDEN_CLAIM);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let mut newer = GOLDEN.to_vec();
        newer[0] = 2;
        let text = std::str::from_utf8(&GOLDEN[1..]).unwrap();
        let more = text.replacen('{', "{\"more\":1,", 1);
        let less = text.replacen("\"name\":\"first\",", "", 1);
        let unknown = text.replacen("\"kms\"", "\"rot13\"", 1);
        let cut = text[..text.len() - 1].to_owned();
        let bad = [more, less, unknown, cut].map(|json| [&[FORMAT], json.as_bytes()].concat());
        for bad in bad.into_iter().chain([newer, Vec::new()]) {
            assert!(decode::<BucketRecord>(&bad).is_err());
            assert!(decode::<Claim>(&bad).is_err());
        }
    }

    #[test]
    fn a_default_that_was_never_set_is_kept_as_none() {
        let record = BucketRecord::new("b", UNIX_EPOCH);
        assert_eq!(
            encode(&record)[1..],
            *br#"{"name":"b","created":0,"encryption":null}"#
        );
        assert_eq!(record.created(), UNIX_EPOCH);
    }
}
