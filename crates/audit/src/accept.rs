//! The way out of a refusal: going on without what is lost.

use host::private;

use crate::{
    accepted,
    error::AuditError,
    group::{GROUP_RECORDS_MAX, GROUPS_BEGUN_MAX},
    journal::{self, JOURNAL_LEN},
    log::AuditLog,
    note::Note,
    options::AuditOptions,
    recover::{self, Plan},
    segment::Place,
    verify,
};

/// Numbers left out after the last that is seen anywhere: those of the groups that may have been on their way.
const MARGIN: u64 = GROUPS_BEGUN_MAX * GROUP_RECORDS_MAX as u64;

/// Opens a log that [`AuditLog::open`] refuses, and goes on without what is lost. Blocking.
///
/// Nothing is removed. Whatever still reads stays; the log goes on in a new segment, numbered after every number
/// that may have been given out, whose first record says `AuditAcceptLoss` and names the numbers that are lost.
/// [`verify`](crate::verify::verify) takes them for accepted from then on.
///
/// `given_out` is a number up to which others know that numbers were given out, 0 if none does: journal and segments that
/// were set back together know less.
pub fn accept_loss(options: AuditOptions, given_out: u64) -> Result<AuditLog, AuditError> {
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
    for (header, lines) in survey.after(head) {
        places.push(Place {
            segment: header.segment,
            offset: header.offset,
            lines: lines.to_vec(),
            last: header.last(),
        });
        head.last = header.last();
        head.link = header.link;
    }
    let seen = survey.frames.iter().map(|found| found.header.last());
    let seen = seen.max().unwrap_or(0).max(given_out);
    let highest = seen.max(report.highest).max(head.last);
    let last = highest + MARGIN;
    let mut lost = report.lost();
    lost.push((head.last + 1, last));
    let mut plan = Plan::new(head);
    plan.group = survey.last_group() + GROUPS_BEGUN_MAX;
    plan.segment = last + 1;
    plan.places = places;
    plan.notes = vec![Note::Accepted { lost, last }];
    let opened = recover::begin(&options, plan)?;
    let log = AuditLog::start(opened, &options)?;
    accepted::accept(disk, &options.dir, last + 1)?;
    Ok(log)
}
