//! The kernel for every processor: safe Rust over crate `aes`.
//!
//! `aes` picks AES-NI, VAES or a bit-sliced form at run time. Its backend takes
//! a closure that is compiled with the backend's instructions, so the masks and
//! the xors, which are plain loops over arrays, become vector code too.
//!
//! A strip of the buffer goes through three passes while it stays in the first
//! cache: xor the masks, run the cipher, xor the masks again. Strips ignore
//! sector boundaries, so the cipher's widest batch is full for 512-byte sectors
//! as well. Masks are made [`GROUP`] at a time, each straight from the first of
//! them: one doubling after the other would be a chain of latencies, and written
//! by halves it stalls the wide loads that follow.
//!
//! Constant time: `aes` has no table look-ups in any of its backends, multiplying
//! in GF(2^128) here is shifts and xors by public amounts, and control flow
//! depends on lengths alone.

use aes::Aes256;
use cipher::array::Array;
use cipher::consts::U16;
use cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
};

use crate::secret::SecretBytes;

type Block = Array<u8, U16>;

/// Blocks whose masks are made from one tweak: a 512-byte sector.
const GROUP: usize = 32;
const GROUP_LEN: usize = 16 * GROUP;
/// Groups in a strip: 4 KiB of data and as much of masks.
const GROUPS: usize = 8;
/// Sectors whose tweaks are encrypted together.
const TWEAKS: usize = 64;

/// What the blocks of a group are xored with, as little-endian halves.
type Masks = [[[u8; 8]; 2]; GROUP];

/// Round keys; `aes` wipes them on drop. Boxed, so that moving the key makes no more
/// copies than making it did.
pub(super) struct Schedule(Box<(Aes256, Aes256)>);

impl Schedule {
    pub(super) fn new(key: &SecretBytes<64>) -> Self {
        let cipher = |half: &[u8]| Aes256::new_from_slice(half).expect("32 bytes are a key");
        let (data, tweak) = key.expose().split_at(32);
        Self(Box::new((cipher(data), cipher(tweak))))
    }

    pub(super) fn seal(&self, buf: &mut [u8], sector_len: usize, first: u128) {
        let (data, _) = &*self.0;
        self.each_run(buf, sector_len, first, |run| data.encrypt_with_backend(run));
    }

    pub(super) fn open(&self, buf: &mut [u8], sector_len: usize, first: u128) {
        let (data, _) = &*self.0;
        self.each_run(buf, sector_len, first, |run| data.decrypt_with_backend(run));
    }

    fn each_run(&self, buf: &mut [u8], sector_len: usize, first: u128, cipher: impl Fn(Run<'_>)) {
        let (_, tweak) = &*self.0;
        let mut index = first;
        let mut starts = [Block::default(); TWEAKS];
        for bytes in buf.chunks_mut(sector_len * TWEAKS) {
            let starts = &mut starts[..bytes.len() / sector_len];
            for start in starts.iter_mut() {
                *start = Array(index.to_le_bytes());
                index = index.wrapping_add(1);
            }
            tweak.encrypt_blocks(starts);
            cipher(Run {
                bytes,
                tweaks: Tweaks {
                    starts: starts.iter(),
                    groups_a_sector: sector_len / GROUP_LEN,
                    left: 0,
                    current: 0,
                },
            });
        }
    }
}

/// Whole sectors and their encrypted tweaks, on their way through the cipher.
struct Run<'a> {
    bytes: &'a mut [u8],
    tweaks: Tweaks<'a>,
}

impl BlockSizeUser for Run<'_> {
    type BlockSize = U16;
}

macro_rules! closure {
    ($closure:ident, $backend:ident, $many:ident, $one:ident) => {
        impl $closure for Run<'_> {
            // Inlined into the backend's function, whose instructions it is to use.
            #[inline(always)]
            fn call<B: $backend<BlockSize = U16>>(mut self, backend: &B) {
                let mut masks: [Masks; GROUPS] = [[[[0; 8]; 2]; GROUP]; GROUPS];
                for strip in self.bytes.chunks_mut(GROUP_LEN * GROUPS) {
                    let masks = &mut masks[..strip.len() / GROUP_LEN];
                    for masks in masks.iter_mut() {
                        fill(masks, self.tweaks.next_group());
                    }
                    let masks = masks.as_flattened().as_flattened().as_flattened();
                    xor(strip, masks);
                    let (blocks, _) = Block::slice_as_chunks_mut(strip);
                    let (batches, rest) =
                        Array::<Block, B::ParBlocksSize>::slice_as_chunks_mut(blocks);
                    for batch in batches {
                        backend.$many(batch.into());
                    }
                    for block in rest {
                        backend.$one(block.into());
                    }
                    xor(strip, masks);
                }
            }
        }
    };
}

closure!(
    BlockCipherEncClosure,
    BlockCipherEncBackend,
    encrypt_par_blocks,
    encrypt_block
);
closure!(
    BlockCipherDecClosure,
    BlockCipherDecBackend,
    decrypt_par_blocks,
    decrypt_block
);

/// The tweak of the first block of each group, across sectors.
struct Tweaks<'a> {
    starts: std::slice::Iter<'a, Block>,
    groups_a_sector: usize,
    left: usize,
    current: u128,
}

impl Tweaks<'_> {
    #[inline(always)]
    fn next_group(&mut self) -> u128 {
        if self.left == 0 {
            let start = self.starts.next().expect("a tweak for each sector");
            self.current = u128::from_le_bytes(start.0);
            self.left = self.groups_a_sector;
        } else {
            // Times x^32: the 32 bits shifted out come back reduced.
            let carry = self.current >> 96;
            self.current = (self.current << 32) ^ reduced(carry);
        }
        self.left -= 1;
        self.current
    }
}

/// Mask i is `tweak` times x^i, in GF(2^128) (IEEE 1619, 5.2).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of the tweak")]
fn fill(masks: &mut Masks, tweak: u128) {
    let (low, high) = (tweak as u64, (tweak >> 64) as u64);
    for (i, mask) in masks.iter_mut().enumerate() {
        // The bits shifted out of each half. In two steps: by 64 - i is no shift when i is 0.
        let (low_carry, high_carry) = ((low >> 1) >> (63 - i), (high >> 1) >> (63 - i));
        let reduced = high_carry ^ (high_carry << 1) ^ (high_carry << 2) ^ (high_carry << 7);
        *mask = [
            ((low << i) ^ reduced).to_le_bytes(),
            ((high << i) | low_carry).to_le_bytes(),
        ];
    }
}

/// Times x^128 modulo x^128 + x^7 + x^2 + x + 1, for what has at most 121 bits.
#[inline(always)]
fn reduced(carry: u128) -> u128 {
    carry ^ (carry << 1) ^ (carry << 2) ^ (carry << 7)
}

#[inline(always)]
fn xor(bytes: &mut [u8], masks: &[u8]) {
    for (byte, mask) in bytes.iter_mut().zip(masks) {
        *byte ^= mask;
    }
}
