//! Segment files: where records stand on disk.
//!
//! A segment is `audit-N.jsonl`, N the number of its first record in 20 digits, mode 0600. The file
//! grows in steps filled with newlines, which every reader of JSON lines skips, and records
//! overwrite the fill: overwriting synced blocks needs no allocation and no journal commit, which
//! halves the time of an `fdatasync`. When a segment is closed the fill is cut off.
//!
//! After a crash a suffix of the last segment may hold any mix of fill and pieces of the last
//! group. Opening keeps the longest prefix of whole records with rising numbers and puts what
//! follows, if it is not all fill, into `audit-N.torn-OFFSET` before cutting it off. Something
//! that reaches further than one group cannot come from a torn write: then opening fails.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{AuditError, AuditSink, RECORD_LEN_MAX, writer::GROUP_LEN_MAX};

/// A segment grows by this much at a time, in bytes: some 2500 records for one allocation.
const FILL_STEP: u64 = 1 << 20;
/// What a segment is filled with.
const FILL: u8 = b'\n';
/// Greatest length of what a crash can tear.
const TORN_LEN_MAX: u64 = (GROUP_LEN_MAX + RECORD_LEN_MAX) as u64;

/// The segments of one directory, open at the end of the last.
#[derive(Debug)]
pub struct SegmentSink {
    dir: PathBuf,
    segment_len: u64,
    current: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    /// Where the next record goes.
    end: u64,
    /// The length of the file: everything from `end` is fill.
    filled: u64,
}

impl SegmentSink {
    /// Opens the directory (made with mode 0700 if it is not there) and returns the number of the
    /// next record with it.
    pub fn open(dir: &Path, segment_len: u64) -> Result<(Self, u64), AuditError> {
        let here = |error: io::Error| io_error(dir, &error);
        if !dir.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(here)?;
            sync_dir(parent_of(dir)).map_err(here)?;
        }
        let mut firsts = Vec::new();
        for entry in fs::read_dir(dir).map_err(here)? {
            let name = entry.map_err(here)?.file_name();
            firsts.extend(name.to_str().and_then(first_of));
        }
        let mut sink = Self {
            dir: dir.to_owned(),
            segment_len,
            current: None,
        };
        let Some(first) = firsts.into_iter().max() else {
            return Ok((sink, 1));
        };
        let path = sink.path(first);
        let (segment, next) = Segment::recover(&path, first)?;
        sink.current = Some(segment);
        Ok((sink, next))
    }

    fn path(&self, first: u64) -> PathBuf {
        self.dir.join(format!("audit-{first:020}.jsonl"))
    }
}

impl AuditSink for SegmentSink {
    fn append(&mut self, first: u64, lines: &[u8]) -> io::Result<()> {
        let full = |segment: &Segment| {
            segment.end > 0 && segment.end + lines.len() as u64 > self.segment_len
        };
        if self.current.as_ref().is_some_and(full) {
            self.current.take().expect("there is a full one").close()?;
        }
        if self.current.is_none() {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(self.path(first))?;
            sync_dir(&self.dir)?;
            self.current = Some(Segment {
                file,
                end: 0,
                filled: 0,
            });
        }
        self.current.as_mut().expect("made above").append(lines)
    }
}

impl Drop for SegmentSink {
    fn drop(&mut self) {
        if let Some(segment) = self.current.take()
            && let Err(error) = segment.close()
        {
            // The records are durable; only fill stays, which the next start takes for fill.
            tracing::warn!(%error, "audit segment not closed");
        }
    }
}

impl Segment {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let end = self.end + lines.len() as u64;
        if end > self.filled {
            let fill_to = end.next_multiple_of(FILL_STEP);
            let len = usize::try_from(fill_to - self.filled).expect("a group and a step");
            self.file.write_all_at(&vec![FILL; len], self.filled)?;
            self.file.sync_all()?;
            self.filled = fill_to;
        }
        self.file.write_all_at(lines, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        Ok(())
    }

    fn close(self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.sync_all()
    }

    /// Opens the last segment, cuts off what a crash tore, and returns the next record's number.
    fn recover(path: &Path, first: u64) -> Result<(Self, u64), AuditError> {
        let here = |error: io::Error| io_error(path, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(here)?;
        // Bounded by the segment length and one group.
        let bytes = fs::read(path).map_err(here)?;
        let (end, next) = whole_records(&bytes, first);
        let tail = &bytes[end..];
        if let Some(last) = tail.iter().rposition(|&byte| byte != FILL) {
            let torn = &tail[..=last];
            if torn.len() as u64 > TORN_LEN_MAX {
                return Err(AuditError::Damaged {
                    segment: path.to_owned(),
                    offset: end as u64,
                    why: "records that cannot come from a torn write follow one that does not read",
                });
            }
            let aside = path.with_extension(format!("torn-{end}"));
            // Durable under its name before it is cut off here.
            keep_aside(&aside, torn)
                .and_then(|()| sync_dir(parent_of(path)))
                .map_err(|error| io_error(&aside, &error))?;
            tracing::warn!(
                segment = %path.display(),
                offset = end,
                bytes = torn.len(),
                kept = %aside.display(),
                "audit log: cut off a last write that a crash tore; it was never answered"
            );
        }
        // A sync that failed in the process before leaves pages that read well, count as clean and are
        // not on the disk. Writing the last group again makes them dirty, so that this sync is about them.
        let again = end.saturating_sub(usize::try_from(TORN_LEN_MAX).expect("a megabyte or so"));
        file.write_all_at(&bytes[again..end], again as u64)
            .map_err(here)?;
        let end = end as u64;
        file.set_len(end).map_err(here)?;
        file.sync_all().map_err(here)?;
        sync_dir(parent_of(path)).map_err(here)?;
        let segment = Self {
            file,
            end,
            filled: end,
        };
        Ok((segment, next))
    }
}

/// Writes what was torn to a file of its own, as private as the segment it comes from.
fn keep_aside(path: &Path, torn: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all_at(torn, 0)?;
    file.sync_all()
}

/// The length of the longest prefix of whole records numbered from `first`, and the number after.
pub(crate) fn whole_records(bytes: &[u8], first: u64) -> (usize, u64) {
    let (mut end, mut next) = (0, first);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let starts = line.starts_with(format!("{{\"seq\":{next},").as_bytes());
        let whole = starts
            && line.ends_with(b"\n")
            && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
        if !whole {
            break;
        }
        end += line.len();
        next += 1;
    }
    (end, next)
}

fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn io_error(path: &Path, error: &io::Error) -> AuditError {
    AuditError::Io {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn line(sequence: u64) -> String {
        format!("{{\"seq\":{sequence},\"operation\":\"Encrypt\"}}\n")
    }

    fn lines(range: std::ops::RangeInclusive<u64>) -> String {
        range.map(line).collect()
    }

    fn only_segment(dir: &Path) -> PathBuf {
        dir.join("audit-00000000000000000001.jsonl")
    }

    /// As a crash leaves it: the fill not cut off.
    fn crash(sink: SegmentSink) {
        let mut sink = sink;
        drop(sink.current.take());
    }

    #[test]
    fn a_closed_segment_is_plain_json_lines_and_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, next) = SegmentSink::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(next, 1);
        sink.append(1, lines(1..=2).as_bytes()).unwrap();
        sink.append(3, lines(3..=3).as_bytes()).unwrap();
        drop(sink);
        let path = only_segment(dir.path());
        assert_eq!(fs::read_to_string(&path).unwrap(), lines(1..=3));

        let (mut sink, next) = SegmentSink::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(next, 4);
        sink.append(4, lines(4..=4).as_bytes()).unwrap();
        drop(sink);
        assert_eq!(fs::read_to_string(&path).unwrap(), lines(1..=4));
    }

    #[test]
    fn a_full_segment_is_followed_by_another_named_by_its_first_record() {
        let dir = tempfile::tempdir().unwrap();
        let len = line(1).len() as u64;
        let (mut sink, _) = SegmentSink::open(dir.path(), 2 * len).unwrap();
        for sequence in 1..=5 {
            sink.append(sequence, line(sequence).as_bytes()).unwrap();
        }
        drop(sink);
        let read = |first: u64| {
            fs::read_to_string(dir.path().join(format!("audit-{first:020}.jsonl"))).unwrap()
        };
        assert_eq!(read(1), lines(1..=2));
        assert_eq!(read(3), lines(3..=4));
        assert_eq!(read(5), lines(5..=5));
        assert_eq!(SegmentSink::open(dir.path(), 2 * len).unwrap().1, 6);
    }

    #[test]
    fn a_record_cut_at_any_byte_is_dropped_and_the_rest_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, _) = SegmentSink::open(dir.path(), 1 << 20).unwrap();
        sink.append(1, lines(1..=3).as_bytes()).unwrap();
        crash(sink);
        let path = only_segment(dir.path());
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len() as u64, FILL_STEP);
        let (two, three) = (lines(1..=2).len(), lines(1..=3).len());
        // A record whose newline alone is missing is whole: the fill stands there.
        for cut in two..three - 1 {
            let mut torn = whole.clone();
            torn[cut..].fill(FILL);
            fs::write(&path, &torn).unwrap();
            let (sink, next) = SegmentSink::open(dir.path(), 1 << 20).unwrap();
            assert_eq!(next, 3, "cut at {cut}");
            drop(sink);
            assert_eq!(fs::read_to_string(&path).unwrap(), lines(1..=2));
        }
        // Where the file itself ends, a record without its newline is a torn one.
        fs::write(&path, &whole[..three - 1]).unwrap();
        assert_eq!(SegmentSink::open(dir.path(), 1 << 20).unwrap().1, 3);
    }

    #[test]
    fn what_was_cut_off_is_kept_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = only_segment(dir.path());
        let torn = format!("{}\n\n{{\"seq\":4,\"oper", lines(1..=2));
        fs::write(&path, &torn).unwrap();
        assert_eq!(SegmentSink::open(dir.path(), 1 << 20).unwrap().1, 3);
        let aside = path.with_extension(format!("torn-{}", lines(1..=2).len()));
        assert_eq!(fs::read_to_string(&aside).unwrap(), "\n\n{\"seq\":4,\"oper");
        let mode = fs::metadata(aside).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_gap_longer_than_one_write_is_damage_and_not_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = only_segment(dir.path());
        let mut bytes = lines(1..=2).into_bytes();
        let offset = bytes.len() as u64;
        bytes.extend_from_slice(line(9).as_bytes());
        bytes.resize(bytes.len() + usize::try_from(TORN_LEN_MAX).unwrap(), FILL);
        bytes.extend_from_slice(line(4).as_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = SegmentSink::open(dir.path(), 1 << 20).unwrap_err();
        assert!(
            matches!(&error, AuditError::Damaged { segment, offset: at, .. } if *segment == path && *at == offset),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing changed");
    }

    #[test]
    fn an_empty_last_segment_takes_its_number_from_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("audit-00000000000000000007.jsonl"), "").unwrap();
        fs::write(dir.path().join("audit-7.jsonl"), "not ours").unwrap();
        assert_eq!(SegmentSink::open(dir.path(), 1 << 20).unwrap().1, 7);
    }
}
