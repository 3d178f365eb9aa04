//! The formats, held fast by files: what one build wrote, every later one reads and writes the same.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crypto::context::EncryptionContext;
use host::{clock::ManualClock, disk::sim::SimDisk};

use crate::{
    AuditLog, AuditOptions, Event, accepted,
    chain::{self, GENESIS, Head},
    journal::{self, SECTOR},
    segment,
};

const SEGMENT: &[u8] = include_bytes!("../golden/segment.jsonl");
/// With halves of 4096 bytes.
const JOURNAL: &[u8] = include_bytes!("../golden/journal");
const ACCEPTED: &[u8] = include_bytes!("../golden/accepted.json");

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    { runtime }.build().unwrap().block_on(work)
}

fn event<'a>(context: &'a EncryptionContext, request_id: &'a str) -> Event<'a> {
    Event {
        time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001),
        operation: "ReEncrypt",
        outcome: "Success",
        principal: "arn:aws:iam::123456789012:root",
        access_key: Some("AKIDEXAMPLE"),
        via: "api",
        account: Some("123456789012"),
        region: Some("us-east-1"),
        key: Some("arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        destination_key: Some(
            "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890cd",
        ),
        alias: Some("alias/a"),
        material: Some(3),
        encryption_context: Some(context),
        destination_encryption_context: Some(context),
        bucket: Some("bucket"),
        object: Some("a/\u{fc}"),
        resource: Some("root-key"),
        request_id,
        source: Some("127.0.0.1".parse().unwrap()),
        count: None,
    }
}

/// A log with every field, an intent that was left open, and a group of more than one sector; its journal when it was
/// closed, and its segment after the next start.
fn written() -> (Vec<u8>, Vec<u8>) {
    let disk = SimDisk::new(1);
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_100);
    let mut options = AuditOptions::new("/audit", Arc::new(ManualClock::new(later)));
    options.disk = Arc::new(disk.clone());
    options.half_len = 4096;
    let context = EncryptionContext::from_pairs([("a\"", "\u{fc}\n")]).unwrap();
    let log = AuditLog::open(options.clone()).unwrap();
    let done = run(log.intent(&event(&context, "r-1"))).unwrap();
    run(done.outcome(&event(&context, "r-1"))).unwrap();
    let open = run(log.intent(&event(&context, "r-2"))).unwrap();
    run(log.record(&event(&context, &"r-3".repeat(200)))).unwrap();
    drop((open, log));
    let journal = disk.bytes(options.journal());
    drop(AuditLog::open(options.clone()).unwrap());
    (disk.bytes(segment::path_of(&options.dir, 1)), journal)
}

#[test]
fn the_golden_segment_and_journal_are_written_the_same() {
    let (segment, journal) = written();
    if std::env::var_os("AUDIT_WRITE_GOLDEN").is_some() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        std::fs::write(folder.join("segment.jsonl"), &segment).unwrap();
        std::fs::write(folder.join("journal"), &journal).unwrap();
    }
    assert_eq!(segment, SEGMENT);
    assert_eq!(journal, JOURNAL);
}

#[test]
fn the_golden_segment_is_read() {
    let mut head = Head {
        last: 0,
        link: GENESIS,
    };
    let mut outcomes = Vec::new();
    let read = chain::take_lines(SEGMENT, &mut head, |sequence, text| {
        let record: serde_json::Value = serde_json::from_slice(text).unwrap();
        assert_eq!(record["seq"], sequence);
        outcomes.push((record["outcome"].clone(), record["intent"].as_u64()));
    });
    assert_eq!((read, head.last), (SEGMENT.len(), 5));
    let told: Vec<_> = outcomes
        .iter()
        .map(|(outcome, intent)| (outcome.as_str().unwrap(), *intent))
        .collect();
    let due = [
        ("Intended", None),
        ("Success", Some(1)),
        ("Intended", None),
        ("Success", None),
        ("Unknown", Some(3)),
    ];
    assert_eq!(told, due);
}

#[test]
fn the_golden_journal_is_read_and_its_frames_written_the_same() {
    let survey = journal::survey(JOURNAL).unwrap();
    // The first one, four records, and the last one of a log that was closed.
    let counts: Vec<u32> = survey.frames.iter().map(|f| f.header.count).collect();
    assert_eq!(counts, [0, 1, 1, 1, 1, 0]);
    let mut lines = Vec::new();
    let mut frame = Vec::new();
    for found in &survey.frames {
        let own = found.lines.as_deref().unwrap();
        lines.extend_from_slice(own);
        frame.clear();
        journal::encode_frame(&mut frame, &found.header, own);
        let stands = JOURNAL
            .chunks(SECTOR)
            .position(|sector| sector == &frame[..SECTOR]);
        let at = stands.unwrap() * SECTOR;
        assert_eq!(JOURNAL[at..at + frame.len()], frame);
    }
    assert!(SEGMENT.starts_with(&lines) && !lines.is_empty());
}

#[test]
fn the_golden_accepted_loss_is_read_and_written_the_same() {
    let disk = SimDisk::new(1);
    let dir = std::path::Path::new("/");
    accepted::accept(&disk, dir, 8193).unwrap();
    assert_eq!(disk.bytes("/accepted.json"), ACCEPTED);
    assert_eq!(accepted::accepted_through(&disk, dir).unwrap(), 8193);
    let newer = String::from_utf8(ACCEPTED.to_vec()).unwrap();
    let newer = newer.replace("\"version\":1", "\"version\":2");
    host::private::replace(&disk, &dir.join("accepted.json"), newer.as_bytes()).unwrap();
    let refused = accepted::accepted_through(&disk, dir);
    assert!(matches!(
        refused,
        Err(crate::AuditError::Version { version: 2, .. })
    ));
}

#[test]
fn a_journal_of_another_version_is_refused() {
    let mut newer = JOURNAL.to_vec();
    // The version of the first frame, after the group and the magic; the header's digest is over it.
    newer[8 + 5] = 2;
    let check = crypto::hash::Sha256::digest(&newer[8..8 + 160]);
    newer[8 + 160..8 + 192].copy_from_slice(&check);
    assert_eq!(
        journal::survey(&newer).map(|_| ()),
        Err(journal::NewerVersion(2))
    );
}
