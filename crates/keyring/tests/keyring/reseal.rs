//! A rotation of the store key: everything is readable, nothing is left under the old generation.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use catalogue::{Batch, Call, Expect, Fault, Key, Scope};
use crypto::random::SystemRandom;

use crate::fixture::{ALIASES, Closed, Fixture, KEYS, MATERIALS};

/// Records of all tables that are under an older generation, and all there are.
async fn stale(closed: &Closed) -> (usize, usize) {
    let (mut stale, mut all) = (0, 0);
    for table in [KEYS, MATERIALS, ALIASES] {
        let key = closed.store.key.table(table.name());
        let page = closed.store.catalogue.page(table, None, None, 1000).await;
        for record in page.unwrap().records {
            all += 1;
            stale += usize::from(key.is_stale(&record.sealed));
        }
    }
    (stale, all)
}

/// More keys than a page has, each with a blob and an alias.
async fn many(fixture: &Fixture) -> Vec<Vec<u8>> {
    let mut blobs = Vec::new();
    for n in 0..40 {
        let key = fixture.create().await;
        let name = format!("alias/n{n}").parse().unwrap();
        let may = fixture.may(&key).await;
        fixture.keyring.create_alias(may, name).await.unwrap();
        blobs.push(fixture.seal(&key, &[]).await);
    }
    blobs
}

#[tokio::test]
async fn after_a_rotation_of_the_store_key_everything_opens_and_nothing_is_stale() {
    let fixture = Fixture::new().await;
    let blobs = many(&fixture).await;
    // Of an account whose keyring is not open.
    let scope = Scope {
        account: "210987654321".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let elsewhere = Key::new(scope, b"another account's".as_slice());
    let sealing = fixture.store.key.table("key").sealing();
    let sealed = sealing.seal(&elsewhere.place(KEYS, 1), b"x", &SystemRandom);
    let batch = Batch::new().put(KEYS, elsewhere, Expect::Absent, sealed);
    fixture.store.catalogue.commit(batch).await.unwrap();
    drop(sealing);

    let rotation = fixture.store.key.rotate().await.unwrap();
    // Keys are made and changed meanwhile, and each of these changes may be in the way of a page.
    let ended = Arc::new(AtomicBool::new(false));
    let meanwhile = async {
        let mut made = 0;
        while !ended.load(Ordering::SeqCst) || made == 0 {
            let key = fixture.create().await;
            let may = fixture.may(&key).await;
            fixture.keyring.rotate_key_on_demand(may).await.unwrap();
            made += 1;
        }
    };
    let owners = fixture.keyring.owners();
    let run = async {
        rotation.run(&owners, &|_| {}).await.unwrap();
        ended.store(true, Ordering::SeqCst);
    };
    tokio::join!(run, meanwhile);
    drop(owners);
    assert_eq!(fixture.store.key.status().await.previous, None);

    for blob in &blobs {
        assert!(fixture.opens(blob).await);
    }
    let closed = fixture.close();
    let (stale, all) = stale(&closed).await;
    assert_eq!(stale, 0);
    assert!(all > 3 * 40);
    // The foreign record is no key's: the keyring reads its own alone.
    let fixture = closed.open().await;
    for blob in &blobs {
        assert!(fixture.opens(blob).await);
    }
}

#[tokio::test]
async fn a_rotation_that_is_interrupted_goes_on_and_ends() {
    let fixture = Fixture::new().await;
    let blobs = many(&fixture).await;
    let rotation = fixture.store.key.rotate().await.unwrap();
    fixture.faults.fail(Call::Commit, 3, Fault::Unavailable);
    let owners = fixture.keyring.owners();
    assert!(rotation.run(&owners, &|_| {}).await.is_err());
    drop(owners);
    let closed = fixture.close();
    let (left, all) = stale(&closed).await;
    assert!(0 < left && left < all, "{left} of {all}");

    let fixture = closed.open().await;
    let rotation = fixture.store.key.rotate().await.unwrap();
    rotation
        .run(&fixture.keyring.owners(), &|_| {})
        .await
        .unwrap();
    for blob in &blobs {
        assert!(fixture.opens(blob).await);
    }
    assert_eq!(stale(&fixture.close()).await.0, 0);
}

#[tokio::test]
async fn a_change_after_records_were_sealed_again_is_planned_on_their_new_versions() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    let may = fixture.may(&key).await;
    let rotation = fixture.store.key.rotate().await.unwrap();
    rotation
        .run(&fixture.keyring.owners(), &|_| {})
        .await
        .unwrap();
    fixture.keyring.rotate_key_on_demand(may).await.unwrap();
    let fixture = fixture.restart().await;
    assert!(fixture.opens(&blob).await);
    // Material that was sealed again is erased as such.
    let may = fixture.may(&key).await;
    let window = keyring::PendingWindow::default();
    fixture
        .keyring
        .schedule_key_deletion(may, window)
        .await
        .unwrap();
    fixture.clock.advance(30 * crate::fixture::DAY);
    assert_eq!(fixture.keyring.sweep().await.destroyed, 1);
    assert_eq!(stale(&fixture.close()).await, (0, 0));
}
