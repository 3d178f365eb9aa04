//! What the kernels for x86-64 share: the registers of three widths, AES on them,
//! and key expansion.
//!
//! Safe wrappers around loads and stores take arrays of exactly a register's
//! width, so bounds are the type checker's business. What remains unsafe, here
//! and in the kernels, is (1) those loads and stores and (2) calling a function
//! compiled for instructions the processor may lack: each kernel has one door,
//! which asserts [`has_instructions`](crate::kernel::Kernel::has_instructions).
//!
//! Constant time: AES, carry-less multiply, shifts and xors are single
//! instructions whose time does not depend on their operands; key expansion uses
//! `aeskeygenassist`.

#![allow(unsafe_code)]

use core::arch::x86_64::*;

/// The round keys of AES-256 (FIPS 197, 5.2).
pub(crate) type RoundKeys = [[u8; 16]; 15];

/// AES-256 key expansion (FIPS 197, 5.2).
#[target_feature(enable = "aes,pclmulqdq,sse2")]
pub(crate) fn expand(key: &[u8; 32], out: &mut RoundKeys) {
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,sse2")]
    fn mix(key: __m128i, word: __m128i) -> __m128i {
        let key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
        let key = _mm_xor_si128(key, _mm_slli_si128::<8>(key));
        _mm_xor_si128(key, word)
    }
    let (halves, _) = key.as_chunks::<16>();
    let mut even = v128::load(&halves[0]);
    let mut odd = v128::load(&halves[1]);
    v128::store(&mut out[0], even);
    v128::store(&mut out[1], odd);
    macro_rules! even {
        ($round:literal, $rcon:literal) => {
            let assist = _mm_aeskeygenassist_si128::<$rcon>(odd);
            even = mix(even, _mm_shuffle_epi32::<0xff>(assist));
            v128::store(&mut out[$round], even);
        };
    }
    macro_rules! odd {
        ($round:literal) => {
            let assist = _mm_aeskeygenassist_si128::<0>(even);
            odd = mix(odd, _mm_shuffle_epi32::<0xaa>(assist));
            v128::store(&mut out[$round], odd);
        };
    }
    even!(2, 0x01);
    odd!(3);
    even!(4, 0x02);
    odd!(5);
    even!(6, 0x04);
    odd!(7);
    even!(8, 0x08);
    odd!(9);
    even!(10, 0x10);
    odd!(11);
    even!(12, 0x20);
    odd!(13);
    even!(14, 0x40);
}

/// Round keys for the equivalent inverse cipher (FIPS 197, 5.3.5), in the order
/// they are used.
#[target_feature(enable = "aes,pclmulqdq,sse2")]
pub(crate) fn invert(seal: &RoundKeys, open: &mut RoundKeys) {
    open[0] = seal[14];
    for (open, seal) in open[1..14].iter_mut().zip(seal[1..14].iter().rev()) {
        v128::store(open, _mm_aesimc_si128(v128::load(seal)));
    }
    open[14] = seal[0];
}

/// Gives safe names to the intrinsics of one width.
macro_rules! operations {
    ($features:literal: $($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn $name($($arg: V),*) -> V {
            $body
        }
    )*};
}

/// Loads and stores of one width.
macro_rules! memory {
    ($features:literal: $load:ident, $store:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn load(bytes: &[u8; WIDTH]) -> V {
            // SAFETY: the array is as wide as the register; the load needs no
            // alignment.
            unsafe { $load(bytes.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn store(bytes: &mut [u8; WIDTH], value: V) {
            // SAFETY: the array is as wide as the register; the store needs no
            // alignment.
            unsafe { $store(bytes.as_mut_ptr().cast(), value) }
        }
    };
}

pub(crate) use operations;

pub(crate) mod v512 {
    use super::*;

    pub(crate) type V = __m512i;
    pub(crate) const WIDTH: usize = 64;

    memory!("avx512f,avx512bw,vaes,vpclmulqdq,aes": _mm512_loadu_si512, _mm512_storeu_si512);
    operations! { "avx512f,avx512bw,vaes,vpclmulqdq,aes":
        xor(a, b) = _mm512_xor_si512(a, b);
        xor3(a, b, c) = _mm512_ternarylogic_epi64::<0x96>(a, b, c);
        enc(x, k) = _mm512_aesenc_epi128(x, k);
        enc_last(x, k) = _mm512_aesenclast_epi128(x, k);
        dec(x, k) = _mm512_aesdec_epi128(x, k);
        dec_last(x, k) = _mm512_aesdeclast_epi128(x, k);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    pub(crate) fn broadcast(block: &[u8; 16]) -> V {
        _mm512_broadcast_i32x4(v128::load(block))
    }
}

pub(crate) mod v256 {
    use super::*;

    pub(crate) type V = __m256i;
    pub(crate) const WIDTH: usize = 32;

    memory!("avx2,vaes,vpclmulqdq,aes": _mm256_loadu_si256, _mm256_storeu_si256);
    operations! { "avx2,vaes,vpclmulqdq,aes":
        xor(a, b) = _mm256_xor_si256(a, b);
        xor3(a, b, c) = xor(xor(a, b), c);
        enc(x, k) = _mm256_aesenc_epi128(x, k);
        enc_last(x, k) = _mm256_aesenclast_epi128(x, k);
        dec(x, k) = _mm256_aesdec_epi128(x, k);
        dec_last(x, k) = _mm256_aesdeclast_epi128(x, k);
    }

    #[inline]
    #[target_feature(enable = "avx2,vaes,vpclmulqdq,aes")]
    pub(crate) fn broadcast(block: &[u8; 16]) -> V {
        _mm256_broadcastsi128_si256(v128::load(block))
    }
}

pub(crate) mod v128 {
    use super::*;

    pub(crate) type V = __m128i;
    pub(crate) const WIDTH: usize = 16;

    memory!("aes,pclmulqdq,sse2": _mm_loadu_si128, _mm_storeu_si128);
    operations! { "aes,pclmulqdq,sse2":
        xor(a, b) = _mm_xor_si128(a, b);
        xor3(a, b, c) = xor(xor(a, b), c);
        enc(x, k) = _mm_aesenc_si128(x, k);
        enc_last(x, k) = _mm_aesenclast_si128(x, k);
        dec(x, k) = _mm_aesdec_si128(x, k);
        dec_last(x, k) = _mm_aesdeclast_si128(x, k);
    }

    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,sse2")]
    pub(crate) fn broadcast(block: &[u8; 16]) -> V {
        load(block)
    }
}
