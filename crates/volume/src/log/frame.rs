//! The file header and the frames of the metadata log: `FORMAT.md`, "Metadata log".
//!
//! Pure: bytes in, bytes out. Frames follow one another without gaps, each a multiple of 8 bytes long. Appending rewrites
//! the 512-byte block in which the last frame ends; a crash leaves that block old or new, and both hold the earlier frames.

use crypto::{hash::Crc32c, mac::MacKey};

use crate::{
    VolumeId,
    geometry::{CHUNK_LEN, CHUNK_SECTORS, SECTOR_LEN},
};

/// Bytes of a MAC.
const TAG_LEN: usize = 32;
/// HMAC-SHA256.
pub(crate) type Tag = [u8; TAG_LEN];

/// Length of the file header's page.
pub(crate) const PAGE_LEN: usize = 4096;
/// Frames begin on multiples of this, and are as long as some of them.
pub(crate) const FRAME_ALIGN: usize = 8;
/// What a crash leaves old or new as a whole.
pub(crate) const BLOCK_LEN: usize = 512;
/// Length of the file header, checksum and MAC included. The rest of its page is zero.
const FILE_HEADER_LEN: usize = 100;
const FILE_MAGIC: [u8; 8] = *b"SGVOLMAP";
const FORMAT_VERSION: u16 = 3;
/// Flag of the file header: the volume is sealed, and the MAC is secret.
const FLAG_SEALED: u16 = 1;

/// The geometry as the file header says it, so that a program with another refuses the log.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
const SECTOR_LEN_32: u32 = SECTOR_LEN as u32;

const FRAME_MAGIC: [u8; 4] = *b"SGMF";
const FRAME_HEADER_LEN: usize = 64;
/// Four zeroes, checksum and MAC behind the payload.
const FRAME_TRAILER_LEN: usize = 8 + TAG_LEN;
/// Of a frame, what is not its payload.
pub(crate) const FRAME_OVERHEAD: usize = FRAME_HEADER_LEN + FRAME_TRAILER_LEN;
/// Longest frame. Bounds what is read before it is known to be right.
pub(crate) const FRAME_LEN_MAX: usize = 64 << 10;
/// Longest payload of a frame.
pub(crate) const PAYLOAD_LEN_MAX: usize = FRAME_LEN_MAX - FRAME_HEADER_LEN - FRAME_TRAILER_LEN;

fn crc32c(bytes: &[u8]) -> u32 {
    Crc32c::digest(bytes)
}

/// Which log a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// The volume it belongs to.
    pub(crate) volume: VolumeId,
    /// Whether that is sealed.
    pub(crate) sealed: bool,
    /// Size of the volume, in bytes.
    pub(crate) size: u64,
    /// Rises by one with every file that takes another's place.
    pub(crate) epoch: u64,
    /// Up to here the file was durable before it took its place: a hole in there is damage.
    pub(crate) checkpoint_end: u64,
}

impl FileHeader {
    /// What the first frame of the file continues. Says all that the header does but where the checkpoint ends, which is
    /// not known when the first frame is written.
    pub(crate) fn seed(&self, key: &MacKey) -> Tag {
        let page = self.encode(key);
        key.mac(&[b"seed", &page[..56]])
    }

    /// The first page of a file.
    pub(crate) fn encode(&self, key: &MacKey) -> [u8; PAGE_LEN] {
        let mut page = [0; PAGE_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            page[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&FILE_MAGIC);
        put(&FORMAT_VERSION.to_le_bytes());
        put(&(if self.sealed { FLAG_SEALED } else { 0 }).to_le_bytes());
        put(&[0; 4]);
        put(&self.volume.to_bytes());
        put(&self.epoch.to_le_bytes());
        put(&self.size.to_le_bytes());
        put(&(SECTOR_LEN_32 * CHUNK_SECTORS).to_le_bytes());
        put(&SECTOR_LEN_32.to_le_bytes());
        put(&self.checkpoint_end.to_le_bytes());
        debug_assert_eq!(at, FILE_HEADER_LEN - 4 - TAG_LEN);
        let checksum = crc32c(&page[..64]);
        page[64..68].copy_from_slice(&checksum.to_le_bytes());
        let tag = key.mac(&[&page[..68]]);
        page[68..FILE_HEADER_LEN].copy_from_slice(&tag);
        page
    }

    /// Reads a file's first page, which is durable before the file gets its name: whatever is wrong with it is damage.
    pub(crate) fn decode(page: &[u8; PAGE_LEN], key: &MacKey) -> Result<Self, &'static str> {
        if page[..8] != FILE_MAGIC {
            return Err("not a metadata log");
        }
        if crc32c(&page[..64]) != number_32(page, 64) {
            return Err("the checksum of the file header does not match");
        }
        let version_and_flags = number_32(page, 8);
        let (version, flags) = (version_and_flags & 0xffff, version_and_flags >> 16);
        if version != u32::from(FORMAT_VERSION) {
            return Err("a format version that this program does not know");
        }
        if flags & !u32::from(FLAG_SEALED) != 0
            || u64::from(number_32(page, 48)) != CHUNK_LEN
            || number_32(page, 52) != SECTOR_LEN_32
            || page[12..16] != [0; 4]
            || !is_zero(&page[FILE_HEADER_LEN..])
        {
            return Err("the file header has values that this program does not know");
        }
        let tag = array(page, 68);
        if key.verify(&[&page[..68]], &tag).is_err() {
            return Err("the file header is not authentic");
        }
        Ok(Self {
            volume: VolumeId::from_bytes(array(page, 16)).ok_or("no volume id")?,
            sealed: flags & u32::from(FLAG_SEALED) != 0,
            size: number_64(page, 40),
            epoch: number_64(page, 32),
            checkpoint_end: number_64(page, 56),
        })
    }
}

/// Where the checkpoint ends of a log that begins with this page, as far as that can be said without its key: it may be
/// forged.
pub(crate) fn outline(page: &[u8; PAGE_LEN], volume: VolumeId) -> Result<u64, &'static str> {
    if page[..8] != FILE_MAGIC {
        return Err("not a metadata log");
    }
    if crc32c(&page[..64]) != number_32(page, 64) {
        return Err("the checksum of the file header does not match");
    }
    if number_32(page, 8) & 0xffff != u32::from(FORMAT_VERSION) {
        return Err("a format version that this program does not know");
    }
    if array::<16>(page, 16) != volume.to_bytes() {
        return Err("the log of another volume");
    }
    Ok(number_64(page, 56))
}

/// Where in the log a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramePlace {
    /// Counts the frames of a file, from 1.
    pub(crate) sequence: u64,
    /// Up to here the file was durable when the frame was written.
    pub(crate) durable: u64,
    /// The MAC of the frame before, or the file's seed.
    pub(crate) previous: Tag,
}

/// The records of one frame. Their length is a multiple of [`FRAME_ALIGN`], as each record's is.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
}

/// Length of a payload's frame in the file.
pub(crate) fn len_of(payload: &Payload) -> usize {
    FRAME_OVERHEAD + payload.bytes.len()
}

/// Appends a frame to `out` and gives its MAC.
pub(crate) fn encode(
    key: &MacKey,
    place: &FramePlace,
    payload: &Payload,
    out: &mut Vec<u8>,
) -> Tag {
    let start = out.len();
    let len = len_of(payload);
    assert!(len <= FRAME_LEN_MAX, "batches are cut into frames");
    assert!(len.is_multiple_of(FRAME_ALIGN), "records are padded");
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&u32::try_from(len).expect("at most 64 KiB").to_le_bytes());
    out.extend_from_slice(&place.sequence.to_le_bytes());
    out.extend_from_slice(&place.durable.to_le_bytes());
    out.extend_from_slice(&payload.count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&place.previous);
    let header_checksum = crc32c(&out[start..start + FRAME_HEADER_LEN]);
    out[start + 28..start + 32].copy_from_slice(&header_checksum.to_le_bytes());
    out.extend_from_slice(&payload.bytes);
    out.extend_from_slice(&[0; 4]);
    let checksum = crc32c(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    let tag = key.mac(&[&out[start..]]);
    // Last, so that a frame whose end was not written ends with zeroes and one that was never does.
    out.extend_from_slice(&tag);
    tag
}

/// A frame that was read and is authentic.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) place: FramePlace,
    pub(crate) tag: Tag,
    pub(crate) count: u32,
    pub(crate) payload: &'a [u8],
    /// In the file.
    pub(crate) len: u64,
}

/// Why there is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// A block of it was never written.
    Unwritten,
    /// It was written, and is not what was written.
    Damaged(&'static str),
}

/// Reads the frame that begins with `bytes`, which begin at `at` in the file and are as much as there is of it, up to
/// [`FRAME_LEN_MAX`]. A frame that reaches past the end of the file was not written: the file had its length before.
pub(crate) fn decode<'a>(key: &MacKey, at: u64, bytes: &'a [u8]) -> Result<Frame<'a>, NoFrame> {
    if is_zero(first_block(at, bytes)) {
        return Err(NoFrame::Unwritten);
    }
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_LEN>() else {
        return Err(NoFrame::Unwritten);
    };
    let mut header = *header;
    let header_checksum = number_32(&header, 28);
    header[28..32].fill(0);
    if header[..4] != FRAME_MAGIC || crc32c(&header) != header_checksum {
        return Err(if has_hole(at, &bytes[..FRAME_HEADER_LEN]) {
            NoFrame::Unwritten
        } else {
            NoFrame::Damaged("a frame's header does not match its checksum")
        });
    }
    let len = number_32(&header, 4) as usize;
    if !(FRAME_OVERHEAD..=FRAME_LEN_MAX).contains(&len) || !len.is_multiple_of(FRAME_ALIGN) {
        return Err(NoFrame::Damaged("a frame's length is out of bounds"));
    }
    let Some(frame) = bytes.get(..len) else {
        return Err(NoFrame::Unwritten);
    };
    let (body, tag) = frame.split_at(len - TAG_LEN);
    let (covered, checksum) = body.split_at(body.len() - 4);
    let wrong = |why| {
        Err(if has_hole(at, frame) {
            NoFrame::Unwritten
        } else {
            NoFrame::Damaged(why)
        })
    };
    if crc32c(covered) != number_32(checksum, 0) {
        return wrong("a frame does not match its checksum");
    }
    let (payload, zeroes) = covered[FRAME_HEADER_LEN..].split_at(len - FRAME_OVERHEAD);
    let tag = array(tag, 0);
    if key.verify(&[body], &tag).is_err() {
        return wrong("a frame is not authentic");
    }
    if zeroes != [0; 4] {
        return Err(NoFrame::Damaged("a frame's padding is not zero"));
    }
    Ok(Frame {
        place: FramePlace {
            sequence: number_64(&header, 8),
            durable: number_64(&header, 16),
            previous: array(&header, 32),
        },
        tag,
        count: number_32(&header, 24),
        payload,
        len: len as u64,
    })
}

/// The bytes up to the end of the block that `at` is in.
fn first_block(at: u64, bytes: &[u8]) -> &[u8] {
    let within = usize::try_from(at % BLOCK_LEN as u64).expect("below BLOCK_LEN");
    &bytes[..bytes.len().min(BLOCK_LEN - within)]
}

/// Whether a part of a frame, or of its header, was not written: its bytes in one block are all zero, or the last 8 of it
/// are. What was written whole has neither: a frame begins with its magic number and ends with its MAC, a header ends with
/// a MAC, and no record has so many zeroes.
fn has_hole(at: u64, part: &[u8]) -> bool {
    if part.len() < FRAME_ALIGN {
        return false;
    }
    if is_zero(&part[part.len() - FRAME_ALIGN..]) {
        return true;
    }
    let (mut at, mut rest) = (at, part);
    while !rest.is_empty() {
        let block = first_block(at, rest);
        if is_zero(block) {
            return true;
        }
        at += block.len() as u64;
        rest = &rest[block.len()..];
    }
    false
}

/// Where in `bytes` a frame may begin, beginning itself on a multiple of [`FRAME_ALIGN`]: for looking behind the end.
pub(crate) fn starts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let starts = bytes.chunks_exact(FRAME_ALIGN).enumerate();
    starts
        .filter(|(_, chunk)| chunk.starts_with(&FRAME_MAGIC))
        .map(|(n, _)| n * FRAME_ALIGN)
}

/// Whether nothing was written there. At most a page.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    *bytes == [0; PAGE_LEN][..bytes.len()]
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the range has that length")
}

fn number_32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn number_64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Batch, record::tests::one_of_each};

    /// Where the frames are, in the middle of a block.
    const AT: u64 = 8192 + 400;

    fn key() -> MacKey {
        MacKey::public("test")
    }

    fn header() -> FileHeader {
        FileHeader {
            volume: "vol-0123456789abcdef0".parse().unwrap(),
            sealed: true,
            size: 1 << 30,
            epoch: 7,
            checkpoint_end: 8192,
        }
    }

    fn frame() -> Vec<u8> {
        let mut batch = Batch::default();
        for record in one_of_each() {
            batch.push(record);
        }
        let place = FramePlace {
            sequence: 3,
            durable: 8192,
            previous: [9; TAG_LEN],
        };
        let mut out = Vec::new();
        encode(&key(), &place, &batch.finish()[0], &mut out);
        out
    }

    #[test]
    fn a_header_reads_back_and_every_changed_bit_is_seen() {
        let page = header().encode(&key());
        assert_eq!(FileHeader::decode(&page, &key()).unwrap(), header());
        for bit in 0..(FILE_HEADER_LEN + 20) * 8 {
            let mut page = page;
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&page, &key()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_reads_back_and_every_changed_bit_is_damage() {
        let bytes = frame();
        let read = decode(&key(), AT, &bytes).unwrap();
        assert_eq!((read.place.sequence, read.place.durable), (3, 8192));
        let count = one_of_each().len();
        assert_eq!(read.count as usize, count);
        assert_eq!(read.len, bytes.len() as u64);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(decode(&key(), AT, &bytes), Err(NoFrame::Damaged(_))),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_frame_with_a_missing_block_was_not_written() {
        let mut batch = Batch::default();
        for n in 0..500 {
            batch.push(crate::log::Record::of(
                crate::geometry::LayerId(0),
                crate::geometry::Chunk(2 * n),
                None,
            ));
        }
        let place = FramePlace {
            sequence: 1,
            durable: 4096,
            previous: [0; TAG_LEN],
        };
        let mut bytes = Vec::new();
        encode(&key(), &place, &batch.finish()[0], &mut bytes);
        let len = bytes.len();
        // By block of the disk.
        let mut start = 0;
        while start < len {
            let end = start + first_block(AT + start as u64, &bytes[start..]).len();
            let mut torn = bytes.clone();
            torn[start..end].fill(0);
            assert_eq!(decode(&key(), AT, &torn).unwrap_err(), NoFrame::Unwritten);
            start = end;
        }
        // By a write that was cut short, wherever.
        for cut in (0..len).step_by(8) {
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            assert_eq!(decode(&key(), AT, &torn).unwrap_err(), NoFrame::Unwritten);
        }
        for cut in 0..len {
            let torn = &bytes[..cut];
            assert_eq!(decode(&key(), AT, torn).unwrap_err(), NoFrame::Unwritten);
        }
    }
}
