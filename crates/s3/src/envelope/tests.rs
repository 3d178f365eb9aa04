//! Golden files, bindings and hostile bytes.

use super::*;
use crypto::random::SeededRandom;
use host::disk::sim::SimDisk;

/// Everything is drawn from seeds, the store key too.
async fn envelopes() -> Envelopes {
    let (disk, random) = (Arc::new(SimDisk::new(1)), Arc::new(SeededRandom::new(7)));
    let provider = root::FileProvider::new("/root.key", disk.clone(), random.clone());
    let options = root::Options {
        disk,
        dir: "/".into(),
        provider: Arc::new(provider),
        random: random.clone(),
        may_make: true,
    };
    let store_key = StoreKey::open(options).await.unwrap();
    Envelopes::new(&store_key, random)
}

fn bucket() -> BucketId {
    BucketId::from_bytes([0xb0; 16])
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
async fn every_kind() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let sealer = envelopes().await;
    let bytes = |sealed: Sealed| sealed.envelope.to_vec();
    let mut all = Vec::new();
    for (n, protection) in protections().into_iter().enumerate() {
        let object = object(protection, n == 2);
        let sealed = bytes(sealer.seal_object(&bucket(), "key", &object));
        all.push((format!("object-{}", n + 1), sealed, encode_object(&object)));
    }
    let sealed = bytes(sealer.seal_upload(&bucket(), "key", &upload()));
    all.push(("upload".to_owned(), sealed, encode_upload(&upload())));
    let at = PartPlace {
        object: [1; 16],
        number: 7,
    };
    let sealed = bytes(sealer.seal_part(&at, &part()));
    all.push(("part".to_owned(), sealed, encode_part(&part())));
    all
}

#[tokio::test]
async fn the_golden_envelopes_still_open_and_are_still_written() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/envelope/golden");
    if std::env::var_os("SEALGATE_WRITE_GOLDEN").is_some() {
        write_the_golden_envelopes(&dir).await;
    }
    let sealer = envelopes().await;
    for (name, _, plain) in every_kind().await {
        let golden = std::fs::read(dir.join(format!("{name}.plain"))).unwrap();
        assert_eq!(
            plain, golden,
            "{name}: the plain form changed: a new version is due"
        );
        let sealed = std::fs::read(dir.join(format!("{name}.sealed"))).unwrap();
        match name.as_str() {
            "upload" => {
                assert_eq!(
                    sealer.open_upload(&bucket(), "key", &sealed).unwrap(),
                    upload()
                );
            }
            "part" => {
                let at = PartPlace {
                    object: [1; 16],
                    number: 7,
                };
                assert_eq!(sealer.open_part(&at, &sealed).unwrap(), part());
            }
            _ => {
                let object = sealer.open_object(&bucket(), "key", &sealed).unwrap();
                assert_eq!(encode_object(&object), golden, "{name}");
            }
        }
    }
}

/// Made the golden files, with `SEALGATE_WRITE_GOLDEN` set; existing ones stay.
async fn write_the_golden_envelopes(dir: &std::path::Path) {
    std::fs::create_dir_all(dir).unwrap();
    for (name, sealed, plain) in every_kind().await {
        for (form, bytes) in [("sealed", sealed), ("plain", plain)] {
            let path = dir.join(format!("{name}.{form}"));
            if !path.exists() {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_envelope_opens_only_where_it_was_sealed() {
    let sealer = envelopes().await;
    let object = object(protections()[0].clone(), false);
    let sealed = sealer.seal_object(&bucket(), "key", &object).envelope;
    assert!(sealer.open_object(&bucket(), "key", &sealed).is_ok());
    assert!(sealer.open_object(&bucket(), "kez", &sealed).is_err());
    let other = BucketId::from_bytes([0xb1; 16]);
    assert!(sealer.open_object(&other, "key", &sealed).is_err());
    assert!(sealer.open_upload(&bucket(), "key", &sealed).is_err());
    let at = |object, number| PartPlace { object, number };
    let sealed = sealer.seal_part(&at([1; 16], 7), &part()).envelope;
    assert!(sealer.open_part(&at([1; 16], 7), &sealed).is_ok());
    assert!(sealer.open_part(&at([1; 16], 8), &sealed).is_err());
    assert!(sealer.open_part(&at([2; 16], 7), &sealed).is_err());
    // Neither part of its head can be another one.
    for at_byte in [0, 16, 47] {
        let mut altered = sealed.to_vec();
        altered[at_byte] ^= 1;
        assert!(sealer.open_part(&at([1; 16], 7), &altered).is_err());
    }
}

#[tokio::test]
async fn an_envelope_is_sealed_again_knowing_only_where_it_stands() {
    let (sealer, at) = (envelopes().await, bucket().to_string());
    let row = |at, sealed: Sealed| SealedRow {
        at,
        envelope: sealed.envelope,
    };
    let whole = object(protections()[1].clone(), false);
    let object_at = SealedAt::Object {
        bucket: at.clone(),
        key: "key".to_owned(),
    };
    let upload_at = SealedAt::Upload {
        bucket: at,
        key: "key".to_owned(),
        number: 9,
    };
    let part_at = SealedAt::Part { of: 9, number: 7 };
    let place = PartPlace {
        object: [1; 16],
        number: 7,
    };
    let rows = [
        row(object_at, sealer.seal_object(&bucket(), "key", &whole)),
        row(upload_at, sealer.seal_upload(&bucket(), "key", &upload())),
        row(part_at, sealer.seal_part(&place, &part())),
    ];
    let anew = rows.map(|row| {
        let anew = sealer.seal_again(&sealer.seals(), &row).unwrap();
        assert_ne!(anew, row.envelope);
        let damaged = SealedRow {
            envelope: row.envelope.slice(..row.envelope.len() - 1),
            ..row
        };
        assert!(sealer.seal_again(&sealer.seals(), &damaged).is_err());
        anew
    });
    let [new_object, new_upload, new_part] = &anew;
    let opened = sealer.open_object(&bucket(), "key", new_object).unwrap();
    assert_eq!(opened, whole);
    let opened = sealer.open_upload(&bucket(), "key", new_upload).unwrap();
    assert_eq!(opened, upload());
    assert_eq!(sealer.open_part(&place, new_part).unwrap(), part());
}

#[tokio::test]
async fn every_cut_extension_and_altered_length_is_refused_or_read_as_itself() {
    for (name, _, plain) in every_kind().await {
        for len in 0..plain.len() {
            let cut = &plain[..len];
            assert!(
                decode_object(cut).is_err() && decode_upload(cut).is_err(),
                "{name}"
            );
            assert!(decode_part([4; 32], cut).is_err(), "{name} cut at {len}");
        }
        let extended = [&plain[..], &[0]].concat();
        assert!(decode_object(&extended).is_err() && decode_part([4; 32], &extended).is_err());
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
fn a_digest_over_parts_sees_order_lengths_and_heads_and_not_the_seal() {
    let part = |number, plain_len, salt: u8, seal: &[u8]| PartRecord {
        number,
        plain_len,
        modified: std::time::UNIX_EPOCH,
        sequence: 1,
        envelope: [&[1; 16][..], &[salt; 32], seal].concat().into(),
    };
    let digest = |parts: &[PartRecord]| parts_digest(parts).unwrap();
    let base = digest(&[part(1, 10, 1, b"a"), part(2, 20, 2, b"b")]);
    for other in [
        vec![part(2, 20, 2, b"b"), part(1, 10, 1, b"a")],
        vec![part(1, 10, 1, b"a")],
        vec![part(1, 11, 1, b"a"), part(2, 20, 2, b"b")],
        vec![part(1, 10, 1, b"a"), part(3, 20, 2, b"b")],
        vec![part(1, 10, 1, b"a"), part(2, 20, 3, b"b")],
    ] {
        assert_ne!(digest(&other), base);
    }
    let resealed = [part(1, 10, 1, b"c"), part(2, 20, 2, b"")];
    assert_eq!(digest(&resealed), base);
    let mut cut = part(1, 10, 1, b"");
    cut.envelope.truncate(47);
    assert!(parts_digest(&[cut]).is_err());
}
