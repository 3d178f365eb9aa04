//! What the campaign has found, each at its place.

use std::collections::VecDeque;

use host::{
    disk::sim::{Call, Crash, Failure, Fault},
    private,
};

use super::*;
use crate::journal::SECTOR;

/// An open log that holds nothing.
fn empty(seed: u64) -> (Log, SimDisk, Store) {
    let log = Log::default();
    let disk = SimDisk::new(seed);
    log.create(&disk);
    let store = log.open(&disk).unwrap();
    (log, disk, store)
}

fn shared(store: &Store) -> Arc<Shared> {
    Arc::clone(store.shared.as_ref().unwrap())
}

/// Opens the log, which holds what it said, and closes it.
fn holds(log: &Log, disk: &SimDisk, model: &mut Model, what: &str) {
    let mut store = log
        .open(disk)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    log.check(&mut store, model, Found::After(Crash::Power))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// Does it, and notes the answers.
fn does(log: &Log, store: &mut Store, model: &mut Model, op: Op) -> Outcome {
    let outcome = log.apply(store, &op);
    log.note(model, &op, outcome, false).unwrap();
    outcome
}

#[test]
fn a_half_of_the_journal_torn_while_it_was_begun_is_no_damage() {
    let (log, disk, mut store) = empty(1);
    let journal = store.options.journal();
    let mut model = Model::default();
    // The second one goes to the other half, so the third is written over the first.
    for op in [Op::Burst, Op::Long] {
        assert_eq!(does(&log, &mut store, &mut model, op), Outcome::Answered);
    }
    let before = disk.bytes(&journal);
    let one = shared(&store);
    let on_its_way = log.push(&one, What::Plain, 2500);
    write(&one);
    log.answers(vec![on_its_way]);
    log.wrong.take();
    let outcome = Outcome::Unknown;
    log.note(&mut model, &Op::Long, outcome, false).unwrap();
    let after = disk.bytes(&journal);
    let sectors: Vec<usize> = (0..before.len() / SECTOR)
        .filter(|n| before[n * SECTOR..][..SECTOR] != after[n * SECTOR..][..SECTOR])
        .collect();
    assert!(sectors[0] == 0 && sectors.len() > 4, "{sectors:?}");
    // Whichever sectors reached the disk.
    for kept in 0..1_u32 << sectors.len() {
        let mut torn = before.clone();
        for (bit, n) in sectors.iter().enumerate() {
            if kept >> bit & 1 == 1 {
                let sector = n * SECTOR..(n + 1) * SECTOR;
                torn[sector.clone()].copy_from_slice(&after[sector]);
            }
        }
        let disk = disk.fork(u64::from(kept));
        private::replace(&disk, &journal, &torn).unwrap();
        let what = format!("sectors {kept:b}");
        holds(&log, &disk, &mut model.clone(), &what);
    }
}

#[test]
fn a_group_written_while_a_sync_fails_is_not_answered_by_the_next_sync() {
    let (log, disk, store) = empty(2);
    let one = shared(&store);
    let mut waiting = vec![log.push(&one, What::Plain, 0)];
    write(&one);
    let mut state = one.state.lock();
    let first = std::mem::take(&mut state.written);
    drop(state);
    waiting.push(log.push(&one, What::Plain, 0));
    write(&one);
    // The other thread is about to hand it over.
    let second: VecDeque<_> = std::mem::take(&mut one.state.lock().written);
    let fault = Fault::new(Failure::Io).on(&[Call::SyncData]).at(".journal");
    disk.fail(fault);
    one.sync_groups(&mut one.state.lock(), first);
    let mut state = one.state.lock();
    (state.unsynced, state.written) = (second.len(), second);
    drop(state);
    sync(&one);
    let fates: Vec<Fate> = log
        .answers(waiting)
        .iter()
        .map(|asked| asked.fate)
        .collect();
    assert_eq!(fates, [Fate::Unknown, Fate::Unknown]);
    assert_eq!(segment::list(&disk, &store.options.dir).unwrap(), [0; 0]);
}

#[test]
fn a_frame_that_met_a_full_disk_is_written_anew_in_its_place() {
    for seed in 0..40 {
        let (log, disk, mut store) = empty(seed);
        let mut model = Model::default();
        for op in [Op::Data, Op::Burst] {
            assert_eq!(does(&log, &mut store, &mut model, op), Outcome::Answered);
        }
        // It begins the other half; what comes after would fit this one. It may stand there whole.
        disk.fail(
            Fault::new(Failure::NoSpace)
                .on(&[Call::Write])
                .at(".journal"),
        );
        let outcome = does(&log, &mut store, &mut model, Op::Burst);
        assert_eq!(outcome, Outcome::Unknown);
        assert_eq!(log.resumed.get(), 1);
        disk.stop_after(0);
        drop(store);
        disk.restart(Crash::Process);
        holds(&log, &disk, &mut model, &format!("seed {seed}"));
    }
}

#[test]
fn a_segment_whose_sync_failed_has_its_length_again_after_a_start() {
    for seed in 0..20 {
        let (log, disk, mut store) = empty(seed);
        let mut model = Model::default();
        does(&log, &mut store, &mut model, Op::Record);
        disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData]).at(".jsonl"));
        drop(store);
        assert_eq!(disk.faults_left(), 0);
        disk.restart(Crash::Process);
        for start in 0..2 {
            holds(
                &log,
                &disk,
                &mut model,
                &format!("seed {seed}, start {start}"),
            );
            disk.restart(Crash::Power);
        }
    }
}

#[test]
fn a_start_puts_into_segments_what_the_journal_cannot_lose_any_more() {
    for at in 0..40 {
        let (log, disk, mut store) = empty(at);
        let mut model = Model::default();
        does(&log, &mut store, &mut model, Op::Record);
        disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData]).at(".journal"));
        does(&log, &mut store, &mut model, Op::Burst);
        drop(store);
        // The journal still reads well.
        disk.restart(Crash::Process);
        disk.stop_after(at);
        drop(log.open(&disk));
        disk.restart(Crash::Power);
        holds(&log, &disk, &mut model, &format!("stopped at call {at}"));
    }
}

#[test]
fn a_group_that_a_full_disk_cuts_off_leaves_whole_lines_behind() {
    for seed in 0..40 {
        let (log, disk, mut store) = empty(seed);
        let mut model = Model::default();
        does(&log, &mut store, &mut model, Op::Record);
        let path = segment::path_of(&store.options.dir, 1);
        let whole = disk.bytes(&path);
        disk.fail(Fault::new(Failure::NoSpace).on(&[Call::Write]).at(".jsonl"));
        let one = shared(&store);
        let waiting = log.push(&one, What::Plain, 600);
        write(&one);
        let calls = disk.calls();
        sync(&one);
        assert_eq!(log.answers(vec![waiting])[0].fate, Fate::Unknown);
        log.note(&mut model, &Op::Record, Outcome::Unknown, false)
            .unwrap();
        // Sync of the journal, the write, the cut.
        assert_eq!(disk.calls(), calls + 3);
        assert_eq!(disk.bytes(&path), whole, "seed {seed}");
        // With space again it is there.
        sync(&one);
        assert!(disk.bytes(&path).len() > whole.len() + 600);
        drop((one, store));
        holds(&log, &disk, &mut model, &format!("seed {seed}"));
    }
}
