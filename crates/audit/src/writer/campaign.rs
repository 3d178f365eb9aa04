//! The log on the simulated disk: every crash point and every failing call of every sequence of a few operations, and
//! random lives. What was answered is there under its number, what was refused is not, what is neither was said to be
//! unknown, no number has two records, and the log verifies after each start.
//!
//! The turns are taken here, by one thread and in a fixed order, so that the same calls come each time; the tests in
//! `tests/behaviour` run the threads. The journal is so short that a few records fill a half, and a segment holds a
//! few more.
//!
//! `SEALGATE_LONG` (`tests/run --long`) makes twenty times as many lives. See [`host::disk::sim::campaign`] for how one is
//! replayed.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use host::{
    disk::sim::{
        SimDisk,
        campaign::{self, Found, Outcome, Subject},
    },
    entropy::SeededEntropy,
};

mod failures;

use super::{Shared, Ticket};
use crate::{
    chain, error::AuditError, event::Event, group::Kind, options::AuditOptions, recover, segment,
    verify::verify,
};

const FOLDER: &str = "/audit";
const HALF_LEN: usize = 4096;
const SEGMENT_LEN: u64 = 1500;

/// What is asked of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// One record.
    Record,
    /// One that takes most of a half.
    Long,
    /// Three records that make one group.
    Burst,
    /// A group written before the one ahead of it is synced; one sync covers both.
    Ahead,
    /// A group written while the one ahead of it is synced.
    Meanwhile,
    /// An access to data that shares the group of a record.
    Data,
    /// An intent.
    Intent,
    /// The outcome of the oldest intent that has none.
    Outcome,
    /// An intent and its outcome in a row.
    Change,
    /// Closes and opens.
    Reopen,
    /// Verifies the live log.
    Verify,
}

/// What sequences are made of.
const OPS: [Op; 9] = [
    Op::Record,
    Op::Long,
    Op::Burst,
    Op::Ahead,
    Op::Meanwhile,
    Op::Intent,
    Op::Outcome,
    Op::Change,
    Op::Reopen,
];

/// What is done in a random life besides: it is much like another one, or changes nothing.
const MORE_OPS: [Op; 2] = [Op::Data, Op::Verify];

/// What a record is to the one who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Plain,
    Intent,
    /// Of the intent with this number.
    Outcome(u64),
}

/// What became of a record, as far as anybody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It has this number.
    Durable(u64),
    /// It is not in the log and will not be.
    Gone,
    Unknown,
}

/// A record that was asked for: its id, which stands in it.
#[derive(Debug, Clone, Copy)]
struct Asked {
    id: u64,
    what: What,
    fate: Fate,
}

/// What the log may hold.
#[derive(Debug, Clone, Default)]
struct Model {
    asked: BTreeMap<u64, (What, Fate)>,
    /// Whether anything failed since it was opened, so that it may refuse.
    failed: bool,
}

struct Store {
    shared: Option<Arc<Shared>>,
    options: AuditOptions,
    disk: SimDisk,
    /// Intents without an outcome, by their numbers.
    open: Vec<u64>,
}

/// A record on its way: its id, what it is, where its answer comes.
type Waiting = (u64, What, Result<(Arc<Ticket>, u64), AuditError>);

#[derive(Default)]
struct Log {
    /// The last id; none is used twice.
    last: Cell<u64>,
    /// What the last operation asked for, for the model.
    asked: RefCell<Vec<Asked>>,
    /// Why the last operation went wrong, where the log is to blame.
    wrong: RefCell<Option<String>>,
    /// How often a record was taken after the disk had been full.
    resumed: Cell<u64>,
}

fn options(disk: &SimDisk) -> AuditOptions {
    let clock = host::clock::ManualClock::new(SystemTime::UNIX_EPOCH);
    let mut options = AuditOptions::new(FOLDER, Arc::new(clock));
    options.disk = Arc::new(disk.clone());
    options.segment_len = SEGMENT_LEN;
    options.half_len = HALF_LEN;
    options.data_events = true;
    options
}

impl Store {
    fn open(&mut self) -> Result<(), AuditError> {
        let opened = recover::open(&self.options)?;
        let notes = opened.notes.clone();
        let shared = Arc::new(Shared::new(opened, &self.options));
        shared.note(notes)?;
        self.shared = Some(shared);
        Ok(())
    }

    fn close(&mut self) {
        self.open.clear();
        if let Some(shared) = self.shared.take() {
            shared.close();
            shared.finish();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Log {
    fn push(&self, shared: &Shared, what: What, pad: usize) -> Waiting {
        let id = self.last.get() + 1;
        self.last.set(id);
        // Of one length, so that a sequence makes the same calls whenever it is run.
        let request = format!("{id:012}{}", "x".repeat(pad));
        let (kind, intent, outcome) = match what {
            What::Plain => (Kind::Plain, None, "Success"),
            What::Intent => (Kind::Intent, None, "Intended"),
            What::Outcome(intent) => (Kind::Outcome(intent), Some(intent), "Success"),
        };
        let event = Event {
            time: SystemTime::UNIX_EPOCH,
            operation: "Encrypt",
            outcome,
            principal: "p",
            access_key: None,
            via: "api",
            account: None,
            region: None,
            key: None,
            destination_key: None,
            alias: None,
            material: None,
            encryption_context: None,
            destination_encryption_context: None,
            bucket: None,
            object: None,
            resource: None,
            request_id: &request,
            source: None,
            count: None,
        };
        let mut rest = Vec::new();
        event.write_to(&mut rest, intent);
        let handed = shared.push(&rest, kind);
        let handed = handed.map(|handed| handed.expect("there is room for a few records"));
        (id, what, handed)
    }

    /// What became of records, once the turns are over.
    fn answers(&self, waiting: Vec<Waiting>) -> Vec<Asked> {
        let fate = |handed: Result<(Arc<Ticket>, u64), AuditError>| match handed {
            // Turned away before it was anywhere.
            Err(_) => Fate::Gone,
            Ok((ticket, index)) => match ticket.done.get() {
                Some(Ok(first)) => Fate::Durable(first + index),
                Some(Err(_)) => Fate::Unknown,
                None => {
                    self.wrong.replace(Some("nobody answered".to_owned()));
                    Fate::Unknown
                }
            },
        };
        let asked = |(id, what, handed)| Asked {
            id,
            what,
            fate: fate(handed),
        };
        let answers: Vec<Asked> = waiting.into_iter().map(asked).collect();
        self.asked.borrow_mut().extend(&answers);
        answers
    }

    fn ask(&self, shared: &Shared, what: What, pad: usize) -> Asked {
        let waiting = self.push(shared, what, pad);
        write(shared);
        sync(shared);
        self.answers(vec![waiting])[0]
    }

    /// Both groups at once: written one after the other, or the second while the first is synced.
    fn two(&self, shared: &Shared, meanwhile: bool) {
        let mut waiting = vec![self.push(shared, What::Plain, 0)];
        write(shared);
        let first = {
            let mut state = shared.state.lock();
            state.syncing = meanwhile;
            match meanwhile {
                true => std::mem::take(&mut state.written),
                false => std::collections::VecDeque::new(),
            }
        };
        waiting.push(self.push(shared, What::Plain, 100));
        write(shared);
        if meanwhile {
            let mut state = shared.state.lock();
            shared.sync_groups(&mut state, first);
            state.syncing = false;
        }
        sync(shared);
        self.answers(waiting);
    }
}

/// The writing turn, if there is room for what has gathered.
fn write(shared: &Shared) {
    let mut state = shared.state.lock();
    let syncing = std::mem::take(&mut state.syncing);
    let may = shared.may_write(&state);
    state.syncing = syncing;
    if may {
        shared.write_turn(&mut state);
    }
}

/// The syncing turn.
fn sync(shared: &Shared) {
    let mut state = shared.state.lock();
    shared.sync_turn(&mut state);
}

impl Subject for Log {
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
        self.open(disk).unwrap();
        Model::default()
    }

    fn open(&self, disk: &SimDisk) -> Result<Store, String> {
        let mut store = Store {
            shared: None,
            options: options(disk),
            disk: disk.clone(),
            open: Vec::new(),
        };
        store.open().map_err(|error| error.to_string())?;
        Ok(store)
    }

    fn apply(&self, store: &mut Store, op: &Op) -> Outcome {
        self.asked.take();
        self.wrong.take();
        if *op == Op::Reopen {
            store.close();
            return match store.open() {
                Ok(()) => Outcome::Answered,
                Err(_) => Outcome::Refused,
            };
        }
        let Some(shared) = store.shared.clone() else {
            return Outcome::Refused;
        };
        match op {
            Op::Record => _ = self.ask(&shared, What::Plain, 0),
            Op::Long => _ = self.ask(&shared, What::Plain, 2500),
            Op::Burst | Op::Data => {
                let count = if *op == Op::Burst { 3 } else { 2 };
                let waiting = (0..count).map(|n| self.push(&shared, What::Plain, n * 90));
                let waiting = waiting.collect();
                write(&shared);
                sync(&shared);
                self.answers(waiting);
            }
            Op::Ahead => self.two(&shared, false),
            Op::Meanwhile => self.two(&shared, true),
            Op::Intent => {
                if let Fate::Durable(number) = self.ask(&shared, What::Intent, 0).fate {
                    store.open.push(number);
                }
            }
            Op::Outcome => {
                if !store.open.is_empty() {
                    let intent = store.open.remove(0);
                    self.ask(&shared, What::Outcome(intent), 0);
                }
            }
            Op::Change => {
                if let Fate::Durable(intent) = self.ask(&shared, What::Intent, 0).fate {
                    self.ask(&shared, What::Outcome(intent), 0);
                }
            }
            Op::Verify => match verify(&store.disk, &store.options.dir) {
                Ok(report) if report.is_whole() => {}
                Ok(report) => {
                    let wrong = format!("the live log is not whole: {:?}", report.findings);
                    self.wrong.replace(Some(wrong));
                }
                Err(_) => return Outcome::Refused,
            },
            Op::Reopen => {}
        }
        let unknown = |asked: &Asked| asked.fate == Fate::Unknown;
        if self.asked.borrow().iter().any(unknown) {
            // As the thread does after a while, if the disk was full; and what is asked then.
            sync(&shared);
            let asked = self.ask(&shared, What::Plain, 0);
            if matches!(asked.fate, Fate::Durable(_)) {
                self.resumed.set(self.resumed.get() + 1);
            }
            return Outcome::Unknown;
        }
        let durable = |asked: &Asked| matches!(asked.fate, Fate::Durable(_));
        match self.asked.borrow().iter().all(durable) {
            true => Outcome::Answered,
            false => Outcome::Refused,
        }
    }

    fn note(
        &self,
        model: &mut Model,
        op: &Op,
        outcome: Outcome,
        healthy: bool,
    ) -> Result<(), String> {
        if let Some(wrong) = self.wrong.take() {
            return Err(format!("{op:?}: {wrong}"));
        }
        model.failed |= !healthy;
        if !model.failed && outcome != Outcome::Answered {
            return Err(format!("{op:?} was {outcome:?}, and nothing failed"));
        }
        for asked in self.asked.take() {
            model.asked.insert(asked.id, (asked.what, asked.fate));
        }
        Ok(())
    }

    fn check(&self, store: &mut Store, model: &mut Model, found: Found) -> Result<(), String> {
        let report = verify(&store.disk, &store.options.dir).map_err(|error| error.to_string())?;
        if !report.is_whole() {
            return Err(format!("the log is not whole: {:?}", report.findings));
        }
        let after = found != Found::Running;
        let held = Held::read(store)?;
        held.compare(model, after)?;
        if let Some(shared) = &store.shared
            && (after || shared.check().is_ok())
        {
            let mark = shared.mark();
            if (mark.sequence, chain::hex(&mark.digest)) != (report.last(), report.digest()) {
                return Err(format!(
                    "it ends with {}, the mark is {mark:?}",
                    report.last()
                ));
            }
        }
        model.failed &= !after;
        Ok(())
    }
}

/// What the segments hold.
#[derive(Default)]
struct Held {
    /// Of each id: the number of its record.
    asked: BTreeMap<u64, u64>,
    /// The numbers of intents.
    intents: BTreeSet<u64>,
    /// Of each intent that has one: the number of its outcome, and what it is.
    outcomes: BTreeMap<u64, (u64, String)>,
}

impl Held {
    fn read(store: &Store) -> Result<Self, String> {
        let (disk, dir) = (&store.disk, &store.options.dir);
        let mut held = Self::default();
        let mut next = 1;
        for first in segment::list(disk, dir).map_err(|error| error.to_string())? {
            let bytes = disk.bytes(segment::path_of(dir, first));
            let whole = bytes.iter().rposition(|byte| *byte == b'\n');
            let whole = whole.map_or(0, |at| at + 1);
            for line in bytes[..whole].split(|byte| *byte == b'\n') {
                if !line.is_empty() {
                    held.take(line, &mut next)?;
                }
            }
        }
        Ok(held)
    }

    /// Takes one record, of which the number after the last one is `next`.
    fn take(&mut self, line: &[u8], next: &mut u64) -> Result<(), String> {
        let text = || String::from_utf8_lossy(line).into_owned();
        let record: serde_json::Value =
            serde_json::from_slice(line).map_err(|_| format!("no record: {}", text()))?;
        let field = |name: &str| record[name].as_str().unwrap_or_default();
        let number = record["seq"].as_u64().ok_or_else(text)?;
        // The numbers between are named by the record that follows them, and by no other.
        let lost = match number.checked_sub(*next) {
            Some(0) => serde_json::Value::Null,
            Some(_) => serde_json::json!([[*next, number - 1]]),
            None => return Err(format!("number {number} has two records")),
        };
        if record["lost"] != lost {
            return Err(format!("{lost} is lost before {}", text()));
        }
        *next = number + 1;
        if let Some(intent) = record["intent"].as_u64() {
            let outcome = (number, field("outcome").to_owned());
            if let Some(before) = self.outcomes.insert(intent, outcome) {
                return Err(format!(
                    "intent {intent} has two outcomes, {before:?} and {}",
                    text()
                ));
            }
        } else if field("outcome") == "Intended" {
            self.intents.insert(number);
        }
        if field("operation") == "AuditGap" || field("outcome") == "Unknown" {
            return Ok(());
        }
        let id = field("request_id").get(..12).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| format!("nobody asked for {}", text()))?;
        match self.asked.insert(id, number) {
            None => Ok(()),
            Some(before) => Err(format!("{id} stands twice, as {before} and {number}")),
        }
    }

    fn compare(&self, model: &mut Model, after: bool) -> Result<(), String> {
        if let Some(id) = self.asked.keys().find(|id| !model.asked.contains_key(id)) {
            return Err(format!("nobody asked for {id}"));
        }
        for (id, (what, fate)) in &mut model.asked {
            let found = self.asked.get(id).copied();
            match (*fate, found) {
                (Fate::Durable(number), found) if found != Some(number) => {
                    return Err(format!("{id} was answered as {number}, and is {found:?}"));
                }
                (Fate::Gone, Some(number)) => {
                    return Err(format!("{id} was refused, and is {number}"));
                }
                // Whoever followed the live file has seen it.
                (Fate::Unknown, Some(number)) => *fate = Fate::Durable(number),
                // What did not come back with the log does not come back later.
                (Fate::Unknown, None) if after => *fate = Fate::Gone,
                _ => {}
            }
            match (*what, *fate) {
                (What::Intent, Fate::Durable(number)) if !self.intents.contains(&number) => {
                    return Err(format!("{id} is no intent"));
                }
                (What::Outcome(intent), Fate::Durable(number))
                    if self.outcomes.get(&intent) != Some(&(number, "Success".to_owned())) =>
                {
                    let told = self.outcomes.get(&intent);
                    return Err(format!("intent {intent} had an outcome, and has {told:?}"));
                }
                _ => {}
            }
        }
        let open = self
            .intents
            .iter()
            .find(|number| !self.outcomes.contains_key(number));
        match open {
            Some(number) if after => Err(format!("intent {number} has no outcome")),
            _ => Ok(()),
        }
    }
}

/// Every sequence of at most three operations, in shares that run side by side.
const SHARES: u64 = 7;

fn every_crash_and_failure_of(share: u64) {
    let log = Log::default();
    let report = campaign::exhaustive_share(&log, 3, 1, share, SHARES);
    println!(
        "{report:?}, taken again after a full disk: {}",
        log.resumed.get()
    );
    assert_eq!(report.runs, (9 + 9 * 9 + 9 * 9 * 9) / SHARES);
    assert!(report.stops > 5 * report.runs, "{report:?}");
    assert!(report.failures > 5 * report.runs, "{report:?}");
    assert!(log.resumed.get() > report.runs / 2, "{}", log.resumed.get());
}

host::campaign_shares! {
    every_crash_and_failure_of:
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_1: 0,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_2: 1,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_3: 2,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_4: 3,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_5: 4,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_6: 5,
    every_crash_and_failure_of_three_operations_leaves_what_was_answered_7: 6,
}

/// A quarter of the random lives.
fn random_lives(quarter: u64) {
    let long = std::env::var_os("SEALGATE_LONG").is_some();
    let lives = if long { 25_000 } else { 1250 };
    let report = campaign::random(&Log::default(), lives, 1 + quarter * lives);
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

#[test]
fn random_lives_of_crashes_and_failures_leave_what_was_answered_3() {
    random_lives(2);
}

#[test]
fn random_lives_of_crashes_and_failures_leave_what_was_answered_4() {
    random_lives(3);
}
