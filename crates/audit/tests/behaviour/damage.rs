//! What is lost or changed while the log is closed, and what is said of it.

use std::path::{Path, PathBuf};

use audit::{
    AuditError, AuditLog, accept_loss,
    verify::{Wrong, verify},
};
use host::{
    Disk as _,
    disk::sim::{Crash, SimDisk},
};

use crate::fixture::{event, lines, options, run, segments, sim};

/// A closed log of three segments of two records each.
fn three(seed: u64) -> (SimDisk, audit::AuditOptions, Vec<PathBuf>) {
    let disk = sim(seed);
    let mut options = options(&disk);
    options.segment_len = 1300;
    let log = AuditLog::open(options.clone()).unwrap();
    for _ in 0..6 {
        run(log.record(&event())).unwrap();
    }
    drop(log);
    let segments = segments(&disk, &options.dir);
    assert_eq!(segments.len(), 3, "{segments:?}");
    (disk, options, segments)
}

fn refused(options: &audit::AuditOptions, what: &str) -> String {
    let error = AuditLog::open(options.clone()).map(|_| ()).unwrap_err();
    assert!(
        matches!(error, AuditError::Lost { .. } | AuditError::Damaged { .. }),
        "{what}: {error}"
    );
    let said = error.to_string();
    assert!(
        said.contains("doctor --accept-older audit"),
        "{what}: {said}"
    );
    said
}

/// After the loss is accepted the log goes on, verifies, and opens as ever.
fn goes_on(disk: &SimDisk, options: &audit::AuditOptions, what: &str) {
    let log = accept_loss(options.clone(), 0).unwrap_or_else(|e| panic!("{what}: {e}"));
    let number = run(log.record(&event())).unwrap();
    assert!(number > 6, "{what}: a number is used again");
    drop(log);
    let log = AuditLog::open(options.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(run(log.record(&event())).unwrap(), number + 1, "{what}");
    drop(log);
    let report = verify(disk, &options.dir).unwrap();
    let dropped =
        |f: &audit::verify::Finding| matches!(f.wrong, Wrong::Dropped(..) | Wrong::CutOff(..));
    assert!(
        !report.findings.iter().any(dropped),
        "{what}: {:?}",
        report.findings
    );
}

#[test]
fn a_segment_that_is_gone_is_missed_whichever_it_is() {
    for which in 0..2 {
        let (disk, options, segments) = three(which as u64);
        disk.remove(&segments[which]).unwrap();
        let what = format!("segment {which}");
        let said = refused(&options, &what);
        assert!(said.contains("missing"), "{said}");
        let report = verify(&disk, &options.dir).unwrap();
        let (from, to) = [(1, 2), (3, 4)][which];
        assert!(
            report
                .findings
                .iter()
                .any(|f| f.wrong == Wrong::Dropped(from, to)),
            "{:?}",
            report.findings
        );
        goes_on(&disk, &options, &what);
    }
}

#[test]
fn the_last_segment_is_missed_once_the_journal_no_longer_has_it() {
    let (disk, options, segments) = three(7);
    disk.remove(&segments[2]).unwrap();
    assert!(refused(&options, "the last").contains("missing"));
    let report = verify(&disk, &options.dir).unwrap();
    assert_eq!(report.findings.last().unwrap().wrong, Wrong::CutOff(4, 6));
    goes_on(&disk, &options, "the last");
}

#[test]
fn what_the_journal_still_has_is_put_back() {
    let disk = sim(8);
    let mut options = options(&disk);
    options.segment_len = 1300;
    let log = AuditLog::open(options.clone()).unwrap();
    for _ in 0..6 {
        run(log.record(&event())).unwrap();
    }
    // Killed: nothing is closed.
    disk.stop_after(0);
    drop(log);
    disk.restart(Crash::Process);
    for lost in &segments(&disk, &options.dir)[1..] {
        disk.remove(lost).unwrap();
    }
    let report = verify(&disk, &options.dir).unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
    assert_eq!((report.last(), report.in_journal), (2, 4));
    drop(AuditLog::open(options.clone()).unwrap());
    let report = verify(&disk, &options.dir).unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
    assert_eq!((report.last(), report.in_journal), (6, 0));
}

#[test]
fn a_folder_or_a_journal_that_is_gone_is_missed() {
    let (disk, options, segments) = three(9);
    drop(AuditLog::open(options.clone()).unwrap());
    let copies: Vec<_> = segments.iter().map(|path| disk.bytes(path)).collect();
    for path in &segments {
        disk.remove(path).unwrap();
    }
    assert!(refused(&options, "no segment").contains("missing"));
    disk.remove_dir(&options.dir).unwrap();
    assert!(refused(&options, "no folder").contains("folder"));
    goes_on(&disk, &options, "no folder");

    let (disk, options, _) = three(10);
    disk.remove(&options.journal()).unwrap();
    assert!(refused(&options, "no journal").contains("journal is missing"));
    goes_on(&disk, &options, "no journal");
    drop(copies);
}

#[test]
fn a_tail_cut_at_any_byte_is_missed() {
    let (disk, options, segments) = three(11);
    drop(AuditLog::open(options.clone()).unwrap());
    let len = disk.bytes(&segments[2]).len() as u64;
    for cut in (0..len).rev().filter(|cut| sampled(*cut, len)) {
        disk.cut(&segments[2], cut);
        refused(&options, &format!("cut at {cut}"));
        assert!(
            !verify(&disk, &options.dir).unwrap().is_whole(),
            "cut at {cut}"
        );
    }
    goes_on(&disk, &options, "cut");
}

#[test]
fn a_changed_byte_in_the_last_segment_is_damage_wherever_it_is() {
    let (disk, options, segments) = three(12);
    drop(AuditLog::open(options.clone()).unwrap());
    let len = disk.bytes(&segments[2]).len() as u64;
    for at in (0..len).filter(|at| sampled(*at, len)) {
        disk.damage(&segments[2], at, |byte| byte ^ 1);
        refused(&options, &format!("byte {at}"));
        let report = verify(&disk, &options.dir).unwrap();
        assert!(!report.is_whole(), "byte {at}");
        disk.damage(&segments[2], at, |byte| byte ^ 1);
    }
    let before = lines(&disk, &options).len();
    AuditLog::open(options.clone()).unwrap();
    assert_eq!(lines(&disk, &options).len(), before, "nothing changed");
}

#[test]
fn a_changed_byte_in_an_older_segment_is_found_by_verifying() {
    let (disk, options, segments) = three(13);
    let len = disk.bytes(&segments[0]).len() as u64;
    for at in (0..len).step_by(7) {
        disk.damage(&segments[0], at, |byte| byte ^ 1);
        let report = verify(&disk, &options.dir).unwrap();
        assert!(!report.is_whole(), "byte {at}");
        disk.damage(&segments[0], at, |byte| byte ^ 1);
    }
}

#[test]
fn an_older_journal_is_not_believed() {
    let (disk, options, _) = three(14);
    let old = disk.bytes(options.journal());
    let log = AuditLog::open(options.clone()).unwrap();
    for _ in 0..5 {
        run(log.record(&event())).unwrap();
    }
    drop(log);
    replace(&disk, &options.journal(), &old);
    assert!(refused(&options, "older journal").contains("older copy"));
}

#[test]
fn a_damaged_journal_cuts_nothing_off() {
    let (disk, options, _) = three(15);
    let len = disk.bytes(options.journal()).len() as u64;
    // In each sector that is used its group's number and another place, by turns one of each field; and some beyond.
    let fields = [8, 16, 24, 40, 60, 90, 130, 180, 210, 400];
    let used = (0..16)
        .zip(fields.into_iter().cycle())
        .flat_map(|(sector, field)| [sector * 512 + 7, sector * 512 + field]);
    let places = used.chain([8192, len / 2, len - 1]);
    for at in places {
        let copy = disk.fork(at);
        let mut options = options.clone();
        options.disk = std::sync::Arc::new(copy.clone());
        copy.damage(options.journal(), at, |byte| byte ^ 0x10);
        if AuditLog::open(options.clone()).is_ok() {
            let report = verify(&copy, &options.dir).unwrap();
            assert!(report.is_whole(), "byte {at}: {:?}", report.findings);
        }
        let kept = lines(&copy, &options);
        assert!(
            kept.iter().filter(|l| l["operation"] == "Encrypt").count() == 6,
            "byte {at}"
        );
    }
}

#[test]
fn dropped_swapped_and_rewritten_records_are_told_apart() {
    let (disk, options, _) = three(16);
    let options = {
        let mut one = options;
        one.dir = PathBuf::from("/one");
        one.segment_len = 1 << 20;
        let log = AuditLog::open(one.clone()).unwrap();
        for _ in 0..5 {
            run(log.record(&event())).unwrap();
        }
        one
    };
    let path = &segments(&disk, &options.dir)[0];
    let whole = String::from_utf8(disk.bytes(path)).unwrap();
    let all: Vec<&str> = whole.split_inclusive('\n').collect();
    let told = |lines: &[&str]| {
        replace(&disk, path, lines.concat().as_bytes());
        let report = verify(&disk, &options.dir).unwrap();
        report.findings.iter().map(|f| f.wrong).collect::<Vec<_>>()
    };
    assert_eq!(told(&all), []);
    assert_eq!(
        told(&[all[0], all[1], all[3], all[4]]),
        [Wrong::Dropped(3, 3)]
    );
    assert_eq!(told(&all[..4]), [Wrong::CutOff(4, 5)]);
    let swapped = told(&[all[0], all[2], all[1], all[3], all[4]]);
    assert!(swapped.contains(&Wrong::OutOfOrder(2)), "{swapped:?}");
    let rewritten = all[2].replace("Encrypt", "Decrypt");
    let told_of = told(&[all[0], all[1], &rewritten, all[3], all[4]]);
    assert_eq!(told_of, [Wrong::Rewritten(3)]);
}

/// Every byte of the edges, some between.
fn sampled(at: u64, len: u64) -> bool {
    at < 40 || at + 40 > len || at.is_multiple_of(13)
}

fn replace(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    host::private::replace(disk, path, bytes).unwrap();
}
