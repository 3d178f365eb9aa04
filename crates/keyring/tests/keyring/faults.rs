//! Crashes and failures between the steps of a change: the state before or after, never between.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use catalogue::{Call, Fault};
use iam::Via;
use keyring::{Account, KeyArn, KeyState, KeyringError, PendingWindow};

use crate::fixture::{DAY, Fixture, code, root, secret};

/// How a commit may fail, and whether the change was made.
const FAULTS: [(Fault, bool); 4] = [
    (Fault::Full, false),
    (Fault::Unavailable, false),
    (Fault::UnknownDone, true),
    (Fault::UnknownNotDone, false),
];

/// Whether it is known at once that the change was not made.
fn is_refusal(fault: Fault) -> bool {
    matches!(fault, Fault::Full | Fault::Unavailable)
}

/// The keyring after a commit failed: the same one if it goes on, or else opened anew.
async fn after(fixture: Fixture, fault: Fault) -> Fixture {
    if is_refusal(fault) {
        assert!(fixture.keyring.healthy().is_ok(), "{fault:?}");
        return fixture;
    }
    let stopped = fixture.keyring.healthy().unwrap_err();
    assert!(matches!(stopped, KeyringError::Stopped(_)), "{stopped}");
    fixture.restart().await
}

async fn current_material(fixture: &Fixture, key: &KeyArn) -> keyring::MaterialId {
    let described = fixture.keyring.describe_key(fixture.may(key).await).await;
    described.unwrap().current_material
}

#[tokio::test]
async fn a_crash_while_a_key_is_made_leaves_it_whole_or_not_there() {
    for (fault, made) in FAULTS {
        let fixture = Fixture::new().await;
        let authorized = fixture.keyring.authorize(root(Via::Api), Account).await;
        fixture.faults.fail(Call::Commit, 1, fault);
        let result = fixture
            .keyring
            .create_key(authorized.unwrap(), Default::default())
            .await;
        assert_eq!(code(result), "KMSInternalException", "{fault:?}");
        let fixture = after(fixture, fault).await;
        let there = list(&fixture).await;
        assert_eq!(there.len(), usize::from(made));
        let fixture = fixture.restart().await;
        assert_eq!(
            list(&fixture).await,
            there,
            "memory said what the catalogue says"
        );
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
    for (fault, made) in FAULTS {
        let fixture = Fixture::new().await;
        let key = fixture.create().await;
        let blob = fixture.seal(&key, &[]).await;
        let before = current_material(&fixture, &key).await;
        let may = fixture.may(&key).await;
        fixture.faults.fail(Call::Commit, 1, fault);
        assert_eq!(
            code(fixture.keyring.rotate_key_on_demand(may).await),
            "KMSInternalException"
        );
        let fixture = after(fixture, fault).await;
        let now = current_material(&fixture, &key).await;
        assert_eq!(now != before, made, "{fault:?}");
        let meanwhile = fixture.seal(&key, &[]).await;
        assert!(fixture.opens(&blob).await && fixture.opens(&meanwhile).await);
        // The next change goes through: memory has the version that the catalogue has.
        let may = fixture.may(&key).await;
        fixture.keyring.rotate_key_on_demand(may).await.unwrap();
        let fixture = fixture.restart().await;
        assert!(fixture.opens(&blob).await && fixture.opens(&meanwhile).await);
    }
}

#[tokio::test]
async fn a_crash_while_a_key_is_destroyed_leaves_it_pending_or_gone() {
    for (fault, made) in FAULTS {
        let fixture = Fixture::new().await;
        let key = fixture.create().await;
        fixture
            .keyring
            .schedule_key_deletion(fixture.may(&key).await, PendingWindow::default())
            .await
            .unwrap();
        fixture.clock.advance(30 * DAY);
        fixture.faults.fail(Call::Commit, 1, fault);
        let swept = fixture.keyring.sweep().await;
        assert_eq!((swept.destroyed, swept.failed), (0, 1));
        if is_refusal(fault) {
            let swept = fixture.keyring.sweep().await;
            assert_eq!(swept.destroyed, 1);
        }
        // One that is still there is destroyed once the keyring was open for a while.
        let lines = fixture.audit_lines().len();
        let fixture = fixture.restart().await;
        fixture.clock.advance(DAY);
        fixture.keyring.sweep().await;
        let again = !made && !is_refusal(fault);
        // Its intent and its outcome.
        let more = if again { 2 } else { 0 };
        assert_eq!(fixture.audit_lines().len(), lines + more);
        assert!(list(&fixture).await.is_empty());
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_destroyed_holds_up_no_other() {
    for fault in [Fault::Full, Fault::Unavailable] {
        let fixture = Fixture::new().await;
        for _ in 0..3 {
            let key = fixture.create().await;
            let may = fixture.may(&key).await;
            let window = PendingWindow::default();
            let scheduled = fixture.keyring.schedule_key_deletion(may, window);
            scheduled.await.unwrap();
        }
        fixture.clock.advance(30 * DAY);
        fixture.faults.fail(Call::Commit, 1, fault);
        let swept = fixture.keyring.sweep().await;
        assert_eq!((swept.destroyed, swept.failed), (2, 1));
        // Also while the keyring is opened, which a full disk must not forbid.
        fixture.faults.fail(Call::Commit, 1, fault);
        let fixture = fixture.restart().await;
        let swept = fixture.keyring.sweep().await;
        assert_eq!(swept.failed, 0);
        assert!(list(&fixture).await.is_empty());
    }
}

#[tokio::test]
async fn a_disabling_that_failed_is_told_to_caches_if_it_may_have_happened() {
    for (fault, made) in FAULTS {
        let fixture = Fixture::new().await;
        let key = fixture.create().await;
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        fixture.keyring.on_change(Box::new(move |event| {
            assert!(event.change.revokes());
            count.fetch_add(1, Ordering::SeqCst);
        }));
        let may = fixture.may(&key).await;
        let standing = fixture.may::<iam::Encrypt>(&key).await;
        let standing = standing.standing(standing.resource().clone());
        fixture.faults.fail(Call::Commit, 1, fault);
        let result = fixture.keyring.disable_key(may).await;
        assert_eq!(code(result), "KMSInternalException");
        let told = told.load(Ordering::SeqCst);
        assert_eq!(told, usize::from(!is_refusal(fault)));
        assert_eq!(standing.is_current(), is_refusal(fault));
        let fixture = after(fixture, fault).await;
        let state = fixture
            .keyring
            .describe_key(fixture.may(&key).await)
            .await
            .unwrap()
            .state;
        assert_eq!(state == KeyState::Disabled, made, "{fault:?}");
    }
}

#[tokio::test]
async fn a_change_whose_fate_is_not_known_says_so_and_stops_the_keyring() {
    for fault in [Fault::UnknownDone, Fault::UnknownNotDone] {
        let fixture = Fixture::new().await;
        let key = fixture.create().await;
        let may = fixture.may(&key).await;
        fixture.faults.fail(Call::Commit, 1, fault);
        let error = fixture.keyring.disable_key(may).await.unwrap_err();
        assert!(matches!(error, KeyringError::Unknown(_)), "{error}");
        let may = fixture.may(&key).await;
        let result = fixture.keyring.encrypt(may, secret(b"x")).await;
        assert!(matches!(result.unwrap_err(), KeyringError::Stopped(_)));
        let why = fixture.keyring.healthy().unwrap_err().to_string();
        assert!(why.contains("whether the change was made"), "{why}");
    }
}

#[tokio::test]
async fn a_catalogue_that_cannot_be_read_after_a_lost_race_stops_the_keyring() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let other = fixture.beside().await;
    let may = fixture.may(&key).await;
    // The other's change is not seen here before the race is lost, and not after.
    fixture.faults.fail(Call::Changes, 1, Fault::Damaged);
    let theirs = other.may(&key).await;
    other.keyring.disable_key(theirs).await.unwrap();
    let _ = fixture
        .keyring
        .update_key_description(may, "x".to_owned())
        .await;
    let may = fixture.may(&key).await;
    let result = fixture.keyring.encrypt(may, secret(b"x")).await;
    assert!(matches!(result.unwrap_err(), KeyringError::Stopped(_)));
    assert!(fixture.keyring.healthy().is_err());
}

#[tokio::test]
async fn changes_that_race_are_made_one_after_another() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let keyring = Arc::clone(&fixture.keyring);
        let rotate = fixture.may(&key).await;
        let alias = fixture.may(&key).await;
        tasks.spawn(async move {
            keyring.rotate_key_on_demand(rotate).await.unwrap();
            let name = format!("alias/n{n}").parse().unwrap();
            keyring.create_alias(alias, name).await.unwrap();
        });
    }
    tasks.join_all().await;
    let fixture = fixture.restart().await;
    let rotations = fixture
        .keyring
        .list_key_rotations(fixture.may(&key).await, Default::default())
        .await
        .unwrap();
    assert_eq!(rotations.entries.len(), 20);
}
