//! Crashes and failures at every point, for whatever store stands on a [`SimDisk`].
//!
//! A test tells how to make, open, change and read its store ([`Subject`]); this runs it
//! - through every sequence of a few operations, stopping the machine at every call of the last one, failing every call
//!   of it (the earlier ones have had their turn as the last of a shorter sequence), and now and then stopping it
//!   again while the store comes back, and where a full disk has refused it, killing the store before it has closed in order
//!   ([`exhaustive`]);
//! - through random lives of many operations, failures, full disks and crashes ([`random`]).
//!
//! After each, the store is opened and must hold what its model says it may: **what was answered is there, what was
//! refused is not, and what is neither was said to be unknown**. Then the power is cut once more, so that what it has
//! shown is known to be durable. A store that calls an outcome unknown is not asked anything more before it was opened
//! again.
//!
//! The operations of a subject must be the same calls each time they are run on the same disk: no threads of its own
//! that call the disk, no clock, no randomness but from the disk's seed.
//!
//! A failure names the seed and the run. `CAMPAIGN_SEQUENCE=n` runs the n-th sequence alone, `CAMPAIGN_SEED=n` replays
//! one random life, `CAMPAIGN_LIVES=n` runs so many.

use std::fmt::Debug;

use super::{Crash, Failure, Fault, SimDisk};
use crate::entropy::{Entropy as _, SeededEntropy};

/// What a store says about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with all that this promises.
    Answered,
    /// Nothing has changed.
    Refused,
    /// It may have happened or not. The store is done for until it is opened again.
    Unknown,
}

/// When a store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It has been open all the time.
    Running,
    /// It was opened after this; after several, the worst of them.
    After(Crash),
}

/// A store under test, and what it may hold.
pub trait Subject {
    /// A change, or anything else that is asked of the store.
    type Op: Clone + Debug;
    /// The open store.
    type Store;
    /// What it may hold.
    type Model: Clone;

    /// The operations that sequences are made of; twelve at most.
    fn ops(&self) -> Vec<Self::Op>;

    /// An operation of a random life.
    fn random_op(&self, rng: &SeededEntropy) -> Self::Op {
        let mut ops = self.ops();
        ops.swap_remove(usize::try_from(rng.below(ops.len() as u64)).unwrap_or_default())
    }

    /// Makes an empty store on an empty disk. Nothing fails meanwhile; it is durable when this returns.
    fn create(&self, disk: &SimDisk) -> Self::Model;

    /// Opens the store. Whatever threads it has must be gone when it is dropped.
    fn open(&self, disk: &SimDisk) -> Result<Self::Store, String>;

    /// Does it.
    fn apply(&self, store: &mut Self::Store, op: &Self::Op) -> Outcome;

    /// Notes what may be found from now on. `healthy`: nothing failed meanwhile, so that the answer must be the one that
    /// the model has; an error if it is not.
    fn note(
        &self,
        model: &mut Self::Model,
        op: &Self::Op,
        outcome: Outcome,
        healthy: bool,
    ) -> Result<(), String>;

    /// Compares what the store holds with what it may, and takes it for what it holds from now on.
    fn check(
        &self,
        store: &mut Self::Store,
        model: &mut Self::Model,
        found: Found,
    ) -> Result<(), String>;
}

/// The model of a store each of whose answers is durable: the states it may be in.
#[derive(Debug, Clone)]
pub struct Candidates<S>(Vec<S>);

impl<S: Clone + PartialEq + Debug> Candidates<S> {
    /// In this state.
    pub fn new(state: S) -> Self {
        Self(vec![state])
    }

    /// The states, oldest first; one unless an outcome is unknown.
    pub fn states(&self) -> &[S] {
        &self.0
    }

    /// Notes the outcome of a change that `step` makes.
    pub fn note(&mut self, outcome: Outcome, step: impl Fn(&mut S)) {
        match outcome {
            Outcome::Refused => {}
            Outcome::Answered => self.0.iter_mut().for_each(step),
            Outcome::Unknown => {
                for mut state in self.0.clone() {
                    step(&mut state);
                    if !self.0.contains(&state) {
                        self.0.push(state);
                    }
                }
            }
        }
    }

    /// Judges the outcome of an operation that makes of a state what `after` says, `None` if it must refuse, and notes it:
    /// it has to be the due one, but for a refusal that is `excused` and, on a disk that was not `healthy`, an unknown
    /// outcome.
    pub fn told(
        &mut self,
        outcome: Outcome,
        healthy: bool,
        excused: bool,
        after: impl Fn(&S) -> Option<S>,
    ) -> Result<(), String> {
        let [state] = self.states() else {
            return Err("it was asked for more after an unknown outcome".to_owned());
        };
        let due = match after(state) {
            Some(_) => Outcome::Answered,
            None => Outcome::Refused,
        };
        let possible = outcome == due
            || match outcome {
                Outcome::Answered => false,
                Outcome::Refused => excused,
                Outcome::Unknown => !healthy,
            };
        if !possible {
            return Err(format!("it was {outcome:?}, to be {due:?}"));
        }
        self.note(outcome, |state| {
            if let Some(next) = after(state) {
                *state = next;
            }
        });
        Ok(())
    }

    /// It was found in this state, and is in it from now on; an error if it cannot be.
    pub fn found(&mut self, state: S) -> Result<(), String> {
        if !self.0.contains(&state) {
            return Err(format!("{state:?} was found, it may be {:?}", self.0));
        }
        self.0 = vec![state];
        Ok(())
    }
}

/// How much a campaign did, for a test to see that it did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Sequences, or lives.
    pub runs: u64,
    /// Times the machine stopped.
    pub stops: u64,
    /// Calls that failed.
    pub failures: u64,
}

/// Says what was going on when a check fails or something panics.
struct Story(String);

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it happened in {}", self.0);
        }
    }
}

impl Story {
    fn must<T>(&self, outcome: Result<T, String>) -> T {
        match outcome {
            Ok(done) => done,
            Err(why) => panic!("{why}, in {}", self.0),
        }
    }
}

/// A test for each share of a campaign, so that they run side by side: `run: name: share, …`, where `run` takes the share.
#[macro_export]
macro_rules! campaign_shares {
    ($run:ident: $($name:ident: $share:literal,)*) => {
        $(#[test]
        fn $name() {
            $run($share);
        })*
    };
}

/// Every sequence of at most `len` operations, with every crash point and every failing call of its last operation.
///
/// # Panics
/// If the store breaks its word.
pub fn exhaustive<S: Subject>(subject: &S, len: usize, seed: u64) -> Report {
    exhaustive_share(subject, len, seed, 0, 1)
}

/// One of `of` shares of [`exhaustive`], counted from 0, so that several tests can run them at the same time: every
/// `of`-th sequence.
pub fn exhaustive_share<S: Subject>(
    subject: &S,
    len: usize,
    seed: u64,
    share: u64,
    of: u64,
) -> Report {
    let ops = subject.ops();
    assert!(ops.len() <= 12, "{} operations", ops.len());
    let base = SimDisk::new(seed);
    let model = subject.create(&base);
    base.restart(Crash::Power);
    let mut report = Report::default();
    let mut sequence = vec![0];
    let mut number = 0;
    let only = from_environment("CAMPAIGN_SEQUENCE");
    loop {
        let run = Run {
            subject,
            base: &base,
            model: &model,
            ops: sequence.iter().map(|op| ops[*op].clone()).collect(),
            number,
            seed: seed.wrapping_add(number << 20),
        };
        if number % of == share {
            if only.is_none_or(|only| only == number) {
                run.every_point(&mut report);
            }
            report.runs += 1;
        }
        number += 1;
        // The next one: longer first, then the next letter.
        if sequence.len() < len {
            sequence.push(0);
            continue;
        }
        loop {
            let Some(last) = sequence.last_mut() else {
                return report;
            };
            *last += 1;
            if *last < ops.len() {
                break;
            }
            sequence.pop();
        }
    }
}

/// One sequence of operations.
struct Run<'a, S: Subject> {
    subject: &'a S,
    base: &'a SimDisk,
    model: &'a S::Model,
    ops: Vec<S::Op>,
    /// Of the sequences.
    number: u64,
    seed: u64,
}

impl<S: Subject> Run<'_, S> {
    fn every_point(&self, report: &mut Report) {
        for crash in [Crash::Process, Crash::Power] {
            for call in 0.. {
                if !self.one(Failure::Stop, call, crash) {
                    break;
                }
                report.stops += 1;
            }
        }
        for failure in [Failure::Io, Failure::NoSpace] {
            for call in 0.. {
                let crash = [Crash::Process, Crash::Power][usize::from(call % 2 == 0)];
                if !self.one(failure, call, crash) {
                    break;
                }
                report.failures += 1;
            }
        }
    }

    /// The last operation with this failure at that call, and a crash. Gives whether there is such a call.
    fn one(&self, failure: Failure, call: u64, crash: Crash) -> bool {
        let subject = self.subject;
        let kind = [Failure::Stop, Failure::Io, Failure::NoSpace];
        let kind = kind.iter().position(|known| *known == failure);
        let seed = self.seed ^ (call << 4) ^ ((kind.unwrap_or_default() as u64) << 1);
        let seed = seed ^ u64::from(crash == Crash::Power);
        let story = Story(format!(
            "{:?}, {failure:?} at call {call} of the last, then {crash:?} (sequence {}, seed {seed})",
            self.ops, self.number
        ));
        let disk = self.base.fork(seed);
        let mut model = self.model.clone();
        let mut store = story.must(subject.open(&disk));
        let (last, before) = self.ops.split_last().expect("a sequence has a last one");
        for op in before {
            let outcome = subject.apply(&mut store, op);
            assert_ne!(outcome, Outcome::Unknown, "nothing failed, in {}", story.0);
            story.must(subject.note(&mut model, op, outcome, true));
        }
        disk.fail(Fault::new(failure).after(call));
        let outcome = subject.apply(&mut store, last);
        let met = disk.faults_left() == 0;
        assert!(
            met || outcome != Outcome::Unknown,
            "nothing failed, in {}",
            story.0
        );
        story.must(subject.note(&mut model, last, outcome, !met));
        if met && !disk.is_down() && outcome != Outcome::Unknown {
            story.must(subject.check(&mut store, &mut model, Found::Running));
        }
        if met && failure == Failure::NoSpace && outcome == Outcome::Refused {
            // Killed now, it cannot take back in an orderly close what the refused change left.
            let disk = disk.fork(seed);
            disk.restart(crash);
            let mut killed = story.must(subject.open(&disk));
            story.must(subject.check(&mut killed, &mut model.clone(), Found::After(crash)));
        }
        // What a store calls while it is dropped counts too.
        drop(store);
        let met = disk.faults_left() == 0;
        recover(subject, &disk, &mut model, crash, &story, seed);
        met
    }
}

/// The machine goes down and comes back, perhaps twice; the store must hold what it may, and keep it.
fn recover<S: Subject>(
    subject: &S,
    disk: &SimDisk,
    model: &mut S::Model,
    mut crash: Crash,
    story: &Story,
    seed: u64,
) -> S::Store {
    let rng = SeededEntropy::new(seed.wrapping_add(1));
    disk.restart(crash);
    if rng.one_in(4) {
        let calls = {
            let fork = disk.fork(rng.number());
            drop(story.must(subject.open(&fork)));
            fork.calls()
        };
        disk.stop_after(rng.below(calls + 1));
        drop(subject.open(disk));
        let again = [Crash::Process, Crash::Power][usize::from(rng.one_in(2))];
        disk.restart(again);
        if again == Crash::Power {
            crash = again;
        }
    }
    let mut store = story.must(subject.open(disk));
    story.must(subject.check(&mut store, model, Found::After(crash)));
    drop(store);
    // What it has shown, it keeps.
    disk.restart(Crash::Power);
    let mut store = story.must(subject.open(disk));
    story.must(subject.check(&mut store, model, Found::After(Crash::Power)));
    store
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// So many random lives.
///
/// # Panics
/// If the store breaks its word.
pub fn random<S: Subject>(subject: &S, lives: u64, seed: u64) -> Report {
    let mut report = Report::default();
    if let Some(seed) = from_environment("CAMPAIGN_SEED") {
        life(subject, seed, &mut report);
        return report;
    }
    let lives = from_environment("CAMPAIGN_LIVES").unwrap_or(lives);
    for life_seed in seed..seed.saturating_add(lives) {
        life(subject, life_seed, &mut report);
    }
    report
}

/// Operations, failures and crashes; the store comes back three times.
fn life<S: Subject>(subject: &S, seed: u64, report: &mut Report) {
    let rng = SeededEntropy::new(seed);
    let disk = SimDisk::new(rng.number());
    let mut model = subject.create(&disk);
    disk.restart(Crash::Power);
    report.runs += 1;
    let mut story = Story(format!("the life of seed {seed}:"));
    let mut store = story.must(subject.open(&disk));
    for _ in 0..3 {
        for _ in 0..rng.below(12) {
            let planned = match rng.below(12) {
                0 => Some(Failure::Stop),
                1 => Some(Failure::Io),
                2 => Some(Failure::NoSpace),
                _ => None,
            };
            if let Some(failure) = planned {
                disk.fail(Fault::new(failure).after(rng.below(16)));
            }
            let full = rng.one_in(16);
            if full {
                disk.set_free(rng.below(16) << 12);
            }
            let op = subject.random_op(&rng);
            let outcome = subject.apply(&mut store, &op);
            let met = planned.is_some() && disk.faults_left() == 0;
            story.0 += &format!("\n  {op:?}: {outcome:?}");
            match planned {
                Some(failure) if met => {
                    story.0 += &format!(", {failure:?}");
                    report.failures += 1;
                }
                _ => disk.clear_faults(),
            }
            let healthy = !met && !full;
            assert!(
                !healthy || outcome != Outcome::Unknown,
                "nothing failed, in {}",
                story.0
            );
            story.must(subject.note(&mut model, &op, outcome, healthy));
            if full {
                disk.set_free(u64::MAX);
            }
            if disk.is_down() || outcome == Outcome::Unknown {
                break;
            }
            if rng.one_in(4) {
                story.must(subject.check(&mut store, &mut model, Found::Running));
            }
        }
        report.stops += u64::from(disk.is_down());
        drop(store);
        let crash = [Crash::Process, Crash::Power, Crash::Power]
            [usize::from(rng.one_in(3)) + usize::from(rng.one_in(2))];
        story.0 += &format!("\n  {crash:?}");
        store = recover(subject, &disk, &mut model, crash, &story, rng.number());
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path, sync::Arc};

    use super::*;
    use crate::{Disk as _, File, Mode, private};

    /// A store of small values: a file each, replaced as a whole. What it gets wrong is chosen.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Values {
        Right,
        /// Does not sync what it writes.
        Unsynced,
        /// Says that it refused what a failed sync may have left.
        Sure,
        /// Writes in place.
        InPlace,
    }

    /// Of each key: the byte that its value is made of, and its length.
    type State = BTreeMap<u8, (u8, usize)>;

    fn path(key: u8) -> std::path::PathBuf {
        Path::new("/values").join(key.to_string())
    }

    impl Values {
        fn put(self, disk: &SimDisk, key: u8, value: &[u8]) -> Outcome {
            let path = path(key);
            if matches!(self, Self::InPlace | Self::Unsynced) {
                let write = || {
                    let file: Arc<dyn File> = disk.open(&path, Mode::Create)?;
                    file.write_at(0, value)?;
                    file.set_len(value.len() as u64)?;
                    match self {
                        Self::InPlace => {
                            file.sync_all()?;
                            private::sync_name(disk, &path)
                        }
                        _ => Ok(()),
                    }
                };
                return match write() {
                    Ok(()) => Outcome::Answered,
                    Err(_) => Outcome::Unknown,
                };
            }
            match private::replace(disk, &path, value) {
                Ok(()) => Outcome::Answered,
                Err(_) if self == Self::Sure => Outcome::Refused,
                Err(_) => Outcome::Unknown,
            }
        }
    }

    impl Subject for Values {
        /// Key, byte, length.
        type Op = (u8, u8, usize);
        type Store = SimDisk;
        type Model = Candidates<State>;

        fn ops(&self) -> Vec<Self::Op> {
            vec![(1, 7, 1300), (1, 8, 600), (2, 9, 600)]
        }

        fn create(&self, disk: &SimDisk) -> Self::Model {
            private::create_dirs(disk, Path::new("/values")).unwrap();
            Candidates::new(State::new())
        }

        fn open(&self, disk: &SimDisk) -> Result<SimDisk, String> {
            // What was put in place may not be durable yet.
            disk.sync_dir(Path::new("/values"))
                .map_err(|error| error.to_string())?;
            Ok(disk.clone())
        }

        fn apply(&self, store: &mut SimDisk, (key, byte, len): &Self::Op) -> Outcome {
            self.put(store, *key, &vec![*byte; *len])
        }

        fn note(
            &self,
            model: &mut Self::Model,
            (key, byte, len): &Self::Op,
            outcome: Outcome,
            healthy: bool,
        ) -> Result<(), String> {
            if healthy && outcome != Outcome::Answered {
                return Err("nothing failed".to_owned());
            }
            model.note(outcome, |state| {
                state.insert(*key, (*byte, *len));
            });
            Ok(())
        }

        fn check(
            &self,
            store: &mut SimDisk,
            model: &mut Self::Model,
            _: Found,
        ) -> Result<(), String> {
            let mut state = State::new();
            for key in [1, 2] {
                match private::read(store, &path(key), 4096) {
                    Ok(value) => {
                        let byte = value.first().copied().unwrap_or_default();
                        if value.iter().any(|other| *other != byte) {
                            return Err(format!("the value of {key} is torn"));
                        }
                        state.insert(key, (byte, value.len()));
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            model.found(state)
        }
    }

    fn fails(run: impl FnOnce() -> Report + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(run).is_err()
    }

    #[test]
    fn a_store_that_keeps_its_word_passes_and_every_point_is_met() {
        let report = exhaustive(&Values::Right, 3, 1);
        assert_eq!(report.runs, 3 + 9 + 27);
        // Six calls: remove, open, write, sync, rename, sync of the folder.
        assert_eq!(report.stops, 2 * 6 * report.runs);
        assert_eq!(report.failures, 2 * 6 * report.runs);
        let report = random(&Values::Right, 300, 1);
        assert_eq!(report.runs, 300);
        assert!(report.stops > 50 && report.failures > 100, "{report:?}");
    }

    #[test]
    fn a_store_that_breaks_its_word_is_found_out() {
        for wrong in [Values::Unsynced, Values::Sure, Values::InPlace] {
            assert!(fails(|| exhaustive(&wrong, 1, 1)), "{wrong:?}");
            assert!(fails(|| random(&wrong, 300, 1)), "{wrong:?}");
        }
    }
}
