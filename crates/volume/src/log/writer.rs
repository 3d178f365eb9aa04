//! Appending to the metadata log, and making a new one.

use std::{io, sync::Arc};

use crypto::mac::MacKey;
use host::File;

use crate::log::{
    Batch, Record,
    frame::{self, FileHeader, FramePlace, PAGE_LEN, Payload, Tag},
};

/// Zeroes are written this far ahead, so that a flush overwrites blocks that exist: half the time of a sync that must
/// allocate (0.14 ms against 0.30), and no append runs out of space half-way.
const AHEAD_LEN: u64 = if cfg!(test) { 16 << 10 } else { 256 << 10 };

/// So much is kept ready behind what is appended, from a log's creation on, so that on a full disk a trim can still be
/// logged and thereby free space.
pub(crate) const RESERVE_LEN: u64 = AHEAD_LEN / 2;
/// So much of that is kept for the marks of flushes.
pub(crate) const MARKS_LEN: u64 = RESERVE_LEN / 4;

/// A log file, open for appending. Whoever has it is the only writer.
pub(crate) struct LogFile {
    file: Arc<dyn File>,
    header: FileHeader,
    /// Of the next frame.
    sequence: u64,
    /// The MAC of the last frame, or the file's seed.
    previous: Tag,
    /// Where the next frame goes.
    end: u64,
    /// Up to here the file is durable.
    durable: u64,
    /// Up to here the file has zeroes or frames.
    prepared: u64,
    /// The frames with lower sequences speak of slots that were synced, as a mark says.
    settled: u64,
    /// Reused for every append.
    buf: Vec<u8>,
}

/// A frame boundary in a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Of the frame that begins there.
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
}

impl LogFile {
    /// Begins a new file: append a checkpoint, [`finish`](Self::finish) it, and the file may take its place.
    pub(crate) fn create(file: Arc<dyn File>, key: &MacKey, header: FileHeader) -> Self {
        Self {
            file,
            previous: header.seed(key),
            header,
            sequence: 1,
            end: PAGE_LEN as u64,
            durable: PAGE_LEN as u64,
            prepared: PAGE_LEN as u64,
            settled: 1,
            buf: Vec::new(),
        }
    }

    /// Writes the header, which says that everything appended so far is the checkpoint, and makes the file durable.
    pub(crate) fn finish(&mut self, key: &MacKey) -> io::Result<()> {
        self.header.checkpoint_end = self.end;
        self.file.write_at(0, &self.header.encode(key))?;
        self.file.sync_data()?;
        self.durable = self.end;
        Ok(())
    }

    /// Goes on with a file of length `len` that was read to its `end`, and is durable up to there.
    pub(crate) fn resume(
        file: Arc<dyn File>,
        header: FileHeader,
        end: Position,
        previous: Tag,
        settled: u64,
        len: u64,
    ) -> Self {
        Self {
            file,
            header,
            sequence: end.sequence,
            previous,
            end: end.offset,
            durable: end.offset,
            prepared: len.max(end.offset),
            settled,
            buf: Vec::new(),
        }
    }

    pub(crate) fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The file itself, to be synced without a lock on the log.
    pub(crate) fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.file)
    }

    /// Length of what was appended, header included.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Where the next frame goes.
    pub(crate) fn position(&self) -> Position {
        Position {
            sequence: self.sequence,
            offset: self.end,
        }
    }

    /// What the last mark says.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether all that was appended is durable.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable == self.end
    }

    /// What was appended up to `end` was synced.
    pub(crate) fn synced(&mut self, end: u64) {
        self.durable = self.durable.max(end);
    }

    /// How much can be appended for certain.
    pub(crate) fn room(&self) -> u64 {
        self.prepared - self.end
    }

    /// Sees to it that so many bytes can be appended, and the reserve behind them if there is space for it; but `keep` of
    /// that in any case. An error has changed nothing.
    pub(crate) fn prepare(&mut self, need: u64, keep: u64) -> io::Result<()> {
        if self.room() >= need + RESERVE_LEN {
            return Ok(());
        }
        let to = (self.end + need + RESERVE_LEN).next_multiple_of(AHEAD_LEN);
        let len = usize::try_from(to - self.prepared).expect("a batch fits memory");
        match self.file.write_at(self.prepared, &vec![0; len]) {
            Ok(()) => {
                self.prepared = to;
                Ok(())
            }
            Err(_) if self.room() >= need + keep => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes everything behind the last frame zero, durably. It takes no space.
    pub(crate) fn clear_tail(&mut self) -> io::Result<()> {
        const LEN: usize = 64 << 10;
        let mut at = self.end;
        while at < self.prepared {
            let len = usize::try_from(self.prepared - at).map_or(LEN, |left| left.min(LEN));
            self.file.write_at(at, &vec![0; len])?;
            at += len as u64;
        }
        self.file.sync_data()
    }

    /// Appends payloads, a frame each. Durable after a sync of the file.
    pub(crate) fn append(&mut self, key: &MacKey, payloads: &[Payload]) -> io::Result<()> {
        self.buf.clear();
        for payload in payloads {
            let place = FramePlace {
                sequence: self.sequence,
                durable: self.durable,
                previous: self.previous,
            };
            self.previous = frame::encode(key, &place, payload, &mut self.buf);
            self.sequence += 1;
        }
        self.file.write_at(self.end, &self.buf)?;
        self.end += self.buf.len() as u64;
        self.prepared = self.prepared.max(self.end);
        Ok(())
    }

    /// Appends the mark that says that slots were synced after all frames with lower sequences were written.
    pub(crate) fn mark(&mut self, key: &MacKey, sequence: u64) -> io::Result<()> {
        let mut batch = Batch::default();
        batch.push(Record::Mark { sequence });
        // The mark itself has nothing to settle.
        let last = sequence == self.sequence;
        self.append(key, &batch.finish())?;
        self.settled = sequence + u64::from(last);
        Ok(())
    }
}
