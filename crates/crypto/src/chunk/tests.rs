#![allow(clippy::cast_possible_truncation)]

use proptest::prelude::*;

use super::*;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Aes256Gcm, Algorithm::Aes256GcmSiv];

fn key() -> ObjectKey {
    ObjectKey::from_secret(SecretBytes::init_with(|key| key.fill(5)))
}

fn aad() -> StreamAad {
    StreamAad::new(["bucket", "key", "1"])
}

fn plain(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn sealer(algorithm: Algorithm) -> ChunkSealer {
    ChunkSealer::new(algorithm, key().part_key_with_salt(&[1; 32]), aad())
}

fn opener(algorithm: Algorithm, plain_len: usize) -> ChunkOpener {
    ChunkOpener::new(algorithm, key().open_key(&[1; 32]), aad(), plain_len as u64)
}

fn sealed(algorithm: Algorithm, plain: &[u8]) -> SealedBuf {
    sealer(algorithm).seal_vec(plain.to_vec(), true).unwrap()
}

/// Reads a whole stream as a store would hand it back.
fn read(
    opener: &ChunkOpener,
    mut ciphertext: Vec<u8>,
    tags: &[[u8; TAG_LEN]],
) -> Result<Vec<u8>, CryptoError> {
    let mut plain = Vec::new();
    let mut rest = ciphertext.as_mut_slice();
    for index in 0..opener.chunk_count() {
        let len = rest.len().min(CHUNK_LEN);
        let (chunk, behind) = rest.split_at_mut(len);
        let tag = tags.get(index as usize).ok_or(CryptoError::StreamEnded)?;
        plain.extend_from_slice(opener.open(index, chunk, tag)?);
        rest = behind;
    }
    Ok(plain)
}

#[test]
fn streams_of_every_length_around_a_chunk_come_back() {
    for algorithm in ALGORITHMS {
        for len in [
            0,
            1,
            15,
            16,
            17,
            CHUNK_LEN - 1,
            CHUNK_LEN,
            CHUNK_LEN + 1,
            3 * CHUNK_LEN,
        ] {
            let plain = plain(len);
            let (ciphertext, tags) = sealed(algorithm, &plain).into_parts();
            assert_eq!(
                sealed_len(len as u64).unwrap(),
                (ciphertext.len() + tags.len() * TAG_LEN) as u64
            );
            let back = read(&opener(algorithm, len), ciphertext, &tags).unwrap();
            assert!(back == plain, "{algorithm:?}, {len}");
        }
    }
}

#[test]
fn every_flipped_bit_of_the_first_of_three_chunks_is_refused() {
    refuses_every_flip(0);
}

#[test]
fn every_flipped_bit_of_the_middle_of_three_chunks_is_refused() {
    refuses_every_flip(1);
}

#[test]
fn every_flipped_bit_of_the_last_of_three_chunks_is_refused() {
    refuses_every_flip(2);
}

fn refuses_every_flip(index: usize) {
    let len = 2 * CHUNK_LEN + 100;
    for algorithm in ALGORITHMS {
        let (mut ciphertext, tags) = sealed(algorithm, &plain(len)).into_parts();
        let opener = opener(algorithm, len);
        // Only the chunk with the flip is opened: that the others open is shown
        // above.
        let tag = &tags[index];
        let start = index * CHUNK_LEN;
        let end = len.min(start + CHUNK_LEN);
        let mut room = vec![0; end - start];
        let mut refused = |chunk: &[u8], tag: &[u8; TAG_LEN]| {
            room.copy_from_slice(chunk);
            let opened = opener.open(index as u64, &mut room, tag).map(|_| ());
            assert_eq!(opened, Err(CryptoError::Unauthentic));
        };
        for bit in 0..TAG_LEN * 8 {
            let mut bad = *tag;
            bad[bit / 8] ^= 1 << (bit % 8);
            refused(&ciphertext[start..end], &bad);
        }
        for at in start..end {
            for bit in 0..8 {
                ciphertext[at] ^= 1 << bit;
                refused(&ciphertext[start..end], tag);
                ciphertext[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn chunks_moved_repeated_or_from_another_stream_are_refused() {
    let len = 3 * CHUNK_LEN;
    for algorithm in ALGORITHMS {
        let (ciphertext, tags) = sealed(algorithm, &plain(len)).into_parts();
        let opener = opener(algorithm, len);
        for (given, tag) in tags.iter().enumerate() {
            for asked in (0..3).filter(|asked| *asked != given) {
                let mut chunk = ciphertext[given * CHUNK_LEN..][..CHUNK_LEN].to_vec();
                let opened = opener.open(asked as u64, &mut chunk, tag);
                assert_eq!(opened.unwrap_err(), CryptoError::Unauthentic);
            }
        }
        let others = [
            (key().part_key_with_salt(&[2; 32]), aad()),
            (
                key().part_key_with_salt(&[1; 32]),
                StreamAad::new(["bucket", "ke", "y1"]),
            ),
            (
                ObjectKey::from_secret(SecretBytes::init_with(|k| k.fill(6)))
                    .part_key_with_salt(&[1; 32]),
                aad(),
            ),
        ];
        for (key, aad) in others {
            let other = ChunkSealer::new(algorithm, key, aad).seal_vec(plain(len), true);
            let (mut ciphertext, tags) = other.unwrap().into_parts();
            let opened = opener.open(0, &mut ciphertext[..CHUNK_LEN], &tags[0]);
            assert_eq!(opened.unwrap_err(), CryptoError::Unauthentic);
        }
    }
}

#[test]
fn a_stream_cut_or_extended_at_a_chunk_never_ends_cleanly() {
    for algorithm in ALGORITHMS {
        for (len, claimed) in [
            (3 * CHUNK_LEN, 2 * CHUNK_LEN),
            (3 * CHUNK_LEN, CHUNK_LEN),
            (3 * CHUNK_LEN, 0),
            (2 * CHUNK_LEN + 7, 2 * CHUNK_LEN),
            (2 * CHUNK_LEN, 3 * CHUNK_LEN),
            (0, 1),
            (1, 0),
        ] {
            let (mut ciphertext, mut tags) = sealed(algorithm, &plain(len)).into_parts();
            ciphertext.resize(claimed, 0);
            tags.resize(chunk_count(claimed as u64) as usize, [0; TAG_LEN]);
            let read = read(&opener(algorithm, claimed), ciphertext, &tags);
            assert_eq!(read, Err(CryptoError::Unauthentic), "{len} as {claimed}");
        }
    }
}

#[test]
fn a_refused_chunk_is_wiped_before_it_is_handed_back() {
    for algorithm in ALGORITHMS {
        let (mut ciphertext, mut tags) = sealed(algorithm, &plain(100)).into_parts();
        tags[0][0] ^= 1;
        let opened = opener(algorithm, 100)
            .open(0, &mut ciphertext, &tags[0])
            .map(|_| ());
        assert_eq!(opened, Err(CryptoError::Unauthentic));
        assert_eq!(ciphertext, [0; 100]);
    }
}

#[test]
fn nothing_follows_the_last_chunk_and_only_whole_chunks_come_before() {
    let mut sealer = sealer(Algorithm::Aes256Gcm);
    assert!(matches!(
        sealer.seal(&mut [0; 10], false),
        Err(CryptoError::ChunkLength { len: 10, .. })
    ));
    assert!(sealer.seal(&mut vec![0; CHUNK_LEN + 1], true).is_err());
    assert!(sealer.seal_vec(vec![0; CHUNK_LEN + 1], false).is_err());
    assert!(sealer.seal_vec(Vec::new(), false).is_err());
    sealer.seal(&mut vec![0; CHUNK_LEN], false).unwrap();
    // An empty last chunk is for the empty stream alone.
    assert!(sealer.seal(&mut [], true).is_err());
    assert!(!sealer.is_finished());
    sealer.seal(&mut [1], true).unwrap();
    assert!(sealer.is_finished());
    assert_eq!(
        sealer.seal(&mut [1], true).unwrap_err(),
        CryptoError::StreamEnded
    );
    assert_eq!(
        sealer.seal_vec(vec![1], true).unwrap_err(),
        CryptoError::StreamEnded
    );
}

#[test]
fn tags_inline_and_tags_apart_are_the_same_bytes() {
    let plain = plain(CHUNK_LEN + 3);
    let apart = sealed(Algorithm::Aes256Gcm, &plain);
    let mut sealer = sealer(Algorithm::Aes256Gcm);
    let opener = opener(Algorithm::Aes256Gcm, plain.len());
    for (index, ((ciphertext, tag), plain)) in
        (0..).zip(apart.chunks().zip(plain.chunks(CHUNK_LEN)))
    {
        let mut buf = [plain, &[0; TAG_LEN]].concat();
        let inline = sealer.seal_inline(&mut buf, index == 1).unwrap();
        assert!(inline.as_bytes() == [ciphertext, tag].concat());
        assert!(opener.open_inline(index, &mut buf).unwrap() == plain);
    }
}

#[test]
fn a_length_that_no_stream_has_is_known() {
    assert_eq!(plain_len(0), None);
    assert_eq!(plain_len(15), None);
    assert_eq!(plain_len(16), Some(0));
    assert_eq!(plain_len(65552), Some(65536));
    for len in 65553..=65568 {
        assert_eq!(plain_len(len), None);
    }
    assert_eq!(plain_len(65569), Some(65537));
    assert_eq!(plain_len(u64::MAX), None);
    assert_eq!(sealed_len(1 << 48), Some((1 << 48) + (1 << 36)));
    assert_eq!(sealed_len((1 << 48) + 1), None);
}

#[test]
fn a_stream_said_to_be_too_long_is_refused() {
    let opener = ChunkOpener::new(
        Algorithm::Aes256Gcm,
        key().open_key(&[1; 32]),
        aad(),
        u64::MAX,
    );
    let opened = opener.open(0, &mut [], &[0; 16]).map(|_| ());
    assert_eq!(opened, Err(CryptoError::StreamTooLong));
}

#[test]
fn a_verifier_tells_keys_apart() {
    let other = ObjectKey::from_secret(SecretBytes::init_with(|key| key.fill(6)));
    assert_eq!(key().verifier(&[1; 32]), key().verifier(&[1; 32]));
    assert_ne!(key().verifier(&[1; 32]), key().verifier(&[2; 32]));
    assert_ne!(key().verifier(&[1; 32]), other.verifier(&[1; 32]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_stream_sealed_in_any_pieces_comes_back(
        len in 0usize..5 * CHUNK_LEN,
        siv in any::<bool>(),
        pieces in proptest::collection::vec(1usize..3, 0..5),
    ) {
        let algorithm = ALGORITHMS[usize::from(siv)];
        let plain = plain(len);
        let mut sealer = sealer(algorithm);
        let (mut ciphertext, mut tags) = (Vec::new(), Vec::new());
        let mut rest = plain.as_slice();
        for chunks in pieces {
            // The last chunk is left for the end.
            if rest.len() > chunks * CHUNK_LEN {
                let (head, tail) = rest.split_at(chunks * CHUNK_LEN);
                let (c, t) = sealer.seal_vec(head.to_vec(), false).unwrap().into_parts();
                ciphertext.extend(c);
                tags.extend(t);
                rest = tail;
            }
        }
        let (c, t) = sealer.seal_vec(rest.to_vec(), true).unwrap().into_parts();
        ciphertext.extend(c);
        tags.extend(t);
        prop_assert_eq!(sealed_len(len as u64), Some((ciphertext.len() + 16 * tags.len()) as u64));
        prop_assert_eq!(plain_len((ciphertext.len() + 16 * tags.len()) as u64), Some(len as u64));
        let back = read(&opener(algorithm, len), ciphertext, &tags).unwrap();
        prop_assert!(back == plain);
    }
}
