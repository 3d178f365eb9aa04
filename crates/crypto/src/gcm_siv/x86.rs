//! The VAES-512 kernel: counter mode and POLYVAL on 32 blocks at a time.
//!
//! POLYVAL (RFC 8452, 3) is a sum of blocks times powers of one key. A batch of 32
//! is multiplied by H^32 down to H^1 lane by lane, and reduced once; what was
//! summed before goes into the first block. A shorter rest is put at the end of a
//! batch of zeros, where its powers are the right ones.
//!
//! What is unsafe, and why it may be, stands in [`crate::x86`]; [`Key::new`] is the
//! one door.
//!
//! Constant time: every operation is one of those in [`crate::x86`], an addition or
//! a shuffle by constants. Loops run over lengths, which are public.

#![allow(unsafe_code)]

use core::arch::x86_64::*;

use zeroize::Zeroizing;

use super::lengths::{NONCE_LEN, TAG_LEN};
use crate::kernel::Kernel;
use crate::secret::wipe;
use crate::x86::v512::*;
use crate::x86::{RoundKeys, expand, operations};

/// Registers in flight.
const FLIGHT: usize = 8;
/// Bytes of a batch.
const BATCH: usize = FLIGHT * WIDTH;
/// Blocks of a batch.
const BLOCKS: usize = BATCH / 16;

/// Round keys of the key-generating key.
pub(super) struct Key(Box<Zeroizing<RoundKeys>>);

impl Key {
    /// # Panics
    /// If the processor does not run the kernel.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        assert!(
            Kernel::Vaes512.has_instructions(),
            "the kernel needs AVX-512, VAES and VPCLMULQDQ"
        );
        let mut rounds = Box::new(Zeroizing::new([[0; 16]; 15]));
        // SAFETY: a processor that runs the kernel has AES-NI and PCLMULQDQ.
        unsafe { expand(key, &mut rounds) };
        Self(rounds)
    }

    /// Encrypts in place and returns the tag.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
    ) -> [u8; TAG_LEN] {
        // SAFETY: `new` asserted that the processor has what this was compiled for.
        unsafe { seal(&self.0, nonce, aad, buf) }
    }

    /// Decrypts in place and returns the tag that should have come with it.
    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> [u8; TAG_LEN] {
        // SAFETY: as in `seal`.
        unsafe { open(&self.0, nonce, aad, buf, tag) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn seal(rounds: &RoundKeys, nonce: &[u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; 16] {
    let mut message = MessageKeys::empty();
    message.derive(rounds, nonce);
    let powers = message.powers();
    let sum = absorb(&powers, zero(), aad);
    let sum = absorb(&powers, sum, buf);
    let tag = message.tag(&powers, sum, nonce, aad.len(), buf.len());

    let k = message.broadcast_rounds();
    let mut counter = first_counters(&tag);
    let (batches, rest) = buf.as_chunks_mut::<BATCH>();
    for batch in batches {
        crypt(&k, &mut counter, batch);
    }
    crypt_rest(&k, &mut counter, rest);
    tag
}

#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn open(
    rounds: &RoundKeys,
    nonce: &[u8; 12],
    aad: &[u8],
    buf: &mut [u8],
    tag: &[u8; 16],
) -> [u8; 16] {
    let mut message = MessageKeys::empty();
    message.derive(rounds, nonce);
    let powers = message.powers();
    let mut sum = absorb(&powers, zero(), aad);

    let k = message.broadcast_rounds();
    let mut counter = first_counters(tag);
    let len = buf.len();
    let (batches, rest) = buf.as_chunks_mut::<BATCH>();
    for batch in batches {
        let plain = crypt(&k, &mut counter, batch);
        sum = add(&powers, sum, plain);
    }
    crypt_rest(&k, &mut counter, rest);
    sum = absorb(&powers, sum, rest);
    message.tag(&powers, sum, nonce, aad.len(), len)
}

/// What is derived for one message (RFC 8452, 4).
struct MessageKeys {
    /// Of the message-encryption key.
    rounds: RoundKeys,
    /// Of the message-authentication key H: H^32 first, H^1 last.
    powers: [[u8; WIDTH]; FLIGHT],
}

impl Drop for MessageKeys {
    fn drop(&mut self) {
        wipe(self.rounds.as_flattened_mut());
        wipe(self.powers.as_flattened_mut());
    }
}

impl MessageKeys {
    fn empty() -> Self {
        Self {
            rounds: [[0; 16]; 15],
            powers: [[0; WIDTH]; FLIGHT],
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    fn derive(&mut self, rounds: &RoundKeys, nonce: &[u8; 12]) {
        // Six blocks of counter and nonce, and two to fill registers; the first half of
        // each, encrypted, is key.
        let mut blocks = Zeroizing::new([[0; WIDTH]; 2]);
        for (i, block) in (0..).zip(blocks.as_flattened_mut().chunks_exact_mut(16)) {
            block[0] = i;
            block[4..].copy_from_slice(nonce);
        }
        for register in blocks.iter_mut() {
            let block = encrypt(rounds, load(register));
            store(register, block);
        }
        let (blocks, _) = blocks.as_flattened().as_chunks::<16>();
        let mut h = Zeroizing::new([0; 16]);
        let mut key = Zeroizing::new([0; 32]);
        let halves = h.chunks_exact_mut(8).chain(key.chunks_exact_mut(8));
        for (half, block) in halves.zip(blocks) {
            half.copy_from_slice(&block[..8]);
        }
        expand(&key, &mut self.rounds);

        let h = broadcast(&h);
        let h2 = dot(h, h);
        let h4 = dot(h2, h2);
        // The last register: H^4, H^3, H^2, H^1.
        let last = _mm512_mask_blend_epi64(0b1100_0000, dot(h2, h), h);
        let last = _mm512_mask_blend_epi64(0b0011_0000, last, h2);
        let last = _mm512_mask_blend_epi64(0b0000_0011, last, h4);
        let h8 = dot(h4, h4);
        let h16 = dot(h8, h8);
        let mut powers = [last; FLIGHT];
        powers[6] = dot(last, h4);
        powers[5] = dot(last, h8);
        powers[4] = dot(powers[6], h8);
        for i in 0..4 {
            powers[i] = dot(powers[i + 4], h16);
        }
        for (bytes, powers) in self.powers.iter_mut().zip(powers) {
            store(bytes, powers);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    fn powers(&self) -> [V; FLIGHT] {
        core::array::from_fn(|i| load(&self.powers[i]))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    fn broadcast_rounds(&self) -> [V; 15] {
        core::array::from_fn(|i| broadcast(&self.rounds[i]))
    }

    /// The tag of a message whose padded blocks were summed (RFC 8452, 4).
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    fn tag(
        &self,
        powers: &[V; FLIGHT],
        sum: V,
        nonce: &[u8; 12],
        aad_len: usize,
        len: usize,
    ) -> [u8; 16] {
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&(aad_len as u64 * 8).to_le_bytes());
        lengths[8..].copy_from_slice(&(len as u64 * 8).to_le_bytes());
        let mut block = first_lane(absorb(powers, sum, &lengths));
        for (byte, nonce) in block.iter_mut().zip(nonce) {
            *byte ^= nonce;
        }
        block[15] &= 0x7f;
        first_lane(encrypt(&self.rounds, broadcast(&block)))
    }
}

/// A batch that is filled up with zeros.
struct Room([u8; BATCH]);

impl Room {
    fn empty() -> Self {
        Self([0; BATCH])
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Adds `data`, padded with zeros to whole blocks, to a POLYVAL sum.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn absorb(powers: &[V; FLIGHT], mut sum: V, data: &[u8]) -> V {
    let (batches, rest) = data.as_chunks::<BATCH>();
    for batch in batches {
        let (registers, _) = batch.as_chunks::<WIDTH>();
        sum = add(powers, sum, core::array::from_fn(|i| load(&registers[i])));
    }
    if rest.is_empty() {
        return sum;
    }
    let mut room = Room::empty();
    let start = 16 * (BLOCKS - rest.len().div_ceil(16));
    room.0[start..][..rest.len()].copy_from_slice(rest);
    for (byte, sum) in room.0[start..].iter_mut().zip(first_lane(sum)) {
        *byte ^= sum;
    }
    let (registers, _) = room.0.as_chunks::<WIDTH>();
    add(
        powers,
        zero(),
        core::array::from_fn(|i| load(&registers[i])),
    )
}

/// `sum`, which is in the first lane, and a batch of blocks times the powers of H.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn add(powers: &[V; FLIGHT], sum: V, mut blocks: [V; FLIGHT]) -> V {
    blocks[0] = xor(blocks[0], sum);
    let (mut low, mut middle, mut high) = (zero(), zero(), zero());
    for (x, h) in blocks.into_iter().zip(powers) {
        low = xor(low, low_by_low(x, *h));
        middle = xor3(middle, low_by_high(x, *h), high_by_low(x, *h));
        high = xor(high, high_by_high(x, *h));
    }
    let lanes = reduce(low, middle, high);
    // All four lanes into the first; the others must be zero, since they would be added
    // to blocks that they do not belong to.
    let pairs = xor(lanes, _mm512_shuffle_i64x2::<0b01_00_11_10>(lanes, lanes));
    let all = xor(pairs, _mm512_shuffle_i64x2::<0b10_11_00_01>(pairs, pairs));
    _mm512_maskz_mov_epi64(0b11, all)
}

/// Xors a batch with the key stream, in place, and returns what it became.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn crypt(k: &[V; 15], counter: &mut V, batch: &mut [u8; BATCH]) -> [V; FLIGHT] {
    let four = _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4);
    let mut x = [zero(); FLIGHT];
    for x in &mut x {
        *x = xor(*counter, k[0]);
        *counter = _mm512_add_epi32(*counter, four);
    }
    for k in &k[1..14] {
        for x in &mut x {
            *x = enc(*x, *k);
        }
    }
    let (registers, _) = batch.as_chunks_mut::<WIDTH>();
    for (x, register) in x.iter_mut().zip(registers) {
        // The last round's xor takes the data along.
        *x = enc_last(*x, xor(k[14], load(register)));
        store(register, *x);
    }
    x
}

/// As [`crypt`] for what is left of a message, less than a batch.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn crypt_rest(k: &[V; 15], counter: &mut V, rest: &mut [u8]) {
    if rest.is_empty() {
        return;
    }
    let mut room = Room::empty();
    room.0[..rest.len()].copy_from_slice(rest);
    crypt(k, counter, &mut room.0);
    rest.copy_from_slice(&room.0[..rest.len()]);
}

/// Counters of the first four blocks (RFC 8452, 4): the tag with its top bit set, its
/// first 32 bits counting up, little endian, without carry.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn first_counters(tag: &[u8; 16]) -> V {
    let mut block = *tag;
    block[15] |= 0x80;
    let steps = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
    _mm512_add_epi32(broadcast(&block), steps)
}

/// AES of every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn encrypt(rounds: &RoundKeys, blocks: V) -> V {
    let mut x = xor(blocks, broadcast(&rounds[0]));
    for round in &rounds[1..14] {
        x = enc(x, broadcast(round));
    }
    enc_last(x, broadcast(&rounds[14]))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
fn first_lane(lanes: V) -> [u8; 16] {
    let mut bytes = [0; WIDTH];
    store(&mut bytes, lanes);
    let (blocks, _) = bytes.as_chunks::<16>();
    blocks[0]
}

operations! { "avx512f,avx512bw,vaes,vpclmulqdq,aes":
    zero() = _mm512_setzero_si512();
    low_by_low(a, b) = _mm512_clmulepi64_epi128::<0x00>(a, b);
    low_by_high(a, b) = _mm512_clmulepi64_epi128::<0x10>(a, b);
    high_by_low(a, b) = _mm512_clmulepi64_epi128::<0x01>(a, b);
    high_by_high(a, b) = _mm512_clmulepi64_epi128::<0x11>(a, b);
    // a times b times x^-128, lane by lane (RFC 8452, 3).
    dot(a, b) = reduce(
        low_by_low(a, b),
        xor(low_by_high(a, b), high_by_low(a, b)),
        high_by_high(a, b)
    );
    // The 256-bit product times x^-128 modulo x^128 + x^127 + x^126 + x^121 + 1: twice, the
    // low 64 bits are cleared by adding a multiple of the modulus.
    reduce(low, middle, high) = fold(
        fold(xor(low, _mm512_bslli_epi128::<8>(middle)), zero()),
        xor(high, _mm512_bsrli_epi128::<8>(middle))
    );
    fold(low, high) = xor3(
        _mm512_shuffle_epi32::<0b01_00_11_10>(low),
        low_by_high(low, modulus()),
        high
    );
    modulus() = _mm512_broadcast_i32x4(_mm_set_epi64x(0xc200_0000_0000_0000_u64.cast_signed(), 1));
}
