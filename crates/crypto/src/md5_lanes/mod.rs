//! MD5 (RFC 1321) of many streams at once.
//!
//! For the object gateway, whose entity tags are MD5s: a step of MD5 waits for
//! the one before it, so a core computes one digest at a tenth of what it could
//! do, and as many as a register has lanes in about the same time. A [`Stream`]
//! is one digest in the making; [`Lanes::update`] takes in bytes of many.
//!
//! Promises: the digests are those of RFC 1321, whatever the kernel, the number
//! of streams, their lengths and how their bytes are cut into pieces; no bytes
//! are copied but those of blocks cut in two; up to 63 bytes of plaintext stay in
//! a stream and are wiped where it is dropped, though not where it was moved from. Kernels as in [`kernel`](crate::kernel):
//! chosen once a process, pinned by [`Lanes::with_kernel`] for tests and benches.
//!
//! Does not: resist anybody. MD5 is here because S3 promises it. Registers and
//! the stack are not wiped.

mod kernel;
mod rfc1321;
#[cfg(target_arch = "x86_64")]
mod x86;

use zeroize::Zeroize;

use crate::CryptoError;
#[cfg(target_arch = "x86_64")]
use rfc1321::Words;
use rfc1321::{BLOCK_LEN, Block};

pub use kernel::Kernel;

/// The MD5 of one message in the making.
#[derive(Clone)]
pub struct Stream {
    words: [u32; 4],
    /// The block begun; `tail_len` bytes of it are there.
    tail: Block,
    tail_len: usize,
    /// All bytes taken in, modulo 2^64.
    len: u64,
}

impl Stream {
    /// Starts a digest.
    pub fn new() -> Self {
        Self {
            words: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            tail: [0; BLOCK_LEN],
            tail_len: 0,
            len: 0,
        }
    }

    /// Takes in more bytes of this stream alone.
    pub fn update(&mut self, data: &[u8]) {
        self.len = self.len.wrapping_add(data.len() as u64);
        let mut rest = data;
        if self.tail_len > 0 {
            rest = self.fill_tail(rest);
            if self.tail_len < BLOCK_LEN {
                return;
            }
            md5::block_api::compress(&mut self.words, &[self.tail]);
        }
        let (blocks, rest) = rest.as_chunks::<BLOCK_LEN>();
        md5::block_api::compress(&mut self.words, blocks);
        self.tail[..rest.len()].copy_from_slice(rest);
        self.tail_len = rest.len();
    }

    /// The digest of all bytes taken in.
    pub fn finish(mut self) -> [u8; 16] {
        // RFC 1321, 3.1 and 3.2: one bit, zeroes up to 56 bytes of a block, and the
        // length in bits, modulo 2^64.
        let bits = self.len.wrapping_mul(8);
        let mut padding = [0; BLOCK_LEN + 8];
        padding[0] = 0x80;
        let zeroes = (2 * BLOCK_LEN - 9 - self.tail_len) % BLOCK_LEN;
        let end = 1 + zeroes;
        padding[end..end + 8].copy_from_slice(&bits.to_le_bytes());
        self.update(&padding[..end + 8]);
        debug_assert_eq!(self.tail_len, 0);
        let mut digest = [0; 16];
        for (out, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.words) {
            *out = word.to_le_bytes();
        }
        digest
    }

    /// Moves bytes into the block begun and gives those for which it has no room.
    fn fill_tail<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let (into, rest) = data.split_at(data.len().min(BLOCK_LEN - self.tail_len));
        self.tail[self.tail_len..][..into.len()].copy_from_slice(into);
        self.tail_len += into.len();
        rest
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.words.zeroize();
        self.tail.zeroize();
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Md5Stream({} bytes)", self.len)
    }
}

/// A stream and the bytes it is to take in next, in order.
#[derive(Debug)]
pub struct Job<'a> {
    stream: &'a mut Stream,
    pieces: &'a [&'a [u8]],
}

impl<'a> Job<'a> {
    /// Gives `stream` these bytes to take in.
    pub fn new(stream: &'a mut Stream, pieces: &'a [&'a [u8]]) -> Self {
        Self { stream, pieces }
    }
}

/// Takes in bytes of many streams, with a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    kernel: Kernel,
}

impl Lanes {
    /// With the fastest kernel.
    pub fn new() -> Self {
        Self {
            kernel: Kernel::detect(),
        }
    }

    /// With a kernel of the caller's choice; fails if the processor cannot run it.
    pub fn with_kernel(kernel: Kernel) -> Result<Self, CryptoError> {
        if kernel.is_available() {
            Ok(Self { kernel })
        } else {
            Err(CryptoError::KernelUnavailable {
                kernel: kernel.name(),
            })
        }
    }

    /// The kernel that runs.
    pub fn kernel(self) -> Kernel {
        self.kernel
    }

    /// Every stream takes in all of its bytes. Jobs beyond the number of lanes
    /// follow as lanes fall free, so the longest should come first.
    pub fn update(self, jobs: &mut [Job<'_>]) {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 if jobs.len() > Kernel::Avx2.lanes() => run(jobs, x86::lanes16),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 | Kernel::Avx2 => run(jobs, x86::lanes8),
            _ => {
                for job in jobs {
                    for piece in job.pieces {
                        job.stream.update(piece);
                    }
                }
            }
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self::new()
    }
}

/// Fewer lanes than this at work, and scalar code is as fast (benches/README.md).
#[cfg(target_arch = "x86_64")]
const LANES_MIN: usize = 2;

/// Feeds lanes with jobs until none is left.
#[cfg(target_arch = "x86_64")]
fn run<const LANES: usize>(
    jobs: &mut [Job<'_>],
    compress: impl Fn(&mut Words<LANES>, &[&[Block]; LANES], usize),
) {
    let mut jobs = jobs.iter_mut();
    let mut lanes: [Option<Lane<'_>>; LANES] = [const { None }; LANES];
    let mut words: Words<LANES> = [[0; LANES]; 4];
    loop {
        let mut at_work = 0;
        for (index, slot) in lanes.iter_mut().enumerate() {
            while !slot.as_mut().is_some_and(Lane::has_block) {
                if let Some(done) = slot.take() {
                    done.stream.words = column(&words, index);
                }
                let Some(job) = jobs.next() else {
                    break;
                };
                for (row, word) in words.iter_mut().zip(job.stream.words) {
                    row[index] = word;
                }
                *slot = Some(Lane::new(job));
            }
            at_work += usize::from(slot.is_some());
        }
        if at_work < LANES_MIN {
            // No job waits: the loop above would have given it to a free lane.
            for (index, lane) in lanes.into_iter().enumerate() {
                if let Some(lane) = lane {
                    lane.stream.words = column(&words, index);
                    lane.finish();
                }
            }
            return;
        }
        // Idle lanes run along on a busy one's blocks; what they make is never read.
        let mut blocks: [&[Block]; LANES] = [&[]; LANES];
        let mut shortest: &[Block] = &[];
        for (blocks, lane) in blocks.iter_mut().zip(&lanes) {
            if let Some(lane) = lane {
                *blocks = lane.blocks();
                if shortest.is_empty() || blocks.len() < shortest.len() {
                    shortest = blocks;
                }
            }
        }
        for blocks in &mut blocks {
            if blocks.is_empty() {
                *blocks = shortest;
            }
        }
        let count = shortest.len();
        compress(&mut words, &blocks, count);
        for lane in lanes.iter_mut().flatten() {
            lane.advance(count);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn column<const LANES: usize>(words: &Words<LANES>, lane: usize) -> [u32; 4] {
    [
        words[0][lane],
        words[1][lane],
        words[2][lane],
        words[3][lane],
    ]
}

/// A job at work. Its words are in the kernel's, not in the stream.
#[cfg(target_arch = "x86_64")]
struct Lane<'a> {
    stream: &'a mut Stream,
    piece: &'a [u8],
    pieces: std::slice::Iter<'a, &'a [u8]>,
}

#[cfg(target_arch = "x86_64")]
impl<'a> Lane<'a> {
    fn new(job: &'a mut Job<'_>) -> Self {
        let len: usize = job.pieces.iter().map(|piece| piece.len()).sum();
        job.stream.len = job.stream.len.wrapping_add(len as u64);
        Self {
            stream: job.stream,
            piece: &[],
            pieces: job.pieces.iter(),
        }
    }

    /// Goes on to the next whole block; `false` where the bytes end, with those
    /// of a block begun in the stream's tail.
    fn has_block(&mut self) -> bool {
        loop {
            let tail_len = self.stream.tail_len;
            if tail_len == BLOCK_LEN || (tail_len == 0 && self.piece.len() >= BLOCK_LEN) {
                return true;
            }
            self.piece = self.stream.fill_tail(self.piece);
            if self.stream.tail_len == BLOCK_LEN {
                return true;
            }
            let Some(piece) = self.pieces.next() else {
                return false;
            };
            self.piece = piece;
        }
    }

    /// Whole blocks that lie side by side: the tail's one, or the piece's.
    fn blocks(&self) -> &[Block] {
        if self.stream.tail_len == BLOCK_LEN {
            std::slice::from_ref(&self.stream.tail)
        } else {
            self.piece.as_chunks().0
        }
    }

    /// Leaves behind `count` of [`blocks`](Self::blocks).
    fn advance(&mut self, count: usize) {
        if self.stream.tail_len == BLOCK_LEN {
            debug_assert_eq!(count, 1);
            self.stream.tail_len = 0;
        } else {
            self.piece = &self.piece[count * BLOCK_LEN..];
        }
    }

    /// Takes in what is left with scalar code; the words are back in the stream.
    fn finish(mut self) {
        while self.has_block() {
            let count = self.blocks().len();
            let mut words = self.stream.words;
            md5::block_api::compress(&mut words, self.blocks());
            self.stream.words = words;
            self.advance(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_prints_none_of_its_bytes() {
        let mut stream = Stream::new();
        stream.update(b"attack at dawn");
        assert_eq!(format!("{stream:?}"), "Md5Stream(14 bytes)");
    }
}
