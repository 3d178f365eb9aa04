//! Chunk streams: whatever is altered, cut, moved or claimed about the length, no wrong byte is handed out.
#![no_main]

use crypto::chunk::{
    Algorithm, CHUNK_LEN, ChunkOpener, ChunkSealer, ObjectKey, StreamAad, TAG_LEN,
};
use crypto::secret::SecretBytes;
use libfuzzer_sys::fuzz_target;

const PLAIN_LEN: usize = 2 * CHUNK_LEN + 33;

fn key() -> ObjectKey {
    ObjectKey::from_secret(SecretBytes::init_with(|k| k.fill(5)))
}

fn plain() -> Vec<u8> {
    (0..PLAIN_LEN).map(|n| (n % 251) as u8).collect()
}

fuzz_target!(|data: &[u8]| {
    let [algorithm, index, claimed @ ..] = data else {
        return;
    };
    let Some((claimed, rest)) = claimed.split_first_chunk::<8>() else {
        return;
    };
    let algorithm = if algorithm & 1 == 0 {
        Algorithm::Aes256Gcm
    } else {
        Algorithm::Aes256GcmSiv
    };
    let aad = || StreamAad::new([b"bucket".as_slice(), b"key"]);
    let salt = [1; 32];
    let mut sealer = ChunkSealer::new(algorithm, key().part_key_with_salt(&salt), aad());
    let sealed = sealer
        .seal_vec(plain(), true)
        .expect("whole chunks and a last one");
    let chunks: Vec<(Vec<u8>, [u8; TAG_LEN])> =
        sealed.chunks().map(|(c, t)| (c.to_vec(), *t)).collect();

    // A reader is told some length, wants some chunk, and gets some bytes for it.
    let claimed = match rest.first() {
        Some(n) if n % 2 == 0 => u64::from_le_bytes(*claimed),
        _ => PLAIN_LEN as u64,
    };
    let opener = ChunkOpener::new(algorithm, key().open_key(&salt), aad(), claimed);
    let given = usize::from(*index) % chunks.len();
    let asked = rest.get(1).map_or(given as u64, |n| u64::from(*n % 5));
    let (mut buf, mut tag) = chunks[given].clone();
    match rest.get(2..) {
        Some([0, at, ..]) => tag[usize::from(*at) % TAG_LEN] ^= 1 << (at % 8),
        Some([1, at, flip, ..]) if !buf.is_empty() => {
            let at = usize::from(*at) * 257 % buf.len();
            buf[at] ^= flip;
        }
        Some([2, cut, ..]) => buf.truncate(buf.len().saturating_sub(usize::from(*cut))),
        Some([3, more, ..]) => buf.extend(std::iter::repeat_n(*more, usize::from(*more))),
        Some([4, edit @ ..]) => buf = edit.to_vec(),
        _ => {}
    }
    let right = claimed == PLAIN_LEN as u64
        && asked == given as u64
        && (&buf, &tag) == (&chunks[given].0, &chunks[given].1);
    match opener.open(asked, &mut buf, &tag) {
        Ok(opened) => {
            // A chunk that is not the last is the same in a longer stream: the end is what tells them apart.
            let whole = given + 1 < chunks.len()
                && asked + 1 < opener.chunk_count()
                && asked == given as u64;
            assert!(
                right || whole,
                "opened chunk {given} as {asked} of {claimed} bytes"
            );
            assert_eq!(opened, &plain()[given * CHUNK_LEN..][..opened.len()]);
        }
        Err(_) => assert!(!right, "refused chunk {given} as it was sealed"),
    }
});
