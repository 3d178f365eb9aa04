//! Crashes and failures between the steps of a change: the state before or after, never between.

use iam::Via;
use keyring::{Account, KeyArn, KeyState, KeyringError, PendingWindow};

use crate::fixture::{DAY, Fault, Fixture, code, root, secret};

const FAULTS: [Fault; 3] = [Fault::Before, Fault::After, Fault::Full];

async fn current_material(fixture: &Fixture, key: &KeyArn) -> keyring::MaterialId {
    let described = fixture.keyring.describe_key(fixture.may(key).await).await;
    described.unwrap().current_material
}

#[tokio::test]
async fn a_crash_while_a_key_is_made_leaves_it_whole_or_not_there() {
    for fault in FAULTS {
        let fixture = Fixture::new();
        let authorized = fixture.keyring.authorize(root(Via::Api), Account).await;
        fixture.store.fail_next(fault);
        let made = fixture
            .keyring
            .create_key(authorized.unwrap(), Default::default())
            .await;
        assert_eq!(code(made), "KMSInternalException", "{fault:?}");
        let there = list(&fixture).await;
        let fixture = fixture.restart();
        assert_eq!(
            list(&fixture).await,
            there,
            "memory said what the disk says"
        );
        assert_eq!(there.len(), usize::from(fault == Fault::After));
        for key in there {
            let blob = fixture.seal(&key, &[]).await;
            assert!(fixture.opens(&blob).await);
        }
    }
}

async fn list(fixture: &Fixture) -> Vec<KeyArn> {
    let authorized = fixture.keyring.authorize(root(Via::Api), Account).await;
    let listed = fixture
        .keyring
        .list_keys(authorized.unwrap(), Default::default())
        .await;
    listed.unwrap().entries
}

#[tokio::test]
async fn a_crash_while_a_key_is_rotated_leaves_the_old_or_the_new_material() {
    for fault in FAULTS {
        let fixture = Fixture::new();
        let key = fixture.create().await;
        let blob = fixture.seal(&key, &[]).await;
        let before = current_material(&fixture, &key).await;
        let may = fixture.may(&key).await;
        fixture.store.fail_next(fault);
        assert_eq!(
            code(fixture.keyring.rotate_key_on_demand(may).await),
            "KMSInternalException"
        );
        let now = current_material(&fixture, &key).await;
        assert_eq!(now != before, fault == Fault::After, "{fault:?}");
        let meanwhile = fixture.seal(&key, &[]).await;
        assert!(fixture.opens(&blob).await && fixture.opens(&meanwhile).await);
        // The next change goes through: memory has the version that the disk has.
        let may = fixture.may(&key).await;
        fixture.keyring.rotate_key_on_demand(may).await.unwrap();
        let fixture = fixture.restart();
        assert!(fixture.opens(&blob).await && fixture.opens(&meanwhile).await);
    }
}

#[tokio::test]
async fn a_crash_while_a_key_is_destroyed_leaves_it_pending_or_gone() {
    for fault in FAULTS {
        let fixture = Fixture::new();
        let key = fixture.create().await;
        fixture
            .keyring
            .schedule_key_deletion(fixture.may(&key).await, PendingWindow::default())
            .await
            .unwrap();
        fixture.clock.advance(30 * DAY);
        fixture.store.fail_next(fault);
        assert_eq!(code(fixture.keyring.sweep().await), "KMSInternalException");
        let swept = fixture.keyring.sweep().await.unwrap();
        assert_eq!(swept.destroyed, usize::from(fault != Fault::After));
        assert!(list(&fixture.restart()).await.is_empty());
    }
}

#[tokio::test]
async fn a_disabling_that_failed_is_told_to_caches_if_it_may_have_happened() {
    for fault in FAULTS {
        let fixture = Fixture::new();
        let key = fixture.create().await;
        let told = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&told);
        fixture.keyring.on_change(Box::new(move |event| {
            assert!(event.change.revokes());
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }));
        let may = fixture.may(&key).await;
        fixture.store.fail_next(fault);
        let result = fixture.keyring.disable_key(may).await;
        assert_eq!(code(result), "KMSInternalException");
        let told = told.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(told, usize::from(fault != Fault::Full));
        let state = fixture
            .keyring
            .describe_key(fixture.may(&key).await)
            .await
            .unwrap()
            .state;
        assert_eq!(
            state == KeyState::Disabled,
            fault == Fault::After,
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_back_stops_the_keyring() {
    let fixture = Fixture::new();
    let key = fixture.create().await;
    let may = fixture.may(&key).await;
    fixture.store.fail_next(Fault::Dead);
    assert_eq!(
        code(fixture.keyring.disable_key(may).await),
        "KMSInternalException"
    );
    let may = fixture.may(&key).await;
    let result = fixture.keyring.encrypt(may, secret(b"x")).await;
    assert!(matches!(result.unwrap_err(), KeyringError::Stopped(_)));
    assert!(fixture.keyring.healthy().is_err());
}

#[tokio::test]
async fn changes_that_race_are_made_one_after_another() {
    let fixture = Fixture::new();
    let key = fixture.create().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let keyring = std::sync::Arc::clone(&fixture.keyring);
        let rotate = fixture.may(&key).await;
        let alias = fixture.may(&key).await;
        tasks.spawn(async move {
            keyring.rotate_key_on_demand(rotate).await.unwrap();
            let name = format!("alias/n{n}").parse().unwrap();
            keyring.create_alias(alias, name).await.unwrap();
        });
    }
    tasks.join_all().await;
    let fixture = fixture.restart();
    let rotations = fixture
        .keyring
        .list_key_rotations(fixture.may(&key).await, Default::default())
        .await
        .unwrap();
    assert_eq!(rotations.entries.len(), 20);
}
