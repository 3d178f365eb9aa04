//! The way out of a refusal: going on without what is lost.

use std::path::{Path, PathBuf};

use host::{Disk, private};
use serde::{Deserialize, Serialize};

use crate::{
    AuditError, AuditLog, AuditOptions,
    journal::{self, JOURNAL_LEN},
    recover::{self, Note, Plan},
    segment::Place,
    verify,
    writer::GROUP_RECORDS_MAX,
};

/// Numbers left out after the last that is seen anywhere: those of the groups that may have been on their way.
const MARGIN: u64 = 8 * GROUP_RECORDS_MAX as u64;

/// The file `accepted.json` in the log's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    version: u16,
    /// Segments before this one are no longer looked at when the log is opened.
    through: u64,
}

fn path_of(dir: &Path) -> PathBuf {
    dir.join("accepted.json")
}

/// The first segment that is looked at when the log is opened; 0 for all.
pub(crate) fn accepted_through(disk: &dyn Disk, dir: &Path) -> Result<u64, AuditError> {
    let path = path_of(dir);
    let here = |error| AuditError::io(&path, &error);
    if disk.kind(&path).map_err(here)?.is_none() {
        return Ok(0);
    }
    let bytes = private::read(disk, &path, 4096).map_err(here)?;
    let accepted: Accepted = serde_json::from_slice(&bytes).map_err(|_| AuditError::Damaged {
        file: path.clone(),
        offset: 0,
        why: "it does not read",
    })?;
    if accepted.version != 1 {
        return Err(AuditError::Version {
            file: path,
            version: accepted.version,
        });
    }
    Ok(accepted.through)
}

/// Opens a log that [`AuditLog::open`] refuses, and goes on without what is lost. Blocking.
///
/// Nothing is removed. Whatever still reads stays; the log goes on in a new segment, numbered after every number
/// that may have been given out, whose first record says `AuditAcceptLoss` and names the numbers that are lost.
/// [`verify`](crate::verify::verify) takes them for accepted from then on.
pub fn accept_loss(options: AuditOptions) -> Result<AuditLog, AuditError> {
    let disk = options.disk.as_ref();
    let journal = options.journal();
    let survey = match private::read(disk, &journal, JOURNAL_LEN as u64) {
        Ok(bytes) => journal::survey(&bytes).unwrap_or_default(),
        Err(_) => journal::Survey::default(),
    };
    let report = verify::read(disk, &options.dir)?;
    let mut head = report.head;
    // What only the journal has, where it goes on from the segments.
    let mut places = Vec::new();
    for found in &survey.frames {
        if let Some(lines) = &found.lines
            && found.header.count > 0
            && (found.header.before, found.header.base) == (head.last, head.link)
        {
            head.last = found.header.last();
            head.link = found.header.link;
            places.push(Place {
                segment: found.header.segment,
                offset: found.header.offset,
                lines: lines.clone(),
                last: head.last,
            });
        }
    }
    let seen = survey.frames.iter().map(|found| found.header.last());
    let highest = seen.max().unwrap_or(0).max(report.highest).max(head.last);
    let last = highest + MARGIN;
    let mut lost = report.lost();
    lost.push((head.last + 1, last));
    let mut plan = Plan::new(head);
    plan.group = survey.begun;
    plan.segment = last + 1;
    plan.places = places;
    plan.notes = vec![Note::Accepted { lost, last }];
    let opened = recover::begin(&options, plan)?;
    let log = AuditLog::start(opened, &options)?;
    let accepted = Accepted {
        version: 1,
        through: last + 1,
    };
    let path = path_of(&options.dir);
    let bytes = serde_json::to_vec(&accepted).expect("numbers");
    private::replace(disk, &path, &bytes).map_err(|error| AuditError::io(&path, &error))?;
    Ok(log)
}
