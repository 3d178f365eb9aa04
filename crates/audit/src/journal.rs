//! The journal: the groups of records on their way into the segments, and what is known of them outside.
//!
//! A file of fixed length beside the log's folder, written over and over: overwriting synced blocks allocates
//! nothing and commits nothing in the file system's own journal, so its `fdatasync` is the cheapest there is, and the
//! segments, which people read, hold no padding. A group of records is durable when its frame is synced here; then
//! it is appended to the segment, which is synced only when half of the journal has filled. So the
//! journal always knows the last durable record and its digest, without a sync of its own.
//!
//! The file has two halves, filled in turn. A frame takes whole sectors of 512 bytes, each of which begins
//! with the group's number: a sector is written whole or not at all, so after a crash it is seen which groups were
//! begun, even if their frame's start is lost. `FORMAT.md` has the fields.

use std::{
    io::{
        self,
        ErrorKind::{InvalidInput, Unsupported},
    },
    path::Path,
    sync::Arc,
};

use crypto::hash::Sha256;
use host::{Disk, File, Mode};

use crate::chain::{self, Head, Link};

pub(crate) const SECTOR: usize = host::SECTOR_LEN;
/// A sector without the group's number.
const SECTOR_DATA: usize = SECTOR - 8;
/// Length of one half, in bytes: some 2000 records between two syncs of a segment.
pub(crate) const HALF_LEN: usize = 1 << 20;
/// Length of the file, in bytes.
pub(crate) const JOURNAL_LEN: usize = 2 * HALF_LEN;
const HEADER_LEN: usize = 192;
const MAGIC: &[u8; 4] = b"SGAJ";
const VERSION: u16 = 1;

/// What a frame says of its group, and of what is known when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Its number, rising by one over the log's life. The first is 1.
    pub(crate) group: u64,
    /// The last record of all before it; 0 if there is none.
    pub(crate) before: u64,
    /// The number of its first record, or of the next one if it has none. More than one after `before` if
    /// that record names the numbers between as lost.
    pub(crate) first: u64,
    /// Its records.
    pub(crate) count: u32,
    /// Length of its lines in bytes.
    pub(crate) len: u32,
    /// The segment its lines go to, by the number of its first record.
    pub(crate) segment: u64,
    /// Where in it, in bytes.
    pub(crate) offset: u64,
    /// The last group that was synced here when this one was written.
    pub(crate) durable: u64,
    /// The last record that was synced in a segment then.
    pub(crate) carried: u64,
    /// The oldest intent without an outcome then; 0 if there is none.
    pub(crate) open: u64,
    /// The digest of the last record of all before it.
    pub(crate) base: Link,
    /// The digest of its last record, or `base`.
    pub(crate) link: Link,
}

impl FrameHeader {
    /// The last record that is in the log once this group is.
    pub(crate) fn last(&self) -> u64 {
        match self.count {
            0 => self.before,
            count => (self.first - 1).saturating_add(u64::from(count)),
        }
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(MAGIC);
        put(&VERSION.to_be_bytes());
        put(&[0; 2]);
        put(&self.group.to_be_bytes());
        put(&self.before.to_be_bytes());
        put(&self.first.to_be_bytes());
        put(&self.count.to_be_bytes());
        put(&self.len.to_be_bytes());
        put(&self.segment.to_be_bytes());
        put(&self.offset.to_be_bytes());
        put(&self.durable.to_be_bytes());
        put(&self.carried.to_be_bytes());
        put(&self.open.to_be_bytes());
        put(&self.base);
        put(&self.link);
        let check = Sha256::digest(&out[..HEADER_LEN - 32]);
        out[HEADER_LEN - 32..].copy_from_slice(&check);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Option<Self>, NewerVersion> {
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            return Ok(None);
        };
        let (fields, check) = bytes.split_at(HEADER_LEN - 32);
        if !fields.starts_with(MAGIC) || Sha256::digest(fields) != *check {
            return Ok(None);
        }
        let version = u16::from_be_bytes([fields[4], fields[5]]);
        if version != VERSION {
            return Err(NewerVersion(version));
        }
        let mut at = 8;
        let mut take = |len: usize| {
            at += len;
            &fields[at - len..at]
        };
        let long = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight"));
        let short = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four"));
        let header = Self {
            group: long(take(8)),
            before: long(take(8)),
            first: long(take(8)),
            count: short(take(4)),
            len: short(take(4)),
            segment: long(take(8)),
            offset: long(take(8)),
            durable: long(take(8)),
            carried: long(take(8)),
            open: long(take(8)),
            base: take(32).try_into().expect("as long"),
            link: take(32).try_into().expect("as long"),
        };
        let sound =
            header.first > header.before && header.group >= 1 && header.durable < header.group;
        Ok(sound.then_some(header))
    }
}

/// A format of the journal that this build does not know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewerVersion(pub(crate) u16);

/// Appends a frame to `out`, whole sectors.
pub(crate) fn encode_frame(out: &mut Vec<u8>, header: &FrameHeader, lines: &[u8]) {
    let group = header.group.to_be_bytes();
    let head = header.encode();
    let end = out.len() + frame_len(lines.len());
    out.extend_from_slice(&group);
    out.extend_from_slice(&head);
    let (start, rest) = lines.split_at(lines.len().min(SECTOR_DATA - HEADER_LEN));
    out.extend_from_slice(start);
    for data in rest.chunks(SECTOR_DATA) {
        out.extend_from_slice(&group);
        out.extend_from_slice(data);
    }
    out.resize(end, 0);
}

/// Memory for one frame after another, at an address that direct I/O takes.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer(Vec<u8>);

impl FrameBuffer {
    /// The frame, in place of the one before.
    pub(crate) fn encode(&mut self, header: &FrameHeader, lines: &[u8]) -> &[u8] {
        self.0.clear();
        // Room for all of it first: the memory must not move once its address is looked at.
        self.0.reserve(frame_len(lines.len()) + host::DIRECT_ALIGN);
        let start = self.0.as_ptr().align_offset(host::DIRECT_ALIGN);
        self.0.resize(start, 0);
        encode_frame(&mut self.0, header, lines);
        &self.0[start..]
    }
}

/// Opens the journal past the page cache if it can be written so, which costs a group a third less: its bytes are not
/// copied, and a sync looks for no page to write. Writes `first` anew, the frame that stands at the start, to know.
pub(crate) fn open(disk: &dyn Disk, path: &Path, first: &FrameHeader) -> io::Result<Arc<dyn File>> {
    let direct = disk.open_direct(path).and_then(|file| {
        file.write_at(0, FrameBuffer::default().encode(first, &[]))?;
        Ok(file)
    });
    match direct {
        Err(error) if matches!(error.kind(), Unsupported | InvalidInput) => {
            disk.open(path, Mode::Write)
        }
        opened => opened,
    }
}

/// How many bytes a frame with so many bytes of lines takes.
pub(crate) fn frame_len(lines: usize) -> usize {
    (HEADER_LEN + lines).div_ceil(SECTOR_DATA) * SECTOR
}

/// A frame found in the file.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) header: FrameHeader,
    /// Its lines, if every sector is there and the chain through them ends where the header says.
    pub(crate) lines: Option<Vec<u8>>,
    /// Where it stands, in bytes.
    at: usize,
}

/// What the file holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Frames whose header reads, by rising group. Older ones may have lost their lines to newer ones.
    pub(crate) frames: Vec<Found>,
    /// The highest group number at the start of any sector.
    pub(crate) begun: u64,
    /// Where the first such sector stands, in bytes.
    begun_at: usize,
    /// Length of the file, in bytes.
    len: usize,
}

impl Survey {
    /// The last record that a frame knows to have been durable when it was written.
    pub(crate) fn durable(&self) -> u64 {
        let headers = || self.frames.iter().map(|found| found.header);
        let durable = headers().map(|header| header.durable).max().unwrap_or(0);
        headers()
            .map(|header| match header.group {
                group if group <= durable => header.last(),
                group if group == durable + 1 => header.before,
                _ => 0,
            })
            .chain(headers().map(|header| header.carried))
            .max()
            .unwrap_or(0)
    }
}

impl Survey {
    /// The last group whose frame's header reads.
    pub(crate) fn last_group(&self) -> u64 {
        self.frames.last().map_or(0, |found| found.header.group)
    }

    /// The last record that is known to be synced in a segment.
    pub(crate) fn carried(&self) -> u64 {
        let carried = self.frames.iter().map(|found| found.header.carried);
        carried.max().unwrap_or(0)
    }

    /// The first frame of the last half that was filled, if another was begun of which the first frame does not read.
    ///
    /// A half is written over when a segment has all that is in it. The frames that say so are the new ones. If they are
    /// torn, what the older ones say of the segments leads into what they have overwritten.
    pub(crate) fn last_filled(&self) -> Option<&Found> {
        let half = self.len / 2;
        let first = |at| self.frames.iter().find(|found| found.at == at);
        let (this, other) = match self.begun_at < half {
            true => (0, half),
            false => (half, 0),
        };
        let filled = first(other)?;
        let torn = first(this).is_none_or(|found| found.header.group < filled.header.group);
        torn.then_some(filled)
    }

    /// The whole frames with records that go on, one after another, from `head`.
    pub(crate) fn after(&self, head: Head) -> impl Iterator<Item = (&FrameHeader, &[u8])> {
        let mut head = head;
        self.frames.iter().filter_map(move |found| {
            let header = &found.header;
            let lines = found.lines.as_deref()?;
            let goes_on =
                header.count > 0 && (header.before, header.base) == (head.last, head.link);
            goes_on.then(|| {
                head = Head {
                    last: header.last(),
                    link: header.link,
                };
                (header, lines)
            })
        })
    }
}

/// Reads whatever of a journal still reads.
pub(crate) fn survey(bytes: &[u8]) -> Result<Survey, NewerVersion> {
    let mut survey = Survey {
        len: bytes.len(),
        ..Survey::default()
    };
    for (index, sector) in bytes.chunks_exact(SECTOR).enumerate() {
        let (tag, data) = sector.split_at(8);
        let group = u64::from_be_bytes(tag.try_into().expect("eight"));
        if group > survey.begun {
            (survey.begun, survey.begun_at) = (group, index * SECTOR);
        }
        if let Some(header) = FrameHeader::decode(data)?
            && header.group == group
        {
            let lines = lines_of(&header, &bytes[index * SECTOR..]);
            let at = index * SECTOR;
            survey.frames.push(Found { header, lines, at });
        }
    }
    survey.frames.sort_by_key(|found| found.header.group);
    Ok(survey)
}

fn lines_of(header: &FrameHeader, bytes: &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(header.len).ok()?;
    let bytes = bytes.get(..frame_len(len))?;
    if frame_len(len) > HALF_LEN {
        return None;
    }
    let mut lines = Vec::with_capacity(len + SECTOR);
    for (index, sector) in bytes.chunks_exact(SECTOR).enumerate() {
        let (tag, data) = sector.split_at(8);
        if tag != header.group.to_be_bytes() {
            return None;
        }
        lines.extend_from_slice(if index == 0 {
            &data[HEADER_LEN..]
        } else {
            data
        });
    }
    lines.truncate(len);
    let mut head = Head {
        last: header.before,
        link: header.base,
    };
    let whole = chain::take_lines(&lines, &mut head, |_, _| {});
    (whole == len && head.last == header.last() && head.link == header.link).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(group: u64, first: u64, records: usize) -> (FrameHeader, Vec<u8>) {
        let mut lines = Vec::new();
        let mut link = [1; 32];
        for n in 0..records {
            let rest = format!("\"pad\":\"{}\"", "x".repeat(n * 97));
            link = chain::write(&mut lines, first + n as u64, &link, false, rest.as_bytes());
        }
        let header = FrameHeader {
            group,
            before: first - 1,
            first,
            count: u32::try_from(records).unwrap(),
            len: u32::try_from(lines.len()).unwrap(),
            segment: 1,
            offset: 77,
            durable: group - 1,
            carried: 0,
            open: 0,
            base: [1; 32],
            link,
        };
        (header, lines)
    }

    #[test]
    fn a_frame_reads_as_it_was_written_whatever_its_length() {
        for records in 0..30 {
            let (header, lines) = group(9, 100, records);
            let mut frame = Vec::new();
            encode_frame(&mut frame, &header, &lines);
            assert_eq!(frame.len(), frame_len(lines.len()));
            let found = survey(&frame).unwrap();
            assert_eq!(found.begun, 9);
            assert_eq!(found.frames.len(), 1);
            assert_eq!(found.frames[0].header, header);
            assert_eq!(found.frames[0].lines.as_deref(), Some(lines.as_slice()));
        }
    }

    #[test]
    fn a_lost_sector_is_seen_and_what_the_header_says_stays_known() {
        let (header, lines) = group(9, 100, 10);
        let mut frame = Vec::new();
        encode_frame(&mut frame, &header, &lines);
        for lost in 0..frame.len() / SECTOR {
            let mut torn = frame.clone();
            torn[lost * SECTOR..(lost + 1) * SECTOR].fill(0);
            let found = survey(&torn).unwrap();
            assert_eq!(found.begun, 9, "sector {lost}");
            assert_eq!(found.frames.len(), usize::from(lost > 0));
            assert!(found.frames.iter().all(|f| f.lines.is_none()));
        }
    }

    #[test]
    fn another_version_is_refused() {
        let (header, _) = group(1, 1, 0);
        let mut bytes = header.encode();
        bytes[5] = 2;
        let check = Sha256::digest(&bytes[..HEADER_LEN - 32]);
        bytes[HEADER_LEN - 32..].copy_from_slice(&check);
        assert_eq!(FrameHeader::decode(&bytes), Err(NewerVersion(2)));
    }
}
