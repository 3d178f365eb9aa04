//! What is recorded, when, and what happens when it cannot be.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use catalogue::{Call, Fault};
use iam::Via;
use keyring::KeyArgument;

use crate::fixture::{Fixture, code, root, secret};

#[tokio::test]
async fn every_request_is_recorded_with_its_outcome_in_sequence() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[("a", "b")]).await;
    assert_eq!(
        code(fixture.open(&blob, None, &[]).await),
        "InvalidCiphertextException"
    );
    assert!(fixture.open(&blob, None, &[("a", "b")]).await.is_ok());
    let unknown: KeyArgument = "alias/none".parse().unwrap();
    let refused = fixture
        .keyring
        .authorize::<iam::Encrypt, _>(root(Via::S3), &unknown)
        .await;
    assert_eq!(code(refused), "NotFoundException");
    let fixture = fixture.restart().await;
    fixture.seal(&key, &[]).await;

    let lines = fixture.audit_lines();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["seq"].as_u64().unwrap(),
                line["operation"].as_str().unwrap(),
                line["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "CreateKey", "Intended"),
            (2, "CreateKey", "Success"),
            (3, "Encrypt", "Success"),
            (4, "Decrypt", "InvalidCiphertextException"),
            (5, "Decrypt", "Success"),
            (6, "Encrypt", "NotFoundException"),
            (7, "Encrypt", "Success"),
        ]
    );
    assert_eq!(lines[1]["intent"], 1);
    let decrypt = &lines[4];
    assert_eq!(decrypt["principal"], "arn:aws:iam::123456789012:root");
    assert_eq!(decrypt["key"], key.as_str());
    assert_eq!(decrypt["encryption_context"]["a"], "b");
    assert_eq!(decrypt["request_id"], "request-1");
    assert_eq!(decrypt["material"], 1);
    assert_eq!(lines[5]["via"], "s3");
}

#[tokio::test]
async fn nothing_is_answered_before_its_record_is_durable() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let may = fixture.may(&key).await;
    let keyring = Arc::clone(&fixture.keyring);
    let held = fixture.gate.lock().await;
    let answer = tokio::spawn(async move { keyring.encrypt(may, secret(b"x")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!answer.is_finished());
    drop(held);
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_disk_stops_key_use_until_there_is_space() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    fixture.disk_full.store(1, Ordering::SeqCst);
    // The one that meets the full disk, and every one after it: until there is space.
    for _ in 0..3 {
        assert_eq!(
            code(fixture.open(&blob, None, &[]).await),
            "KMSInternalException"
        );
    }
    assert!(fixture.keyring.healthy().is_err());
    // Refusals are no exception, and nothing is changed either.
    let unknown: KeyArgument = "alias/none".parse().unwrap();
    let refused = fixture
        .keyring
        .authorize::<iam::Encrypt, _>(root(Via::Api), &unknown)
        .await;
    assert_eq!(code(refused), "KMSInternalException");
    let disable = fixture.may(&key).await;
    assert_eq!(
        code(fixture.keyring.disable_key(disable).await),
        "KMSInternalException"
    );
    fixture.disk_full.store(0, Ordering::SeqCst);
    while fixture.keyring.healthy().is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(fixture.opens(&blob).await);
    let sequence: Vec<_> = fixture
        .audit_lines()
        .iter()
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    // The one that met the full disk is recorded after all, those that were turned away are not.
    assert_eq!(sequence, [1, 2, 3, 4, 5], "no gap where the disk was full");
}

#[tokio::test]
async fn a_change_is_announced_before_it_is_made_and_unknown_where_nobody_knows() {
    let outcomes = [
        (Fault::UnknownNotDone, "Unknown"),
        (Fault::UnknownDone, "Unknown"),
        (Fault::Full, "KMSInternalException"),
        (Fault::Unavailable, "KMSInternalException"),
    ];
    for (fault, outcome) in outcomes {
        let fixture = Fixture::new().await;
        let key = fixture.create().await;
        let disable = fixture.may(&key).await;
        fixture.faults.fail(Call::Commit, 1, fault);
        assert_eq!(
            code(fixture.keyring.disable_key(disable).await),
            "KMSInternalException"
        );
        let lines = fixture.audit_lines();
        let [.., intent, told] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert_eq!(
            (&intent["operation"], &intent["outcome"]),
            (&"DisableKey".into(), &"Intended".into()),
            "{fault:?}"
        );
        assert_eq!(told["intent"], intent["seq"], "{fault:?}");
        assert_eq!(told["outcome"], outcome, "{fault:?}");
    }
}
