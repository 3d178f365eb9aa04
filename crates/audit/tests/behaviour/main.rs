//! The log through its public face.
#![allow(clippy::unwrap_used, missing_docs)]

mod crash;
mod damage;
mod fixture;

use std::sync::Arc;

use audit::{AuditError, AuditLog, verify::verify};
use fixture::{event, lines, on, options, run, sim};
use host::disk::sim::{Call, Failure, Fault};

#[tokio::test]
async fn callers_that_come_together_share_syncs_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = audit::AuditOptions::new(
        dir.path().join("audit"),
        std::sync::Arc::new(host::clock::ManualClock::new(std::time::UNIX_EPOCH)),
    );
    options.segment_len = 64 << 10;
    options.queue_len = 16;
    let log = AuditLog::open(options.clone()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let log = log.clone();
        tasks.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..100 {
                numbers.push(log.record(&event()).await.unwrap());
            }
            numbers
        });
    }
    let mut numbers = tasks.join_all().await.concat();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=64 * 100).collect::<Vec<_>>());
    // The live files hold them all, and nothing else.
    let report = verify(options.disk.as_ref(), &options.dir).unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
    assert_eq!((report.records, report.last()), (6400, 6400));
    assert!(report.segments > 2);
    drop(log);
    let log = AuditLog::open(options).unwrap();
    assert_eq!(log.record(&event()).await.unwrap(), 64 * 100 + 1);
}

#[test]
fn more_than_the_journal_holds_goes_through_it() {
    let disk = sim(1);
    let options = options(&disk);
    let log = AuditLog::open(options.clone()).unwrap();
    let pad = "x".repeat(200 << 10);
    for n in 1..=30 {
        let event = audit::Event {
            request_id: &pad,
            ..event()
        };
        assert_eq!(run(log.record(&event)).unwrap(), n);
    }
    drop(log);
    let report = verify(&disk, &options.dir).unwrap();
    assert!(
        report.is_whole() && report.last() == 30,
        "{:?}",
        report.findings
    );
    let log = AuditLog::open(options).unwrap();
    assert_eq!(run(log.record(&event())).unwrap(), 31);
}

#[test]
fn a_full_disk_refuses_records_while_it_is_full_and_no_longer() {
    let disk = sim(2);
    let options = options(&disk);
    let log = AuditLog::open(options.clone()).unwrap();
    run(log.record(&event())).unwrap();
    disk.fail(
        Fault::new(Failure::NoSpace)
            .on(&[Call::Write])
            .at(".jsonl")
            .lasting(),
    );
    for _ in 0..3 {
        assert!(matches!(run(log.record(&event())), Err(AuditError::Full)));
        assert!(matches!(log.check(), Err(AuditError::Full)));
    }
    disk.clear_faults();
    while log.check().is_err() {
        std::thread::yield_now();
    }
    // The one that met the full disk is in the log; those that were turned away are not.
    assert_eq!(log.mark().sequence, 2);
    assert_eq!(run(log.record(&event())).unwrap(), 3);
    drop(log);
    assert!(verify(&disk, &options.dir).unwrap().is_whole());
    assert_eq!(lines(&disk, &options).len(), 3);
}

#[test]
fn a_failed_sync_is_final_until_the_log_is_opened_anew() {
    let disk = sim(3);
    let options = options(&disk);
    let log = AuditLog::open(options.clone()).unwrap();
    run(log.record(&event())).unwrap();
    disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData]).at(".journal"));
    for _ in 0..3 {
        assert!(matches!(
            run(log.record(&event())),
            Err(AuditError::Failed(_))
        ));
    }
    assert!(log.check().is_err());
    drop(log);
    let log = AuditLog::open(options.clone()).unwrap();
    run(log.record(&event())).unwrap();
    drop(log);
    disk.restart(host::disk::sim::Crash::Power);
    AuditLog::open(options.clone()).unwrap();
    assert!(verify(&disk, &options.dir).unwrap().is_whole());
}

#[test]
fn an_intent_has_its_outcome_and_one_that_a_crash_took_is_unknown() {
    let disk = sim(4);
    let options = options(&disk);
    let log = AuditLog::open(options.clone()).unwrap();
    let done = run(log.intent(&event())).unwrap();
    let lost = run(log.intent(&event())).unwrap();
    assert_eq!((done.sequence(), lost.sequence()), (1, 2));
    run(done.outcome(&event())).unwrap();
    drop((lost, log));
    for start in 0..2 {
        drop(AuditLog::open(options.clone()).unwrap());
        let lines = lines(&disk, &options);
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line["outcome"].as_str().unwrap(), line["intent"].as_u64()))
            .collect();
        assert_eq!(
            told,
            [
                ("Intended", None),
                ("Intended", None),
                ("Success", Some(1)),
                ("Unknown", Some(2))
            ],
            "start {start}"
        );
        assert_eq!(lines[3]["operation"], "Encrypt");
    }
    assert!(verify(&disk, &options.dir).unwrap().is_whole());
}

#[test]
fn data_events_are_recorded_only_where_they_are_asked_for() {
    let disk = sim(5);
    for asked in [false, true] {
        let mut options = on(&disk, if asked { "/on" } else { "/off" });
        options.data_events = asked;
        let log = AuditLog::open(options.clone()).unwrap();
        run(log.data_event(&event())).unwrap();
        run(log.record(&event())).unwrap();
        drop(log);
        assert_eq!(lines(&disk, &options).len(), 1 + usize::from(asked));
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_alone() {
    let disk = sim(6);
    let log = AuditLog::open(options(&disk)).unwrap();
    let pad = "x".repeat(300 << 10);
    let long = audit::Event {
        request_id: &pad,
        ..event()
    };
    assert!(matches!(
        run(log.record(&long)),
        Err(AuditError::TooLong { .. })
    ));
    assert_eq!(run(log.record(&event())).unwrap(), 1);
    let _: Arc<dyn host::Disk> = Arc::new(disk);
}
