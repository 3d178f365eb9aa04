//! The file header and the frames of the metadata log: `FORMAT.md`, "Metadata log".
//!
//! Pure: bytes in, bytes out. A frame begins on a page of 4096 bytes, so that appending never touches a page that is
//! durable already, and its header lies within the first block of 512 bytes, which a crash leaves zero or right.

use crypto::{hash::Crc32c, mac::MacKey};

use crate::{
    VolumeId,
    geometry::{CHUNK_LEN, CHUNK_SECTORS, SECTOR_LEN},
};

/// Bytes of a MAC.
const TAG_LEN: usize = 32;
/// HMAC-SHA256.
pub(crate) type Tag = [u8; TAG_LEN];

/// Frames begin on multiples of this.
pub(crate) const PAGE_LEN: usize = 4096;
/// What a crash leaves zero or right.
pub(crate) const BLOCK_LEN: usize = 512;
/// Length of the file header, checksum and MAC included. The rest of its page is zero.
const FILE_HEADER_LEN: usize = 100;
const FILE_MAGIC: [u8; 8] = *b"SGVOLMAP";
const FORMAT_VERSION: u16 = 1;
/// Flag of the file header: the volume is sealed, and the MAC is secret.
const FLAG_SEALED: u16 = 1;

/// The geometry as the file header says it, so that a program with another refuses the log.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
const SECTOR_LEN_32: u32 = SECTOR_LEN as u32;

const FRAME_MAGIC: [u8; 4] = *b"SGMF";
const FRAME_HEADER_LEN: usize = 64;
/// Checksum and MAC behind the payload.
const FRAME_TRAILER_LEN: usize = 4 + TAG_LEN;
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
        debug_assert_eq!(at, FILE_HEADER_LEN - FRAME_TRAILER_LEN);
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

/// Where in the log a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramePlace {
    /// Counts the frames of a file, from 1.
    pub(crate) sequence: u64,
    /// Where in the file the batch begins that the frame belongs to. Everything before was durable when the frame was
    /// written.
    pub(crate) batch_start: u64,
    /// The MAC of the frame before, or the file's seed.
    pub(crate) previous: Tag,
}

/// The records of one frame.
#[derive(Default)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
}

/// Length of a payload's frame in the file, padding included.
pub(crate) fn len_of(payload: &Payload) -> usize {
    (FRAME_HEADER_LEN + payload.bytes.len() + FRAME_TRAILER_LEN).next_multiple_of(PAGE_LEN)
}

/// Appends a frame to `out`, padded to whole pages with zeroes, and gives its MAC.
pub(crate) fn encode(
    key: &MacKey,
    place: &FramePlace,
    payload: &Payload,
    out: &mut Vec<u8>,
) -> Tag {
    let start = out.len();
    let len = FRAME_HEADER_LEN + payload.bytes.len() + FRAME_TRAILER_LEN;
    assert!(len <= FRAME_LEN_MAX, "batches are cut into frames");
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&u32::try_from(len).expect("at most 64 KiB").to_le_bytes());
    out.extend_from_slice(&place.sequence.to_le_bytes());
    out.extend_from_slice(&place.batch_start.to_le_bytes());
    out.extend_from_slice(&payload.count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&place.previous);
    let header_checksum = crc32c(&out[start..start + FRAME_HEADER_LEN]);
    out[start + 28..start + 32].copy_from_slice(&header_checksum.to_le_bytes());
    out.extend_from_slice(&payload.bytes);
    let checksum = crc32c(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    let tag = key.mac(&[&out[start..]]);
    out.extend_from_slice(&tag);
    out.resize(start + len.next_multiple_of(PAGE_LEN), 0);
    tag
}

/// A frame that was read and is authentic.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) place: FramePlace,
    pub(crate) tag: Tag,
    pub(crate) count: u32,
    pub(crate) payload: &'a [u8],
    /// In the file, padding included.
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

/// Reads the frame that begins with `bytes` (as much as there is of the file, up to [`FRAME_LEN_MAX`]; what is behind
/// the end counts as zero).
pub(crate) fn decode<'a>(key: &MacKey, bytes: &'a [u8]) -> Result<Frame<'a>, NoFrame> {
    let first_block = &bytes[..bytes.len().min(BLOCK_LEN)];
    if is_zero(first_block) {
        return Err(NoFrame::Unwritten);
    }
    if bytes.len() < FRAME_HEADER_LEN {
        return Err(NoFrame::Damaged("a frame's header is cut short"));
    }
    let mut header: [u8; FRAME_HEADER_LEN] = array(bytes, 0);
    let header_checksum = number_32(&header, 28);
    header[28..32].fill(0);
    if header[..4] != FRAME_MAGIC || crc32c(&header) != header_checksum {
        return Err(NoFrame::Damaged(
            "a frame's header does not match its checksum",
        ));
    }
    let len = number_32(&header, 4) as usize;
    if !(FRAME_HEADER_LEN + FRAME_TRAILER_LEN..=FRAME_LEN_MAX).contains(&len) {
        return Err(NoFrame::Damaged("a frame's length is out of bounds"));
    }
    let Some(frame) = bytes.get(..len) else {
        return Err(NoFrame::Unwritten);
    };
    let (body, tag) = frame.split_at(len - TAG_LEN);
    let (covered, checksum) = body.split_at(body.len() - 4);
    if crc32c(covered) != number_32(checksum, 0) {
        let hole = frame.chunks(BLOCK_LEN).any(is_zero);
        return Err(if hole {
            NoFrame::Unwritten
        } else {
            NoFrame::Damaged("a frame does not match its checksum")
        });
    }
    let tag = array(tag, 0);
    if key.verify(&[body], &tag).is_err() {
        return Err(NoFrame::Damaged("a frame is not authentic"));
    }
    Ok(Frame {
        place: FramePlace {
            sequence: number_64(&header, 8),
            batch_start: number_64(&header, 16),
            previous: array(&header, 32),
        },
        tag,
        count: number_32(&header, 24),
        payload: &covered[FRAME_HEADER_LEN..],
        len: len.next_multiple_of(PAGE_LEN) as u64,
    })
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
            batch_start: 8192,
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
        let read = decode(&key(), &bytes).unwrap();
        assert_eq!((read.place.sequence, read.place.batch_start), (3, 8192));
        assert_eq!((read.count, read.len), (5, 4096));
        let end = FRAME_HEADER_LEN + read.payload.len() + FRAME_TRAILER_LEN;
        for bit in 0..end * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(decode(&key(), &bytes), Err(NoFrame::Damaged(_))),
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
            batch_start: 4096,
            previous: [0; TAG_LEN],
        };
        let mut bytes = Vec::new();
        encode(&key(), &place, &batch.finish()[0], &mut bytes);
        let blocks = (500 * 16 + FRAME_HEADER_LEN + FRAME_TRAILER_LEN).div_ceil(BLOCK_LEN);
        for block in 0..blocks {
            let mut torn = bytes.clone();
            let end = ((block + 1) * BLOCK_LEN).min(torn.len());
            torn[block * BLOCK_LEN..end].fill(0);
            assert_eq!(decode(&key(), &torn).unwrap_err(), NoFrame::Unwritten);
        }
        assert_eq!(
            decode(&key(), &bytes[..BLOCK_LEN]).unwrap_err(),
            NoFrame::Unwritten
        );
    }
}
