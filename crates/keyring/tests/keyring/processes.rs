//! Several processes on one catalogue: each sees the others' changes, and none is lost between them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use catalogue::{Call, Fault, MemoryCatalogue, StoreId};
use keyring::{AliasName, KeyChange, PendingWindow};

use crate::fixture::{Closed, DAY, Fixture, Store, code};

/// A commit is seen within a second; three, so that a busy machine fails no test.
const BOUND: Duration = Duration::from_secs(3);

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(BOUND, waiting).await;
    assert!(seen.is_ok(), "not seen in time: {what}");
}

#[tokio::test]
async fn what_one_process_changes_the_other_sees_tells_and_decides_by() {
    for on_disk in [false, true] {
        let here = match on_disk {
            false => Fixture::new().await,
            true => Fixture::on_disk().await,
        };
        let there = here.beside().await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&told);
        there.keyring.on_change(Box::new(move |event| {
            listener.lock().unwrap().push(event.change);
        }));

        let key = here.create().await;
        eventually("a key made", async || there.keyring.is_enabled(&key)).await;
        let blob = here.seal(&key, &[]).await;
        assert!(there.opens(&blob).await);
        let standing = there.may::<iam::Encrypt>(&key).await;
        let standing = standing.standing(standing.resource().clone());

        let may = here.may(&key).await;
        here.keyring.disable_key(may).await.unwrap();
        eventually("a key disabled", async || !there.keyring.is_enabled(&key)).await;
        eventually("a decision stale", async || !standing.is_current()).await;
        let refused = there.open(&blob, None, &[]).await;
        assert_eq!(code(refused), "DisabledException");

        let may = here.may(&key).await;
        here.keyring.enable_key(may).await.unwrap();
        eventually("a key enabled", async || there.opens(&blob).await).await;

        let may = here.may(&key).await;
        here.keyring.rotate_key_on_demand(may).await.unwrap();
        let newer = here.seal(&key, &[]).await;
        eventually("a key rotated", async || there.opens(&newer).await).await;

        let name: AliasName = "alias/a".parse().unwrap();
        let may = here.may(&key).await;
        here.keyring.create_alias(may, name.clone()).await.unwrap();
        eventually("an alias made", async || {
            let may = there.may(&key).await;
            code(there.keyring.create_alias(may, name.clone()).await) == "AlreadyExistsException"
        })
        .await;

        let may = here.may(&key).await;
        let window = PendingWindow::default();
        here.keyring
            .schedule_key_deletion(may, window)
            .await
            .unwrap();
        here.clock.advance(30 * DAY);
        assert_eq!(here.keyring.sweep().await.destroyed, 1);
        eventually("a key destroyed", async || {
            told.lock().unwrap().last() == Some(&KeyChange::Destroyed)
        })
        .await;
        let expected = [
            KeyChange::Disabled,
            KeyChange::Enabled,
            KeyChange::Rotated,
            KeyChange::DeletionScheduled,
            KeyChange::Destroyed,
        ];
        // Two changes between two looks are told as what became of both.
        let mut told = told.lock().unwrap().clone();
        told.retain(|change| *change != KeyChange::DeletionScheduled);
        let expected: Vec<_> = expected
            .into_iter()
            .filter(|change| *change != KeyChange::DeletionScheduled)
            .collect();
        assert_eq!(told, expected);
        let refused = there.open(&blob, None, &[]).await;
        assert_eq!(code(refused), "InvalidCiphertextException");
    }
}

#[tokio::test]
async fn changes_that_race_between_processes_are_all_made() {
    let here = Fixture::new().await;
    let there = here.beside().await;
    let key = here.create().await;
    eventually("a key made", async || there.keyring.is_enabled(&key)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for fixture in [&here, &there] {
        for _ in 0..10 {
            let keyring = Arc::clone(&fixture.keyring);
            let rotate = fixture.may(&key).await;
            tasks.spawn(async move { keyring.rotate_key_on_demand(rotate).await.unwrap() });
        }
    }
    tasks.join_all().await;
    let here = here.restart().await;
    let rotations = here
        .keyring
        .list_key_rotations(here.may(&key).await, Default::default())
        .await
        .unwrap();
    assert_eq!(rotations.entries.len(), 20);
}

#[tokio::test]
async fn a_change_that_lost_a_race_is_decided_on_what_is_there_now() {
    let here = Fixture::new().await;
    let there = here.beside().await;
    let key = here.create().await;
    eventually("a key made", async || there.keyring.is_enabled(&key)).await;
    let delete = there.may(&key).await;
    let describe = there.may(&key).await;
    let window = PendingWindow::default();
    let may = here.may(&key).await;
    here.keyring
        .schedule_key_deletion(may, window)
        .await
        .unwrap();
    // Whether its follower was quicker or not: a key that is pending deletion is not scheduled again.
    let again = there.keyring.schedule_key_deletion(delete, window).await;
    assert_eq!(code(again), "KMSInvalidStateException");
    let renamed = there
        .keyring
        .update_key_description(describe, "x".to_owned());
    assert_eq!(code(renamed.await), "KMSInvalidStateException");
}

#[tokio::test]
async fn a_process_that_fell_far_behind_reads_everything_anew() {
    let mut store = Store::new().await;
    let id = StoreId(*store.key.store().as_bytes());
    // So few that each change pushes out the one before.
    store.memory = MemoryCatalogue::keeping(id, 1);
    store.catalogue = Arc::new(store.memory.clone());
    let here = Closed::new(tempfile::tempdir().unwrap(), store)
        .open()
        .await;
    let key = here.create().await;
    let doomed = here.create().await;
    let there = here.beside().await;
    let may = here.may(&key).await;
    here.keyring.disable_key(may).await.unwrap();
    let may = here.may(&doomed).await;
    let window = PendingWindow::default();
    here.keyring
        .schedule_key_deletion(may, window)
        .await
        .unwrap();
    here.clock.advance(30 * DAY);
    here.keyring.sweep().await;
    let more = here.create().await;
    eventually("everything", async || {
        !there.keyring.is_enabled(&key) && there.keyring.is_enabled(&more)
    })
    .await;
    assert!(there.keyring.healthy().is_ok());
}

#[tokio::test]
async fn while_others_changes_are_not_seen_the_keyring_is_not_healthy_but_serves() {
    let here = Fixture::new().await;
    let key = here.create().await;
    let there = here.beside().await;
    let blob = there.seal(&key, &[]).await;
    // One more than are asked for in the time of this test.
    for n in 1..=100 {
        there.faults.fail(Call::Changes, n, Fault::Unavailable);
    }
    here.create().await;
    eventually("not healthy", async || there.keyring.healthy().is_err()).await;
    assert!(there.opens(&blob).await);
    let there = there.restart().await;
    assert!(there.keyring.healthy().is_ok());
}

#[tokio::test]
async fn a_keyring_that_is_dropped_lets_go_of_its_catalogue() {
    let fixture = Fixture::new().await;
    fixture.create().await;
    let catalogue = Arc::downgrade(&fixture.faults);
    drop(fixture);
    eventually("let go", async || catalogue.strong_count() == 0).await;
}
