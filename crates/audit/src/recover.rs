//! Opening: what the journal and the segments say together, and what is done about it.
//!
//! The journal holds every group since the segments were last synced, and says where each belongs; a segment holds
//! nothing that was not durable in the journal before. So the end of the log is where the journal ends, provided that
//! - the segments do not reach further: then the journal is an older copy or damaged,
//! - nothing is missing that a later frame of the journal knows to be durable,
//! - the last segment reads from its first byte, and holds what the journal says it held when it was synced,
//! - nothing stands behind the end in a segment, and no segment in which nothing should be,
//! - each segment begins where the one before it ends.
//!
//! Everything else is refused, with nothing changed. What is allowed to be torn are groups that no later frame knows
//! as durable: they were on their way when the machine stopped, and nobody was answered. Their numbers are
//! not used again: a record names them.
//!
//! Then what the journal holds is written into the segments anew and synced, and the journal is made anew: after a
//! failed sync the pages that could not be written read well, count as clean and are not on the disk. The journal as it
//! was read comes first of all, for the same reason: a segment never has what the journal may still lose.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use host::{Disk, EntryKind, File, Mode, private};

use crate::{
    accepted::accepted_through,
    chain::{self, GENESIS, Head, Line},
    error::AuditError,
    group::{GROUP_RECORDS_MAX, GROUPS_BEGUN_MAX, RECORD_LEN_MAX},
    journal::{self, Found, FrameHeader, JOURNAL_LEN, Survey},
    note::Note,
    options::AuditOptions,
    segment::{self, Place, Segments, read_segment},
};

/// A log that was opened.
pub(crate) struct Opened {
    pub(crate) journal: Arc<dyn File>,
    /// Where the next frame goes.
    pub(crate) journal_at: usize,
    /// The last group.
    pub(crate) group: u64,
    pub(crate) head: Head,
    pub(crate) segment: u64,
    pub(crate) segment_end: u64,
    pub(crate) segments: Segments,
    /// Intents without an outcome.
    pub(crate) open: BTreeSet<u64>,
    /// What is to be recorded before anything else.
    pub(crate) notes: Vec<Note>,
}

/// Opens the log, or makes it. Blocking.
pub(crate) fn open(options: &AuditOptions) -> Result<Opened, AuditError> {
    begin(options, plan(options)?)
}

/// What opening the log is to do. Changes nothing. Blocking.
pub(crate) fn plan(options: &AuditOptions) -> Result<Plan, AuditError> {
    let disk = options.disk.as_ref();
    let dir = &options.dir;
    let firsts = segment::list(disk, dir).map_err(|error| AuditError::io(dir, &error))?;
    let path = options.journal();
    let found = disk
        .kind(&path)
        .map_err(|error| AuditError::io(&path, &error))?;
    if found.is_none() {
        if let Some(first) = firsts.first() {
            return Err(AuditError::Lost {
                what: format!(
                    "{} is missing, and {} is there",
                    path.display(),
                    segment::path_of(dir, *first).display()
                ),
            });
        }
        let head = Head {
            last: 0,
            link: GENESIS,
        };
        return Ok(Plan::new(head));
    }
    let bytes = private::read(disk, &path, JOURNAL_LEN as u64)
        .map_err(|error| AuditError::io(&path, &error))?;
    let survey = journal::survey(&bytes).map_err(|newer| AuditError::Version {
        file: path.clone(),
        version: newer.0,
    })?;
    if disk.kind(dir).map_err(|e| AuditError::io(dir, &e))? != Some(EntryKind::Folder)
        && survey.frames.iter().any(|found| found.header.last() > 0)
    {
        return Err(AuditError::Lost {
            what: format!("the folder {} is missing", dir.display()),
        });
    }
    let mut plan = Recovery {
        options,
        path: &path,
        survey: &survey,
        firsts: &firsts,
    }
    .plan()?;
    plan.journal = Some(bytes);
    Ok(plan)
}

/// What opening is to do.
pub(crate) struct Plan {
    pub(crate) head: Head,
    /// The last group that was ever begun.
    pub(crate) group: u64,
    pub(crate) segment: u64,
    pub(crate) segment_end: u64,
    /// Lines to write into the segments anew.
    pub(crate) places: Vec<Place>,
    pub(crate) open: BTreeMap<u64, Vec<u8>>,
    pub(crate) notes: Vec<Note>,
    /// The journal as it was read.
    pub(crate) journal: Option<Vec<u8>>,
}

impl Plan {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            head,
            group: 0,
            segment: 1,
            segment_end: 0,
            places: Vec::new(),
            open: BTreeMap::new(),
            notes: Vec::new(),
            journal: None,
        }
    }
}

/// Carries the plan out.
pub(crate) fn begin(options: &AuditOptions, plan: Plan) -> Result<Opened, AuditError> {
    let disk = &options.disk;
    let dir = &options.dir;
    let here = |error: io::Error| AuditError::io(dir, &error);
    private::create_dirs(disk.as_ref(), dir).map_err(here)?;
    let path = options.journal();
    if let Some(bytes) = plan.journal.filter(|_| !plan.places.is_empty()) {
        // A failed sync may have left it readable and not on the disk. The segments get nothing that a power cut now
        // could take from it.
        private::replace(disk.as_ref(), &path, &bytes)
            .map_err(|error| AuditError::io(&path, &error))?;
    }
    let mut segments = Segments::new(Arc::clone(disk), dir.clone(), plan.head.last);
    segments.unsettle(&plan.places).map_err(here)?;
    for place in plan.places {
        segments.put(place);
    }
    segments.append().map_err(here)?;
    segments.sync().map_err(here)?;
    disk.sync_dir(dir).map_err(here)?;
    let here = |error: io::Error| AuditError::io(&path, &error);
    // One frame without records says where the log stands.
    let header = FrameHeader {
        group: plan.group + 1,
        before: plan.head.last,
        first: plan.head.last + 1,
        count: 0,
        len: 0,
        segment: plan.segment,
        offset: plan.segment_end,
        durable: plan.group,
        carried: plan.head.last,
        open: plan.open.keys().next().copied().unwrap_or(0),
        base: plan.head.link,
        link: plan.head.link,
    };
    let mut bytes = Vec::new();
    journal::encode_frame(&mut bytes, &header, &[]);
    let journal_at = bytes.len();
    // Written, not only allocated: a first write into allocated space needs a commit of the file system.
    bytes.resize(2 * options.half_len, 0);
    private::replace(disk.as_ref(), &path, &bytes).map_err(here)?;
    let journal = journal::open(disk.as_ref(), &path, &header).map_err(here)?;
    let mut notes = plan.notes;
    let open = plan.open.keys().copied().collect();
    notes.extend(
        plan.open
            .into_iter()
            .map(|(intent, record)| Note::Unknown(intent, record)),
    );
    Ok(Opened {
        journal,
        journal_at,
        group: header.group,
        head: plan.head,
        segment: plan.segment,
        segment_end: plan.segment_end,
        segments,
        open,
        notes,
    })
}

struct Recovery<'a> {
    options: &'a AuditOptions,
    path: &'a Path,
    survey: &'a Survey,
    firsts: &'a [u64],
}

/// A place in the log.
#[derive(Clone, Copy)]
struct Spot {
    head: Head,
    segment: u64,
    offset: u64,
    /// The group that ends here.
    group: u64,
}

impl Recovery<'_> {
    fn plan(&self) -> Result<Plan, AuditError> {
        let frames = &self.survey.frames;
        let damaged = |why| AuditError::Damaged {
            file: self.path.to_owned(),
            offset: 0,
            why,
        };
        let carried = frames.iter().map(|found| found.header.carried).max();
        let Some(carried) = carried else {
            return Err(damaged("it holds no frame"));
        };
        let start = start_of(self.survey, carried)
            .ok_or_else(|| damaged("the frame after the last sync of a segment does not read"))?;
        // What the journal holds from there, without a gap.
        let mut run: Vec<&Found> = Vec::new();
        let mut at = start.group;
        for found in frames {
            if found.header.group == at + 1 && found.lines.is_some() {
                at += 1;
                run.push(found);
            }
        }
        let journal_end = run.last().map_or(start, |found| end_of(&found.header));
        let needed = self.survey.durable();
        let (segments_end, garbage) = self.read_segments(start)?;
        // A segment gets nothing that is not durable in the journal before.
        if segments_end.head.last > journal_end.head.last {
            return Err(damaged(
                "it is behind the segments: an older copy, or its last frames do not read",
            ));
        }
        let end = journal_end;
        if self.survey.begun > self.survey.last_group() + GROUPS_BEGUN_MAX {
            return Err(damaged("a sector names a group that was never begun"));
        }
        if end.head.last < needed {
            return Err(AuditError::Lost {
                what: format!(
                    "the log ends with record {}, and record {needed} was durable",
                    end.head.last
                ),
            });
        }
        let same = run
            .iter()
            .find(|found| found.header.last() == segments_end.head.last);
        if same.is_some_and(|found| found.header.link != segments_end.head.link) {
            return Err(damaged("it holds other records than the segments"));
        }
        if let Some((segment, len)) = garbage {
            // The journal may reach over what the segment lost.
            let mended = run.iter().any(|found| {
                let header = &found.header;
                header.segment == segment && header.offset + u64::from(header.len) >= len
            });
            if !mended {
                return Err(AuditError::Damaged {
                    file: segment::path_of(&self.options.dir, segment),
                    offset: segments_end.offset,
                    why: "what stands there is no record in its turn",
                });
            }
        }
        if self.firsts.last().is_some_and(|last| *last > end.segment) {
            return Err(damaged("a segment is there that it knows nothing of"));
        }
        let mut plan = Plan::new(end.head);
        plan.group = self.survey.begun.max(end.group);
        (plan.segment, plan.segment_end) = (end.segment, end.offset);
        plan.places = run
            .iter()
            .map(|found| Place {
                segment: found.header.segment,
                offset: found.header.offset,
                lines: found.lines.clone().unwrap_or_default(),
                last: found.header.last(),
            })
            .collect();
        if let Some(to) = self.never_durable(end) {
            tracing::warn!(
                from = end.head.last + 1,
                to,
                "audit log: a last write was torn; nobody was answered for it, and its numbers are not used again"
            );
            plan.notes.push(Note::Gap(end.head.last + 1, to));
        }
        let oldest = frames
            .iter()
            .rfind(|found| found.header.group <= end.group.max(start.group))
            .map_or(0, |found| found.header.open);
        plan.open = self.open_intents(oldest, &run)?;
        Ok(plan)
    }

    /// The highest number that may have been given out and is not in the log.
    fn never_durable(&self, end: Spot) -> Option<u64> {
        let torn: BTreeMap<u64, u64> = self
            .survey
            .frames
            .iter()
            .filter(|found| found.header.last() > end.head.last)
            .map(|found| (found.header.group, found.header.last()))
            .collect();
        let mut highest = end.head.last;
        for group in end.group + 1..=self.survey.begun {
            match torn.get(&group) {
                Some(last) => highest = highest.max(*last),
                // Its header is lost with the number of its records.
                None => highest += GROUP_RECORDS_MAX as u64,
            }
        }
        (highest > end.head.last).then_some(highest)
    }

    /// Reads the segments from the one that `start` is in to the end, and those before it at their edges. Where
    /// the records end, and the segment that has bytes behind them, with its length.
    fn read_segments(&self, start: Spot) -> Result<(Spot, Option<(u64, u64)>), AuditError> {
        let disk = self.options.disk.as_ref();
        let dir = &self.options.dir;
        let skip = accepted_through(disk, dir)?;
        let mut spot = start;
        // Where the segments read so far end; before the first one, where the log begins.
        let mut reached = (skip == 0).then_some(Head {
            last: 0,
            link: GENESIS,
        });
        let firsts = self.firsts.iter().copied();
        for first in firsts.clone().filter(|first| *first >= skip) {
            let path = segment::path_of(dir, first);
            let damaged = |offset, why| AuditError::Damaged {
                file: path.clone(),
                offset,
                why,
            };
            let missing = || AuditError::Lost {
                what: format!("a segment before {} is missing or cut", path.display()),
            };
            if first < start.segment {
                let (before, last) = edges(disk, &path)?;
                if reached.is_some_and(|reached| reached != before) {
                    return Err(missing());
                }
                reached = Some(last);
                continue;
            }
            let bytes = read_segment(disk, &path)?;
            let mut from = 0;
            if first == start.segment {
                // All up to here was synced.
                from = usize::try_from(start.offset).unwrap_or(usize::MAX);
                let Some(synced) = bytes.get(..from) else {
                    return Err(AuditError::Lost {
                        what: format!(
                            "{} has {} bytes, and {} were synced",
                            path.display(),
                            bytes.len(),
                            start.offset
                        ),
                    });
                };
                let before = match synced.is_empty() {
                    true => start.head,
                    false => head_before(synced)
                        .ok_or_else(|| damaged(0, "it does not begin with a record"))?,
                };
                if reached.is_some_and(|reached| reached != before) {
                    return Err(missing());
                }
                let mut head = before;
                let whole = chain::take_lines(synced, &mut head, |_, _| {});
                if whole < synced.len() {
                    let why = "what stands there is no record in its turn";
                    return Err(damaged(whole as u64, why));
                }
                if head != start.head {
                    let why = "its records are not those that the journal knows";
                    return Err(damaged(start.offset, why));
                }
            }
            let mut head = spot.head;
            let whole = chain::take_lines(&bytes[from..], &mut head, |_, _| {});
            spot = Spot {
                head,
                segment: first,
                offset: (from + whole) as u64,
                group: spot.group,
            };
            if from + whole < bytes.len() {
                return Ok((spot, Some((first, bytes.len() as u64))));
            }
        }
        if !firsts.clone().any(|first| first == start.segment) {
            let path = segment::path_of(dir, start.segment);
            if start.offset > 0 {
                return Err(AuditError::Lost {
                    what: format!("{} is missing", path.display()),
                });
            }
            // It was not made yet, so the ones before it end where it is to begin.
            if reached.is_some_and(|reached| reached != start.head) {
                return Err(AuditError::Lost {
                    what: format!(
                        "the segment that ends with record {} is missing",
                        start.head.last
                    ),
                });
            }
        }
        Ok((spot, None))
    }

    /// The intents without an outcome, from the oldest on.
    fn open_intents(
        &self,
        oldest: u64,
        run: &[&Found],
    ) -> Result<BTreeMap<u64, Vec<u8>>, AuditError> {
        #[derive(serde::Deserialize)]
        struct Record<'a> {
            #[serde(borrow)]
            outcome: Option<std::borrow::Cow<'a, str>>,
            intent: Option<u64>,
        }
        let mut open = BTreeMap::new();
        let mut look = |sequence: u64, text: &[u8]| {
            if sequence < oldest {
                return;
            }
            let Ok(record) = serde_json::from_slice::<Record<'_>>(text) else {
                return;
            };
            if let Some(intent) = record.intent {
                open.remove(&intent);
            } else if record.outcome.as_deref() == Some("Intended") {
                open.insert(sequence, text.to_owned());
            }
        };
        if oldest > 0 {
            let disk = self.options.disk.as_ref();
            let from = self.firsts.iter().rposition(|first| *first <= oldest);
            for first in self.firsts.iter().skip(from.unwrap_or(0)) {
                let bytes = read_segment(disk, &segment::path_of(&self.options.dir, *first))?;
                for text in bytes.split(|&byte| byte == b'\n') {
                    if let Some(line) = Line::parse(text) {
                        look(line.sequence, text);
                    }
                }
            }
        }
        for found in run {
            for text in found.lines.iter().flat_map(|l| l.split(|&b| b == b'\n')) {
                if let Some(line) = Line::parse(text) {
                    look(line.sequence, text);
                }
            }
        }
        Ok(open)
    }
}

/// Where record `carried` ends; or where the last half that was filled begins, if that is later: the journal goes on
/// into a half when the segments have what is in it.
fn start_of(survey: &Survey, carried: u64) -> Option<Spot> {
    let known = survey.frames.iter().rev().find_map(|found| {
        let header = &found.header;
        if header.before == carried {
            Some(beginning_of(header))
        } else if header.last() == carried {
            Some(end_of(header))
        } else {
            None
        }
    });
    let filled = survey
        .last_filled()
        .map(|found| beginning_of(&found.header))
        .filter(|spot| spot.head.last >= carried);
    match (known, filled) {
        (Some(known), Some(filled)) if filled.group > known.group => Some(filled),
        (known, filled) => known.or(filled),
    }
}

fn beginning_of(header: &FrameHeader) -> Spot {
    Spot {
        head: Head {
            last: header.before,
            link: header.base,
        },
        segment: header.segment,
        offset: header.offset,
        group: header.group - 1,
    }
}

fn end_of(header: &FrameHeader) -> Spot {
    Spot {
        head: Head {
            last: header.last(),
            link: header.link,
        },
        segment: header.segment,
        offset: header.offset + u64::from(header.len),
        group: header.group,
    }
}

/// What a segment's first record follows.
fn head_before(bytes: &[u8]) -> Option<Head> {
    let len = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = Line::parse(&bytes[..len])?;
    let link = line.prev.filter(|prev| line.follows(prev))?;
    let lost = chain::lost(&bytes[..len]);
    let named = lost.iter().find(|(_, to)| *to == line.sequence - 1);
    let last = named
        .map_or(line.sequence, |(from, _)| *from)
        .checked_sub(1)?;
    Some(Head { last, link })
}

/// What a segment follows, and what it ends with, from its first and its last record.
fn edges(disk: &dyn Disk, path: &Path) -> Result<(Head, Head), AuditError> {
    let here = |error: io::Error| AuditError::io(path, &error);
    let damaged = |offset, why| AuditError::Damaged {
        file: path.to_owned(),
        offset,
        why,
    };
    let file = disk.open(path, Mode::Read).map_err(here)?;
    let len = file.len().map_err(here)?;
    let piece = (RECORD_LEN_MAX as u64 + 1).min(len);
    let mut start = vec![0; usize::try_from(piece).expect("a record's length")];
    file.read_at(0, &mut start).map_err(here)?;
    let before = head_before(&start)
        .ok_or_else(|| damaged(0, "its first record is not what was written"))?;
    let mut end = vec![0; start.len()];
    file.read_at(len - piece, &mut end).map_err(here)?;
    let text = end
        .strip_suffix(b"\n")
        .ok_or_else(|| damaged(len, "it does not end with a whole record"))?;
    let from = text
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let last = Line::parse(&text[from..])
        .ok_or_else(|| damaged(len - piece + from as u64, "its last record does not read"))?;
    let last = Head {
        last: last.sequence,
        link: last.hash,
    };
    Ok((before, last))
}
