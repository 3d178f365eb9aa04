//! The embedded catalogue on the simulated disk: every crash point and every failing call of every sequence of a few
//! operations, and random lives. What was answered is there, what was refused is not, what is unknown was said to be.
//!
//! SEALGATE_LONG (`tests/run --long`) makes twenty times as many lives. See [`host::disk::sim::campaign`] for how one is
//! replayed.
#![allow(clippy::unwrap_used)]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use catalogue::{
    Batch, Catalogue as _, CatalogueError, Expect, Key, Scope, Sequence, StoreId, Table,
    sqlite::{Options, SqliteCatalogue},
};
use crypto::{
    random::SeededRandom, record::RecordKey, secret::SecretBytes, store_key::GenerationKey,
};
use host::{
    Disk as _,
    disk::sim::{
        Call, Failure, Fault, SimDisk,
        campaign::{self, Candidates, Found, Outcome, Subject},
    },
    entropy::SeededEntropy,
};
use sqlite_disk::{Registered, register};
use tokio::runtime::{Builder, Runtime};

const FOLDER: &str = "/data";
const TABLE: Table = Table::new("keys");
const STORE: StoreId = StoreId([9; 16]);
/// So little that the log is moved into the file every few commits.
const CHECKPOINT_EVERY: usize = 5 * 4096;

/// A step of a batch. What is expected is what was found just before, unless the step says something else.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Puts a record of so many bytes in this place, whether there is one or not.
    Put(u8, usize),
    /// Puts it where none may be.
    PutNew(u8, usize),
    /// Erases the record, which must be there.
    Erase(u8),
    /// Expects that nothing is there.
    Absent(u8),
    /// Expects a version that is never there.
    Stale(u8),
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Commit(&'static [Step]),
    Purge,
    Reopen,
}

/// What sequences are made of.
const OPS: [Op; 6] = [
    Op::Commit(&[Step::Put(1, 100)]),
    // Pages of its own in the database.
    Op::Commit(&[Step::Put(3, 9000)]),
    Op::Commit(&[Step::Erase(1)]),
    Op::Commit(&[Step::Put(2, 200), Step::Put(4, 100)]),
    // The first step would do.
    Op::Commit(&[Step::Put(4, 50), Step::Absent(1)]),
    Op::Purge,
];

/// What is done in a random life besides: it costs many calls, or changes nothing.
const MORE_OPS: [Op; 4] = [
    Op::Commit(&[Step::PutNew(2, 300)]),
    Op::Commit(&[Step::Stale(1)]),
    Op::Commit(&[Step::Put(5, 20_000), Step::Put(1, 10)]),
    Op::Reopen,
];

/// Of each place: the version, and the length of what is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    sequence: u64,
    records: BTreeMap<u8, (u64, usize)>,
}

impl State {
    /// What a batch makes of it; `None` if an expectation does not hold.
    fn after(&self, steps: &[Step]) -> Option<Self> {
        let mut next = self.clone();
        next.sequence += 1;
        for step in steps {
            match *step {
                Step::PutNew(id, _) | Step::Absent(id) if self.records.contains_key(&id) => {
                    return None;
                }
                Step::Put(id, len) | Step::PutNew(id, len) => {
                    let version = self.records.get(&id).map_or(0, |(version, _)| *version);
                    next.records.insert(id, (version + 1, len));
                }
                Step::Erase(id) => {
                    next.records.remove(&id)?;
                }
                Step::Absent(_) => {}
                Step::Stale(_) => return None,
            }
        }
        Some(next)
    }
}

fn key(id: u8) -> Key {
    let scope = Scope {
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
    };
    Key::new(scope, [id])
}

/// What a record of that length holds.
fn content(id: u8, version: u64, len: usize) -> Vec<u8> {
    let mark = id.wrapping_mul(17) ^ u8::try_from(version % 251).unwrap();
    vec![mark; len]
}

struct Store {
    // In this order: the connections go before their VFS.
    handle: Option<SqliteCatalogue>,
    vfs: Registered,
    disk: SimDisk,
    runtime: Runtime,
}

impl Store {
    fn handle(&self) -> Result<&SqliteCatalogue, CatalogueError> {
        let closed = || CatalogueError::Stopped("it is closed".to_owned());
        self.handle.as_ref().ok_or_else(closed)
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

struct Sqlite {
    records: RecordKey,
    /// Why the last operation was not answered, for the one who reads a failure.
    why: RefCell<String>,
    /// Whether it was that the handle has stopped.
    stopped: Cell<bool>,
}

/// What the catalogue may hold.
#[derive(Debug, Clone)]
struct Model {
    states: Candidates<State>,
    /// Whether anything failed since it was opened, so that the handle may have stopped.
    failed: bool,
}

impl Sqlite {
    fn new() -> Self {
        let generation = GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(7)));
        Self {
            records: generation.record_key("keys"),
            why: RefCell::default(),
            stopped: Cell::new(false),
        }
    }

    fn connect(&self, disk: &SimDisk, create: bool) -> Result<Store, CatalogueError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let vfs = register(
            &format!("crashes-{}", NEXT.fetch_add(1, Relaxed)),
            Arc::new(disk.clone()),
            Arc::new(SeededEntropy::new(1)),
        );
        let handle = open_handle(disk, &vfs, create)?;
        Ok(Store {
            handle: Some(handle),
            vfs,
            disk: disk.clone(),
            runtime: Builder::new_current_thread().build().unwrap(),
        })
    }

    fn outcome<T>(&self, result: Result<T, CatalogueError>) -> Outcome {
        self.stopped
            .set(matches!(result, Err(CatalogueError::Stopped(_))));
        let why = result.as_ref().err().map(ToString::to_string);
        self.why.replace(why.unwrap_or_default());
        match result {
            Ok(_) => Outcome::Answered,
            Err(CatalogueError::Unknown(_)) => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        }
    }

    /// The batch of these steps, on what is there now.
    async fn batch(
        &self,
        handle: &SqliteCatalogue,
        steps: &[Step],
    ) -> Result<Batch, CatalogueError> {
        let mut batch = Batch::new();
        for step in steps {
            let (Step::Put(id, _)
            | Step::PutNew(id, _)
            | Step::Erase(id)
            | Step::Absent(id)
            | Step::Stale(id)) = *step;
            let version = handle
                .get(TABLE, &key(id))
                .await?
                .map(|found| found.version);
            let expect = match *step {
                Step::Put(..) => version.map_or(Expect::Absent, Expect::Version),
                Step::PutNew(..) | Step::Absent(_) => Expect::Absent,
                Step::Erase(_) => Expect::Version(version.unwrap_or(1)),
                Step::Stale(_) => Expect::Version(version.unwrap_or_default() + 1),
            };
            let target = key(id);
            batch = match *step {
                Step::Put(_, len) | Step::PutNew(_, len) => {
                    let version = expect.next_version();
                    let place = target.place(TABLE, version);
                    let bytes = content(id, version, len);
                    let random = SeededRandom::new(u64::from(id));
                    let sealed = self.records.seal_at(&place, 1, &bytes, &random);
                    batch.put(TABLE, target, expect, sealed)
                }
                Step::Erase(_) => batch.erase(TABLE, target, version.unwrap_or(1)),
                Step::Absent(_) | Step::Stale(_) => batch.check(TABLE, target, expect),
            };
        }
        Ok(batch)
    }

    /// All that the catalogue holds.
    async fn look(&self, handle: &SqliteCatalogue) -> Result<State, CatalogueError> {
        let damaged = |what: &str| CatalogueError::Damaged(what.to_owned());
        let mut state = State {
            sequence: handle.sequence().await?.0,
            records: BTreeMap::new(),
        };
        for record in handle.page(TABLE, None, None, 100).await?.records {
            let opened = self
                .records
                .open_at(&record.place(TABLE), &record.sealed)
                .map_err(|_| damaged("a record does not open where it is"))?;
            let [id] = record.key.id[..] else {
                return Err(damaged("a record that was never put"));
            };
            let opened = opened.expose();
            if opened != content(id, record.version, opened.len()) {
                return Err(damaged("a record holds what was never put"));
            }
            state.records.insert(id, (record.version, opened.len()));
        }
        // The changes tell of the same state.
        let changes = handle.changes(Sequence(0), 1000).await?;
        if changes.upto.0 != state.sequence {
            return Err(damaged("the changes end elsewhere"));
        }
        let mut told = BTreeMap::new();
        for change in changes.changes {
            match change.version {
                Some(version) => told.insert(change.key.id[0], version),
                None => told.remove(&change.key.id[0]),
            };
        }
        if !told
            .iter()
            .eq(state.records.iter().map(|(id, (version, _))| (id, version)))
        {
            return Err(damaged("the changes tell of other records"));
        }
        Ok(state)
    }
}

fn open_handle(
    disk: &SimDisk,
    vfs: &Registered,
    create: bool,
) -> Result<SqliteCatalogue, CatalogueError> {
    SqliteCatalogue::open(options(disk, vfs, create))
}

fn options(disk: &SimDisk, vfs: &Registered, create: bool) -> Options {
    let mut options = Options::new(Path::new(FOLDER).join("catalogue.db"));
    options.create = create.then_some(STORE);
    options.vfs = Some(vfs.name().to_str().unwrap().to_owned());
    options.exclusive = true;
    options.checkpoint_every = CHECKPOINT_EVERY;
    options.disk = Arc::new(disk.clone());
    options
}

impl Subject for Sqlite {
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
        host::private::create_dirs(disk, Path::new(FOLDER)).unwrap();
        let store = self.connect(disk, true).unwrap();
        assert_eq!(
            store.wait(store.handle().unwrap().store_id()).unwrap(),
            STORE
        );
        disk.sync_dir(Path::new("/")).unwrap();
        Model {
            states: Candidates::new(State::default()),
            failed: false,
        }
    }

    fn open(&self, disk: &SimDisk) -> Result<Store, String> {
        self.connect(disk, false).map_err(|error| error.to_string())
    }

    fn apply(&self, store: &mut Store, op: &Op) -> Outcome {
        match op {
            Op::Commit(steps) => self.outcome(store.handle().and_then(|handle| {
                store.wait(async {
                    let batch = self.batch(handle, steps).await?;
                    let committed = handle.commit(batch).await;
                    // The log may be moved into the file after the answer: what comes next waits for it.
                    let _ = handle.sequence().await;
                    committed
                })
            })),
            Op::Purge => self.outcome(store.handle().and_then(|handle| store.wait(handle.purge()))),
            Op::Reopen => {
                store.handle = None;
                let opened = open_handle(&store.disk, &store.vfs, false);
                let outcome = self.outcome(opened.as_ref().map_err(CatalogueError::clone));
                store.handle = opened.ok();
                outcome
            }
        }
    }

    fn note(
        &self,
        model: &mut Model,
        op: &Op,
        outcome: Outcome,
        healthy: bool,
    ) -> Result<(), String> {
        model.failed |= !healthy;
        // A handle whose sync has failed does nothing more.
        let excused = !healthy || (model.failed && self.stopped.get());
        let steps = match op {
            Op::Commit(steps) => *steps,
            _ if !excused && outcome != Outcome::Answered => {
                let why = self.why.borrow();
                return Err(format!(
                    "{op:?} was {outcome:?} ({why}), and nothing failed"
                ));
            }
            _ => return Ok(()),
        };
        let told = model
            .states
            .told(outcome, healthy, excused, |state| state.after(steps));
        told.map_err(|wrong| format!("{op:?} ({}): {wrong}", self.why.borrow()))
    }

    fn check(&self, store: &mut Store, model: &mut Model, found: Found) -> Result<(), String> {
        let looked = store
            .handle()
            .and_then(|handle| store.wait(self.look(handle)));
        match looked {
            // It may have stopped after it had answered, when the log was moved into the file.
            Err(CatalogueError::Stopped(_)) if found == Found::Running && model.failed => {
                return Ok(());
            }
            looked => model
                .states
                .found(looked.map_err(|error| error.to_string())?)?,
        }
        model.failed &= found == Found::Running;
        Ok(())
    }
}

/// The lengths of what a killed process would leave, by place.
fn killed(subject: &Sqlite, disk: &SimDisk, seed: u64) -> Vec<(u8, usize)> {
    let disk = disk.fork(seed);
    let store = subject.open(&disk).unwrap();
    let state = store
        .wait(subject.look(store.handle().unwrap()))
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let records = state.records.into_iter();
    records.map(|(id, (_, len))| (id, len)).collect()
}

#[test]
fn what_a_full_disk_has_refused_to_one_of_two_handles_stays_refused_after_a_kill() {
    let subject = Sqlite::new();
    let mut whole = 0;
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        subject.create(&disk);
        let vfs = register(
            &format!("two-{seed}"),
            Arc::new(disk.clone()),
            Arc::new(SeededEntropy::new(1)),
        );
        let open = || {
            let mut options = options(&disk, &vfs, false);
            options.exclusive = false;
            SqliteCatalogue::open(options).unwrap()
        };
        let (one, two) = (open(), open());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let commit = |handle: &SqliteCatalogue, steps: &[Step]| {
            runtime.block_on(async {
                let batch = subject.batch(handle, steps).await.unwrap();
                handle.commit(batch).await
            })
        };
        commit(&two, &[Step::Put(1, 100)]).unwrap();
        let log = Path::new(FOLDER).join("catalogue.db-wal");
        let before = disk.bytes(&log).len();
        // Each page of a commit is two writes: which is the last depends on how many pages there are.
        for write in 0.. {
            let full = Fault::new(Failure::NoSpace).on(&[Call::Write]);
            disk.fail(full.at("-wal").after(write));
            let refused = commit(&one, &[Step::Put(2, 200)]);
            if refused.is_ok() {
                disk.clear_faults();
                break;
            }
            assert!(matches!(refused, Err(CatalogueError::Full)), "seed {seed}");
            assert_eq!(killed(&subject, &disk, seed), [(1, 100)], "seed {seed}");
            assert_eq!(disk.bytes(&log).len(), before, "seed {seed}");
            whole += 1;
        }
        commit(&two, &[Step::Put(3, 300)]).unwrap();
        let all = [(1, 100), (2, 200), (3, 300)];
        assert_eq!(killed(&subject, &disk, seed), all, "seed {seed}");
        drop((one, two));
    }
    assert!(whole > 200, "{whole} commits were refused");
}

#[test]
fn a_refused_change_that_cannot_be_taken_back_is_unknown_and_stops_the_handle() {
    let subject = Sqlite::new();
    let mut unknown = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        subject.create(&disk);
        let mut store = subject.open(&disk).unwrap();
        let full = Fault::new(Failure::NoSpace).on(&[Call::Write]);
        disk.fail(full.at("-wal").after(4));
        disk.fail(Fault::new(Failure::Io).on(&[Call::SetLen]).at("-wal"));
        let outcome = subject.apply(&mut store, &Op::Commit(&[Step::Put(1, 100)]));
        assert_ne!(outcome, Outcome::Answered, "seed {seed}");
        if outcome == Outcome::Unknown {
            unknown += 1;
            let after = subject.apply(&mut store, &Op::Commit(&[Step::Put(2, 100)]));
            assert_eq!(after, Outcome::Refused, "seed {seed}");
            assert!(subject.stopped.get(), "seed {seed}");
        }
    }
    assert!(unknown > 0, "nothing was to be taken back");
}

/// Every sequence of at most three operations, in shares that run side by side.
const SHARES: u64 = 6;

fn every_crash_and_failure_of(share: u64) {
    let report = campaign::exhaustive_share(&Sqlite::new(), 3, 1, share, SHARES);
    println!("{report:?}");
    assert_eq!(report.runs, (6 + 36 + 216) / SHARES);
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
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_6: 5,
}

#[test]
fn random_lives_of_crashes_and_failures_leave_what_was_answered() {
    let long = std::env::var_os("SEALGATE_LONG").is_some();
    let report = campaign::random(&Sqlite::new(), if long { 100_000 } else { 5000 }, 1);
    println!("{report:?}");
    assert!(report.stops + report.failures > report.runs, "{report:?}");
}
