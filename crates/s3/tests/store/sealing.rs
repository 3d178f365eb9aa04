//! Sealing and opening for tests: real keys and chunks, as the front would use them.

use bytes::Bytes;
use crypto::chunk::{
    Algorithm, CHUNK_LEN, ChunkOpener, ChunkSealer, ObjectKey, SealedBuf, StreamAad,
};
use crypto::secret::SecretBytes;
use s3::store::{
    Commit, Condition, ObjectRecord, ObjectStore, PartRecord, READ_CHUNKS_MAX, SealedReader,
    StoreError, UploadId,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn key() -> ObjectKey {
    ObjectKey::from_secret(SecretBytes::init_with(|key| key.fill(0x42)))
}

fn aad() -> StreamAad {
    StreamAad::new(["a test"])
}

const SALT: [u8; 32] = [9; 32];

/// Seals, several chunks to a buffer, all under one key: fine for a test, never elsewhere.
pub(crate) fn seal(plain: &[u8], chunks_per_buf: usize) -> Vec<SealedBuf> {
    let mut sealer = ChunkSealer::new(Algorithm::Aes256Gcm, key().part_key_with_salt(&SALT), aad());
    let step = chunks_per_buf * CHUNK_LEN;
    let count = plain.len().div_ceil(step).max(1);
    (0..count)
        .map(|i| {
            let piece = &plain[i * step..plain.len().min((i + 1) * step)];
            sealer.seal_vec(piece.to_vec(), i + 1 == count).unwrap()
        })
        .collect()
}

/// Opens a run of chunks of one part.
pub(crate) async fn read_chunks(
    reader: &dyn SealedReader,
    part: usize,
    first: u64,
    count: u32,
) -> Vec<u8> {
    let chunks = reader.read(part, first, count).await.unwrap();
    let opener = ChunkOpener::new(
        Algorithm::Aes256Gcm,
        key().open_key(&SALT),
        aad(),
        reader.parts()[part].plain_len,
    );
    chunks.open(&opener).unwrap().to_vec()
}

/// Opens everything.
pub(crate) async fn read_all(reader: &dyn SealedReader) -> Result<Vec<u8>, StoreError> {
    let mut all = Vec::new();
    for (at, part) in reader.parts().iter().enumerate() {
        let opener = ChunkOpener::new(
            Algorithm::Aes256Gcm,
            key().open_key(&SALT),
            aad(),
            part.plain_len,
        );
        let chunks = part.plain_len.div_ceil(CHUNK_LEN as u64).max(1);
        let mut next = 0;
        while next < chunks {
            let got = reader.read(at, next, READ_CHUNKS_MAX).await?;
            assert_eq!(got.first_chunk(), next);
            next += got.chunk_count() as u64;
            all.extend_from_slice(&got.open(&opener).unwrap());
        }
        assert_eq!(next, chunks);
    }
    Ok(all)
}

/// A date that tells puts apart.
pub(crate) fn date(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(1_750_000_000 + seconds, 123_456_789)
}

pub(crate) fn commit(envelope: &str) -> Commit {
    commit_if(envelope, Condition::Always)
}

pub(crate) fn commit_if(envelope: &str, condition: Condition) -> Commit {
    Commit {
        envelope: Bytes::copy_from_slice(envelope.as_bytes()),
        modified: date(1),
        condition,
    }
}

pub(crate) async fn put_with(
    store: &dyn ObjectStore,
    bucket: &str,
    key: &str,
    plain: &[u8],
    commit: Commit,
) -> Result<ObjectRecord, StoreError> {
    let mut sink = store
        .begin_put(bucket, key, Some(plain.len() as u64))
        .await?;
    for sealed in seal(plain, 3) {
        sink.write(sealed).await?;
    }
    sink.commit(commit).await
}

pub(crate) async fn put(
    store: &dyn ObjectStore,
    bucket: &str,
    key: &str,
    plain: &[u8],
) -> ObjectRecord {
    put_with(store, bucket, key, plain, commit("envelope"))
        .await
        .unwrap()
}

pub(crate) async fn put_part(
    store: &dyn ObjectStore,
    bucket: &str,
    key: &str,
    id: &UploadId,
    number: u32,
    plain: &[u8],
) -> Result<PartRecord, StoreError> {
    let mut sink = store.begin_part(bucket, key, id, number, None).await?;
    for sealed in seal(plain, 5) {
        sink.write(sealed).await?;
    }
    sink.commit(
        Bytes::from(format!("part {number}")),
        date(u64::from(number)),
    )
    .await
}

pub(crate) async fn get(
    store: &dyn ObjectStore,
    bucket: &str,
    key: &str,
) -> Result<Vec<u8>, StoreError> {
    let (record, reader) = store.open(bucket, key).await?;
    let all = read_all(&*reader).await?;
    assert_eq!(all.len() as u64, record.size);
    Ok(all)
}

/// Bytes that differ everywhere and from each other.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
