//! Whether a log is whole: nothing dropped, put in another order, cut off or rewritten.
//!
//! Works on a copy of the folder and on the live log. With the journal beside the folder it also finds what is missing
//! at the end. The digests have no key: whoever can write all of the log, journal included, can write another
//! one that verifies, unless its last digest is known elsewhere.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use host::{Disk, private};

use crate::{
    chain::{self, GENESIS, Head, Line},
    error::AuditError,
    journal::{self, JOURNAL_LEN, Survey},
    options::journal_of,
    segment,
};

/// Findings that are kept; more are only counted.
const FINDINGS_MAX: usize = 1000;
/// How often a live log is read while a write to it is seen half done.
const ATTEMPTS: u32 = 10;

/// What is wrong in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// Records with these numbers are not there.
    Dropped(u64, u64),
    /// A record that is not in its turn: put there from elsewhere, or twice.
    OutOfOrder(u64),
    /// A record, or the digest of the one before it, is not what was written.
    Rewritten(u64),
    /// Bytes that are no record.
    Unreadable,
    /// The log ends with the first number, and the journal knows that the second was durable.
    CutOff(u64, u64),
    /// The segment's name is not the number of its first record.
    Misnamed(u64),
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What.
    pub wrong: Wrong,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Segments read.
    pub segments: usize,
    /// Records that read.
    pub records: u64,
    /// What is wrong and was not accepted.
    pub findings: Vec<Finding>,
    /// How many findings there are, more than are kept included.
    pub wrong: u64,
    /// Ranges of numbers that records of the log name as lost or never durable.
    pub named_lost: Vec<(u64, u64)>,
    /// Records after the last one that only the journal has: a start puts them into the segments.
    pub in_journal: u64,
    pub(crate) head: Head,
    pub(crate) highest: u64,
    /// Whether the last bytes of the last segment are no record.
    torn: bool,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.wrong == 0
    }

    /// The number of the last record; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.head.last
    }

    /// The digest of the last record, in hexadecimal: keep it elsewhere, and a log rewritten whole is found too.
    pub fn digest(&self) -> String {
        chain::hex(&self.head.link)
    }

    /// The numbers that are not there and not named by any record.
    pub(crate) fn lost(&self) -> Vec<(u64, u64)> {
        let wrong = self.findings.iter().map(|finding| finding.wrong);
        wrong
            .filter_map(|wrong| match wrong {
                Wrong::Dropped(from, to) => Some((from, to)),
                Wrong::Rewritten(at) | Wrong::OutOfOrder(at) => Some((at, at)),
                _ => None,
            })
            .collect()
    }

    /// Whether the last thing found is what a write in progress looks like.
    fn ends_torn(&self) -> bool {
        let last = self.findings.last().map(|finding| finding.wrong);
        self.torn && self.findings.len() < FINDINGS_MAX && last == Some(Wrong::Unreadable)
    }

    fn find(&mut self, file: &Path, offset: usize, wrong: Wrong) {
        self.wrong += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                file: file.to_owned(),
                offset: offset as u64,
                wrong,
            });
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.file.display(), self.offset)?;
        match self.wrong {
            Wrong::Dropped(from, to) if from == to => write!(f, "record {from} was dropped"),
            Wrong::Dropped(from, to) => write!(f, "records {from} to {to} were dropped"),
            Wrong::OutOfOrder(at) => write!(f, "record {at} is not in its turn"),
            Wrong::Rewritten(at) => write!(
                f,
                "record {at} does not follow the one before it: one of them was rewritten"
            ),
            Wrong::Unreadable => f.write_str("no record stands there"),
            Wrong::CutOff(last, known) => write!(
                f,
                "the log ends with record {last}, and record {known} was durable"
            ),
            Wrong::Misnamed(first) => write!(
                f,
                "the segment begins with record {first}, which is not its name"
            ),
        }
    }
}

/// Verifies the log in `dir`, and the journal beside it if there is one. Blocking; reads every segment whole, one
/// after another. Changes nothing.
///
/// On a live log the journal is read twice. No frame says that a record is durable before its segment has it, so
/// what the journal says before must be in the segments; and a group is in the journal before it is appended, so one
/// that is seen half appended must be in the journal after.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Report, AuditError> {
    let path = journal_of(dir);
    let mut before = survey(disk, &path)?;
    for attempt in 1.. {
        let mut report = read(disk, dir)?;
        let after = survey(disk, &path)?;
        let moved = after.begun != before.begun;
        let tail = report.head;
        if report.ends_torn() && after.after(tail).next().is_some() {
            report.wrong -= 1;
            report.findings.pop();
        }
        // After a crash the journal may have what the segments lost; the next start puts it back.
        let carried = before.carried();
        let reached = before
            .after(tail)
            .map(|(header, _)| header.last())
            .filter(|last| *last > carried)
            .last()
            .unwrap_or(0);
        report.in_journal = reached.saturating_sub(tail.last);
        let known = before.durable();
        if report.highest.max(reached) < known {
            report.find(dir, 0, Wrong::CutOff(tail.last, known));
        }
        // So much was written meanwhile that the journal was written over.
        if !(report.ends_torn() && moved) || attempt == ATTEMPTS {
            return Ok(report);
        }
        before = after;
    }
    unreachable!("the last attempt returns")
}

fn survey(disk: &dyn Disk, path: &Path) -> Result<Survey, AuditError> {
    let here = |error| AuditError::io(path, &error);
    if disk.kind(path).map_err(here)?.is_none() {
        return Ok(Survey::default());
    }
    let bytes = private::read(disk, path, JOURNAL_LEN as u64).map_err(here)?;
    journal::survey(&bytes).map_err(|newer| AuditError::Version {
        file: path.to_owned(),
        version: newer.0,
    })
}

/// Reads the segments.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Report, AuditError> {
    let firsts = segment::list(disk, dir).map_err(|error| AuditError::io(dir, &error))?;
    let mut report = Report {
        segments: 0,
        records: 0,
        findings: Vec::new(),
        wrong: 0,
        named_lost: Vec::new(),
        head: Head {
            last: 0,
            link: GENESIS,
        },
        highest: 0,
        torn: false,
        in_journal: 0,
    };
    for first in firsts {
        let path = segment::path_of(dir, first);
        let bytes = segment::read_segment(disk, &path)?;
        report.segments += 1;
        report.highest = report.highest.max(first - 1);
        read_lines(&mut report, &path, Some(first), &bytes);
    }
    let named = report.named_lost.clone();
    let accepted = |finding: &Finding| match finding.wrong {
        Wrong::Dropped(from, to) => within(&named, from, to),
        Wrong::Rewritten(at) | Wrong::OutOfOrder(at) => within(&named, at, at),
        _ => false,
    };
    let before = report.findings.len();
    report.findings.retain(|finding| !accepted(finding));
    report.wrong -= (before - report.findings.len()) as u64;
    Ok(report)
}

fn within(ranges: &[(u64, u64)], from: u64, to: u64) -> bool {
    ranges.iter().any(|&(a, b)| a <= from && to <= b)
}

/// Reads one segment's lines on from where the report has come to.
pub(crate) fn read_lines(report: &mut Report, path: &Path, first: Option<u64>, bytes: &[u8]) {
    let mut offset = 0;
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let at = offset;
        offset += line.len();
        let text = line.strip_suffix(b"\n");
        let Some((text, read)) = text.and_then(|text| Some((text, Line::parse(text)?))) else {
            report.find(path, at, Wrong::Unreadable);
            report.torn = offset == bytes.len();
            continue;
        };
        report.torn = false;
        if index == 0 && first.is_some_and(|first| first != read.sequence) {
            report.find(path, at, Wrong::Misnamed(read.sequence));
        }
        report.records += 1;
        report.named_lost.extend(chain::lost(text));
        let next = report.head.last + 1;
        if read.sequence < next {
            report.find(path, at, Wrong::OutOfOrder(read.sequence));
        } else if read.sequence > next {
            report.find(path, at, Wrong::Dropped(next, read.sequence - 1));
        }
        // After a gap nothing is known of the one before it, but what the record itself says.
        let prev = match (
            read.sequence == next || named_here(text, next, read.sequence),
            read.prev,
        ) {
            (true, _) => Some(report.head.link),
            (false, prev) => prev,
        };
        if read.sequence >= next && prev.is_some_and(|prev| !read.follows(&prev)) {
            report.find(path, at, Wrong::Rewritten(read.sequence));
        }
        report.highest = report.highest.max(read.sequence);
        if read.sequence >= next {
            report.head = Head {
                last: read.sequence,
                link: read.hash,
            };
        }
    }
}

/// Whether the record itself names all numbers from `from` up to its own as lost, as one does that the log made.
fn named_here(text: &[u8], from: u64, sequence: u64) -> bool {
    from < sequence && within(&chain::lost(text), from, sequence - 1)
}
