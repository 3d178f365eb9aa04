//! Rows made again from folders, and folders that no row names.

use std::path::Path;

use catalogue::Catalogue;
use host::Disk as _;
use volume::{FolderReport, Rebuilt, VolumeError, VolumeState};

use crate::world::{Ground, TABLE, VOLUMES, file, named};

fn outcomes(reports: &[FolderReport]) -> Vec<String> {
    let mut outcomes: Vec<String> = reports
        .iter()
        .map(|report| format!("{:?}", report.outcome))
        .collect();
    outcomes.sort();
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rows_are_made_again_and_nothing_else_is_touched() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    for name in ["a", "b", "c"] {
        let id = machine.create(&volumes, name).await.unwrap().id;
        machine
            .rename(&volumes, id, &format!("{name}2"))
            .await
            .unwrap();
    }
    let gone = machine.create(&volumes, "gone").await.unwrap().id;
    machine.delete(&volumes, gone).await.unwrap();
    machine.settle().await;
    machine.use_all(&volumes).await;
    let before = machine.list(&volumes);
    assert_eq!(outcomes(&machine.rebuild().await), ["AlreadyThere"; 3]);
    drop(volumes);

    let lost = ground.machine_on(machine.disk.fork(1));
    assert_eq!(outcomes(&lost.rebuild().await), ["Rebuilt"; 3]);
    assert_eq!(outcomes(&lost.rebuild().await), ["AlreadyThere"; 3]);
    let volumes = lost.open().await;
    assert_eq!(lost.list(&volumes), before);
    lost.use_all(&volumes).await;
    lost.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_token_makes_no_second_volume_after_the_rows_were_made_again() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let request = || volume::CreateVolume {
        client_token: Some("token".to_owned()),
        ..named("a")
    };
    let volumes = machine.open().await;
    let may = ground.may(volumes.new_one());
    let made = volumes.create(may, request()).await.unwrap();
    drop(volumes);
    let lost = ground.machine_on(machine.disk.fork(1));
    assert_eq!(outcomes(&lost.rebuild().await), ["Rebuilt"]);
    let volumes = lost.open().await;
    let may = ground.may(volumes.new_one());
    assert_eq!(volumes.create(may, request()).await.unwrap().id, made.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_does_not_replace_a_row_and_a_newer_one_does() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let id = machine.create(&volumes, "first").await.unwrap().id;
    drop(volumes);
    let key = machine.key(id);
    let old_row = machine.memory.get(TABLE, &key).await.unwrap().unwrap();
    let old_copy = machine.disk.bytes(file(id, "volume.copy"));
    let volumes = machine.open().await;
    machine.rename(&volumes, id, "second").await.unwrap();
    machine.rename(&volumes, id, "third").await.unwrap();
    drop(volumes);

    let newer = ground.machine_on(machine.disk.fork(2));
    newer
        .memory
        .tamper(TABLE, &key, Some((old_row.version, old_row.sealed)));
    assert_eq!(outcomes(&newer.rebuild().await), ["Renewed"]);
    let volumes = newer.open().await;
    assert_eq!(newer.list(&volumes)[0].1, "third");

    for name in ["volume.copy", "volume.copy2"] {
        host::private::replace(&machine.disk, &file(id, name), &old_copy).unwrap();
    }
    assert_eq!(outcomes(&machine.rebuild().await), ["AlreadyThere"]);
    let volumes = machine.open().await;
    assert_eq!(machine.list(&volumes)[0].1, "third");
    // And the copies are those of the row again.
    assert_ne!(machine.disk.bytes(file(id, "volume.copy")), old_copy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_volume_is_not_made_again_while_its_deletion_is_known() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let id = machine.create(&volumes, "a").await.unwrap().id;
    let folder = machine.disk.fork(1);
    // Its folder stays: hiding it fails, after the row said that it is deleted.
    machine.disk.fail(
        host::disk::sim::Fault::new(host::disk::sim::Failure::Io)
            .on(&[host::disk::sim::Call::Rename])
            .lasting(),
    );
    assert!(machine.delete(&volumes, id).await.is_err());
    machine.disk.clear_faults();
    assert!(machine.list(&volumes).is_empty());
    assert_eq!(outcomes(&machine.rebuild().await), ["Deleted"]);
    drop(volumes);
    let volumes = machine.open().await;
    assert!(machine.list(&volumes).is_empty());
    machine.is_clean().await;
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_foreign_folders_are_named_and_left() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        ids.push(machine.create(&volumes, name).await.unwrap().id);
    }
    drop(volumes);
    let lost = ground.machine_on(machine.disk.fork(1));
    // One copy is enough; of the second volume both are damaged, of the third none is left, the fourth is foreign.
    lost.disk
        .damage(file(ids[0], "volume.copy"), 100, |byte| byte ^ 1);
    for name in ["volume.copy", "volume.copy2"] {
        lost.disk.damage(file(ids[1], name), 100, |byte| byte ^ 1);
        lost.disk.remove(&file(ids[2], name)).unwrap();
        lost.disk.damage(file(ids[3], name), 9, |byte| byte ^ 1);
    }
    let found = outcomes(&lost.rebuild().await);
    let expected = ["Damaged", "OtherStore", "Rebuilt", "WithoutCopy"];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    // The other three are set aside, and served again once they have what they need.
    let volumes = lost.open().await;
    assert_eq!(lost.list(&volumes).len(), 1);
    assert_eq!(volumes.quarantined().unwrap(), 3);
    let whole = machine.disk.bytes(file(ids[1], "volume.copy"));
    drop(volumes);
    let aside = Path::new(VOLUMES)
        .join("quarantine")
        .join(ids[1].to_string());
    host::private::replace(&lost.disk, &aside.join("volume.copy"), &whole).unwrap();
    let found = lost.rebuild().await;
    assert!(
        found
            .iter()
            .any(|report| report.volume == ids[1] && matches!(report.outcome, Rebuilt::Rebuilt)),
        "{found:?}"
    );
    let volumes = lost.open().await;
    assert_eq!(lost.list(&volumes).len(), 2);
    assert_eq!(volumes.quarantined().unwrap(), 2);
    lost.use_all(&volumes).await;

    // Under another store's key nothing is made.
    let other = Ground::new().await;
    let refused = machine.rebuild_under(&other.store_key).await;
    assert!(matches!(refused, Err(VolumeError::WrongStore)));
    let foreign = other.machine_on(machine.disk.fork(1));
    for report in foreign.rebuild().await {
        assert!(
            matches!(report.outcome, Rebuilt::OtherStore(_)),
            "{report:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_no_row_names_is_set_aside_and_comes_back_with_a_rebuild() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let id = machine.create(&volumes, "a").await.unwrap().id;
    machine.use_all(&volumes).await;
    let before = machine.list(&volumes);
    drop(volumes);
    // Twice: the second finds the name taken.
    for times in 1..=2 {
        let row = machine.memory.get(TABLE, &machine.key(id)).await.unwrap();
        machine.memory.tamper(TABLE, &machine.key(id), None);
        let volumes = machine.open().await;
        assert!(machine.list(&volumes).is_empty());
        assert_eq!(volumes.quarantined().unwrap(), times);
        drop(volumes);
        if times == 1 {
            // Another folder of that name, as a restored backup would be.
            for path in machine.disk.paths() {
                let Ok(rest) = path.strip_prefix("/volumes/quarantine") else {
                    continue;
                };
                let to = Path::new(VOLUMES).join(rest);
                host::private::create_dirs(&machine.disk, to.parent().unwrap()).unwrap();
                let bytes = machine.disk.bytes(&path);
                host::private::replace(&machine.disk, &to, &bytes).unwrap();
            }
            let row = row.unwrap();
            machine
                .memory
                .tamper(TABLE, &machine.key(id), Some((row.version, row.sealed)));
        }
    }
    // Neither is the newer one: it is not for a rebuild to choose.
    let reports = machine.rebuild().await;
    assert_eq!(outcomes(&reports), ["Ambiguous", "Ambiguous"]);
    let away = reports[0].folder.clone();
    machine.disk.rename(&away, Path::new("/away")).unwrap();
    assert_eq!(outcomes(&machine.rebuild().await), ["Rebuilt"]);
    let volumes = machine.open().await;
    assert_eq!(machine.list(&volumes), before);
    assert_eq!(volumes.quarantined().unwrap(), 0);
    machine.use_all(&volumes).await;
}

/// Copies the files of a folder.
fn copy_folder(machine: &crate::world::Machine, from: &Path, to: &Path) {
    for path in machine.disk.paths() {
        if let Ok(rest) = path.strip_prefix(from) {
            let to = to.join(rest);
            host::private::create_dirs(&machine.disk, to.parent().unwrap()).unwrap();
            let bytes = machine.disk.bytes(&path);
            host::private::replace(&machine.disk, &to, &bytes).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_folders_in_quarantine_the_newer_one_comes_back_whatever_their_names() {
    for newer_first in [false, true] {
        let ground = Ground::new().await;
        let machine = ground.machine(1);
        let volumes = machine.open().await;
        let id = machine.create(&volumes, "first").await.unwrap().id;
        machine.use_all(&volumes).await;
        let folder = Path::new(VOLUMES).join(id.to_string());
        let old = Path::new("/old");
        copy_folder(&machine, &folder, old);
        machine.rename(&volumes, id, "second").await.unwrap();
        let before = machine.list(&volumes);
        drop(volumes);
        machine.memory.tamper(TABLE, &machine.key(id), None);
        let quarantine = Path::new(VOLUMES).join("quarantine");
        let names = [id.to_string(), format!("{id}.1")];
        let (newer, older) = match newer_first {
            true => (&names[0], &names[1]),
            false => (&names[1], &names[0]),
        };
        copy_folder(&machine, &folder, &quarantine.join(newer));
        copy_folder(&machine, old, &quarantine.join(older));
        machine.disk.rename(&folder, Path::new("/gone")).unwrap();
        let reports = machine.rebuild().await;
        assert_eq!(outcomes(&reports), ["Duplicate", "Rebuilt"]);
        let taken = reports
            .iter()
            .find(|report| matches!(report.outcome, Rebuilt::Rebuilt));
        assert!(taken.unwrap().folder.ends_with(newer));
        let volumes = machine.open().await;
        assert_eq!(machine.list(&volumes), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_open_is_not_replaced_by_a_copy_from_before_it() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let id = machine.create(&volumes, "first").await.unwrap().id;
    let copy = machine.disk.bytes(file(id, "volume.copy"));
    machine.rename(&volumes, id, "second").await.unwrap();
    let newest = machine.disk.bytes(file(id, "volume.copy"));
    drop(volumes);
    let key = machine.key(id);
    let row = machine.memory.get(TABLE, &key).await.unwrap().unwrap();
    let mut bytes = row.sealed.clone();
    *bytes.last_mut().unwrap() ^= 1;
    let damaged = (row.version, bytes);
    machine.memory.tamper(TABLE, &key, Some(damaged.clone()));
    let set = |bytes: &[u8]| {
        for name in ["volume.copy", "volume.copy2"] {
            host::private::replace(&machine.disk, &file(id, name), bytes).unwrap();
        }
    };
    set(&copy);
    assert_eq!(outcomes(&machine.rebuild().await), ["OlderThanRow"]);
    let after = machine.memory.get(TABLE, &key).await.unwrap().unwrap();
    assert_eq!((after.version, after.sealed), damaged);
    set(&newest);
    assert_eq!(outcomes(&machine.rebuild().await), ["Rebuilt"]);
    let volumes = machine.open().await;
    let names: Vec<_> = machine
        .list(&volumes)
        .into_iter()
        .map(|said| said.1)
        .collect();
    assert_eq!(names, ["second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_under_a_store_key_that_is_not_there_is_not_taken_for_damaged() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let id = machine.create(&volumes, "a").await.unwrap().id;
    drop(volumes);
    let key = machine.key(id);
    let row = machine.memory.get(TABLE, &key).await.unwrap().unwrap();
    let mut bytes = row.sealed.clone();
    // Its generation stands behind the first byte, in the clear, big endian.
    bytes[4] = 9;
    let other = (row.version, bytes);
    machine.memory.tamper(TABLE, &key, Some(other.clone()));
    assert_eq!(outcomes(&machine.rebuild().await), ["OtherGeneration"]);
    let after = machine.memory.get(TABLE, &key).await.unwrap().unwrap();
    assert_eq!((after.version, after.sealed), other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder_or_a_damaged_row_stops_that_volume_alone() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let [missing, damaged, well] = {
        let mut ids = Vec::new();
        for name in ["missing", "damaged", "well"] {
            ids.push(machine.create(&volumes, name).await.unwrap().id);
        }
        [ids[0], ids[1], ids[2]]
    };
    drop(volumes);
    machine
        .disk
        .rename(
            &Path::new(VOLUMES).join(missing.to_string()),
            Path::new("/elsewhere"),
        )
        .unwrap();
    let key = machine.key(damaged);
    let row = machine.memory.get(TABLE, &key).await.unwrap().unwrap();
    let mut bytes = row.sealed.clone();
    *bytes.last_mut().unwrap() ^= 1;
    machine
        .memory
        .tamper(TABLE, &key, Some((row.version, bytes)));

    let volumes = machine.open().await;
    let states: Vec<(String, VolumeState)> = machine
        .list(&volumes)
        .into_iter()
        .map(|(_, name, state)| (name, state))
        .collect();
    assert_eq!(states.len(), 3);
    assert!(states.contains(&("missing".to_owned(), VolumeState::Error)));
    // As its copies call it.
    assert!(states.contains(&("damaged".to_owned(), VolumeState::Error)));
    assert_eq!(volumes.by_state()[&VolumeState::Error], 2);
    assert_eq!(volumes.in_error(10).len(), 2);
    assert_eq!(volumes.in_error(1).len(), 1);
    let described = volumes.describe(ground.may(volumes.every()), &[damaged]);
    assert_eq!(described.unwrap()[0].state, VolumeState::Error);
    assert!(states.contains(&("well".to_owned(), VolumeState::Available)));
    let attach = |id| volumes.attach(ground.may(volumes.one(id)));
    assert!(matches!(
        attach(missing).await,
        Err(VolumeError::FolderMissing(_))
    ));
    assert!(matches!(
        attach(damaged).await,
        Err(VolumeError::DamagedRow { .. })
    ));
    attach(well).await.unwrap();
    // The folder of the damaged one is not set aside: a row names it. It is made again from there.
    assert_eq!(volumes.quarantined().unwrap(), 0);
    drop(volumes);
    let mut found = outcomes(&machine.rebuild().await);
    found.sort();
    assert_eq!(found, ["AlreadyThere", "Rebuilt"]);
    let volumes = machine.open().await;
    assert_eq!(machine.list(&volumes).len(), 3);
    // What cannot be served can be deleted.
    machine.delete(&volumes, missing).await.unwrap();
    assert_eq!(machine.list(&volumes).len(), 2);
    machine.use_all(&volumes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_row_is_damaged_can_be_deleted() {
    let ground = Ground::new().await;
    let machine = ground.machine(1);
    let volumes = machine.open().await;
    let id = machine.create(&volumes, "damaged").await.unwrap().id;
    drop(volumes);
    machine
        .memory
        .tamper(TABLE, &machine.key(id), Some((1, b"damaged".to_vec())));
    let volumes = machine.open().await;
    let listed = machine.list(&volumes);
    assert_eq!((listed.len(), listed[0].2), (1, VolumeState::Error));
    machine.delete(&volumes, id).await.unwrap();
    machine.settle().await;
    machine.is_clean().await;
    assert!(machine.rebuild().await.is_empty());
}
