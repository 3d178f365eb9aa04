//! Reading the metadata log back: what was durable, and where a crash or something worse cut it.

use std::{io, sync::Arc};

use crypto::mac::MacKey;
use host::File;

use crate::log::{
    frame::{self, FRAME_ALIGN, FRAME_LEN_MAX, FileHeader, Frame, FramePlace, NoFrame, PAGE_LEN},
    record::Record,
    writer::{LogFile, Position},
};

/// Read at a time.
const WINDOW_LEN: usize = 1 << 20;
/// Frames copied with one write.
const COPY_FRAMES: usize = 64;

/// Why a log is not opened.
#[derive(Debug)]
pub(crate) enum ReplayError {
    /// It could not be read.
    Io(io::Error),
    /// What was durable is no more, or is not this volume's.
    Damaged {
        /// Where in the file.
        at: u64,
        /// What did not hold.
        why: &'static str,
    },
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A log that was read to its end.
pub(crate) struct Replayed {
    /// For appending; only if the tail was not torn, else make a new file.
    pub(crate) log: LogFile,
    /// Whether anything stands behind the last frame. It was never acknowledged.
    pub(crate) torn: bool,
    /// Whether a part of the header or of the checkpoint was damaged, and read from the copy.
    pub(crate) mended: bool,
}

/// Reads a log and calls `each` with the sequence of its frame and every record, in order. `each` says what is wrong with a
/// record, if anything. What is damaged of the header and the checkpoint is read from the `copy` of these. Changes
/// nothing and syncs nothing.
pub(crate) fn replay(
    file: Arc<dyn File>,
    copy: Option<Arc<dyn File>>,
    key: &MacKey,
    expected: &FileHeader,
    mut each: impl FnMut(u64, Record) -> Result<(), &'static str>,
) -> Result<Replayed, ReplayError> {
    let damaged = |at, why| ReplayError::Damaged { at, why };
    let len = file.len()?;
    let copied = copy.as_deref().and_then(|copy| read_header(copy, key).ok());
    let found = match read_header(&*file, key) {
        Err(ReplayError::Damaged { at, why }) => {
            copied.ok_or(damaged(at, why)).map(|it| (it, true))
        }
        found => found.map(|header| (header, false)),
    };
    let (header, mut mended) = found?;
    if (header.volume, header.sealed, header.size)
        != (expected.volume, expected.sealed, expected.size)
    {
        return Err(damaged(0, "the log of another volume"));
    }
    if len < header.checkpoint_end {
        return Err(damaged(len, "the file ends within its checkpoint"));
    }
    let copy = copy.filter(|_| copied == Some(header));
    let copy_len = copy.as_ref().map_or(Ok(0), |copy| copy.len())?;
    let mut spare = copy.as_deref().map(|copy| Window::new(copy, copy_len));
    let mut previous = header.seed(key);

    let mut window = Window::new(&*file, len);
    let mut at = PAGE_LEN as u64;
    let (mut sequence, mut settled) = (1, 1);
    loop {
        let follows = |frame: &Frame<'_>| {
            let FramePlace {
                sequence: found,
                durable,
                previous: before,
            } = frame.place;
            found == sequence && before == previous && durable <= at
        };
        let mut read = frame::decode(key, at, window.at(at)?);
        if at < header.checkpoint_end
            && !read.as_ref().is_ok_and(follows)
            && let Some(spare) = &mut spare
            && let Ok(frame) = frame::decode(key, at, spare.at(at)?)
            && follows(&frame)
        {
            mended = true;
            read = Ok(frame);
        }
        let frame = match read {
            Ok(frame) => frame,
            Err(NoFrame::Damaged(why)) => return Err(damaged(at, why)),
            Err(NoFrame::Unwritten) if at < header.checkpoint_end => {
                return Err(damaged(at, "a part of the checkpoint is missing"));
            }
            Err(NoFrame::Unwritten) => break,
        };
        if !follows(&frame) {
            return Err(damaged(at, "a frame does not follow the one before"));
        }
        each_record(&frame, |record| {
            if let Record::Mark { sequence: mark } = record {
                if mark > sequence {
                    return Err("a mark of what comes later");
                }
                settled = mark + u64::from(mark == sequence);
            }
            each(sequence, record)
        })
        .map_err(|why| damaged(at, why))?;
        (previous, sequence) = (frame.tag, sequence + 1);
        at += frame.len;
    }

    let torn = tail(&mut window, key, at)?;
    Ok(Replayed {
        log: LogFile::resume(
            file,
            header,
            Position {
                sequence,
                offset: at,
            },
            previous,
            settled,
            len,
        ),
        torn,
        mended,
    })
}

/// The header of a log, or of the copy of a checkpoint.
pub(crate) fn read_header(file: &dyn File, key: &MacKey) -> Result<FileHeader, ReplayError> {
    let damaged = |at, why| ReplayError::Damaged { at, why };
    let len = file.len()?;
    let mut page = [0; PAGE_LEN];
    if len < PAGE_LEN as u64 {
        return Err(damaged(len, "the file ends within its header"));
    }
    file.read_at(0, &mut page)?;
    FileHeader::decode(&page, key).map_err(|why| damaged(0, why))
}

/// Whether a copy has all of a log's header and checkpoint, byte for byte authentic. `Err` says what is wrong with it.
pub(crate) fn check_copy(
    copy: &dyn File,
    key: &MacKey,
    log: &FileHeader,
) -> Result<(), ReplayError> {
    let header = read_header(copy, key)?;
    if header != *log {
        return Err(ReplayError::Damaged {
            at: 0,
            why: "it is of another log",
        });
    }
    let mut window = Window::new(copy, copy.len()?);
    let mut at = PAGE_LEN as u64;
    let mut previous = header.seed(key);
    while at < header.checkpoint_end {
        match frame::decode(key, at, window.at(at)?) {
            Ok(frame) if frame.place.previous == previous => {
                previous = frame.tag;
                at += frame.len;
            }
            _ => {
                return Err(ReplayError::Damaged {
                    at,
                    why: "a frame of it is damaged",
                });
            }
        }
    }
    Ok(())
}

/// Calls `each` with a frame's records, in order.
fn each_record(
    frame: &Frame<'_>,
    mut each: impl FnMut(Record) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let mut payload = frame.payload;
    for _ in 0..frame.count {
        each(Record::decode(&mut payload)?)?;
    }
    match payload.is_empty() {
        true => Ok(()),
        false => Err("a frame has more than its records"),
    }
}

/// Copies frames of one file to the end of another, with new sequences; marks are left out. Gives the sequence that the
/// first frame got that had `settled` or a higher one, or would have got.
pub(crate) fn copy(
    key: &MacKey,
    from: (&dyn File, Position, Position),
    to: &mut LogFile,
    settled: u64,
) -> io::Result<u64> {
    let (file, start, end) = from;
    let mut window = Window::new(file, end.offset);
    let mut payloads = Vec::new();
    let mut at = start;
    let mut mark = None;
    while at.offset < end.offset {
        let changed = || io::Error::new(io::ErrorKind::InvalidData, "the log has changed on disk");
        let frame = frame::decode(key, at.offset, window.at(at.offset)?).map_err(|_| changed())?;
        let next = to.position().sequence + payloads.len() as u64;
        if at.sequence >= settled && mark.is_none() {
            mark = Some(next);
        }
        let mut is_mark = false;
        each_record(&frame, |record| {
            is_mark |= matches!(record, Record::Mark { .. });
            Ok(())
        })
        .map_err(|_| changed())?;
        if !is_mark {
            payloads.push(frame::Payload {
                bytes: frame.payload.to_vec(),
                count: frame.count,
            });
        }
        at = Position {
            sequence: at.sequence + 1,
            offset: at.offset + frame.len,
        };
        if payloads.len() == COPY_FRAMES {
            to.append(key, &payloads)?;
            payloads.clear();
        }
    }
    to.append(key, &payloads)?;
    Ok(mark.unwrap_or(to.position().sequence))
}

/// Looks at what stands behind the last frame, where a frame was expected at `end`. A later frame that was written when
/// more than that was durable shows that what stood there is lost: damage. Other frames may stand there: of what was not
/// synced, a crash keeps any part.
fn tail(window: &mut Window<'_>, key: &MacKey, end: u64) -> Result<bool, ReplayError> {
    let mut torn = false;
    let mut at = end;
    while at < window.len {
        let bytes = window.at(at)?;
        let part = &bytes[..bytes.len().min(PAGE_LEN)];
        if !frame::is_zero(part) {
            torn = true;
            let starts: Vec<_> = frame::starts(part).map(|start| at + start as u64).collect();
            for start in starts {
                if let Ok(frame) = frame::decode(key, start, window.at(start)?)
                    && frame.place.durable > end
                {
                    return Err(ReplayError::Damaged {
                        at: end,
                        why: "a frame that was durable is gone",
                    });
                }
            }
        }
        at += PAGE_LEN as u64;
    }
    Ok(torn)
}

/// A part of a file, read ahead.
struct Window<'a> {
    file: &'a dyn File,
    len: u64,
    start: u64,
    buf: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn File, len: u64) -> Self {
        Self {
            file,
            len,
            start: 0,
            buf: Vec::new(),
        }
    }

    /// What stands at `at`, as long as a frame can be or up to the end of the file.
    fn at(&mut self, at: u64) -> io::Result<&[u8]> {
        debug_assert!(at.is_multiple_of(FRAME_ALIGN as u64));
        if at >= self.len {
            return Ok(&[]);
        }
        let left = usize::try_from(self.len - at).unwrap_or(usize::MAX);
        let need = left.min(FRAME_LEN_MAX);
        let has = self.start + self.buf.len() as u64;
        if at < self.start || at + need as u64 > has {
            self.buf = vec![0; left.min(WINDOW_LEN)];
            self.file.read_at(at, &mut self.buf)?;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).expect("within the window");
        Ok(&self.buf[from..from + need])
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::{
        descriptor::tests::golden,
        log::{
            Batch,
            folder::{LOG_NAME, LogFolder},
            record::tests::one_of_each,
        },
    };
    use host::disk::sim::SimDisk;
    use std::path::{Path, PathBuf};

    fn key() -> MacKey {
        MacKey::public("test")
    }

    fn header() -> FileHeader {
        FileHeader {
            volume: "vol-0123456789abcdef0".parse().unwrap(),
            sealed: true,
            size: 1 << 30,
            epoch: 3,
            checkpoint_end: 0,
        }
    }

    fn folder(disk: &SimDisk) -> LogFolder {
        LogFolder::new(Arc::new(disk.clone()), Path::new("/"))
    }

    fn path() -> PathBuf {
        Path::new("/").join(LOG_NAME)
    }

    /// A checkpoint of all kinds of records, and two flushes of one. Gives where the frames begin, and the end.
    fn written(disk: &SimDisk) -> Vec<u64> {
        let dir = folder(disk);
        let mut log = LogFile::create(dir.create_next().unwrap(), &key(), header());
        let payloads = |records: &[Record]| {
            let mut batch = Batch::default();
            records.iter().for_each(|record| batch.push(record.clone()));
            batch.finish()
        };
        let all = one_of_each();
        let mut starts = vec![log.end()];
        log.append(&key(), &payloads(&all)).unwrap();
        log.prepare(0, 0).unwrap();
        log.finish(&key()).unwrap();
        dir.publish_next().unwrap();
        for record in &all[1..3] {
            starts.push(log.end());
            log.append(&key(), &payloads(std::slice::from_ref(record)))
                .unwrap();
            log.file().sync_data().unwrap();
            log.synced(log.end());
        }
        starts.push(log.end());
        starts
    }

    fn read(disk: &SimDisk) -> Result<(Vec<Record>, bool), ReplayError> {
        let mut records = Vec::new();
        let file = folder(disk).open_current().unwrap();
        let replayed = replay(file, None, &key(), &header(), |_, record| {
            records.push(record);
            Ok(())
        })?;
        assert_eq!(replayed.log.header().epoch, 3);
        Ok((records, replayed.torn))
    }

    #[test]
    fn the_golden_log_reads_and_is_written_the_same() {
        let disk = SimDisk::new(1);
        written(&disk);
        golden("map.log", &disk.bytes(path()));
        let all = one_of_each();
        let expected: Vec<_> = all.iter().chain(&all[1..3]).cloned().collect();
        assert_eq!(read(&disk).unwrap(), (expected, false));
    }

    #[test]
    fn frames_out_of_order_or_of_another_file_are_refused() {
        for (from, to) in [(1, 2), (2, 1), (0, 1)] {
            let disk = SimDisk::new(1);
            let starts = written(&disk);
            let bytes = disk.bytes(path());
            for (n, at) in (starts[from]..starts[from + 1]).enumerate() {
                disk.damage(path(), starts[to] + n as u64, |_| bytes[at as usize]);
            }
            let refused = read(&disk).unwrap_err();
            assert!(
                matches!(refused, ReplayError::Damaged { at, .. } if at == starts[to]),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn copied_frames_say_the_same_in_another_file() {
        let disk = SimDisk::new(1);
        let starts = written(&disk);
        let from = folder(&disk).open_current().unwrap();
        let position = |n: usize| Position {
            sequence: n as u64 + 1,
            offset: starts[n],
        };
        for (settled, mark) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            let next = folder(&disk).create_next().unwrap();
            let mut log = LogFile::create(next, &key(), header());
            let part = (&*from, position(1), position(3));
            assert_eq!(copy(&key(), part, &mut log, settled).unwrap(), mark);
            log.finish(&key()).unwrap();
            let mut records = Vec::new();
            replay(log.file(), None, &key(), &header(), |_, record| {
                records.push(record);
                Ok(())
            })
            .unwrap();
            assert_eq!(records, one_of_each()[1..3]);
        }
    }

    #[test]
    fn a_cut_file_loses_its_tail_and_never_its_checkpoint() {
        let whole = SimDisk::new(1);
        let starts = written(&whole);
        let len = starts[3] as usize;
        for keep in (0..=len).step_by(64) {
            let disk = SimDisk::new(1);
            written(&disk);
            for at in keep..len {
                disk.damage(path(), at as u64, |_| 0);
            }
            match read(&disk) {
                Ok((records, _)) => {
                    assert!(keep as u64 >= starts[1] && records.len() >= one_of_each().len());
                }
                Err(_) => assert!((keep as u64) < starts[1], "cut at {keep}"),
            }
        }
    }
}
