//! A machine that stops at every call to the disk, and a catalogue that fails: what was answered is so, what was not is
//! so or not, and a rebuild from the folders says the same.

use std::sync::Arc;

use catalogue::{Call, Fault};
use host::disk::sim::{Crash, Failure, Fault as DiskFault};
use volume::{VolumeError, VolumeId, VolumeState, Volumes};

use crate::world::{Ground, Machine, Said};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Create,
    Rename,
    Delete,
}

const CHANGES: [Change; 3] = [Change::Create, Change::Rename, Change::Delete];

impl Change {
    async fn make(
        self,
        machine: &Machine,
        volumes: &Volumes,
        id: VolumeId,
    ) -> Result<(), VolumeError> {
        match self {
            Self::Create => machine.create(volumes, "new").await.map(drop),
            Self::Rename => machine.rename(volumes, id, "renamed").await,
            Self::Delete => machine.delete(volumes, id).await,
        }
    }

    /// The names of the volumes after it.
    fn after(self) -> &'static [&'static str] {
        match self {
            Self::Create => &["kept", "new", "one"],
            Self::Rename => &["kept", "renamed"],
            Self::Delete => &["kept"],
        }
    }
}

const BEFORE: &[&str] = &["kept", "one"];

fn names(said: &[Said]) -> Vec<&str> {
    let mut names: Vec<&str> = said.iter().map(|(_, name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

/// A machine with two volumes, the second of which is to be changed.
async fn prepared(ground: &Arc<Ground>, seed: u64) -> (Machine, Arc<Volumes>, VolumeId) {
    let machine = ground.machine(seed);
    let volumes = machine.open().await;
    machine.create(&volumes, "kept").await.unwrap();
    let id = machine.create(&volumes, "one").await.unwrap().id;
    (machine, volumes, id)
}

/// What a rebuild makes of the disk as it is, without any row.
async fn rebuilt(machine: &Machine, seed: u64) -> Vec<Said> {
    let lost = machine.ground.machine_on(machine.disk.fork(seed));
    lost.rebuild().await;
    let volumes = lost.open().await;
    lost.use_all(&volumes).await;
    lost.list(&volumes)
}

/// Whether what is found is what may be, after that answer.
fn check(change: Change, answer: &Result<(), VolumeError>, found: &[Said], what: &str) {
    let (names, after) = (names(found), change.after());
    match answer {
        Ok(()) => assert_eq!(names, after, "{change:?} was answered; {what}"),
        Err(error) => assert!(
            names == BEFORE || names == after,
            "{change:?} failed ({error}); {what} has {names:?}"
        ),
    }
    assert!(
        found
            .iter()
            .all(|(.., state)| *state == VolumeState::Available),
        "{change:?}, {what}: {found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_crash_what_was_answered_is_so_and_a_rebuild_says_the_same() {
    let ground = Ground::new().await;
    let mut points = 0;
    for change in CHANGES {
        for crash in [Crash::Process, Crash::Power] {
            for stop in 0.. {
                let (machine, volumes, id) = prepared(&ground, stop).await;
                machine.disk.stop_after(stop);
                let answer = change.make(&machine, &volumes, id).await;
                machine.settle().await;
                let stopped = machine.disk.is_down();
                drop(volumes);
                machine.disk.restart(crash);
                let what = format!("stopped at call {stop}, {crash:?}");

                let again = rebuilt(&machine, stop).await;
                check(change, &answer, &again, &format!("a rebuild, {what}"));
                let volumes = machine.open().await;
                let found = machine.list(&volumes);
                check(change, &answer, &found, &what);
                machine.use_all(&volumes).await;
                machine.settle().await;
                machine.is_clean().await;
                // Once opened, the folders say what the rows say.
                drop(volumes);
                let again = rebuilt(&machine, stop).await;
                assert_eq!(again, found, "{change:?}, {what}");
                if !stopped {
                    break;
                }
                points += 1;
            }
        }
    }
    println!("{points} crash points");
    assert!(points > 60, "{points}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_call_to_the_disk_leaves_nothing_half_done() {
    let ground = Ground::new().await;
    for change in CHANGES {
        for failure in [Failure::Io, Failure::NoSpace] {
            for call in 0.. {
                let (machine, volumes, id) = prepared(&ground, call).await;
                machine.disk.fail(DiskFault::new(failure).after(call));
                let answer = change.make(&machine, &volumes, id).await;
                if answer.is_ok() {
                    // What is left of a deleted volume waits for the next start.
                    machine.disk.clear_faults();
                }
                let happened = machine.disk.faults_left() == 0 && answer.is_err();
                machine.disk.clear_faults();
                drop(volumes);
                let what = format!("{failure:?} at call {call}");
                let volumes = machine.open().await;
                check(change, &answer, &machine.list(&volumes), &what);
                machine.use_all(&volumes).await;
                if !happened {
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_that_fails_has_changed_nothing_or_says_that_nobody_knows() {
    let ground = Ground::new().await;
    let faults = [
        Fault::Full,
        Fault::Unavailable,
        Fault::UnknownDone,
        Fault::UnknownNotDone,
    ];
    for change in CHANGES {
        for fault in faults {
            let (machine, volumes, id) = prepared(&ground, 1).await;
            machine.catalogue.fail(Call::Commit, 1, fault);
            let answer = change.make(&machine, &volumes, id).await;
            assert!(answer.is_err(), "{change:?}, {fault:?}");
            let refused = matches!(fault, Fault::Full | Fault::Unavailable);
            if refused {
                // It goes on, and the same change can be made.
                assert_eq!(names(&machine.list(&volumes)), BEFORE);
                assert_eq!(names(&rebuilt(&machine, 1).await), BEFORE, "{change:?}");
            } else {
                let more = change.make(&machine, &volumes, id).await;
                assert!(matches!(more, Err(VolumeError::Unknown(_))), "{more:?}");
            }
            drop(volumes);
            machine.catalogue.reopen();
            let volumes = machine.open().await;
            let found = machine.list(&volumes);
            // A change of tags that was durable in the folder is finished.
            let done = fault == Fault::UnknownDone || (change == Change::Rename && !refused);
            let expected = if done { change.after() } else { BEFORE };
            assert_eq!(names(&found), expected, "{change:?}, {fault:?}");
            machine.use_all(&volumes).await;
            if !done {
                change.make(&machine, &volumes, id).await.unwrap();
                assert_eq!(names(&machine.list(&volumes)), change.after());
            }
            machine.settle().await;
            machine.is_clean().await;
        }
    }
}
