//! A volume's files on the simulated disk: every crash point and every failing call of every sequence of a few
//! requests, and random lives. When the process dies, everything that was answered is there. When the power fails, what was
//! flushed is there; of what was not, each 512 bytes are what they were at the last flush or at any time since. A failed
//! sync stops the volume, and is for what was not flushed what a power cut is.
//!
//! SEALGATE_LONG (`tests/run --long`) makes twenty times as many lives. See [`host::disk::sim::campaign`] for how one is
//! replayed.
#![allow(clippy::cast_possible_truncation)]

use std::{cell::Cell, collections::BTreeMap, time::SystemTime};

use crypto::{random::SystemRandom, secret::SecretVec, volume_key::VolumeDataKey};
use host::{
    disk::sim::{
        Crash, SimDisk,
        campaign::{self, Found, Outcome, Subject},
    },
    entropy::SeededEntropy,
};

use super::*;
use crate::{
    VolumeSize, VolumeType,
    descriptor::Protected,
    engine::BASE_GENERATION,
    geometry::CHUNK_LEN,
    protection::Sealed,
    vault::tests::{scope, vault},
};

const VOLUMES: &str = "/volumes";
const UNIT: u64 = 512;
/// What the requests touch, and what is looked at.
const WATCHED: [(u64, u64); 3] = [
    (0, 12288),
    (CHUNK_LEN - 4096, 8192),
    (2 * CHUNK_LEN - 4096, 4096),
];

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Offset, length, what it is filled with, FUA.
    Write(u64, u64, u8, bool),
    /// Offset, length, whether it may become a hole.
    Zero(u64, u64, bool),
    /// Offset, length, FUA.
    Trim(u64, u64, bool),
    Flush,
    /// What a thread of its own does for an attached volume.
    Tidy,
    Checkpoint,
    /// As a detach and an attach do.
    Reopen,
}

const OPS: [Op; 12] = [
    Op::Write(0, 4096, 1, false),
    Op::Write(0, 8192, 2, false),
    // Within a sector.
    Op::Write(700, 3000, 3, false),
    // Over the end of a chunk.
    Op::Write(CHUNK_LEN - 4096, 8192, 4, false),
    Op::Write(CHUNK_LEN, 4096, 5, true),
    Op::Zero(0, 8192, false),
    Op::Trim(0, CHUNK_LEN, false),
    Op::Trim(CHUNK_LEN, CHUNK_LEN, true),
    Op::Flush,
    Op::Tidy,
    Op::Checkpoint,
    Op::Reopen,
];

type Unit = [u8; UNIT as usize];

/// What a unit may hold.
#[derive(Debug, Clone)]
struct May {
    /// Now. More than one where a request has failed in the middle.
    now: Vec<Unit>,
    /// After a power cut, those of now among them.
    later: Vec<Unit>,
}

impl May {
    fn change(&mut self, outcome: Outcome, change: impl Fn(&mut Unit)) {
        let before = self.now.clone();
        self.now.iter_mut().for_each(change);
        if outcome != Outcome::Answered {
            self.now.extend(before);
        }
        for list in [&mut self.now, &mut self.later] {
            list.sort_unstable();
            list.dedup();
        }
        for unit in &self.now {
            if !self.later.contains(unit) {
                self.later.push(*unit);
            }
        }
    }
}

/// By offset.
type Model = BTreeMap<u64, May>;

struct Store {
    disk: Arc<dyn Disk>,
    /// `None` where it could not be opened again.
    engine: Option<Engine<Sealed>>,
}

struct Files {
    descriptor: Descriptor,
    vault: Vault,
    /// The volume had failed when it was opened, since the power was last cut.
    failed: Cell<bool>,
}

impl Files {
    fn new() -> Self {
        let descriptor = Descriptor {
            id: "vol-0123456789abcdef0".parse().unwrap(),
            revision: 1,
            size: VolumeSize::from_gib(1).unwrap(),
            protection: Protected::Unencrypted,
            volume_type: VolumeType::Gp3,
            availability_zone: "us-east-1a".to_owned(),
            tags: Vec::new(),
            created: SystemTime::UNIX_EPOCH,
            request: None,
        };
        Self {
            descriptor,
            vault: vault(1),
            failed: Cell::new(false),
        }
    }

    fn protection(&self) -> Sealed {
        let data_key = VolumeDataKey::from_secret(SecretVec::from_slice(&[5; 64])).unwrap();
        Sealed::new(self.descriptor.id, data_key, BASE_GENERATION)
    }

    fn engine(&self, disk: &Arc<dyn Disk>) -> Result<Engine<Sealed>, VolumeError> {
        open(
            disk,
            Path::new(VOLUMES),
            &self.descriptor,
            self.protection(),
            Source {
                boot: None,
                random: &SystemRandom,
            },
        )
        .map(|(engine, _)| engine)
    }
}

fn run(engine: &Engine<Sealed>, op: Op) -> Result<(), VolumeError> {
    match op {
        Op::Write(offset, len, mark, fua) => {
            engine.write(offset, &mut vec![mark; len as usize], fua)
        }
        Op::Zero(offset, len, may_trim) => engine.write_zeroes(offset, len, may_trim, false),
        Op::Trim(offset, len, fua) => engine.trim(offset, len, fua),
        Op::Flush | Op::Reopen => engine.flush(),
        Op::Tidy => {
            engine.tidy();
            engine.alive()
        }
        Op::Checkpoint => engine.checkpoint(),
    }
}

impl Subject for Files {
    type Op = Op;
    type Store = Store;
    type Model = Model;

    fn ops(&self) -> Vec<Op> {
        OPS.to_vec()
    }

    fn random_op(&self, rng: &SeededEntropy) -> Op {
        match OPS[rng.below(12) as usize] {
            Op::Write(offset, len, _, _) => {
                Op::Write(offset, len, rng.below(250) as u8, rng.one_in(4))
            }
            Op::Zero(offset, len, _) => Op::Zero(offset, len, rng.one_in(2)),
            Op::Trim(offset, len, _) => Op::Trim(offset, len, rng.one_in(2)),
            other => other,
        }
    }

    fn create(&self, disk: &SimDisk) -> Model {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let volumes = Path::new(VOLUMES);
        host::private::create_dirs(&*disk, volumes).unwrap();
        let (vault, seals) = (&self.vault, self.vault.seals());
        let (scope, protection) = (scope(), self.protection());
        prepare(
            &disk,
            volumes,
            &self.descriptor,
            &protection,
            &scope,
            (vault, &seals),
        )
        .unwrap();
        place(&*disk, volumes, self.descriptor.id).unwrap();
        let zero = May {
            now: vec![[0; UNIT as usize]],
            later: vec![[0; UNIT as usize]],
        };
        let units = WATCHED
            .iter()
            .flat_map(|(offset, len)| (*offset..offset + len).step_by(UNIT as usize));
        units.map(|offset| (offset, zero.clone())).collect()
    }

    fn open(&self, disk: &SimDisk) -> Result<Store, String> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let dir = Path::new(VOLUMES).join(self.descriptor.id.to_string());
        if let Ok(Some(_)) = disk.kind(&dir.join(FAILED_NAME)) {
            self.failed.set(true);
        }
        let engine = self.engine(&disk).map_err(|error| error.to_string())?;
        Ok(Store {
            disk,
            engine: Some(engine),
        })
    }

    fn apply(&self, store: &mut Store, op: &Op) -> Outcome {
        let Some(engine) = &store.engine else {
            return Outcome::Unknown;
        };
        match run(engine, *op) {
            Ok(()) => {}
            Err(VolumeError::Failed(_)) => return Outcome::Unknown,
            Err(_) => return Outcome::Refused,
        }
        if matches!(op, Op::Reopen) {
            // First: the files are locked while they are open.
            store.engine = None;
            store.engine = self.engine(&store.disk).ok();
            if store.engine.is_none() {
                return Outcome::Unknown;
            }
        }
        Outcome::Answered
    }

    fn note(
        &self,
        model: &mut Model,
        op: &Op,
        outcome: Outcome,
        healthy: bool,
    ) -> Result<(), String> {
        if healthy && outcome != Outcome::Answered {
            return Err(format!("{op:?} was {outcome:?}, and nothing failed"));
        }
        let (offset, len, mark, durable) = match *op {
            Op::Write(offset, len, mark, fua) => (offset, len, mark, fua),
            Op::Zero(offset, len, _) => (offset, len, 0, false),
            Op::Trim(offset, len, fua) => (offset, len, 0, fua),
            Op::Tidy => return Ok(()),
            Op::Flush | Op::Checkpoint | Op::Reopen => {
                if outcome == Outcome::Answered {
                    for may in model.values_mut() {
                        may.later.clone_from(&may.now);
                    }
                }
                return Ok(());
            }
        };
        let end = offset + len;
        for (at, may) in model.range_mut(offset / UNIT * UNIT..end) {
            let within = offset.saturating_sub(*at) as usize..(end - at).min(UNIT) as usize;
            may.change(outcome, |unit| unit[within.clone()].fill(mark));
            if durable && outcome == Outcome::Answered {
                may.later.clone_from(&may.now);
            }
        }
        Ok(())
    }

    fn check(&self, store: &mut Store, model: &mut Model, found: Found) -> Result<(), String> {
        let engine = store.engine.as_ref().ok_or("it is not open")?;
        for (offset, len) in WATCHED {
            let mut bytes = vec![0xee; len as usize];
            engine
                .read(offset, &mut bytes)
                .map_err(|error| error.to_string())?;
            for (at, unit) in (offset..)
                .step_by(UNIT as usize)
                .zip(bytes.chunks(UNIT as usize))
            {
                let unit: Unit = unit.try_into().expect("a whole unit");
                let may = model.get_mut(&at).expect("what is watched is modelled");
                let allowed = match found {
                    Found::Running => &may.now,
                    Found::After(Crash::Process) if !self.failed.get() => &may.now,
                    Found::After(_) => &may.later,
                };
                if !allowed.contains(&unit) {
                    let marks: Vec<_> = allowed.iter().map(|unit| (unit[0], unit[511])).collect();
                    return Err(format!(
                        "{at} holds {:?}, it may hold {marks:?}",
                        (unit[0], unit[511])
                    ));
                }
                may.now = vec![unit];
                if found == Found::After(Crash::Power) {
                    may.later = vec![unit];
                }
            }
        }
        if found == Found::After(Crash::Power) {
            self.failed.set(false);
        }
        Ok(())
    }
}

/// Every sequence of three requests, in shares that run at the same time.
fn every_crash_and_failure(share: u64) {
    let report = campaign::exhaustive_share(&Files::new(), 3, 1, share, 4);
    println!("{report:?}");
    assert!(report.stops > 2 * report.runs, "{report:?}");
    assert!(report.failures > 2 * report.runs, "{report:?}");
}

#[test]
fn every_crash_and_failure_of_every_three_requests_keeps_what_was_promised_1() {
    every_crash_and_failure(0);
}

#[test]
fn every_crash_and_failure_of_every_three_requests_keeps_what_was_promised_2() {
    every_crash_and_failure(1);
}

#[test]
fn every_crash_and_failure_of_every_three_requests_keeps_what_was_promised_3() {
    every_crash_and_failure(2);
}

#[test]
fn every_crash_and_failure_of_every_three_requests_keeps_what_was_promised_4() {
    every_crash_and_failure(3);
}

/// Half of the random lives.
fn random_lives(half: u64) {
    let long = std::env::var_os("SEALGATE_LONG").is_some();
    let lives = if long { 50_000 } else { 2500 };
    let report = campaign::random(&Files::new(), lives, 1 + half * lives);
    println!("{report:?}");
    assert!(
        report.stops + report.failures > report.runs / 2,
        "{report:?}"
    );
}

#[test]
fn random_lives_of_crashes_and_failures_keep_what_was_promised_1() {
    random_lives(0);
}

#[test]
fn random_lives_of_crashes_and_failures_keep_what_was_promised_2() {
    random_lives(1);
}
