//! The kernels for x86-64: VAES on 512 and 256 bits, and AES-NI.
//!
//! Three widths of one shape: eight registers in flight, so that the AES units
//! never wait for a result; tweaks of up to [`TWEAKS`] sectors encrypted together;
//! the tweaks of a batch advanced by a whole number of bytes, which costs a byte
//! shift and one carry-less multiply. What is unsafe, and why it may be, stands in
//! [`crate::x86`]; [`Schedule::new`] is the one door.
//!
//! Constant time: every operation is one of those in [`crate::x86`]. There is no
//! table in memory and no branch or address that depends on key, tweak or data:
//! loops run over lengths and sector numbers.
//!
//! Round keys are wiped on drop where they are kept. Encrypted tweaks, which say
//! nothing about the keys, stay behind on the stack, and so do the round keys that did
//! not fit into registers.

#![allow(unsafe_code)]

use core::arch::x86_64::*;

use zeroize::Zeroize;

use crate::kernel::Kernel;
use crate::secret::SecretBytes;
use crate::x86::{RoundKeys, expand, invert, operations};

/// Sectors whose tweaks are encrypted together.
const TWEAKS: usize = 32;
/// Registers in flight.
const FLIGHT: usize = 8;

type Crypt = unsafe fn(&Schedule, &mut [u8], usize, u128);

/// Round keys of both halves and the functions that may be run with them.
pub(super) struct Schedule {
    keys: Box<Keys>,
    seal: Crypt,
    open: Crypt,
}

#[derive(Zeroize)]
#[zeroize(drop)]
struct Keys {
    seal: RoundKeys,
    open: RoundKeys,
    tweak: RoundKeys,
}

impl Schedule {
    /// # Panics
    /// If the processor does not run `kernel`.
    pub(super) fn new(key: &SecretBytes<64>, kernel: Kernel) -> Self {
        assert!(
            kernel.has_instructions(),
            "the {kernel} kernel needs another processor"
        );
        let (data, rest) = key
            .expose()
            .split_first_chunk::<32>()
            .expect("64 bytes are more than 32");
        let tweak = rest.first_chunk::<32>().expect("32 bytes are left");
        let mut keys = Box::new(Keys {
            seal: [[0; 16]; 15],
            open: [[0; 16]; 15],
            tweak: [[0; 16]; 15],
        });
        // SAFETY: every kernel that `runs` has AES-NI and PCLMULQDQ, which is all that these need.
        unsafe {
            expand(data, &mut keys.seal);
            expand(tweak, &mut keys.tweak);
            let Keys { seal, open, .. } = &mut *keys;
            invert(seal, open);
        }
        let (seal, open): (Crypt, Crypt) = match kernel {
            Kernel::Vaes512 => (v512::crypt::<true>, v512::crypt::<false>),
            Kernel::Vaes256 => (v256::crypt::<true>, v256::crypt::<false>),
            Kernel::AesNi | Kernel::Portable => (v128::crypt::<true>, v128::crypt::<false>),
        };
        Self { keys, seal, open }
    }

    pub(super) fn seal(&self, buf: &mut [u8], sector_len: usize, first: u128) {
        // SAFETY: `new` asserted that the processor has what this function was
        // compiled for; its arguments have no demands.
        unsafe { (self.seal)(self, buf, sector_len, first) }
    }

    pub(super) fn open(&self, buf: &mut [u8], sector_len: usize, first: u128) {
        // SAFETY: as in `seal`.
        unsafe { (self.open)(self, buf, sector_len, first) }
    }
}

/// The shape all widths share. Expects in scope: `V`, `WIDTH` (bytes of a `V`),
/// `load`, `store`, `broadcast`, `xor`, `xor3`, `enc`, `enc_last`, `dec`,
/// `dec_last`, `tweaks` (those of the first [`FLIGHT`] registers of a sector)
/// and `advance` (by as many blocks).
macro_rules! kernel {
    ($features:literal) => {
        const BATCH: usize = FLIGHT * WIDTH;

        #[target_feature(enable = $features)]
        pub(super) fn crypt<const SEAL: bool>(
            schedule: &Schedule,
            buf: &mut [u8],
            sector_len: usize,
            first: u128,
        ) {
            const { assert!(512 % BATCH == 0, "sectors must be whole batches") };
            let keys = &*schedule.keys;
            let rounds = if SEAL { &keys.seal } else { &keys.open };
            let k: [V; 15] = core::array::from_fn(|i| broadcast(&rounds[i]));
            let mut starts = [[0; 16]; TWEAKS];
            let mut index = first;
            for run in buf.chunks_mut(sector_len * TWEAKS) {
                let count = run.len() / sector_len;
                for start in &mut starts[..count] {
                    *start = index.to_le_bytes();
                    index = index.wrapping_add(1);
                }
                encrypt_starts(&keys.tweak, &mut starts, count);
                for (sector, start) in run.chunks_exact_mut(sector_len).zip(&starts) {
                    // Eight variables: an array of them is kept in memory.
                    let [
                        mut n0,
                        mut n1,
                        mut n2,
                        mut n3,
                        mut n4,
                        mut n5,
                        mut n6,
                        mut n7,
                    ] = tweaks(start);
                    let (batches, _) = sector.as_chunks_mut::<BATCH>();
                    let mut left = batches.len();
                    for batch in batches {
                        let t = [n0, n1, n2, n3, n4, n5, n6, n7];
                        let (lanes, _) = batch.as_chunks_mut::<WIDTH>();
                        let mut x = t;
                        for i in 0..FLIGHT {
                            x[i] = xor3(load(&lanes[i]), t[i], k[0]);
                        }
                        // Before the rounds, which hide its latency.
                        left -= 1;
                        if left > 0 {
                            [n0, n1, n2, n3, n4, n5, n6, n7] = further(t);
                        }
                        for k in &k[1..14] {
                            for x in &mut x {
                                *x = if SEAL { enc(*x, *k) } else { dec(*x, *k) };
                            }
                        }
                        for i in 0..FLIGHT {
                            // The last round's xor takes the tweak along.
                            let k = xor(k[14], t[i]);
                            let y = if SEAL {
                                enc_last(x[i], k)
                            } else {
                                dec_last(x[i], k)
                            };
                            store(&mut lanes[i], y);
                        }
                    }
                }
            }
        }

        /// The tweaks of the next batch.
        #[inline]
        #[target_feature(enable = $features)]
        fn further(t: [V; FLIGHT]) -> [V; FLIGHT] {
            [
                advance(t[0]),
                advance(t[1]),
                advance(t[2]),
                advance(t[3]),
                advance(t[4]),
                advance(t[5]),
                advance(t[6]),
                advance(t[7]),
            ]
        }

        /// Encrypts the first `count` sector numbers into tweaks, in place, and
        /// some more to fill registers.
        #[target_feature(enable = $features)]
        fn encrypt_starts(rounds: &RoundKeys, starts: &mut [[u8; 16]; TWEAKS], count: usize) {
            const GROUP: usize = 4;
            let (registers, _) = starts.as_flattened_mut().as_chunks_mut::<WIDTH>();
            let used = (count * 16).div_ceil(WIDTH);
            if used == 1 {
                let register = &mut registers[0];
                let mut x = xor(load(register), broadcast(&rounds[0]));
                for round in &rounds[1..14] {
                    x = enc(x, broadcast(round));
                }
                store(register, enc_last(x, broadcast(&rounds[14])));
                return;
            }
            let (groups, _) = registers.as_chunks_mut::<GROUP>();
            for group in &mut groups[..used.div_ceil(GROUP)] {
                let k = broadcast(&rounds[0]);
                let mut x = [k; GROUP];
                for (x, register) in x.iter_mut().zip(group.iter()) {
                    *x = xor(load(register), k);
                }
                for round in &rounds[1..14] {
                    let k = broadcast(round);
                    for x in &mut x {
                        *x = enc(*x, k);
                    }
                }
                let k = broadcast(&rounds[14]);
                for (x, register) in x.iter().zip(group) {
                    store(register, enc_last(*x, k));
                }
            }
        }
    };
}

mod v512 {
    use super::*;
    use crate::x86::v512::*;

    kernel!("avx512f,avx512bw,vaes,vpclmulqdq,aes");
    operations! { "avx512f,avx512bw,vaes,vpclmulqdq,aes":
        // 32 blocks further: times x^32.
        advance(t) = times_bytes::<4, 12>(t);
        // The bits shifted out of each half: the low half's go to the high one,
        // the high half's come back reduced.
        carry_over(shifted, carry) = xor3(
            shifted,
            _mm512_bslli_epi128::<8>(carry),
            _mm512_clmulepi64_epi128::<0x01>(carry, poly()),
        );
        poly() = _mm512_set_epi64(0, 0x87, 0, 0x87, 0, 0x87, 0, 0x87);
    }

    /// Times x^(8 `LEFT`); `RIGHT` is 16 - `LEFT`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    fn times_bytes<const LEFT: i32, const RIGHT: i32>(t: V) -> V {
        let carry = _mm512_bsrli_epi128::<RIGHT>(t);
        let reduced = _mm512_clmulepi64_epi128::<0x00>(carry, poly());
        xor(_mm512_bslli_epi128::<LEFT>(t), reduced)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    fn tweaks(start: &[u8; 16]) -> [V; FLIGHT] {
        // Lanes times x^0, x^1, x^2, x^3.
        let left = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
        let right = _mm512_set_epi64(61, 61, 62, 62, 63, 63, 64, 64);
        let t = broadcast(start);
        let t0 = carry_over(_mm512_sllv_epi64(t, left), _mm512_srlv_epi64(t, right));
        let t1 = carry_over(_mm512_slli_epi64::<4>(t0), _mm512_srli_epi64::<60>(t0));
        let t2 = times_bytes::<1, 15>(t0);
        let t3 = times_bytes::<1, 15>(t1);
        let t4 = times_bytes::<2, 14>(t0);
        let t5 = times_bytes::<2, 14>(t1);
        let t6 = times_bytes::<2, 14>(t2);
        let t7 = times_bytes::<2, 14>(t3);
        [t0, t1, t2, t3, t4, t5, t6, t7]
    }
}

mod v256 {
    use super::*;
    use crate::x86::v256::*;

    kernel!("avx2,vaes,vpclmulqdq,aes");
    operations! { "avx2,vaes,vpclmulqdq,aes":
        // 16 blocks further: times x^16.
        advance(t) = times_bytes::<2, 14>(t);
        // As in `v512`.
        carry_over(shifted, carry) = xor3(
            shifted,
            _mm256_bslli_epi128::<8>(carry),
            _mm256_clmulepi64_epi128::<0x01>(carry, poly()),
        );
        poly() = _mm256_set_epi64x(0, 0x87, 0, 0x87);
    }

    /// Times x^(8 `LEFT`); `RIGHT` is 16 - `LEFT`.
    #[inline]
    #[target_feature(enable = "avx2,vaes,vpclmulqdq,aes")]
    fn times_bytes<const LEFT: i32, const RIGHT: i32>(t: V) -> V {
        let carry = _mm256_bsrli_epi128::<RIGHT>(t);
        let reduced = _mm256_clmulepi64_epi128::<0x00>(carry, poly());
        xor(_mm256_bslli_epi128::<LEFT>(t), reduced)
    }

    /// Times x^`LEFT`; `RIGHT` is 64 - `LEFT`.
    #[inline]
    #[target_feature(enable = "avx2,vaes,vpclmulqdq,aes")]
    fn times_bits<const LEFT: i32, const RIGHT: i32>(t: V) -> V {
        carry_over(_mm256_slli_epi64::<LEFT>(t), _mm256_srli_epi64::<RIGHT>(t))
    }

    #[inline]
    #[target_feature(enable = "avx2,vaes,vpclmulqdq,aes")]
    fn tweaks(start: &[u8; 16]) -> [V; FLIGHT] {
        // Lanes times x^0, x^1.
        let left = _mm256_set_epi64x(1, 1, 0, 0);
        let right = _mm256_set_epi64x(63, 63, 64, 64);
        let t = broadcast(start);
        let t0 = carry_over(_mm256_sllv_epi64(t, left), _mm256_srlv_epi64(t, right));
        let t1 = times_bits::<2, 62>(t0);
        let t2 = times_bits::<4, 60>(t0);
        let t3 = times_bits::<4, 60>(t1);
        let t4 = times_bytes::<1, 15>(t0);
        let t5 = times_bytes::<1, 15>(t1);
        let t6 = times_bytes::<1, 15>(t2);
        let t7 = times_bytes::<1, 15>(t3);
        [t0, t1, t2, t3, t4, t5, t6, t7]
    }
}

mod v128 {
    use super::*;
    use crate::x86::v128::*;

    kernel!("aes,pclmulqdq,sse2");
    operations! { "aes,pclmulqdq,sse2":
        // 8 blocks further: times x^8.
        advance(t) = xor(
            _mm_bslli_si128::<1>(t),
            _mm_clmulepi64_si128::<0x00>(_mm_bsrli_si128::<15>(t), poly()),
        );
        // As in `v512`.
        carry_over(shifted, carry) = xor3(
            shifted,
            _mm_bslli_si128::<8>(carry),
            _mm_clmulepi64_si128::<0x01>(carry, poly()),
        );
        poly() = _mm_set_epi64x(0, 0x87);
    }

    /// Times x^`LEFT`; `RIGHT` is 64 - `LEFT`.
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,sse2")]
    fn times_bits<const LEFT: i32, const RIGHT: i32>(t: V) -> V {
        carry_over(_mm_slli_epi64::<LEFT>(t), _mm_srli_epi64::<RIGHT>(t))
    }

    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,sse2")]
    fn tweaks(start: &[u8; 16]) -> [V; FLIGHT] {
        let t0 = load(start);
        let t1 = times_bits::<1, 63>(t0);
        let t2 = times_bits::<2, 62>(t0);
        let t3 = times_bits::<2, 62>(t1);
        let t4 = times_bits::<4, 60>(t0);
        let t5 = times_bits::<4, 60>(t1);
        let t6 = times_bits::<4, 60>(t2);
        let t7 = times_bits::<4, 60>(t3);
        [t0, t1, t2, t3, t4, t5, t6, t7]
    }
}
