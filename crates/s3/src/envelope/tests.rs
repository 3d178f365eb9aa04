//! Golden files, bindings and hostile bytes.

use super::*;
use crypto::random::SeededRandom;
use crypto::secret::SecretBytes;
use crypto::store_key::GenerationKey;

fn envelopes() -> Envelopes {
    let root = GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(9)));
    Envelopes::new(root.record_key("s3-metadata"))
}

fn text(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn attributes() -> Attributes {
    Attributes {
        headers: text(&[
            ("cache-control", "no-cache"),
            ("content-type", "text/plain"),
        ]),
        metadata: text(&[("a", "1"), ("b", "zwei")]),
        tags: text(&[("team", "blue")]),
    }
}

fn protections() -> [Protection; 4] {
    let context = EncryptionContext::from_pairs([("k", "v")]).unwrap();
    let key_arn = "arn:aws:kms:us-east-1:123456789012:key/x".to_owned();
    [
        Protection::Owned {
            bucket_key: vec![1; 40],
            wrapped: vec![2; 50],
        },
        Protection::Kms {
            key_arn: key_arn.clone(),
            data_key: vec![3; 40],
            context: context.clone(),
        },
        Protection::KmsBucketKey {
            key_arn,
            bucket_key: vec![4; 40],
            wrapped: vec![5; 50],
            context,
        },
        Protection::Customer {
            salt: [6; 32],
            verifier: [7; 32],
        },
    ]
}

fn object(protection: Protection, parts: bool) -> Object {
    let value = Value::new(checksum::Algorithm::Crc64Nvme, &[8; 8]).unwrap();
    Object {
        id: [1; 16],
        size: 123_456,
        etag: "900150983cd24fb0d6963f7d28e17f72".to_owned(),
        algorithm: ChunkAlgorithm::Aes256Gcm,
        layout: if parts {
            Layout::Parts {
                count: 2,
                digest: [3; 32],
            }
        } else {
            Layout::Single { salt: [2; 32] }
        },
        protection,
        attributes: attributes(),
        checksum: (!parts).then_some(Checksum {
            value,
            coverage: Coverage::FullObject,
            parts: 0,
        }),
    }
}

fn upload() -> Upload {
    Upload {
        id: [1; 16],
        algorithm: ChunkAlgorithm::Aes256GcmSiv,
        protection: protections()[3].clone(),
        attributes: attributes(),
        plan: Plan {
            algorithm: checksum::Algorithm::Sha256,
            coverage: Coverage::Composite,
            asked: true,
        },
    }
}

fn part() -> Part {
    Part {
        salt: [4; 32],
        size: 5 << 20,
        etag: [5; 16],
        checksum: Value::new(checksum::Algorithm::Sha256, &[6; 32]),
    }
}

/// Name, sealed form and plain form of every kind of envelope.
fn every_kind() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let random = SeededRandom::new(1);
    let sealer = envelopes();
    let mut all = Vec::new();
    for (n, protection) in protections().into_iter().enumerate() {
        let object = object(protection, n == 2);
        let sealed = sealer.seal_object("bucket", "key", &object, &random);
        all.push((format!("object-{}", n + 1), sealed, encode_object(&object)));
    }
    let sealed = sealer.seal_upload("bucket", "key", &upload(), &random);
    all.push(("upload".to_owned(), sealed, encode_upload(&upload())));
    let at = PartPlace {
        bucket: "bucket",
        key: "key",
        object: [1; 16],
        number: 7,
    };
    let sealed = sealer.seal_part(&at, &part(), &random);
    all.push(("part".to_owned(), sealed, encode_part(&part())));
    all
}

#[test]
fn the_golden_envelopes_still_open_and_are_still_written() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/envelope/golden");
    if std::env::var_os("SEALGATE_WRITE_GOLDEN").is_some() {
        write_the_golden_envelopes(&dir);
    }
    let sealer = envelopes();
    for (name, _, plain) in every_kind() {
        let golden = std::fs::read(dir.join(format!("{name}.plain"))).unwrap();
        assert_eq!(
            plain, golden,
            "{name}: the plain form changed: a new version is due"
        );
        let sealed = std::fs::read(dir.join(format!("{name}.sealed"))).unwrap();
        match name.as_str() {
            "upload" => {
                assert_eq!(
                    sealer.open_upload("bucket", "key", &sealed).unwrap(),
                    upload()
                );
            }
            "part" => {
                let at = PartPlace {
                    bucket: "bucket",
                    key: "key",
                    object: [1; 16],
                    number: 7,
                };
                assert_eq!(sealer.open_part(&at, &sealed).unwrap(), part());
            }
            _ => {
                let object = sealer.open_object("bucket", "key", &sealed).unwrap();
                assert_eq!(encode_object(&object), golden, "{name}");
            }
        }
    }
}

/// Made the golden files, with `SEALGATE_WRITE_GOLDEN` set; existing ones stay.
fn write_the_golden_envelopes(dir: &std::path::Path) {
    std::fs::create_dir_all(dir).unwrap();
    for (name, sealed, plain) in every_kind() {
        for (form, bytes) in [("sealed", sealed), ("plain", plain)] {
            let path = dir.join(format!("{name}.{form}"));
            if !path.exists() {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

#[test]
fn an_envelope_opens_only_where_it_was_sealed() {
    let sealer = envelopes();
    let random = SeededRandom::new(2);
    let sealed = sealer.seal_object(
        "bucket",
        "key",
        &object(protections()[0].clone(), false),
        &random,
    );
    assert!(sealer.open_object("bucket", "key", &sealed).is_ok());
    assert!(sealer.open_object("bucket", "kez", &sealed).is_err());
    assert!(sealer.open_object("bucketk", "ey", &sealed).is_err());
    assert!(sealer.open_upload("bucket", "key", &sealed).is_err());
    let at = |object, number| PartPlace {
        bucket: "bucket",
        key: "key",
        object,
        number,
    };
    let sealed = sealer.seal_part(&at([1; 16], 7), &part(), &random);
    assert!(sealer.open_part(&at([1; 16], 7), &sealed).is_ok());
    assert!(sealer.open_part(&at([1; 16], 8), &sealed).is_err());
    assert!(sealer.open_part(&at([2; 16], 7), &sealed).is_err());
}

#[test]
fn every_cut_extension_and_altered_length_is_refused_or_read_as_itself() {
    for (name, _, plain) in every_kind() {
        for len in 0..plain.len() {
            let cut = &plain[..len];
            assert!(
                decode_object(cut).is_err() && decode_upload(cut).is_err(),
                "{name}"
            );
            assert!(decode_part(cut).is_err(), "{name} cut at {len}");
        }
        let extended = [&plain[..], &[0]].concat();
        assert!(decode_object(&extended).is_err() && decode_part(&extended).is_err());
        for at in 0..plain.len() {
            let mut altered = plain.clone();
            altered[at] ^= 0xff;
            if let Ok(object) = decode_object(&altered) {
                assert_eq!(
                    encode_object(&object),
                    altered,
                    "one encoding for one object"
                );
            }
        }
    }
}

#[test]
fn a_digest_over_parts_sees_order_lengths_and_envelopes() {
    let part = |number, plain_len, envelope: &'static [u8]| PartRecord {
        number,
        plain_len,
        modified: std::time::UNIX_EPOCH,
        sequence: 1,
        envelope: bytes::Bytes::from_static(envelope),
    };
    let base = parts_digest(&[part(1, 10, b"a"), part(2, 20, b"b")]);
    for other in [
        vec![part(2, 20, b"b"), part(1, 10, b"a")],
        vec![part(1, 10, b"a")],
        vec![part(1, 11, b"a"), part(2, 20, b"b")],
        vec![part(1, 10, b"a"), part(3, 20, b"b")],
        vec![part(1, 10, b"ab"), part(2, 20, b"")],
    ] {
        assert_ne!(parts_digest(&other), base);
    }
}
