//! The formats on disk, pinned: what FORMAT.md describes must keep opening, and
//! what is sealed today must be the bytes that were sealed then.
#![allow(clippy::unwrap_used)]

use crypto::bucket_key::{BucketKey, unwrap_object_key, wrap_object_key};
use crypto::chunk::{Algorithm, ChunkOpener, ChunkSealer, ObjectKey, StreamAad};
use crypto::random::SeededRandom;
use crypto::record::Place;
use crypto::secret::{SecretBytes, SecretVec};
use crypto::sector::{PlainSectors, SectorIndex, SectorSize, StoredSectors};
use crypto::store_key::GenerationKey;
use crypto::volume_key::VolumeDataKey;
use crypto::wrap::{BackingKey, BlobHeader, EncryptionContext, KeyBlob};

fn secret<const N: usize>(byte: u8) -> SecretBytes<N> {
    SecretBytes::init_with(|secret| secret.fill(byte))
}

/// Compares with the file, 32 bytes a line, and gives the file's bytes.
fn golden(name: &str, file: &str, sealed: &[u8]) -> Vec<u8> {
    let lines = sealed.chunks(32).map(|line| {
        let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        hex + "\n"
    });
    let text: String = lines.collect();
    assert!(text == file, "{name} is not what it was; now:\n{text}");
    sealed.to_vec()
}

#[test]
fn a_key_blob_is_what_it_was() {
    let key = BackingKey::from_secret(secret(1));
    let context = EncryptionContext::from_pairs([("aws:ebs:id", "vol-1"), ("a", "bc")]).unwrap();
    let header = BlobHeader {
        key_id: *b"0123456789abcdef",
        multi_region: true,
        material: 0x0102_0304,
    };
    let random = SeededRandom::new(1);
    let sealed = KeyBlob::seal(&key, header, &context, b"a data key", &random).unwrap();
    let stored = golden("key blob", include_str!("golden/key-blob.hex"), &sealed);
    let blob = KeyBlob::parse(&stored).unwrap();
    assert_eq!(*blob.header(), header);
    assert_eq!(blob.open(&key, &context).unwrap().expose(), b"a data key");
}

#[test]
fn a_sealed_record_is_what_it_was() {
    let key = GenerationKey::from_secret(secret(2)).record_key("keys");
    let place = Place {
        table: "material",
        account: "123456789012",
        region: "us-east-1",
        id: b"row 7",
        version: 3,
    };
    let sealed = key.seal_at(&place, 9, b"a record", &SeededRandom::new(2));
    let file = include_str!("golden/sealed-record.hex");
    let stored = golden("record", file, sealed.as_bytes());
    assert_eq!(key.open_at(&place, &stored).unwrap().expose(), b"a record");
}

#[test]
fn a_wrapped_object_key_is_what_it_was() {
    let bucket = BucketKey::from_secret(secret(3));
    let object = ObjectKey::from_secret(secret(4));
    let sealed = wrap_object_key(&bucket, &object, b"bucket/key", &SeededRandom::new(3));
    let stored = golden(
        "object key",
        include_str!("golden/wrapped-object-key.hex"),
        &sealed,
    );
    let back = unwrap_object_key(&bucket, &stored, b"bucket/key").unwrap();
    assert_eq!(back.secret().expose(), object.secret().expose());
}

#[test]
fn a_chunk_stream_is_what_it_was() {
    let key = ObjectKey::from_secret(secret(5));
    let aad = || StreamAad::new(["bucket", "key", "1"]);
    let mut sealed = Vec::new();
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::Aes256GcmSiv] {
        let sealer = ChunkSealer::new(algorithm, key.part_key_with_salt(&[9; 32]), aad());
        let mut buf = *b"forty bytes of plaintext, room for a tag\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let mut sealer = sealer;
        sealed.extend_from_slice(sealer.seal_inline(&mut buf, true).unwrap().as_bytes());
    }
    let mut stored = golden("stream", include_str!("golden/chunk-stream.hex"), &sealed);
    let (gcm, siv) = stored.split_at_mut(56);
    for (algorithm, stream) in [(Algorithm::Aes256Gcm, gcm), (Algorithm::Aes256GcmSiv, siv)] {
        let opener = ChunkOpener::new(algorithm, key.open_key(&[9; 32]), aad(), 40);
        let plain = opener.open_inline(0, stream).unwrap();
        assert_eq!(plain, b"forty bytes of plaintext, room for a tag");
    }
}

#[test]
fn a_sector_is_what_it_was() {
    let data_key = VolumeDataKey::from_secret(SecretVec::from_slice(&[6; 64])).unwrap();
    let key = data_key.sector_key(b"vol-0123456789ab", 3, 2, SectorSize::B4096);
    // The first sector of region 2.
    let first = SectorIndex::containing(2 << 40, SectorSize::B4096);
    let mut buf = vec![0x5a; 4096];
    let sealed = key.seal(
        PlainSectors::new(&mut buf, SectorSize::B4096).unwrap(),
        first,
    );
    let (head, tail) = (&sealed.as_bytes()[..64], &sealed.as_bytes()[4032..]);
    golden(
        "sector",
        include_str!("golden/sector.hex"),
        &[head, tail].concat(),
    );
    let stored = StoredSectors::new(&mut buf, SectorSize::B4096).unwrap();
    assert!(
        key.open(stored, first)
            .as_bytes()
            .iter()
            .all(|byte| *byte == 0x5a)
    );
}
