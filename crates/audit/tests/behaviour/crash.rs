//! The machine stops at every call: what was answered is there, no number has two records.

use audit::{AuditLog, AuditOptions, Event, verify::verify};
use host::disk::sim::{Crash, SimDisk};

use crate::fixture::{event, lines, options, run, sim};

/// Records with ids from `from` on, until one fails; the ids that were answered, with their numbers.
fn record(log: &AuditLog, from: u64, count: u64, pad: &str) -> Vec<(u64, u64)> {
    let mut answered = Vec::new();
    run(async {
        for id in from..from + count {
            let id_text = format!("{id}-{pad}");
            let event = Event {
                request_id: &id_text,
                ..event()
            };
            match log.record(&event).await {
                Ok(number) => answered.push((number, id)),
                Err(_) => break,
            }
        }
    });
    answered
}

fn check(disk: &SimDisk, options: &AuditOptions, answered: &[(u64, u64)], what: &str) {
    let report = verify(disk, &options.dir).unwrap();
    assert!(report.is_whole(), "{what}: {:?}", report.findings);
    let lines = lines(disk, options);
    for (number, id) in answered {
        let there: Vec<_> = lines.iter().filter(|l| l["seq"] == *number).collect();
        assert_eq!(there.len(), 1, "{what}: record {number}");
        let told = there[0]["request_id"].as_str().unwrap();
        assert!(
            told.starts_with(&format!("{id}-")),
            "{what}: {number} is {told}"
        );
    }
}

fn campaign(segment_len: u64, pad: &str, records: u64, crash: Crash, seeds: u64) {
    for seed in 0..seeds {
        let mut at = 0;
        loop {
            let disk = sim(seed * 1000 + at);
            let mut options = options(&disk);
            options.segment_len = segment_len;
            disk.stop_after(at);
            let what = format!("seed {seed}, stopped at call {at}");
            let mut answered = Vec::new();
            if let Ok(log) = AuditLog::open(options.clone()) {
                answered = record(&log, 0, records, pad);
            }
            let went_down = disk.is_down();
            for round in 1..3 {
                disk.restart(crash);
                let log = AuditLog::open(options.clone())
                    .unwrap_or_else(|error| panic!("{what}, start {round}: {error}"));
                answered.extend(record(&log, 1000 * round, 2, pad));
                drop(log);
                check(&disk, &options, &answered, &what);
            }
            assert!(answered.len() >= 4, "{what}");
            if !went_down {
                break;
            }
            at += 1;
        }
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_answered() {
    campaign(64 << 20, "", 4, Crash::Power, 6);
}

#[test]
fn a_power_cut_at_any_call_across_segments_loses_nothing_answered() {
    campaign(600, "", 4, Crash::Power, 6);
}

#[test]
fn a_power_cut_with_long_groups_and_both_halves_loses_nothing_answered() {
    let pad = "x".repeat(200_000);
    campaign(700_000, &pad, 12, Crash::Power, 1);
}

#[test]
fn a_killed_process_loses_nothing_answered() {
    campaign(600, "", 4, Crash::Process, 2);
}

#[test]
fn a_power_cut_during_the_next_start_loses_nothing_answered() {
    for at in 0..60 {
        let disk = sim(at);
        let options = options(&disk);
        let log = AuditLog::open(options.clone()).unwrap();
        let answered = record(&log, 0, 3, "");
        let open = run(log.intent(&event())).unwrap();
        drop((open, log));
        disk.restart(Crash::Power);
        disk.stop_after(at);
        drop(AuditLog::open(options.clone()));
        disk.restart(Crash::Power);
        let log = AuditLog::open(options.clone())
            .unwrap_or_else(|error| panic!("stopped at call {at}: {error}"));
        drop(log);
        check(&disk, &options, &answered, &format!("stopped at call {at}"));
        let unknown = |l: &&serde_json::Value| l["outcome"] == "Unknown";
        assert_eq!(
            lines(&disk, &options).iter().filter(unknown).count(),
            1,
            "{at}"
        );
    }
}
