//! The log through its public face.
#![allow(clippy::unwrap_used, missing_docs)]

use audit::{AuditLog, AuditOptions, Event};

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

fn event() -> Event<'static> {
    Event {
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

fn audit_lines(dir: &std::path::Path) -> Vec<serde_json::Value> {
    let mut segments: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    segments.sort();
    segments
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines()
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}
