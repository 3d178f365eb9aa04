//! The local store, index and data files, on the simulated disk: every crash point and every failing call of every
//! sequence of a few operations, and random lives. What was answered is there, what was refused is not, what is unknown
//! was said to be; and no data file is left that no row names, or put aside as nobody's.
//!
//! SEALGATE_LONG (`tests/run --long`) makes twenty times as many lives. See [`host::disk::sim::campaign`] for how one is
//! replayed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crypto::random::SeededRandom;
use host::disk::sim::SimDisk;
use host::disk::sim::campaign::{self, Candidates, Found, Outcome, Subject};
use host::entropy::SeededEntropy;
use s3::store::local::{LocalStore, Options};
use s3::store::{
    Condition, ListQuery, ObjectStore, PartSeen, StoreError, UploadEntry, UploadId, UploadQuery,
};
use sqlite_disk::{Registered, register};
use tokio::runtime::{Builder, Runtime};

use crate::sealing::{bytes, commit_if, date, get, put_part, put_with};

const ROOT: &str = "/objects";
const BUCKET: &str = "b";
/// The key that uploads become.
const ASSEMBLED: &str = "assembled";
/// Longer objects are files.
const INLINE_LEN_MAX: usize = 1000;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Puts an object of so many bytes, over what is there.
    Put(&'static str, usize),
    /// Puts it where none may be.
    PutNew(&'static str, usize),
    /// Puts its envelope anew.
    Reseal(&'static str),
    Delete(&'static str),
    /// Begins an upload, if there is none.
    Begin,
    /// A part of the upload, over the one of that number.
    Part(u32, usize),
    Complete,
    Abort,
    Reopen,
}

/// What sequences are made of. An upload is there from the start.
const OPS: [Op; 5] = [
    Op::Put("k", 100),
    Op::Put("k", 9000),
    Op::Delete("k"),
    Op::Part(1, 5000),
    Op::Complete,
];

/// What is done in a random life besides.
const MORE_OPS: [Op; 11] = [
    Op::Abort,
    Op::PutNew("k", 2000),
    Op::Put("k", 140_000),
    Op::Put("l", 9000),
    Op::Put(ASSEMBLED, 300),
    Op::Delete("l"),
    Op::Delete(ASSEMBLED),
    Op::Reseal("k"),
    Op::Begin,
    Op::Part(2, 70_000),
    Op::Reopen,
];

/// What a store holds: of each object its version, length and how often its envelope was put anew; of the upload the
/// lengths of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    objects: BTreeMap<String, (u64, usize, u64)>,
    upload: Option<BTreeMap<u32, usize>>,
}

impl State {
    fn version(&self, key: &str) -> u64 {
        self.objects.get(key).map_or(0, |(version, ..)| *version)
    }

    /// What an operation makes of it; `None` if it is refused.
    fn after(&self, op: &Op) -> Option<Self> {
        let mut next = self.clone();
        match *op {
            Op::Put(key, len) | Op::PutNew(key, len) => {
                if matches!(op, Op::PutNew(..)) && next.objects.contains_key(key) {
                    return None;
                }
                let new = (next.version(key) + 1, len, 0);
                next.objects.insert(key.to_owned(), new);
            }
            Op::Reseal(key) => next.objects.get_mut(key)?.2 += 1,
            Op::Delete(key) => drop(next.objects.remove(key)?),
            Op::Begin if next.upload.is_some() => return None,
            Op::Begin => next.upload = Some(BTreeMap::new()),
            Op::Part(number, len) => drop(next.upload.as_mut()?.insert(number, len)),
            Op::Complete => {
                let parts = next.upload.take()?;
                if parts.is_empty() {
                    return None;
                }
                let version = next.version(ASSEMBLED) + 1;
                let new = (version, parts.values().sum(), 0);
                next.objects.insert(ASSEMBLED.to_owned(), new);
            }
            Op::Abort => drop(next.upload.take()?),
            Op::Reopen => {}
        }
        Some(next)
    }
}

struct Store {
    // In this order: the connections go before their VFS.
    local: Option<LocalStore>,
    vfs: Registered,
    disk: SimDisk,
    runtime: Arc<Runtime>,
}

impl Store {
    fn local(&self) -> Result<&LocalStore, StoreError> {
        let closed = || StoreError::Stopped("it is closed".to_owned());
        self.local.as_ref().ok_or_else(closed)
    }

    fn close(&mut self) {
        if let Some(local) = self.local.take() {
            self.runtime.block_on(local.close());
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

struct Local {
    runtime: Arc<Runtime>,
    /// Why the last operation was not answered, for the one who reads a failure.
    why: RefCell<String>,
    /// Whether it was that the store has stopped.
    stopped: Cell<bool>,
}

/// What the store may hold.
#[derive(Debug, Clone)]
struct Model {
    states: Candidates<State>,
    /// Whether anything failed since it was opened, so that it may have stopped.
    failed: bool,
}

fn envelope(version: u64, resealed: u64) -> String {
    format!("{version} {resealed}")
}

fn version_of(envelope: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(envelope).ok()?;
    let (version, resealed) = text.split_once(' ')?;
    Some((version.parse().ok()?, resealed.parse().ok()?))
}

/// An absent object or upload as `None`.
fn found<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NoSuchKey | StoreError::NoSuchUpload) => Ok(None),
        Err(error) => Err(error),
    }
}

fn wrong(what: String) -> StoreError {
    StoreError::Corrupt(what)
}

/// The upload, if there is one.
async fn upload(store: &LocalStore) -> Result<Option<UploadId>, StoreError> {
    let query = UploadQuery {
        limit: 10,
        ..UploadQuery::default()
    };
    match &store.uploads(BUCKET, &query).await?.entries[..] {
        [] => Ok(None),
        [UploadEntry::Upload(upload)] => Ok(Some(upload.id.clone())),
        more => Err(wrong(format!("these uploads: {more:?}"))),
    }
}

/// The version that the next object of a key gets.
async fn next_version(store: &LocalStore, key: &str) -> Result<u64, StoreError> {
    let old = found(store.head(BUCKET, key).await)?;
    let old = old.and_then(|old| version_of(&old.envelope));
    Ok(old.map_or(0, |(version, _)| version) + 1)
}

async fn put(
    store: &LocalStore,
    key: &str,
    len: usize,
    condition: Condition,
) -> Result<(), StoreError> {
    let version = next_version(store, key).await?;
    let commit = commit_if(&envelope(version, 0), condition);
    put_with(store, BUCKET, key, &bytes(version, len), commit)
        .await
        .map(drop)
}

async fn complete(store: &LocalStore, id: &UploadId) -> Result<(), StoreError> {
    let parts = store.parts(BUCKET, ASSEMBLED, id, 0, 10).await?.entries;
    let seen: Vec<_> = parts
        .iter()
        .map(|part| PartSeen {
            number: part.number,
            sequence: part.sequence,
        })
        .collect();
    let version = next_version(store, ASSEMBLED).await?;
    let commit = commit_if(&envelope(version, 0), Condition::Always);
    store
        .complete_upload(BUCKET, ASSEMBLED, id, &seen, commit)
        .await
        .map(drop)
}

/// Does one operation. `None` if what it needs is not there.
async fn apply(store: &LocalStore, op: &Op) -> Result<Option<()>, StoreError> {
    match *op {
        Op::Put(key, len) => put(store, key, len, Condition::Always).await.map(Some),
        Op::PutNew(key, len) => put(store, key, len, Condition::Absent).await.map(Some),
        Op::Reseal(key) => {
            let Some(old) = found(store.head(BUCKET, key).await)? else {
                return Ok(None);
            };
            let (version, resealed) = version_of(&old.envelope).unwrap();
            let new = Bytes::from(envelope(version, resealed + 1));
            let replaced = store.replace_envelope(BUCKET, key, old.sequence, new);
            replaced.await.map(|_| Some(()))
        }
        Op::Delete(key) => {
            let deleted = store.delete(BUCKET, key, Condition::Always).await?;
            Ok(deleted.then_some(()))
        }
        Op::Begin => {
            if upload(store).await?.is_some() {
                return Ok(None);
            }
            let begun = store.create_upload(BUCKET, ASSEMBLED, Bytes::new(), date(0));
            begun.await.map(|_| Some(()))
        }
        Op::Part(number, len) => {
            let Some(id) = upload(store).await? else {
                return Ok(None);
            };
            let plain = bytes(u64::from(number), len);
            put_part(store, BUCKET, ASSEMBLED, &id, number, &plain)
                .await
                .map(|_| Some(()))
        }
        Op::Complete => match upload(store).await? {
            Some(id) => complete(store, &id).await.map(Some),
            None => Ok(None),
        },
        Op::Abort => match upload(store).await? {
            Some(id) => {
                let aborted = store.abort_upload(BUCKET, ASSEMBLED, &id);
                aborted.await.map(Some)
            }
            None => Ok(None),
        },
        Op::Reopen => Ok(Some(())),
    }
}

/// All that the store holds, read to its end.
async fn look(store: &LocalStore) -> Result<State, StoreError> {
    let mut state = State::default();
    let query = ListQuery {
        limit: 100,
        ..ListQuery::default()
    };
    for entry in store.list(BUCKET, &query).await?.entries {
        let key = entry.name().to_owned();
        let record = store.head(BUCKET, &key).await?;
        let (version, resealed) = version_of(&record.envelope)
            .ok_or_else(|| wrong(format!("the envelope {:?}", record.envelope)))?;
        let content = get(store, BUCKET, &key).await?;
        let expected = match record.part_count {
            0 => bytes(version, content.len()),
            _ => {
                let (_, reader) = store.open(BUCKET, &key).await?;
                let parts = reader.parts().iter();
                let parts =
                    parts.map(|part| bytes(u64::from(part.number), part.plain_len as usize));
                parts.collect::<Vec<_>>().concat()
            }
        };
        if content != expected {
            return Err(wrong(format!("{key} holds what was never put")));
        }
        let of = (version, content.len(), resealed);
        state.objects.insert(key, of);
    }
    if let Some(id) = upload(store).await? {
        let parts = store.parts(BUCKET, ASSEMBLED, &id, 0, 10).await?.entries;
        let parts = parts.iter();
        let parts = parts.map(|part| (part.number, part.plain_len as usize));
        state.upload = Some(parts.collect());
    }
    Ok(state)
}

/// A number that differs from one open to the next where the disk does: no data file's name is drawn again while a file
/// has it.
fn seed(disk: &SimDisk) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for path in disk.paths() {
        for byte in path.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn open_local(disk: &SimDisk, vfs: &Registered) -> Result<LocalStore, StoreError> {
    let mut options = Options::new(ROOT, Arc::new(SeededRandom::new(seed(disk))));
    options.disk = Arc::new(disk.clone());
    options.vfs = Some(vfs.name().to_str().unwrap().to_owned());
    options.inline_len_max = INLINE_LEN_MAX;
    options.reserve_bytes = 0;
    options.folders = 1;
    options.names_drawn = 2;
    // So little that it happens every few operations.
    options.checkpoint_every = 12 * 4096;
    options.removed_kept = 2;
    LocalStore::open(options)
}

impl Local {
    fn new() -> Self {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().unwrap();
        Self {
            runtime: Arc::new(runtime),
            why: RefCell::default(),
            stopped: Cell::new(false),
        }
    }

    fn connect(&self, disk: &SimDisk) -> Result<Store, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("objects-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let entropy = Arc::new(SeededEntropy::new(seed(disk)));
        let vfs = register(&name, Arc::new(disk.clone()), entropy);
        Ok(Store {
            local: Some(open_local(disk, &vfs)?),
            vfs,
            disk: disk.clone(),
            runtime: Arc::clone(&self.runtime),
        })
    }

    fn outcome(&self, result: Result<Option<()>, StoreError>) -> Outcome {
        self.stopped
            .set(matches!(result, Err(StoreError::Stopped(_))));
        let why = result.as_ref().err().map(|error| format!("{error:?}"));
        self.why.replace(why.unwrap_or_default());
        match result {
            Ok(Some(())) => Outcome::Answered,
            Err(StoreError::Unknown(_)) => Outcome::Unknown,
            Ok(None) | Err(_) => Outcome::Refused,
        }
    }
}

/// How many data files there are.
fn data_files(disk: &SimDisk) -> usize {
    let paths = disk.paths();
    let data = Path::new(ROOT).join("data");
    paths.iter().filter(|path| path.starts_with(&data)).count()
}

/// How many are needed, without those of the object that is made of parts.
fn needed(state: &State) -> usize {
    let parts = state.upload.as_ref().map_or(0, BTreeMap::len);
    let file = |(key, (_, len, _)): (&String, &(u64, usize, u64))| {
        usize::from(key != ASSEMBLED && *len > INLINE_LEN_MAX)
    };
    parts + state.objects.iter().map(file).sum::<usize>()
}

impl Subject for Local {
    type Op = Op;
    type Store = Store;
    type Model = Model;

    fn ops(&self) -> Vec<Op> {
        OPS.to_vec()
    }

    fn random_op(&self, rng: &SeededEntropy) -> Op {
        let n = usize::try_from(rng.below((OPS.len() + MORE_OPS.len()) as u64)).unwrap();
        OPS.iter().chain(&MORE_OPS).copied().nth(n).unwrap()
    }

    fn create(&self, disk: &SimDisk) -> Model {
        let store = self.connect(disk).unwrap();
        self.runtime.block_on(async {
            let local = store.local().unwrap();
            local.create_bucket(BUCKET).await.unwrap();
            assert_eq!(apply(local, &Op::Begin).await.unwrap(), Some(()));
        });
        let state = State {
            upload: Some(BTreeMap::new()),
            ..State::default()
        };
        Model {
            states: Candidates::new(state),
            failed: false,
        }
    }

    fn open(&self, disk: &SimDisk) -> Result<Store, String> {
        self.connect(disk).map_err(|error| format!("{error:?}"))
    }

    fn apply(&self, store: &mut Store, op: &Op) -> Outcome {
        if matches!(op, Op::Reopen) {
            store.close();
            let opened = open_local(&store.disk, &store.vfs);
            let outcome = match &opened {
                Ok(_) => self.outcome(Ok(Some(()))),
                Err(error) => self.outcome(Err(wrong(error.to_string()))),
            };
            store.local = opened.ok();
            return outcome;
        }
        let local = match store.local() {
            Ok(local) => local,
            Err(error) => return self.outcome(Err(error)),
        };
        let done = self.runtime.block_on(async {
            let done = apply(local, op).await;
            // What goes on behind the answer is over before the next call.
            local.settle().await;
            done
        });
        self.outcome(done)
    }

    fn note(
        &self,
        model: &mut Model,
        op: &Op,
        outcome: Outcome,
        healthy: bool,
    ) -> Result<(), String> {
        model.failed |= !healthy;
        // One whose sync has failed does nothing more.
        let excused = !healthy || (model.failed && self.stopped.get());
        let told = model
            .states
            .told(outcome, healthy, excused, |state| state.after(op));
        told.map_err(|wrong| format!("{op:?} ({}): {wrong}", self.why.borrow()))
    }

    fn check(&self, store: &mut Store, model: &mut Model, found: Found) -> Result<(), String> {
        let looked = match store.local() {
            Ok(local) => self.runtime.block_on(look(local)),
            // A reopening that failed, with nothing to ask.
            Err(_) if found == Found::Running && model.failed => return Ok(()),
            Err(error) => Err(error),
        };
        let state = match looked {
            // It may have stopped after it had answered, when the log was moved into the index.
            Err(StoreError::Stopped(_)) if found == Found::Running && model.failed => {
                return Ok(());
            }
            looked => looked.map_err(|error| format!("{error:?}"))?,
        };
        if found != Found::Running {
            let (there, needed) = (data_files(&store.disk), needed_with_parts(store, &state)?);
            if there != needed {
                return Err(format!(
                    "{there} data files, {needed} are needed: {state:?}"
                ));
            }
            let quarantined = store.local().map_or(0, LocalStore::quarantined);
            if quarantined > 0 {
                return Err(format!("{quarantined} data files are in the quarantine"));
            }
            model.failed = false;
        }
        model.states.found(state)
    }
}

/// How many data files the store needs, with those of the object that is made of parts.
fn needed_with_parts(store: &Store, state: &State) -> Result<usize, String> {
    let local = store.local().map_err(|error| error.to_string())?;
    let parts = async {
        match found(local.open(BUCKET, ASSEMBLED).await)? {
            Some((record, reader)) if record.part_count > 0 => Ok(reader.parts().len()),
            Some((record, _)) => Ok(usize::from(record.size > INLINE_LEN_MAX as u64)),
            None => Ok(0),
        }
    };
    let parts: Result<usize, StoreError> = store.runtime.block_on(parts);
    Ok(needed(state) + parts.map_err(|error| error.to_string())?)
}

/// Every sequence of at most three operations, in shares that run side by side.
const SHARES: u64 = 5;

fn every_crash_and_failure_of(share: u64) {
    let report = campaign::exhaustive_share(&Local::new(), 3, 1, share, SHARES);
    println!("{report:?}");
    assert_eq!(report.runs, (5 + 25 + 125) / SHARES);
    assert!(report.stops > 10 * report.runs, "{report:?}");
    assert!(report.failures > 10 * report.runs, "{report:?}");
}

host::campaign_shares! {
    every_crash_and_failure_of:
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_1: 0,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_2: 1,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_3: 2,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_4: 3,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_5: 4,
}

fn random_lives(share: u64) {
    let long = std::env::var_os("SEALGATE_LONG").is_some();
    let lives = if long { 50_000 } else { 2500 };
    let report = campaign::random(&Local::new(), lives, 1 + share * lives);
    println!("{report:?}");
    assert!(report.stops + report.failures > report.runs, "{report:?}");
}

#[test]
fn random_lives_of_crashes_and_failures_leave_what_was_answered_1() {
    random_lives(0);
}

#[test]
fn random_lives_of_crashes_and_failures_leave_what_was_answered_2() {
    random_lives(1);
}
