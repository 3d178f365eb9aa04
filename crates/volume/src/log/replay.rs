//! Reading the metadata log back: what was durable, and where a crash or something worse cut it.

use std::{io, sync::Arc};

use crypto::mac::MacKey;
use host::File;

use crate::log::{
    frame::{self, FRAME_LEN_MAX, FileHeader, NoFrame, PAGE_LEN},
    record::Record,
    writer::LogFile,
};

/// Read at a time.
const WINDOW_LEN: usize = 1 << 20;

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
}

/// Reads a log and calls `each` with every record in order. `each` says what is wrong with a record, if anything.
pub(crate) fn replay(
    file: Arc<dyn File>,
    key: &MacKey,
    expected: &FileHeader,
    mut each: impl FnMut(Record) -> Result<(), &'static str>,
) -> Result<Replayed, ReplayError> {
    let damaged = |at, why| ReplayError::Damaged { at, why };
    let len = file.len()?;
    let mut page = [0; PAGE_LEN];
    if len < PAGE_LEN as u64 {
        return Err(damaged(len, "the file ends within its header"));
    }
    file.read_at(0, &mut page)?;
    let header = FileHeader::decode(&page, key).map_err(|why| damaged(0, why))?;
    if (header.volume, header.sealed, header.size)
        != (expected.volume, expected.sealed, expected.size)
    {
        return Err(damaged(0, "the log of another volume"));
    }
    let mut previous = header.seed(key);

    let mut window = Window::new(&*file, len);
    let mut at = PAGE_LEN as u64;
    let mut sequence = 1;
    loop {
        let frame = match frame::decode(key, window.at(at)?) {
            Ok(frame) => frame,
            Err(NoFrame::Damaged(why)) => return Err(damaged(at, why)),
            Err(NoFrame::Unwritten) if at < header.checkpoint_end => {
                return Err(damaged(at, "a part of the checkpoint is missing"));
            }
            Err(NoFrame::Unwritten) => break,
        };
        if frame.place.sequence != sequence
            || frame.place.previous != previous
            || frame.place.batch_start > at
        {
            return Err(damaged(at, "a frame does not follow the one before"));
        }
        let mut payload = frame.payload;
        for _ in 0..frame.count {
            let record = Record::decode(&mut payload).map_err(|why| damaged(at, why))?;
            each(record).map_err(|why| damaged(at, why))?;
        }
        if !payload.is_empty() {
            return Err(damaged(at, "a frame has more than its records"));
        }
        (previous, sequence) = (frame.tag, sequence + 1);
        at += frame.len;
    }

    let torn = tail(&mut window, key, at)?;
    // What was read may be in the page cache alone, if the process and not the machine went down in the middle of a
    // flush. Slots that it frees are about to be used again, so it must be on disk.
    file.sync_data()?;
    Ok(Replayed {
        log: LogFile::resume(file, header, sequence, previous, at, len),
        torn,
    })
}

/// Looks at what stands behind the last frame, where a frame was expected at `end`. A later frame whose batch began
/// behind `end` was written when `end` was durable, so that what stood there is lost: damage.
fn tail(window: &mut Window<'_>, key: &MacKey, end: u64) -> Result<bool, ReplayError> {
    let mut torn = false;
    let mut at = end;
    while at < window.len {
        let bytes = window.at(at)?;
        let page = &bytes[..bytes.len().min(PAGE_LEN)];
        if !frame::is_zero(page) {
            torn = true;
            if let Ok(frame) = frame::decode(key, bytes)
                && frame.place.batch_start > end
            {
                return Err(ReplayError::Damaged {
                    at: end,
                    why: "a frame that was durable is gone",
                });
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

    /// What stands at `at`, as long as a frame can be or up to the end of the file; less than a page is filled up with
    /// zeroes, which is what is behind the end.
    fn at(&mut self, at: u64) -> io::Result<&[u8]> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let need = left.min(FRAME_LEN_MAX);
        let has = self.start + self.buf.len() as u64;
        if at < self.start || at + need as u64 > has {
            self.buf.resize(left.min(WINDOW_LEN), 0);
            self.file.read_at(at, &mut self.buf)?;
            self.buf
                .resize(self.buf.len().next_multiple_of(PAGE_LEN), 0);
            self.start = at;
        }
        let from = usize::try_from(at - self.start).expect("within the window");
        let to = (from + need.next_multiple_of(PAGE_LEN)).min(self.buf.len());
        Ok(&self.buf[from..to])
    }
}

#[cfg(test)]
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

    /// A checkpoint of all kinds of records, and two flushes of one.
    fn written(disk: &SimDisk) {
        let dir = folder(disk);
        let mut log = LogFile::create(dir.create_next().unwrap(), &key(), header());
        let payloads = |records: &[Record]| {
            let mut batch = Batch::default();
            records.iter().for_each(|record| batch.push(*record));
            batch.finish()
        };
        let all = one_of_each();
        log.append(&key(), PAGE_LEN as u64, &payloads(&all))
            .unwrap();
        log.finish(&key()).unwrap();
        dir.publish_next().unwrap();
        for record in &all[1..3] {
            log.append(&key(), log.end(), &payloads(&[*record]))
                .unwrap();
            log.sync().unwrap();
        }
    }

    fn read(disk: &SimDisk) -> Result<(Vec<Record>, bool), ReplayError> {
        let mut records = Vec::new();
        let file = folder(disk).open_current().unwrap();
        let replayed = replay(file, &key(), &header(), |record| {
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
        let expected: Vec<_> = all.iter().chain(&all[1..3]).copied().collect();
        assert_eq!(read(&disk).unwrap(), (expected, false));
    }

    #[test]
    fn frames_out_of_order_or_of_another_file_are_refused() {
        for (from, to) in [(2, 3), (3, 2), (1, 2)] {
            let disk = SimDisk::new(1);
            written(&disk);
            let bytes = disk.bytes(path());
            for at in 0..PAGE_LEN {
                disk.damage(path(), (to * PAGE_LEN + at) as u64, |_| {
                    bytes[from * PAGE_LEN + at]
                });
            }
            let refused = read(&disk).unwrap_err();
            assert!(
                matches!(refused, ReplayError::Damaged { at, .. } if at == (to * PAGE_LEN) as u64),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_cut_file_loses_its_tail_and_never_its_checkpoint() {
        let whole = SimDisk::new(1);
        written(&whole);
        let len = whole.bytes(path()).len();
        for keep in (0..=len).step_by(512) {
            let disk = SimDisk::new(1);
            written(&disk);
            for at in keep..len {
                disk.damage(path(), at as u64, |_| 0);
            }
            match read(&disk) {
                Ok((records, _)) => assert!(keep >= PAGE_LEN + 512 && records.len() >= 5),
                Err(_) => assert!(keep < 2 * PAGE_LEN, "cut at {keep}"),
            }
        }
    }
}
