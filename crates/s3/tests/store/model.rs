//! Random operations on the local store and on the reference in memory, with restarts: every
//! answer must be the same, and at each restart everything that can be seen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use crypto::random::SystemRandom;
use host::entropy::SeededEntropy;
use s3::store::faulty::{Faults, FaultyStore};
use s3::store::local::LocalStore;
use s3::store::memory::MemoryStore;
use s3::store::{
    Condition, ListEntry, ListQuery, ObjectRecord, ObjectStore, PartSeen, Resealed, SealedAt,
    StoreError, UploadEntry, UploadId, UploadQuery,
};

use crate::sealing::{bytes, commit_if, date, put_part, put_with, read_all};
use crate::{local_options, quick_dir};

/// What can be compared of an error.
fn kind(error: &StoreError) -> String {
    match error {
        // Sequence numbers differ from store to store; whether something was found does not.
        StoreError::PreconditionFailed { found } => {
            format!("precondition, found {}", found.is_some())
        }
        other => format!("{other:?}"),
    }
}

fn agree<A, B>(what: &str, reference: &Result<A, StoreError>, tested: &Result<B, StoreError>) {
    let (reference, tested) = (
        reference.as_ref().map(drop).map_err(kind),
        tested.as_ref().map(drop).map_err(kind),
    );
    assert_eq!(reference, tested, "{what}");
}

/// What can be compared of a record: all but the sequence.
fn visible(record: &ObjectRecord) -> (String, u64, u32, Bytes) {
    (
        record.key.clone(),
        record.size,
        record.part_count,
        record.envelope.clone(),
    )
}

fn entry(entry: &ListEntry) -> String {
    match entry {
        ListEntry::Object(record) => format!("{:?}", visible(record)),
        ListEntry::CommonPrefix(prefix) => format!("prefix {prefix}"),
    }
}

const BUCKETS: [&str; 2] = ["b0", "b1"];
const KEYS: [&str; 9] = ["a", "a/", "a/b", "a/b/c", "a/c", "b", "b/x", "ü/y", "z"];
const LENGTHS: [usize; 6] = [0, 10, 65_536, 65_537, 200_000, 1_200_000];

/// Both stores, and the uploads that are known to both, each by its two ids.
struct Pair {
    reference: MemoryStore,
    tested: LocalStore,
    uploads: BTreeMap<u32, Upload>,
    next_upload: u32,
}

#[derive(Clone)]
struct Upload {
    bucket: &'static str,
    key: &'static str,
    ids: [UploadId; 2],
}

impl Pair {
    async fn condition(&self, dice: &SeededEntropy, bucket: &str, key: &str) -> [Condition; 2] {
        match dice.below(5) {
            0 => [Condition::Absent; 2],
            1 => {
                let sequence = |record: Result<ObjectRecord, _>| {
                    record.map_or(u64::MAX >> 1, |r: ObjectRecord| r.sequence)
                };
                [
                    Condition::Sequence(sequence(self.reference.head(bucket, key).await)),
                    Condition::Sequence(sequence(self.tested.head(bucket, key).await)),
                ]
            }
            2 if dice.below(4) == 0 => [Condition::Sequence(u64::MAX >> 1); 2],
            _ => [Condition::Always; 2],
        }
    }

    async fn step(&mut self, dice: &SeededEntropy, number: u64) {
        let (bucket, key) = (*dice.pick(&BUCKETS), *dice.pick(&KEYS));
        let (a, b): (&dyn ObjectStore, &dyn ObjectStore) = (&self.reference, &self.tested);
        match dice.below(100) {
            0..5 => agree(
                "create bucket",
                &a.create_bucket(bucket).await,
                &b.create_bucket(bucket).await,
            ),
            5..8 => {
                let (ra, rb) = (a.delete_bucket(bucket).await, b.delete_bucket(bucket).await);
                agree("delete bucket", &ra, &rb);
            }
            8..40 => {
                let plain = bytes(number, *dice.pick(&LENGTHS));
                let [ca, cb] = self.condition(dice, bucket, key).await;
                let envelope = format!("put {number}");
                let ra = put_with(a, bucket, key, &plain, commit_if(&envelope, ca)).await;
                let rb = put_with(b, bucket, key, &plain, commit_if(&envelope, cb)).await;
                agree("put", &ra, &rb);
            }
            40..50 => {
                let [ca, cb] = self.condition(dice, bucket, key).await;
                let (ra, rb) = (
                    a.delete(bucket, key, ca).await,
                    b.delete(bucket, key, cb).await,
                );
                agree("delete", &ra, &rb);
                assert_eq!(ra.ok(), rb.ok());
            }
            50..55 => {
                let keys: Vec<_> = (0..3)
                    .map(|_| ((*dice.pick(&KEYS)).to_owned(), Condition::Always))
                    .collect();
                let (ra, rb) = (
                    a.delete_many(bucket, &keys).await,
                    b.delete_many(bucket, &keys).await,
                );
                agree("delete many", &ra, &rb);
                if let (Ok(ra), Ok(rb)) = (ra, rb) {
                    let plain = |all: Vec<Result<bool, StoreError>>| {
                        all.into_iter().map(Result::unwrap).collect::<Vec<_>>()
                    };
                    assert_eq!(plain(ra), plain(rb));
                }
            }
            55..60 => {
                let (ha, hb) = (a.head(bucket, key).await, b.head(bucket, key).await);
                agree("head", &ha, &hb);
                if let (Ok(ha), Ok(hb)) = (ha, hb) {
                    let envelope = Bytes::from(format!("envelope {number}"));
                    let ra = a
                        .replace_envelope(bucket, key, ha.sequence, envelope.clone())
                        .await;
                    let rb = b.replace_envelope(bucket, key, hb.sequence, envelope).await;
                    agree("replace envelope", &ra, &rb);
                }
            }
            60..62 => {
                let (ra, rb) = (a.close_bucket(bucket).await, b.close_bucket(bucket).await);
                agree("close bucket", &ra, &rb);
            }
            62..65 => {
                let (ra, rb) = (reseal_some(a, number).await, reseal_some(b, number).await);
                assert_eq!(ra, rb, "reseal");
            }
            65..70 => {
                let envelope = Bytes::from(format!("upload {number}"));
                let ra = a
                    .create_upload(bucket, key, envelope.clone(), date(number))
                    .await;
                let rb = b.create_upload(bucket, key, envelope, date(number)).await;
                agree("create upload", &ra, &rb);
                if let (Ok(ra), Ok(rb)) = (ra, rb) {
                    self.uploads.insert(
                        self.next_upload,
                        Upload {
                            bucket,
                            key,
                            ids: [ra.id, rb.id],
                        },
                    );
                    self.next_upload += 1;
                }
            }
            70..82 => {
                if let Some(upload) = self.some_upload(dice) {
                    let Upload { bucket, key, ids } = upload;
                    let plain = bytes(number, *dice.pick(&LENGTHS));
                    let part = 1 + dice.below(4) as u32;
                    let ra = put_part(a, bucket, key, &ids[0], part, &plain).await;
                    agree(
                        "put part",
                        &ra,
                        &put_part(b, bucket, key, &ids[1], part, &plain).await,
                    );
                }
            }
            82..88 => self.complete(dice, number).await,
            88..91 => {
                if let Some(Upload { bucket, key, ids }) = self.some_upload(dice) {
                    let ra = a.abort_upload(bucket, key, &ids[0]).await;
                    agree("abort", &ra, &b.abort_upload(bucket, key, &ids[1]).await);
                }
            }
            _ => self.compare_lists(dice, bucket).await,
        }
    }

    /// Any upload ever made, alive or not.
    fn some_upload(&self, dice: &SeededEntropy) -> Option<Upload> {
        let recent = self.next_upload.saturating_sub(4);
        let all: Vec<_> = self
            .uploads
            .range(recent..)
            .map(|(_, upload)| upload.clone())
            .collect();
        (!all.is_empty()).then(|| dice.pick(&all).clone())
    }

    async fn complete(&self, dice: &SeededEntropy, number: u64) {
        let (a, b): (&dyn ObjectStore, &dyn ObjectStore) = (&self.reference, &self.tested);
        let Some(Upload { bucket, key, ids }) = self.some_upload(dice) else {
            return;
        };
        let (pa, pb) = (
            a.parts(bucket, key, &ids[0], 0, 100).await,
            b.parts(bucket, key, &ids[1], 0, 100).await,
        );
        agree("parts", &pa, &pb);
        let (Ok(pa), Ok(pb)) = (pa, pb) else { return };
        let keep = dice.below(16);
        let seen = |parts: &[s3::store::PartRecord]| {
            let chosen = parts
                .iter()
                .filter(|part| keep & (1 << (part.number - 1)) == 0 || keep == 15);
            chosen
                .map(|part| PartSeen {
                    number: part.number,
                    sequence: part.sequence,
                })
                .collect::<Vec<_>>()
        };
        let [ca, cb] = self.condition(dice, bucket, key).await;
        let envelope = format!("complete {number}");
        let ra = a
            .complete_upload(
                bucket,
                key,
                &ids[0],
                &seen(&pa.entries),
                commit_if(&envelope, ca),
            )
            .await;
        let rb = b
            .complete_upload(
                bucket,
                key,
                &ids[1],
                &seen(&pb.entries),
                commit_if(&envelope, cb),
            )
            .await;
        agree("complete", &ra, &rb);
    }

    async fn compare_lists(&self, dice: &SeededEntropy, bucket: &str) {
        let query = ListQuery {
            prefix: (*dice.pick(&["", "a", "a/", "b/", "x"])).to_owned(),
            delimiter: [None, Some("/".to_owned()), Some("b".to_owned())][dice.below(3) as usize]
                .clone(),
            after: (dice.below(2) == 0).then(|| (*dice.pick(&KEYS)).to_owned()),
            limit: 1 + dice.below(5) as usize,
        };
        let (ra, rb) = (
            self.reference.list(bucket, &query).await,
            self.tested.list(bucket, &query).await,
        );
        agree("list", &ra, &rb);
        if let (Ok(ra), Ok(rb)) = (ra, rb) {
            let shown = |page: &s3::store::Page<ListEntry>| {
                page.entries.iter().map(entry).collect::<Vec<_>>()
            };
            assert_eq!(
                (shown(&ra), ra.truncated),
                (shown(&rb), rb.truncated),
                "{query:?}"
            );
        }
        let query = UploadQuery {
            prefix: query.prefix,
            delimiter: query.delimiter,
            after_key: query.after,
            after_upload: None,
            limit: query.limit,
        };
        let (ra, rb) = (
            self.reference.uploads(bucket, &query).await,
            self.tested.uploads(bucket, &query).await,
        );
        agree("uploads", &ra, &rb);
        if let (Ok(ra), Ok(rb)) = (ra, rb) {
            let shown = |page: &s3::store::Page<UploadEntry>| {
                let entry = |entry: &UploadEntry| match entry {
                    UploadEntry::Upload(upload) => format!("{} {:?}", upload.key, upload.envelope),
                    UploadEntry::CommonPrefix(prefix) => format!("prefix {prefix}"),
                };
                page.entries.iter().map(entry).collect::<Vec<_>>()
            };
            assert_eq!(
                (shown(&ra), ra.truncated),
                (shown(&rb), rb.truncated),
                "{query:?}"
            );
        }
    }
}

/// Puts anew every second record, and gives what was read: all but the numbers, which differ from store to store.
async fn reseal_some(store: &dyn ObjectStore, number: u64) -> Vec<(String, Bytes)> {
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = store.sealed(after.as_ref(), 3).await.unwrap();
        after = page.entries.last().map(|row| row.at.clone());
        let new: Vec<Resealed> = page
            .entries
            .iter()
            .step_by(2)
            .map(|row| Resealed {
                row: row.clone(),
                envelope: Bytes::from(format!("sealed anew {number}")),
            })
            .collect();
        let count = new.len() as u64;
        assert_eq!(store.reseal(new).await.unwrap(), count);
        read.extend(page.entries.into_iter().map(|row| {
            let at = match row.at {
                SealedAt::Object { bucket, key } => format!("object {bucket} {key}"),
                SealedAt::Upload { bucket, key, .. } => format!("upload {bucket} {key}"),
                SealedAt::Part { number, .. } => format!("part {number}"),
            };
            (at, row.envelope)
        }));
        if !page.truncated {
            return read;
        }
    }
}

/// Everything that can be seen of a store, contents included.
async fn snapshot(store: &dyn ObjectStore) -> Vec<String> {
    let mut seen = Vec::new();
    for bucket in store.buckets(None, 100).await.unwrap().entries {
        seen.push(format!("{bucket:?}"));
        if bucket.closed {
            assert!(matches!(
                store.list(&bucket.id, &ListQuery::default()).await,
                Err(StoreError::NoSuchBucket)
            ));
            continue;
        }
        let all = ListQuery {
            limit: 1000,
            ..ListQuery::default()
        };
        for listed in store.list(&bucket.id, &all).await.unwrap().entries {
            let (record, reader) = store.open(&bucket.id, listed.name()).await.unwrap();
            let content = read_all(&*reader).await.unwrap();
            let parts: Vec<_> = reader
                .parts()
                .iter()
                .map(|p| (p.number, p.plain_len, p.modified, p.envelope.clone()))
                .collect();
            let sum = content.iter().fold(0u64, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
            });
            seen.push(format!(
                "{:?} {:?} {parts:?} {sum}",
                visible(&record),
                record.modified
            ));
        }
        let all = UploadQuery {
            limit: 1000,
            ..UploadQuery::default()
        };
        for listed in store.uploads(&bucket.id, &all).await.unwrap().entries {
            let UploadEntry::Upload(upload) = listed else {
                continue;
            };
            let parts = store
                .parts(&bucket.id, &upload.key, &upload.id, 0, 100)
                .await
                .unwrap();
            let parts: Vec<_> = parts
                .entries
                .iter()
                .map(|p| (p.number, p.plain_len, p.envelope.clone()))
                .collect();
            seen.push(format!(
                "upload {} {:?} {:?} {parts:?}",
                upload.key, upload.envelope, upload.initiated
            ));
        }
    }
    seen
}

/// Files below `data` and in the quarantine.
fn data_files(dir: &Path) -> (usize, usize) {
    let count = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    let data = std::fs::read_dir(dir.join("data"))
        .unwrap()
        .map(|fan| count(&fan.unwrap().path()))
        .sum();
    (data, count(&dir.join("quarantine")))
}

async fn run(seed: u64, steps: u64) {
    println!("seed {seed}");
    let dir = quick_dir();
    let dice = SeededEntropy::new(seed);
    let mut pair = Pair {
        reference: MemoryStore::new(Arc::new(SystemRandom)),
        tested: LocalStore::open(local_options(dir.path())).unwrap(),
        uploads: BTreeMap::new(),
        next_upload: 0,
    };
    let mut last_sequence = 0;
    for number in 0..steps {
        pair.step(&dice, number).await;
        if dice.below(40) == 0 {
            pair.tested.close().await;
            drop(pair.tested);
            pair.tested = LocalStore::open(local_options(dir.path())).unwrap();
            assert_eq!(
                snapshot(&pair.reference).await,
                snapshot(&pair.tested).await,
                "seed {seed}, step {number}"
            );
            for bucket in BUCKETS {
                // Sequences rise across restarts, too.
                if let Ok(record) = put_with(
                    &pair.tested,
                    bucket,
                    "seq",
                    b"x",
                    commit_if("e", Condition::Always),
                )
                .await
                {
                    assert!(record.sequence > last_sequence);
                    last_sequence = record.sequence;
                    pair.tested
                        .delete(bucket, "seq", Condition::Always)
                        .await
                        .unwrap();
                }
            }
        }
    }
    assert_eq!(
        snapshot(&pair.reference).await,
        snapshot(&pair.tested).await,
        "seed {seed}"
    );
    // Nothing that nobody needs is left once everything is deleted.
    for bucket in BUCKETS {
        let all = ListQuery {
            limit: 1000,
            ..ListQuery::default()
        };
        if let Ok(page) = pair.tested.list(bucket, &all).await {
            let keys: Vec<_> = page
                .entries
                .iter()
                .map(|e| (e.name().to_owned(), Condition::Always))
                .collect();
            pair.tested.delete_many(bucket, &keys).await.unwrap();
        }
        match pair.tested.delete_bucket(bucket).await {
            Ok(()) | Err(StoreError::NoSuchBucket) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    pair.tested.close().await;
    assert_eq!(data_files(dir.path()), (0, 0), "seed {seed}");
    let index = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    for table in ["bucket", "object", "inline", "upload", "part"] {
        let rows: u32 = index
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(rows, 0, "{table}, seed {seed}");
    }
}

/// A long run with a seed of one's own: `SEALGATE_SEED=5 cargo nextest run -p s3 random_operations`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_do_what_they_do_to_a_map() {
    if let Some(seed) = std::env::var("SEALGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        run(seed, 5000).await;
        return;
    }
    let seeds = if std::env::var_os("SEALGATE_LONG").is_some() {
        100
    } else {
        2
    };
    for seed in 1..=seeds {
        run(seed, 300).await;
    }
}

/// With faults: what succeeded is there, what failed is not, and after a lost answer one of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_never_leave_half_an_object() {
    for seed in 1..=2u64 {
        println!("seed {seed}");
        let dir = quick_dir();
        let local = LocalStore::open(local_options(dir.path())).unwrap();
        local.create_bucket("b").await.unwrap();
        let faults = Faults {
            fail_per_mille: 80,
            lose_answer_per_mille: 80,
            ..Faults::default()
        };
        let store = FaultyStore::new(local, faults, Arc::new(SeededEntropy::new(seed)));
        let dice = SeededEntropy::new(seed);
        // What each key may hold now.
        let mut possible: BTreeMap<&str, Vec<Option<Vec<u8>>>> =
            KEYS.iter().map(|key| (*key, vec![None])).collect();
        for number in 0..200 {
            let key = *dice.pick(&KEYS);
            let (wanted, result) = if dice.below(4) == 0 {
                (
                    None,
                    store.delete("b", key, Condition::Always).await.map(drop),
                )
            } else {
                let plain = bytes(number, *dice.pick(&LENGTHS));
                let result =
                    put_with(&store, "b", key, &plain, commit_if("e", Condition::Always)).await;
                (Some(plain), result.map(drop))
            };
            let states = possible.get_mut(key).unwrap();
            match result {
                Ok(()) => *states = vec![wanted],
                Err(StoreError::Unknown(_)) => states.push(wanted),
                Err(StoreError::NoSpace | StoreError::Io { .. }) => {}
                Err(other) => panic!("seed {seed}: {other}"),
            }
            let now = match store.inner().open("b", key).await {
                Ok((_, reader)) => Some(read_all(&*reader).await.unwrap()),
                Err(StoreError::NoSuchKey) => None,
                Err(other) => panic!("seed {seed}: {other}"),
            };
            assert!(states.contains(&now), "seed {seed}, step {number}, {key}");
            *states = vec![now];
        }
        let objects = possible
            .values()
            .filter(|state| matches!(&state[0], Some(plain) if plain.len() > 65_536))
            .count();
        store.inner().close().await;
        assert_eq!(data_files(dir.path()), (objects, 0), "seed {seed}");
    }
}
