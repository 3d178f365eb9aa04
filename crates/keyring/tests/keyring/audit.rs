//! What is recorded, when, and what happens when it cannot be.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use iam::Via;
use keyring::{AuditLog, AuditOptions};

use crate::fixture::{Fixture, audit_lines, code, context, root, secret};

#[tokio::test]
async fn every_request_is_recorded_with_its_outcome_in_sequence() {
    let fixture = Fixture::new();
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[("a", "b")]).await;
    assert_eq!(
        code(fixture.open(&blob, None, &[]).await),
        "InvalidCiphertextException"
    );
    assert!(fixture.open(&blob, None, &[("a", "b")]).await.is_ok());
    let unknown = "alias/none".parse().unwrap();
    let refused = fixture
        .keyring
        .authorize::<iam::Encrypt>(&root(Via::S3), &unknown)
        .await;
    assert_eq!(code(refused), "NotFoundException");
    let fixture = fixture.restart();
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
            (1, "CreateKey", "Success"),
            (2, "Encrypt", "Success"),
            (3, "Decrypt", "InvalidCiphertextException"),
            (4, "Decrypt", "Success"),
            (5, "Encrypt", "NotFoundException"),
            (6, "Encrypt", "Success"),
        ]
    );
    let decrypt = &lines[3];
    assert_eq!(decrypt["principal"], "arn:aws:iam::123456789012:root");
    assert_eq!(decrypt["key"], key.as_str());
    assert_eq!(decrypt["encryption_context"]["a"], "b");
    assert_eq!(decrypt["request_id"], "request-1");
    assert_eq!(decrypt["material"], 1);
    assert_eq!(lines[4]["via"], "s3");
}

#[tokio::test]
async fn nothing_is_answered_before_its_record_is_durable() {
    let fixture = Fixture::new();
    let key = fixture.create().await;
    let may = fixture.may(&key).await;
    let keyring = Arc::clone(&fixture.keyring);
    let held = fixture.gate.lock().await;
    let answer =
        tokio::spawn(async move { keyring.encrypt(may, secret(b"x"), context(&[])).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!answer.is_finished());
    drop(held);
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_disk_stops_key_use_until_the_log_is_opened_anew() {
    let fixture = Fixture::new();
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    fixture.disk_full.store(1, Ordering::SeqCst);
    // The one that meets the full disk, and every one after it: the failure sticks.
    for _ in 0..3 {
        assert_eq!(
            code(fixture.open(&blob, None, &[]).await),
            "KMSInternalException"
        );
    }
    assert!(fixture.keyring.healthy().is_err());
    // Refusals are no exception, and nothing is changed either.
    let unknown = "alias/none".parse().unwrap();
    let refused = fixture
        .keyring
        .authorize::<iam::Encrypt>(&root(Via::Api), &unknown)
        .await;
    assert_eq!(code(refused), "KMSInternalException");
    let disable = fixture.may(&key).await;
    assert_eq!(
        code(fixture.keyring.disable_key(disable).await),
        "KMSInternalException"
    );
    let fixture = fixture.restart();
    assert!(fixture.opens(&blob).await);
    let sequence: Vec<_> = fixture
        .audit_lines()
        .iter()
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(sequence, [1, 2, 3], "no gap where the disk was full");
}

#[tokio::test]
async fn callers_that_come_together_share_syncs_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = AuditOptions {
        segment_len: 64 << 10,
        queue_len: 16,
        ..AuditOptions::new(dir.path().join("audit"))
    };
    let log = AuditLog::open(options.clone()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let log = log.clone();
        tasks.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..20 {
                numbers.push(log.append(&event()).await.unwrap());
            }
            numbers
        });
    }
    let mut numbers = tasks.join_all().await.concat();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=64 * 20).collect::<Vec<_>>());
    drop(log);
    let lines = audit_lines(&options.dir);
    assert!(std::fs::read_dir(&options.dir).unwrap().count() > 2);
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(line["seq"], number);
    }
    assert_eq!(lines.len(), 64 * 20);
    let log = AuditLog::open(options).unwrap();
    assert_eq!(log.append(&event()).await.unwrap(), 64 * 20 + 1);
}

#[tokio::test]
async fn a_segment_that_cannot_be_made_stops_the_log_and_keeps_what_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let options = AuditOptions {
        segment_len: 1,
        ..AuditOptions::new(dir.path().join("audit"))
    };
    let log = AuditLog::open(options.clone()).unwrap();
    log.append(&event()).await.unwrap();
    // A directory stands where the next segment should.
    let in_the_way = options.dir.join("audit-00000000000000000002.jsonl");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(log.append(&event()).await.is_err());
    std::fs::remove_dir(&in_the_way).unwrap();
    assert!(log.append(&event()).await.is_err(), "sticky");
    assert!(log.check().is_err());
    drop(log);
    assert_eq!(audit_lines(&options.dir).len(), 1);
    let log = AuditLog::open(options).unwrap();
    assert_eq!(log.append(&event()).await.unwrap(), 2);
}

fn event() -> keyring::audit::Event<'static> {
    keyring::audit::Event {
        time: std::time::SystemTime::UNIX_EPOCH,
        operation: "Encrypt",
        outcome: "Success",
        principal: "arn:aws:iam::123456789012:root",
        access_key: Some("AKIDEXAMPLE"),
        via: "api",
        key: Some("arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        destination_key: None,
        alias: None,
        material: Some(1),
        encryption_context: None,
        destination_encryption_context: None,
        request_id: "7a1c4d0e-3a34-4f2c-9a55-0a9c6e5ad8f1",
        source: None,
    }
}
