//! No branch and no address depends on a secret: shown on the machine code, for
//! every kernel this processor runs. See [`lockstep`] for what that means.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

mod lockstep;

use crypto::bucket_key::{BucketKey, unwrap_object_key, wrap_object_key};
use crypto::chunk::{Algorithm, ChunkOpener, ChunkSealer, ObjectKey, StreamAad};
use crypto::gcm_siv::GcmSivKey;
use crypto::kernel::Kernel;
use crypto::mac::MacKey;
use crypto::random::{Random, SeededRandom};
use crypto::secret::SecretBytes;
use crypto::sector::{SectorIndex, SectorSize};
use crypto::xts::XtsKey;
use subtle::ConstantTimeEq;

/// All zeros, all ones, and noise: with so many a bit that decides something is the same
/// in all of them at odds of 1 to 8.
const SECRETS: usize = 4;

fn fill(bytes: &mut [u8], secret: usize) {
    // Drawn always: what a process has run once it does not look up again (which instructions
    // the processor has), and that must be the same for every secret.
    SeededRandom::new(secret as u64).fill(bytes);
    match secret {
        0 => bytes.fill(0),
        1 => bytes.fill(0xff),
        _ => {}
    }
}

fn sector_key(secret: usize) -> SecretBytes<64> {
    SecretBytes::init_with(|key| {
        fill(key, secret);
        // Equal halves are refused.
        key[0] ^= 1;
    })
}

fn object_key(secret: usize) -> ObjectKey {
    ObjectKey::from_secret(SecretBytes::init_with(|key| fill(key, secret)))
}

fn place() -> StreamAad {
    StreamAad::new(["bucket", "key"])
}

fn data(len: usize, secret: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    fill(&mut data, secret);
    data
}

#[test]
fn sealing_and_opening_sectors_takes_the_same_steps_whatever_key_and_data() {
    for kernel in Kernel::available() {
        let (small, large) = (SectorSize::B512, SectorSize::B4096);
        // One sector; several, whose tweaks are encrypted in one batch; more than a batch of
        // tweaks, where that is not too slow.
        let runs = if kernel == Kernel::detect() {
            vec![(small, 1), (small, 33), (large, 2)]
        } else {
            vec![(small, 5), (large, 1)]
        };
        for (size, count) in runs {
            for seal in [true, false] {
                let steps = lockstep::run(
                    SECRETS,
                    |secret| {
                        let xts = XtsKey::with_kernel(&sector_key(secret), kernel).unwrap();
                        (xts, data(count * size.bytes(), secret ^ 2))
                    },
                    |(xts, buf)| {
                        if seal {
                            xts.seal(buf, size, SectorIndex::new(7));
                        } else {
                            xts.open(buf, size, SectorIndex::new(7));
                        }
                    },
                );
                println!("{kernel}, {size:?}, seal {seal}: {steps} instructions");
            }
        }
    }
}

#[test]
fn expanding_and_dropping_a_sector_key_takes_the_same_steps_whatever_the_key() {
    for kernel in Kernel::available() {
        lockstep::run(SECRETS, sector_key, |key| {
            drop(XtsKey::with_kernel(key, kernel).unwrap());
        });
    }
}

#[test]
fn sealing_a_chunk_takes_the_same_steps_whatever_key_and_data() {
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::Aes256GcmSiv] {
        for len in [0, 600] {
            lockstep::run(
                SECRETS,
                |secret| (object_key(secret), data(len, secret ^ 3)),
                |(key, buf)| {
                    let key = key.part_key_with_salt(&[1; 32]);
                    let mut sealer = ChunkSealer::new(algorithm, key, place());
                    sealer.seal(buf, true).unwrap();
                },
            );
        }
    }
}

#[test]
fn opening_a_chunk_takes_the_same_steps_whatever_key_and_data() {
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::Aes256GcmSiv] {
        lockstep::run(
            SECRETS,
            |secret| sealed_chunk(algorithm, secret),
            |(opener, ciphertext, tag)| {
                opener.open(0, ciphertext, tag).unwrap();
            },
        );
    }
}

#[test]
fn a_chunk_is_refused_in_the_same_steps_wherever_its_tag_differs() {
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::Aes256GcmSiv] {
        lockstep::run(
            SECRETS,
            |place| {
                let (opener, ciphertext, mut tag) = sealed_chunk(algorithm, 2);
                // The first byte, the last, both, and one in between.
                match place {
                    0 => tag[0] ^= 1,
                    1 => tag[15] ^= 0x80,
                    2 => (tag[0], tag[15]) = (!tag[0], !tag[15]),
                    _ => tag[7] ^= 0x10,
                }
                (opener, ciphertext, tag)
            },
            |(opener, ciphertext, tag)| {
                opener.open(0, ciphertext, tag).unwrap_err();
            },
        );
    }
}

/// The kernels that [`Kernel::detect`] does not choose for a chunk.
#[test]
fn every_gcm_siv_kernel_takes_the_same_steps_whatever_key_data_and_tag() {
    for kernel in [Kernel::detect(), Kernel::Portable] {
        let key = |secret| {
            let secret = SecretBytes::init_with(|key| fill(key, secret));
            GcmSivKey::with_kernel(&secret, kernel).unwrap()
        };
        for (aad, len) in [(3, 600), (600, 3), (16, 512)] {
            let aad = vec![7; aad];
            lockstep::run(
                SECRETS,
                |secret| (key(secret), data(len, secret ^ 3)),
                |(key, buf)| {
                    let tag = key.seal(&[9; 12], &aad, buf).unwrap();
                    key.open(&[9; 12], &aad, buf, &tag).unwrap();
                },
            );
        }
        lockstep::run(
            SECRETS,
            |secret| {
                let (key, mut buf) = (key(secret), data(600, secret ^ 3));
                let mut tag = key.seal(&[9; 12], b"aad", &mut buf).unwrap();
                tag[secret * 5] ^= 1;
                (key, buf, tag)
            },
            |(key, buf, tag)| {
                key.open(&[9; 12], b"aad", buf, tag).unwrap_err();
            },
        );
    }
}

fn sealed_chunk(algorithm: Algorithm, secret: usize) -> (ChunkOpener, Vec<u8>, [u8; 16]) {
    const LEN: usize = 1000;
    let key = object_key(secret);
    let mut buf = data(LEN, secret ^ 1);
    let mut sealer = ChunkSealer::new(algorithm, key.part_key_with_salt(&[1; 32]), place());
    let tag = *sealer.seal(&mut buf, true).unwrap().tag();
    let key = key.open_key(&[1; 32]);
    let opener = ChunkOpener::new(algorithm, key, place(), LEN as u64);
    (opener, buf, tag)
}

#[test]
fn secrets_are_compared_in_the_same_steps_wherever_they_differ() {
    lockstep::run(
        SECRETS,
        |place| {
            let other = SecretBytes::<64>::init_with(|bytes| bytes[place * 21] = 1);
            (SecretBytes::<64>::init_with(|_| ()), other)
        },
        |(a, b)| {
            std::hint::black_box(a.ct_eq(b));
        },
    );
}

#[test]
fn a_wrapped_key_is_refused_in_the_same_steps_wherever_it_differs() {
    let bucket = || BucketKey::from_secret(SecretBytes::init_with(|key| key.fill(3)));
    let wrapped = wrap_object_key(&bucket(), &object_key(2), b"place", &SeededRandom::new(1));
    // The version stands first, then the nonce, whose difference is a difference of the whole
    // commitment. Behind it: the commitment, the ciphertext, the tag.
    for range in [33..65, 65..97, 97..113] {
        lockstep::run(
            SECRETS,
            |place| {
                let mut wrapped = wrapped.clone();
                wrapped[range.start + (range.len() - 1) * place / (SECRETS - 1)] ^= 1;
                (bucket(), wrapped)
            },
            |(bucket, wrapped)| {
                unwrap_object_key(bucket, wrapped, b"place").unwrap_err();
            },
        );
    }
}

#[test]
fn a_mac_is_refused_in_the_same_steps_wherever_it_differs() {
    lockstep::run(
        SECRETS,
        |place| {
            let mac = MacKey::public("log");
            let mut tag = mac.mac(&[b"frame"]);
            tag[place * 10] ^= 1;
            (mac, tag)
        },
        |(mac, tag)| {
            mac.verify(&[b"frame"], tag).unwrap_err();
        },
    );
}

/// That the harness sees what it looks for.
mod seen {
    use super::*;
    use std::hint::black_box;

    static TABLE: [u8; 256] = [7; 256];

    #[test]
    #[should_panic(expected = "an address depends on the secret")]
    fn a_table_looked_up_by_a_secret() {
        lockstep::run(
            SECRETS,
            |secret| data(1, secret),
            |secret| {
                black_box(black_box(&TABLE)[usize::from(secret[0])]);
            },
        );
    }

    #[test]
    #[should_panic(expected = "a branch depends on the secret")]
    fn a_comparison_that_stops_at_the_first_difference() {
        lockstep::run(
            SECRETS,
            |secret| data(32, secret),
            |secret| {
                let mut same = 0;
                for byte in secret.iter() {
                    if black_box(*byte) != 0 {
                        break;
                    }
                    same += 1;
                }
                black_box(same);
            },
        );
    }

    #[test]
    #[should_panic(expected = "a division depends on the secret")]
    fn a_division() {
        lockstep::run(
            SECRETS,
            |secret| data(1, secret),
            |secret| {
                black_box(1000 / u64::from(black_box(secret[0] | 1)));
            },
        );
    }
}
