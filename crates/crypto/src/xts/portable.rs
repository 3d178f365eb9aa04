//! The kernel for every processor: safe Rust over crate `aes`.
//!
//! `aes` picks AES-NI, VAES or a bit-sliced form at run time and encrypts 8 to
//! 64 blocks at once. A 512-byte sector has 32 blocks, so batches run across
//! sector boundaries; the tweaks of a batch of sectors are encrypted together.
//!
//! Constant time: `aes` has no table look-ups in any of its backends, doubling
//! in GF(2^128) here is a shift and a mask, and control flow depends on lengths
//! alone.

use aes::Aes256;
use cipher::array::Array;
use cipher::consts::U16;
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use crate::secret::SecretBytes;

type Block = Array<u8, U16>;

/// Blocks in a batch: what the widest backend of `aes` takes at once.
const BATCH: usize = 64;
/// Sectors whose tweaks are encrypted together.
const TWEAKS: usize = 64;

/// Round keys; `aes` wipes them on drop. Boxed, so that moving the key leaves
/// no copies behind.
pub(super) struct Schedule(Box<(Aes256, Aes256)>);

#[derive(Clone, Copy)]
enum Direction {
    Seal,
    Open,
}

impl Schedule {
    pub(super) fn new(key: &SecretBytes<64>) -> Self {
        let cipher = |half: &[u8]| Aes256::new_from_slice(half).expect("32 bytes are a key");
        let (data, tweak) = key.expose().split_at(32);
        Self(Box::new((cipher(data), cipher(tweak))))
    }

    pub(super) fn seal(&self, buf: &mut [u8], sector_len: usize, first: u128) {
        self.run(Direction::Seal, buf, sector_len, first);
    }

    pub(super) fn open(&self, buf: &mut [u8], sector_len: usize, first: u128) {
        self.run(Direction::Open, buf, sector_len, first);
    }

    fn run(&self, direction: Direction, buf: &mut [u8], sector_len: usize, first: u128) {
        let (data, tweak) = &*self.0;
        let mut index = first;
        let mut starts = [Block::default(); TWEAKS];
        for run in buf.chunks_mut(sector_len * TWEAKS) {
            let starts = &mut starts[..run.len() / sector_len];
            for start in starts.iter_mut() {
                *start = Array(index.to_le_bytes());
                index = index.wrapping_add(1);
            }
            tweak.encrypt_blocks(starts);

            let mut tweaks = Tweaks {
                starts: starts.iter(),
                blocks_a_sector: sector_len / 16,
                left: 0,
                next: 0,
            };
            let (blocks, rest) = Block::slice_as_chunks_mut(run);
            debug_assert!(rest.is_empty());
            let mut masks = [0u128; BATCH];
            for batch in blocks.chunks_mut(BATCH) {
                for (block, mask) in batch.iter_mut().zip(&mut masks) {
                    *mask = tweaks.step();
                    *block = Array((u128::from_le_bytes(block.0) ^ *mask).to_le_bytes());
                }
                match direction {
                    Direction::Seal => data.encrypt_blocks(batch),
                    Direction::Open => data.decrypt_blocks(batch),
                }
                for (block, mask) in batch.iter_mut().zip(&masks) {
                    *block = Array((u128::from_le_bytes(block.0) ^ *mask).to_le_bytes());
                }
            }
        }
    }
}

/// The tweaks of consecutive blocks, across sectors.
struct Tweaks<'a> {
    starts: std::slice::Iter<'a, Block>,
    blocks_a_sector: usize,
    left: usize,
    next: u128,
}

impl Tweaks<'_> {
    #[inline(always)]
    fn step(&mut self) -> u128 {
        if self.left == 0 {
            let start = self.starts.next().expect("a tweak for each sector");
            self.next = u128::from_le_bytes(start.0);
            self.left = self.blocks_a_sector;
        }
        let tweak = self.next;
        self.next = double(tweak);
        self.left -= 1;
        tweak
    }
}

/// Multiplies by x in GF(2^128) modulo x^128 + x^7 + x^2 + x + 1 (IEEE 1619, 5.2).
#[inline(always)]
fn double(tweak: u128) -> u128 {
    let carry = (tweak >> 127).wrapping_neg();
    (tweak << 1) ^ (carry & 0x87)
}
