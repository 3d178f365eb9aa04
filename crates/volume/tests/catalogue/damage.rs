//! Damage to one volume: the others are served, it is in error and says how it comes out of that, and does. And callers
//! that leave in the middle, and ends that are not in order.

use std::{
    path::Path,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use catalogue::Catalogue as _;
use host::{
    Disk as _, Mode,
    disk::sim::{Call, Failure, Fault},
};
use volume::{Encryption, MapSource, VolumeError, VolumeId, VolumeState, Volumes};

use crate::world::{Ground, Machine, TABLE, file, named};

/// A sealed volume with something in it, and another one.
async fn two(machine: &Machine) -> (VolumeId, VolumeId) {
    let volumes = machine.open().await;
    let sealed = volume::CreateVolume {
        encryption: Encryption::Sealed { key: None },
        ..named("sealed")
    };
    let may = machine.ground.may(volumes.new_one());
    let one = volumes.create(may, sealed).await.unwrap().id;
    let other = machine.create(&volumes, "other").await.unwrap().id;
    write(machine, &volumes, one, 0, 5).await.unwrap();
    write(machine, &volumes, one, 7 << 20, 6).await.unwrap();
    (one, other)
}

async fn write(
    machine: &Machine,
    volumes: &Volumes,
    id: VolumeId,
    at: u64,
    byte: u8,
) -> Result<(), VolumeError> {
    let attached = volumes.attach(machine.ground.may(volumes.one(id))).await?;
    attached.write(at, &mut [byte; 9000], true)
}

async fn holds(machine: &Machine, volumes: &Volumes, id: VolumeId) {
    let attached = volumes.attach(machine.ground.may(volumes.one(id))).await;
    let attached = attached.unwrap();
    for (at, byte) in [(0, 5), (7 << 20, 6)] {
        let mut found = [0; 9000];
        attached.read(at, &mut found).unwrap();
        assert!(found == [byte; 9000]);
    }
}

fn state(machine: &Machine, volumes: &Volumes, id: VolumeId) -> VolumeState {
    let every = machine.ground.may(volumes.every());
    volumes.describe(every, &[id]).unwrap()[0].state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_with_a_destroyed_map_is_in_error_until_it_is_repaired() {
    let ground = Ground::new().await;
    for flipped in [false, true] {
        let machine = ground.machine(1);
        let (one, other) = two(&machine).await;
        for name in ["map.log", "map.log.copy"] {
            match flipped {
                true => machine.disk.damage(file(one, name), 4200, |byte| byte ^ 1),
                false => machine.disk.remove(&file(one, name)).unwrap(),
            }
        }
        let volumes = machine.open().await;
        if !flipped {
            // What is not there is seen without the key.
            assert_eq!(state(&machine, &volumes, one), VolumeState::Error);
        }
        let refused = volumes.attach(ground.may(volumes.one(one))).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, VolumeError::Damaged { .. }), "{refused}");
        let way_out = refused.way_out(one).unwrap();
        assert!(way_out.ends_with(&format!("sealgate volume repair {one}`")));
        assert_eq!(state(&machine, &volumes, one), VolumeState::Error);
        assert_eq!(volumes.in_error(10), [one]);
        assert_eq!(state(&machine, &volumes, other), VolumeState::Available);
        write(&machine, &volumes, other, 0, 1).await.unwrap();
        drop(volumes);

        let checked = volume::check(machine.inspection(), ground.caller(), one).await;
        assert!(!checked.unwrap().is_clean());
        let repaired = volume::repair(machine.inspection(), ground.caller(), one, false).await;
        let repaired = repaired.unwrap();
        assert!(repaired.is_whole());
        assert_eq!(repaired.files.map_from, MapSource::Owners);
        let checked = volume::check(machine.inspection(), ground.caller(), one).await;
        assert!(checked.unwrap().is_clean());
        let volumes = machine.open().await;
        assert_eq!(state(&machine, &volumes, one), VolumeState::Available);
        holds(&machine, &volumes, one).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_or_copy_is_found_and_written_again() {
    let ground = Ground::new().await;
    let damages: [fn(&Machine, VolumeId); 4] = [
        |machine, id| {
            machine
                .disk
                .damage(file(id, "volume.copy"), 90, |byte| byte ^ 1);
        },
        |machine, id| machine.disk.remove(&file(id, "volume.copy2")).unwrap(),
        |machine, id| {
            for name in ["volume.copy", "volume.copy2"] {
                machine.disk.cut(file(id, name), 20);
            }
        },
        |machine, id| {
            let damaged = Some((1, b"damaged".to_vec()));
            machine.memory.tamper(TABLE, &machine.key(id), damaged);
        },
    ];
    for damage in damages {
        let machine = ground.machine(1);
        let (one, _) = two(&machine).await;
        let check = || volume::check(machine.inspection(), ground.caller(), one);
        assert!(check().await.unwrap().is_clean());
        damage(&machine, one);
        assert!(!check().await.unwrap().is_clean());
        let repaired = volume::repair(machine.inspection(), ground.caller(), one, false).await;
        assert!(repaired.unwrap().is_whole());
        assert!(check().await.unwrap().is_clean());
        let volumes = machine.open().await;
        holds(&machine, &volumes, one).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_row_and_copies_lost_a_volume_is_still_listed_and_not_repaired() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let (one, other) = two(&machine).await;
    let damaged = Some((1, b"damaged".to_vec()));
    machine.memory.tamper(TABLE, &machine.key(one), damaged);
    for name in ["volume.copy", "volume.copy2"] {
        machine.disk.remove(&file(one, name)).unwrap();
    }
    let repaired = volume::repair(machine.inspection(), ground.caller(), one, true).await;
    assert!(matches!(repaired, Err(VolumeError::DamagedRow { .. })));
    let volumes = machine.open().await;
    let said = machine.list(&volumes);
    assert!(said.contains(&(one, String::new(), VolumeState::Error)));
    assert!(said.contains(&(other, "other".to_owned(), VolumeState::Available)));
    assert_eq!(state(&machine, &volumes, one), VolumeState::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_attached_is_neither_checked_nor_repaired() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let (one, _) = two(&machine).await;
    let volumes = machine.open().await;
    let _attached = volumes.attach(ground.may(volumes.one(one))).await.unwrap();
    let checked = volume::check(machine.inspection(), ground.caller(), one).await;
    assert!(matches!(checked, Err(VolumeError::InUse(_))));
    let repaired = volume::repair(machine.inspection(), ground.caller(), one, true).await;
    assert!(matches!(repaired, Err(VolumeError::InUse(_))));
    let nowhere: VolumeId = "vol-00000000000000000".parse().unwrap();
    let checked = volume::check(machine.inspection(), ground.caller(), nowhere).await;
    assert!(matches!(checked, Err(VolumeError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_whose_caller_leaves_is_finished_or_not_begun() {
    let ground = Ground::new().await;
    let (mut deleted, mut kept) = (0, 0);
    for polls in 0..12 {
        let machine = ground.machine(polls);
        let volumes = machine.open().await;
        let id = machine.create(&volumes, "one").await.unwrap().id;
        {
            let mut deletion = pin!(machine.delete(&volumes, id));
            for _ in 0..polls {
                let mut context = Context::from_waker(Waker::noop());
                if deletion.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
        // Whoever asks next waits for what is under way.
        let again = machine.delete(&volumes, id).await;
        match again {
            Ok(()) => kept += 1,
            Err(VolumeError::NotFound(_)) => deleted += 1,
            Err(VolumeError::InUse(_)) => panic!("a deletion was left half-way"),
            Err(other) => panic!("{other}"),
        }
        machine.settle().await;
        machine.is_clean().await;
        let folder = Path::new("/volumes").join(id.to_string());
        assert!(
            machine
                .disk
                .paths()
                .iter()
                .all(|path| !path.starts_with(&folder))
        );
        assert!(
            machine
                .memory
                .get(TABLE, &machine.key(id))
                .await
                .unwrap()
                .is_none()
        );
    }
    assert!(deleted > 0 && kept > 0, "{deleted} {kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_could_not_be_flushed_at_the_end_is_named() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let (one, other) = two(&machine).await;
    let volumes = machine.open().await;
    for id in [one, other] {
        let attached = volumes.attach(ground.may(volumes.one(id))).await.unwrap();
        attached.write(0, &mut [9; 4096], false).unwrap();
        if id == one {
            let fault = Fault::new(Failure::Io).on(&[Call::SyncData]);
            machine.disk.fail(fault.at("slots"));
        }
        drop(attached);
    }
    let unflushed = volumes.detached(Duration::from_secs(10)).await;
    assert_eq!(unflushed.len(), 1, "{unflushed:?}");
    assert_eq!(unflushed[0].0, one);
    assert!(matches!(unflushed[0].1, VolumeError::Failed(_)));
    // One that nobody lets go of is named too.
    let _attached = volumes
        .attach(ground.may(volumes.one(other)))
        .await
        .unwrap();
    let unflushed = volumes.detached(Duration::from_millis(1)).await;
    assert!(unflushed.iter().any(|(id, _)| *id == other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_while_a_volume_is_opened_is_final() {
    let ground = Ground::new().await;
    for suffix in ["slots", "map.log"] {
        let machine = ground.machine(1);
        let (one, _) = two(&machine).await;
        let volumes = machine.open().await;
        let epoch = {
            let attached = volumes.attach(ground.may(volumes.one(one))).await;
            attached.unwrap().epoch()
        };
        drop(volumes);
        let volumes = machine.open().await;
        let syncs = Fault::new(Failure::Io).on(&[Call::SyncData, Call::SyncAll]);
        machine.disk.fail(syncs.at(suffix));
        let refused = volumes.attach(ground.may(volumes.one(one))).await;
        assert!(refused.is_err(), "{suffix}");
        assert_eq!(machine.disk.faults_left(), 0, "{suffix}");
        let mark = file(one, "failed");
        assert!(machine.disk.kind(&mark).unwrap().is_some(), "{suffix}");
        // Whatever the page cache says, a client must not go on as if nothing had been lost.
        let attached = volumes.attach(ground.may(volumes.one(one))).await;
        assert_ne!(attached.unwrap().epoch(), epoch, "{suffix}");
        holds(&machine, &volumes, one).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_does_not_call_whole_what_lost_its_slots() {
    let ground = Ground::new().await;
    for foreign in [false, true] {
        let machine = ground.machine(1);
        let (one, other) = two(&machine).await;
        let volumes = machine.open().await;
        write(&machine, &volumes, other, 0, 9).await.unwrap();
        drop(volumes);
        let slots = file(one, "slots");
        let whole = machine.disk.bytes(&slots);
        match foreign {
            true => replace(&machine, &slots, &machine.disk.bytes(file(other, "slots"))),
            false => replace(&machine, &slots, &whole[..whole.len() - (512 << 10)]),
        }
        for _ in 0..2 {
            let repaired = volume::repair(machine.inspection(), ground.caller(), one, false).await;
            let refused = repaired.unwrap_err();
            assert!(matches!(refused, VolumeError::Damaged { .. }), "{refused}");
        }
        // Nothing was changed: with the right slots there all of it is there again.
        replace(&machine, &slots, &whole);
        let volumes = machine.open().await;
        holds(&machine, &volumes, one).await;
    }
}

/// Gives a file other contents.
fn replace(machine: &Machine, path: &Path, bytes: &[u8]) {
    let file = machine.disk.open(path, Mode::Write).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync_all().unwrap();
}
