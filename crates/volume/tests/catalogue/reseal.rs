//! A rotation of the store key: every row and copy opens, and nothing is left under the old generation.

use std::{path::Path, sync::Arc};

use catalogue::{Batch, Call, Catalogue as _, Expect, Fault, Key, Scope};
use crypto::random::SystemRandom;
use host::disk::sim::Crash;
use volume::Volumes;

use crate::world::{Ground, Machine, TABLE, VOLUMES, file};

/// Volumes on more pages than one, and a folder that no row names.
async fn many(ground: &Arc<Ground>, count: usize) -> (Machine, Arc<Volumes>) {
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    for n in 0..=count {
        machine.create(&volumes, &format!("n{n}")).await.unwrap();
    }
    let id = volumes.find_by_export_name("n0").unwrap();
    drop(volumes);
    machine.memory.tamper(TABLE, &machine.key(id), None);
    let volumes = machine.open().await;
    assert_eq!(volumes.quarantined().unwrap(), 1);
    assert_eq!(machine.stale().await, (0, 0));
    (machine, volumes)
}

async fn rotate(ground: &Ground, volumes: &Volumes) -> Result<(), root::RootError> {
    let rotation = ground.store_key.rotate().await.unwrap();
    rotation.run(&volumes.owners(), &|_| {}).await.map(drop)
}

/// After a rotation that ended: all is as it was, under the newest generation, and a rebuild works.
async fn check(machine: &Machine, volumes: Arc<Volumes>, count: usize) {
    assert_eq!(machine.ground.store_key.status().await.previous, None);
    assert_eq!(machine.stale().await, (0, 0));
    let before = machine.list(&volumes);
    assert_eq!(before.len(), count);
    drop(volumes);
    let volumes = machine.open().await;
    assert_eq!(machine.list(&volumes), before);
    machine.use_all(&volumes).await;
    drop(volumes);
    let lost = machine.ground.machine_on(machine.disk.fork(1));
    // The one in quarantine too.
    lost.rebuild().await;
    let volumes = lost.open().await;
    assert_eq!(lost.list(&volumes).len(), count + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_nothing_is_stale_though_volumes_were_changed_meanwhile() {
    let ground = Ground::new().await;
    let (machine, volumes) = many(&ground, 40).await;
    // Of an account that has no registry here.
    let scope = Scope {
        account: "210987654321".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let elsewhere = Key::new(scope, 7_u128.to_be_bytes().as_slice());
    let sealing = ground.store_key.table("volume").sealing();
    let place = elsewhere.place(TABLE, 1);
    let sealed = sealing.seal(&place, b"\x01{\"deleting\":{}}", &SystemRandom);
    let batch = Batch::new().put(TABLE, elsewhere, Expect::Absent, sealed);
    machine.memory.commit(batch).await.unwrap();
    drop(sealing);

    let rotation = rotate(&ground, &volumes);
    let meanwhile = async {
        for n in 1..=20 {
            let id = volumes.find_by_export_name(&format!("n{n}")).unwrap();
            machine
                .rename(&volumes, id, &format!("m{n}"))
                .await
                .unwrap();
        }
        let id = volumes.find_by_export_name("n21").unwrap();
        machine.delete(&volumes, id).await.unwrap();
        machine.create(&volumes, "n21").await.unwrap();
    };
    let (rotated, ()) = tokio::join!(rotation, meanwhile);
    rotated.unwrap();
    assert_eq!(
        volumes
            .find_by_export_name("m20")
            .unwrap()
            .to_string()
            .len(),
        21
    );
    check(&machine, volumes, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_killed_at_any_commit_goes_on_and_ends() {
    let ground = Ground::new().await;
    for fault in [
        Fault::Unavailable,
        Fault::UnknownDone,
        Fault::UnknownNotDone,
    ] {
        for commit in 1.. {
            let (machine, volumes) = many(&ground, 34).await;
            machine.catalogue.fail(Call::Commit, commit, fault);
            let interrupted = rotate(&ground, &volumes).await.is_err();
            drop(volumes);
            machine.catalogue.reopen();
            let happened = machine.catalogue.has_failed();
            assert_eq!(interrupted, happened, "{fault:?} at commit {commit}");
            // Both generations open.
            let volumes = machine.open().await;
            assert_eq!(machine.list(&volumes).len(), 34);
            if interrupted {
                rotate(&ground, &volumes).await.unwrap();
            }
            check(&machine, volumes, 34).await;
            if !happened {
                assert!(commit > 2, "the rows are on two pages");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_machine_stops_at_any_call_to_the_disk_goes_on_and_ends() {
    let ground = Ground::new().await;
    let mut points = 0;
    for crash in [Crash::Process, Crash::Power] {
        for stop in 0.. {
            let (machine, volumes) = many(&ground, 1).await;
            machine.disk.stop_after(stop);
            let interrupted = rotate(&ground, &volumes).await.is_err();
            let stopped = machine.disk.is_down();
            assert_eq!(interrupted, stopped);
            drop(volumes);
            machine.disk.restart(crash);
            let volumes = machine.open().await;
            if interrupted {
                rotate(&ground, &volumes).await.unwrap();
            }
            check(&machine, volumes, 1).await;
            if !stopped {
                break;
            }
            points += 1;
        }
    }
    assert!(points > 20, "{points}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_open_holds_no_rotation_up_and_is_made_again() {
    let ground = Ground::new().await;
    let (machine, volumes) = many(&ground, 2).await;
    let id = volumes.find_by_export_name("n1").unwrap();
    machine
        .disk
        .damage(file(id, "volume.copy"), 100, |byte| byte ^ 1);
    rotate(&ground, &volumes).await.unwrap();
    drop(volumes);
    let volumes = machine.open().await;
    check(&machine, volumes, 2).await;
    assert!(Path::new(VOLUMES).is_absolute());
}
