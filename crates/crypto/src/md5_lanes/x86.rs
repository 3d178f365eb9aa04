//! The kernels for x86-64: 16 lanes of AVX-512, 8 lanes of AVX2.
//!
//! One 32-bit lane of a register belongs to one stream. A block of each stream
//! is loaded and transposed, so that a register holds the same message word of
//! all of them; then RFC 1321's 64 steps run once for all lanes. A step waits
//! for the one before it, in a lane as in scalar code, so more lanes cost next
//! to nothing until the execution units are full.
//!
//! As in `crate::x86`, wrappers around loads and stores take arrays of exactly a
//! register's width. What remains unsafe is (1) those loads and stores and (2)
//! calling a function compiled for instructions the processor may lack: the two
//! doors, [`lanes16`] and [`lanes8`], assert that they are there.

#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::kernel::Kernel;
use super::rfc1321::{Block, T, Words};
use crate::x86::operations;

/// Runs the first `count` blocks of 16 streams.
///
/// # Panics
/// If the processor lacks AVX-512, or a lane has fewer than `count` blocks.
pub(super) fn lanes16(words: &mut Words<16>, blocks: &[&[Block]; 16], count: usize) {
    assert!(Kernel::Avx512.has_instructions(), "needs another processor");
    // SAFETY: the processor has what the function was compiled for; its
    // arguments have no demands.
    unsafe { v512::run(words, blocks, count) }
}

/// Runs the first `count` blocks of 8 streams.
///
/// # Panics
/// If the processor lacks AVX2, or a lane has fewer than `count` blocks.
pub(super) fn lanes8(words: &mut Words<8>, blocks: &[&[Block]; 8], count: usize) {
    assert!(Kernel::Avx2.has_instructions(), "needs another processor");
    // SAFETY: as in `lanes16`.
    unsafe { v256::run(words, blocks, count) }
}

/// The shape both widths share. Expects in scope: `V`, `LANES`, `load`, `store`,
/// `splat`, `add`, `rotate` (left by its first parameter; the second is 32 minus
/// that), `transposed`, and the step functions: `f`, `g`, `h`, `i` add RFC 1321's
/// function of that name, of the last three arguments, to the first.
macro_rules! kernel {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn run(words: &mut Words<LANES>, blocks: &[&[Block]; LANES], count: usize) {
            let mut kept = [
                load(&words[0]),
                load(&words[1]),
                load(&words[2]),
                load(&words[3]),
            ];
            for block in 0..count {
                let x = transposed(blocks, block);
                let [mut a, mut b, mut c, mut d] = kept;
                macro_rules! step {
                    ($fun:ident, $a:ident $b:ident $c:ident $d:ident, $k:expr, $i:expr, $s:literal) => {
                        let sum = add(add($a, x[$k]), splat(T[$i]));
                        $a = add($b, rotate::<$s, { 32 - $s }>($fun(sum, $b, $c, $d)));
                    };
                }
                // Sixteen steps: which function, the first step's number, the first
                // message word and the stride to the next, and the four shifts.
                macro_rules! round {
                    ($fun:ident, $i:literal, $k:literal, $by:literal,
                     $s0:literal $s1:literal $s2:literal $s3:literal) => {
                        round!(@ $fun, $i, $k, $by, 0, $s0 $s1 $s2 $s3);
                        round!(@ $fun, $i, $k, $by, 4, $s0 $s1 $s2 $s3);
                        round!(@ $fun, $i, $k, $by, 8, $s0 $s1 $s2 $s3);
                        round!(@ $fun, $i, $k, $by, 12, $s0 $s1 $s2 $s3);
                    };
                    (@ $fun:ident, $i:literal, $k:literal, $by:literal, $n:literal,
                     $s0:literal $s1:literal $s2:literal $s3:literal) => {
                        step!($fun, a b c d, ($k + $by * $n) % 16, $i + $n, $s0);
                        step!($fun, d a b c, ($k + $by * ($n + 1)) % 16, $i + $n + 1, $s1);
                        step!($fun, c d a b, ($k + $by * ($n + 2)) % 16, $i + $n + 2, $s2);
                        step!($fun, b c d a, ($k + $by * ($n + 3)) % 16, $i + $n + 3, $s3);
                    };
                }
                round!(f, 0, 0, 1, 7 12 17 22);
                round!(g, 16, 1, 5, 5 9 14 20);
                round!(h, 32, 5, 3, 4 11 16 23);
                round!(i, 48, 0, 7, 6 10 15 21);
                kept = [
                    add(kept[0], a),
                    add(kept[1], b),
                    add(kept[2], c),
                    add(kept[3], d),
                ];
            }
            for (words, kept) in words.iter_mut().zip(kept) {
                store(words, kept);
            }
        }
    };
}

/// Loads and stores of one width.
macro_rules! memory {
    ($features:literal: $load:ident, $store:ident, $splat:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn load(words: &[u32; LANES]) -> V {
            // SAFETY: the array is as wide as the register; the load needs no
            // alignment.
            unsafe { $load(words.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn load_bytes(bytes: &[u8; LANES * 4]) -> V {
            // SAFETY: as in `load`.
            unsafe { $load(bytes.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store(words: &mut [u32; LANES], value: V) {
            // SAFETY: the array is as wide as the register; the store needs no
            // alignment.
            unsafe { $store(words.as_mut_ptr().cast(), value) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn splat(word: u32) -> V {
            $splat(word.cast_signed())
        }
    };
}

mod v512 {
    use super::*;

    type V = __m512i;
    const LANES: usize = 16;

    memory!("avx512f": _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32);
    kernel!("avx512f");
    operations! { "avx512f":
        add(x, y) = _mm512_add_epi32(x, y);
        // The immediate is the function's truth table, with x = 0xf0, y = 0xcc, z = 0xaa.
        f(sum, x, y, z) = add(sum, _mm512_ternarylogic_epi32::<0xca>(x, y, z));
        g(sum, x, y, z) = add(sum, _mm512_ternarylogic_epi32::<0xe4>(x, y, z));
        h(sum, x, y, z) = add(sum, _mm512_ternarylogic_epi32::<0x96>(x, y, z));
        i(sum, x, y, z) = add(sum, _mm512_ternarylogic_epi32::<0x39>(x, y, z));
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(x: V) -> V {
        _mm512_rol_epi32::<LEFT>(x)
    }

    /// Word by word what `blocks` has stream by stream.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(blocks: &[&[Block]; LANES], block: usize) -> [V; 16] {
        let mut rows = [splat(0); 16];
        for (row, blocks) in rows.iter_mut().zip(blocks) {
            *row = load_bytes(&blocks[block]);
        }
        // Two rows, then four, interleaved within each quarter of the register.
        let mut pairs = rows;
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = pairs;
        for i in 0..4 {
            fours[4 * i] = _mm512_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
            fours[4 * i + 1] = _mm512_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
            fours[4 * i + 2] = _mm512_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
            fours[4 * i + 3] = _mm512_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        }
        // Then quarters: `fours[i]`, `[4 + i]`, `[8 + i]`, `[12 + i]` hold words i,
        // 4 + i, 8 + i and 12 + i of four streams each.
        let mut words = fours;
        for i in 0..4 {
            let even_low = _mm512_shuffle_i32x4::<0x88>(fours[i], fours[4 + i]);
            let odd_low = _mm512_shuffle_i32x4::<0xdd>(fours[i], fours[4 + i]);
            let even_high = _mm512_shuffle_i32x4::<0x88>(fours[8 + i], fours[12 + i]);
            let odd_high = _mm512_shuffle_i32x4::<0xdd>(fours[8 + i], fours[12 + i]);
            words[i] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
            words[4 + i] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
            words[8 + i] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
            words[12 + i] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
        }
        words
    }
}

mod v256 {
    use super::*;

    type V = __m256i;
    const LANES: usize = 8;

    memory!("avx2": _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32);
    kernel!("avx2");
    operations! { "avx2":
        add(x, y) = _mm256_add_epi32(x, y);
        and(x, y) = _mm256_and_si256(x, y);
        xor(x, y) = _mm256_xor_si256(x, y);
        // Written so that little waits for `x`, which the step before has just made.
        f(sum, x, y, z) = add(sum, xor(z, and(x, xor(y, z))));
        // The two halves share no bit, so their "or" is a sum.
        g(sum, x, y, z) = add(add(sum, _mm256_andnot_si256(z, y)), and(x, z));
        h(sum, x, y, z) = add(sum, xor(x, xor(y, z)));
        i(sum, x, y, z) = add(sum, xor(y, _mm256_or_si256(x, xor(z, ones()))));
        ones() = _mm256_set1_epi32(-1);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(x: V) -> V {
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x), _mm256_srli_epi32::<RIGHT>(x))
    }

    /// Word by word what `blocks` has stream by stream.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transposed(blocks: &[&[Block]; LANES], block: usize) -> [V; 16] {
        let mut low = [splat(0); 8];
        let mut high = low;
        for ((low, high), blocks) in low.iter_mut().zip(&mut high).zip(blocks) {
            let (halves, _) = blocks[block].as_chunks::<32>();
            *low = load_bytes(&halves[0]);
            *high = load_bytes(&halves[1]);
        }
        let (low, high) = (transposed8(low), transposed8(high));
        [
            low[0], low[1], low[2], low[3], low[4], low[5], low[6], low[7], //
            high[0], high[1], high[2], high[3], high[4], high[5], high[6], high[7],
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn transposed8(rows: [V; 8]) -> [V; 8] {
        // Two rows, then four, interleaved within each half of the register.
        let mut pairs = rows;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = pairs;
        for i in 0..2 {
            fours[4 * i] = _mm256_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
            fours[4 * i + 1] = _mm256_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
            fours[4 * i + 2] = _mm256_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
            fours[4 * i + 3] = _mm256_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        }
        // Then halves: `fours[i]` and `[4 + i]` hold words i and 4 + i of four streams each.
        let mut words = fours;
        for i in 0..4 {
            words[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[4 + i]);
            words[4 + i] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[4 + i]);
        }
        words
    }
}
