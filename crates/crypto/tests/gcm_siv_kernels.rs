//! AES-256-GCM-SIV: both kernels (one, where the processor has no VAES-512) against
//! RFC 8452, two other implementations, and each other. (Wycheproof: `wycheproof.rs`.)
#![allow(clippy::unwrap_used)]

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt};
use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use crypto::CryptoError;
use crypto::gcm_siv::GcmSivKey;
use crypto::kernel::Kernel;
use crypto::random::{Random, SeededRandom};
use crypto::secret::SecretBytes;
use proptest::prelude::*;

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

fn kernels(key: &[u8]) -> [GcmSivKey; 2] {
    let secret = SecretBytes::from_slice(key).unwrap();
    [Kernel::detect(), Kernel::Portable].map(|k| GcmSivKey::with_kernel(&secret, k).unwrap())
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// What two implementations, neither of them ours, agree on.
fn oracle(key: &[u8], nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let mut sealed = plain.to_vec();
    let tag: [u8; 16] = Aes256GcmSiv::new_from_slice(key)
        .unwrap()
        .encrypt_inout_detached(&(*nonce).into(), aad, sealed.as_mut_slice().into())
        .unwrap()
        .into();
    let mut again = plain.to_vec();
    let aws_lc = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).unwrap());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    aws_lc
        .seal_in_place_append_tag(nonce, Aad::from(aad), &mut again)
        .unwrap();
    assert!(again == [&sealed[..], &tag].concat(), "the oracles differ");
    (sealed, tag)
}

#[test]
fn the_counter_wraps_as_in_rfc_8452() {
    // Appendix C.3: the first 32 bits of these tags are all ones but the lowest.
    for (plain, sealed) in [
        (
            "00000000000000000000000000000000\
             4db923dc793ee6497c76dcc03a98e108",
            "f3f80f2cf0cb2dd9c5984fcda908456c\
             c537703b5ba70324a6793a7bf218d3ea\
             ffffffff000000000000000000000000",
        ),
        (
            "eb3640277c7ffd1303c7a542d02d3e4c\
             0000000000000000",
            "18ce4f0b8cb4d0cac65fea8f79257b20\
             888e53e72299e56d\
             ffffffff000000000000000000000000",
        ),
    ] {
        let mut key = [0; 32];
        key.fill(0);
        let (plain, sealed) = (unhex(plain), unhex(sealed));
        let (ciphertext, tag) = sealed.split_at(plain.len());
        for kernel in kernels(&key) {
            let mut buf = plain.clone();
            assert_eq!(kernel.seal(&[0; 12], &[], &mut buf).unwrap(), tag);
            assert_eq!(buf, ciphertext, "{kernel:?}");
        }
    }
}

/// GF(2^128) as POLYVAL has it (RFC 8452, 3), written for clarity: to find a message
/// with a tag of one's choice.
mod field {
    const REDUCED: u128 = 1 << 127 | 1 << 126 | 1 << 121 | 1;

    fn times_x(a: u128) -> u128 {
        (a << 1) ^ ((a >> 127) * REDUCED)
    }

    pub(super) fn times(mut a: u128, b: u128) -> u128 {
        let mut product = 0;
        for bit in 0..128 {
            product ^= a * (b >> bit & 1);
            a = times_x(a);
        }
        product
    }

    pub(super) fn power(mut a: u128, mut exponent: u128) -> u128 {
        let mut product = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                product = times(product, a);
            }
            a = times(a, a);
            exponent >>= 1;
        }
        product
    }

    pub(super) fn inverse(a: u128) -> u128 {
        power(a, u128::MAX - 1)
    }

    /// x^-128.
    pub(super) fn montgomery() -> u128 {
        inverse((0..128).fold(1, |x, _| times_x(x)))
    }
}

#[test]
fn the_counter_wraps_after_any_block() {
    // A tag begins with the first counter. One is chosen that wraps after so many blocks, and
    // the first block of the message then solved for, so that the message has this tag.
    const BLOCKS: usize = 100;
    let (key, nonce) = ([7; 32], [3; 12]);
    let block_of = |cipher: &Aes256, mut block: [u8; 16]| {
        cipher.encrypt_block((&mut block).into());
        block
    };
    let generating = Aes256::new_from_slice(&key).unwrap();
    let derived: Vec<u8> = (0..6)
        .flat_map(|counter| {
            let mut block = [0; 16];
            block[0] = counter;
            block[4..].copy_from_slice(&nonce);
            block_of(&generating, block)[..8].to_vec()
        })
        .collect();
    let cipher = Aes256::new_from_slice(&derived[16..]).unwrap();
    let h = u128::from_le_bytes(derived[..16].try_into().unwrap());
    let h = field::times(h, field::montgomery());

    for before in 1..=96u32 {
        let (tag, sum) = (0u64..)
            .map(|salt| {
                let mut tag = [0; 16];
                tag[..4].copy_from_slice(&0u32.wrapping_sub(before).to_le_bytes());
                tag[4..12].copy_from_slice(&salt.to_le_bytes());
                let mut sum = tag;
                cipher.decrypt_block((&mut sum).into());
                (tag, sum)
            })
            .find(|(_, sum)| sum[15] < 0x80)
            .unwrap();
        let mut wanted = sum;
        for (byte, nonce) in wanted.iter_mut().zip(nonce) {
            *byte ^= nonce;
        }
        let mut plain = random_bytes(16 * BLOCKS, before.into());
        plain[..16].fill(0);
        let lengths = (plain.len() as u128 * 8) << 64;
        let (blocks, _) = plain.as_chunks::<16>();
        let rest = blocks
            .iter()
            .map(|block| u128::from_le_bytes(*block))
            .chain([lengths])
            .fold(0, |sum, block| field::times(sum ^ block, h));
        let missing = rest ^ u128::from_le_bytes(wanted);
        let shift = field::inverse(field::power(h, BLOCKS as u128 + 1));
        plain[..16].copy_from_slice(&field::times(missing, shift).to_le_bytes());

        let (sealed, theirs) = oracle(&key, &nonce, &[], &plain);
        assert_eq!(theirs, tag, "the message was solved for this tag");
        for kernel in kernels(&key) {
            let mut buf = plain.clone();
            assert_eq!(kernel.seal(&nonce, &[], &mut buf).unwrap(), tag);
            assert!(buf == sealed, "{kernel:?}, sealing, {before}");
            kernel.open(&nonce, &[], &mut buf, &tag).unwrap();
            assert!(buf == plain, "{kernel:?}, opening, {before}");
        }
    }
}

#[test]
fn every_kernel_equals_two_others_at_every_length_to_three_batches() {
    let key = random_bytes(32, 1);
    let nonce: [u8; 12] = random_bytes(12, 2).try_into().unwrap();
    let data = random_bytes(3 * 512 + 40, 3);
    for len in 0..data.len() {
        let plain = &data[..len];
        let aad = &data[len / 2..][..len * 7 % 600 % (data.len() - len / 2)];
        let (sealed, tag) = oracle(&key, &nonce, aad, plain);
        for kernel in kernels(&key) {
            let mut buf = plain.to_vec();
            let ours = kernel.seal(&nonce, aad, &mut buf).unwrap();
            assert!(ours == tag && buf == sealed, "{kernel:?}, sealing {len}");
            kernel.open(&nonce, aad, &mut buf, &tag).unwrap();
            assert!(buf == plain, "{kernel:?}, opening {len}");
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_and_nothing_is_left() {
    let key = random_bytes(32, 4);
    let (nonce, aad, plain) = ([7; 12], random_bytes(20, 5), random_bytes(600, 6));
    let (sealed, tag) = oracle(&key, &nonce, &aad, &plain);
    for kernel in kernels(&key) {
        let refused = |nonce: &[u8; 12], aad: &[u8], sealed: &[u8], tag: &[u8; 16]| {
            let mut buf = sealed.to_vec();
            let opened = kernel.open(nonce, aad, &mut buf, tag);
            assert_eq!(opened, Err(CryptoError::Unauthentic), "{kernel:?}");
            assert!(buf.iter().all(|byte| *byte == 0), "{kernel:?}");
        };
        let flip = |bytes: &mut [u8], bit: usize| bytes[bit / 8] ^= 1 << (bit % 8);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            flip(&mut bad, bit);
            refused(&nonce, &aad, &bad, &tag);
        }
        for bit in 0..tag.len() * 8 {
            let mut bad = tag;
            flip(&mut bad, bit);
            refused(&nonce, &aad, &sealed, &bad);
        }
        for bit in 0..nonce.len() * 8 {
            let mut bad = nonce;
            flip(&mut bad, bit);
            refused(&bad, &aad, &sealed, &tag);
        }
        for bit in 0..aad.len() * 8 {
            let mut bad = aad.clone();
            flip(&mut bad, bit);
            refused(&nonce, &bad, &sealed, &tag);
        }
        refused(&nonce, &aad[..19], &sealed, &tag);
        refused(&nonce, &[&aad[..], &[0]].concat(), &sealed, &tag);
        refused(&nonce, &aad, &sealed[..599], &tag);
        refused(&nonce, &aad, &[&sealed[..], &[0]].concat(), &tag);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_message_is_sealed_as_others_do_and_comes_back(
        key in any::<[u8; 32]>(),
        nonce in any::<[u8; 12]>(),
        aad_len in 0usize..2000,
        len in 0usize..70_000,
        seed in any::<u64>(),
    ) {
        let (aad, plain) = (random_bytes(aad_len, seed), random_bytes(len, !seed));
        let (sealed, tag) = oracle(&key, &nonce, &aad, &plain);
        for kernel in kernels(&key) {
            let mut buf = plain.clone();
            prop_assert_eq!(kernel.seal(&nonce, &aad, &mut buf).unwrap(), tag);
            prop_assert!(buf == sealed);
            kernel.open(&nonce, &aad, &mut buf, &tag).unwrap();
            prop_assert!(buf == plain);
        }
    }
}
