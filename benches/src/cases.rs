//! What is timed: our kernels, and the peers anybody could use instead.
//!
//! Sectors are sealed and opened in place in a 64 KiB buffer that stays in the
//! L2 cache: what is compared is the cipher, not the memory. Chunk streams run
//! over 1 MiB.

use aes::Aes256;
use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::AeadInOut;
use aws_lc_rs::aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use crypto::chunk::{
    Algorithm, CHUNK_LEN, ChunkOpener, ChunkSealer, ObjectKey, StreamAad, TAG_LEN,
};
use crypto::hash::Md5;
use crypto::kernel::Kernel;
use crypto::md5_lanes::{self, Job, Lanes, Stream};
use crypto::secret::SecretBytes;
use crypto::sector::{SectorIndex, SectorSize};
use crypto::xts::XtsKey;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use xts_mode::{Xts128, get_tweak_default};

use crate::awslc::AwsLcXts;
use crate::measure::Case;

/// Bytes of sectors handled by a call.
pub const SECTORS_LEN: usize = 64 * 1024;
/// Bytes of a chunk stream handled by a call.
pub const STREAM_LEN: usize = 1024 * 1024;

/// Which way a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Encrypting.
    Seal,
    /// Decrypting.
    Open,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Seal, Self::Open];

    /// Name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
        }
    }
}

fn key() -> [u8; 64] {
    std::array::from_fn(|i| u8::try_from(i).expect("below 64"))
}

fn secret_key() -> SecretBytes<64> {
    SecretBytes::init_with(|secret| *secret = key())
}

fn sectors(name: impl Into<String>, mut run: impl FnMut(&mut [u8]) + 'static) -> Case {
    let mut buf = vec![0x5a; SECTORS_LEN];
    Case {
        name: name.into(),
        bytes: SECTORS_LEN,
        run: Box::new(move || run(&mut buf)),
    }
}

/// Everything that turns sectors of one size one way: our kernels by their
/// names, then `xts-mode`, `aws-lc`, `openssl`, `aes-ecb` and `memcpy`.
pub fn xts(size: SectorSize, direction: Direction) -> Vec<Case> {
    let seal = direction == Direction::Seal;
    let len = size.bytes();
    let mut cases = Vec::new();
    for kernel in Kernel::available() {
        let xts = XtsKey::with_kernel(&secret_key(), kernel).expect("the kernel is available");
        cases.push(sectors(kernel.name(), move |buf| {
            if seal {
                xts.seal(buf, size, SectorIndex::new(7));
            } else {
                xts.open(buf, size, SectorIndex::new(7));
            }
        }));
    }

    let half = |key: &[u8]| Aes256::new_from_slice(key).expect("32 bytes are a key");
    let xts = Xts128::new(half(&key()[..32]), half(&key()[32..]));
    cases.push(sectors("xts-mode", move |buf| {
        if seal {
            xts.encrypt_area(buf, len, 7, get_tweak_default);
        } else {
            xts.decrypt_area(buf, len, 7, get_tweak_default);
        }
    }));

    let mut awslc = AwsLcXts::new(&key(), seal);
    cases.push(sectors("aws-lc", move |buf| awslc.run(buf, len, 7)));

    let mut ctx = CipherCtx::new().expect("OpenSSL allocates a context");
    let cipher = Cipher::aes_256_xts();
    if seal {
        ctx.encrypt_init(Some(cipher), Some(&key()), None)
    } else {
        ctx.decrypt_init(Some(cipher), Some(&key()), None)
    }
    .expect("OpenSSL takes the key");
    cases.push(sectors("openssl", move |buf| {
        for (sector, index) in buf.chunks_exact_mut(len).zip(7u128..) {
            let tweak = index.to_le_bytes();
            if seal {
                ctx.encrypt_init(None, None, Some(&tweak))
            } else {
                ctx.decrypt_init(None, None, Some(&tweak))
            }
            .and_then(|()| ctx.cipher_update_inplace(sector, len))
            .expect("OpenSSL runs a sector");
        }
    }));

    let ecb = half(&key()[..32]);
    cases.push(sectors("aes-ecb", move |buf| {
        let (blocks, _) = Array::slice_as_chunks_mut(buf);
        if seal {
            ecb.encrypt_blocks(blocks);
        } else {
            ecb.decrypt_blocks(blocks);
        }
    }));

    let mut target = vec![0; SECTORS_LEN];
    cases.push(sectors("memcpy", move |buf| {
        target.copy_from_slice(buf);
        std::hint::black_box(&mut target);
    }));
    cases
}

fn stream(name: impl Into<String>, mut run: impl FnMut() + 'static) -> Case {
    run();
    Case {
        name: name.into(),
        bytes: STREAM_LEN,
        run: Box::new(run),
    }
}

fn aad() -> StreamAad {
    StreamAad::new(["a-bucket", "photos/2026/a key of usual length.jpg", "1"])
}

fn aad_bytes() -> [u8; 64] {
    [7; 64]
}

fn nonce(index: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&(index as u64).to_le_bytes());
    nonce
}

fn object_key() -> ObjectKey {
    ObjectKey::from_secret(SecretBytes::init_with(|key| key.fill(5)))
}

/// Our stream of 64 KiB chunks (its key derivation included) and the raw AEADs
/// under it, one call a chunk, without any of it.
pub fn streams(algorithm: Algorithm, direction: Direction) -> Vec<Case> {
    let raw = match algorithm {
        Algorithm::Aes256Gcm => &AES_256_GCM,
        Algorithm::Aes256GcmSiv => &AES_256_GCM_SIV,
    };
    let raw = || LessSafeKey::new(UnboundKey::new(raw, &[5; 32]).expect("32 bytes are a key"));
    let mut cases = match direction {
        Direction::Seal => sealing(algorithm, raw()),
        Direction::Open => opening(algorithm, raw()),
    };
    if algorithm == Algorithm::Aes256GcmSiv {
        let cipher = Aes256GcmSiv::new_from_slice(&[5; 32]).expect("32 bytes are a key");
        let mut buf = vec![0; STREAM_LEN];
        let mut ciphertext = vec![0x5a; STREAM_LEN];
        let tags: Vec<_> = ciphertext
            .chunks_mut(CHUNK_LEN)
            .enumerate()
            .map(|(i, chunk)| {
                cipher
                    .encrypt_inout_detached(&nonce(i).into(), &aad_bytes(), chunk.into())
                    .expect("a chunk is short")
            })
            .collect();
        let seal = direction == Direction::Seal;
        cases.push(stream("aes-gcm-siv", move || {
            if seal {
                for (i, chunk) in buf.chunks_mut(CHUNK_LEN).enumerate() {
                    cipher
                        .encrypt_inout_detached(&nonce(i).into(), &aad_bytes(), chunk.into())
                        .expect("a chunk is short");
                }
            } else {
                buf.copy_from_slice(&ciphertext);
                for (i, (chunk, tag)) in buf.chunks_mut(CHUNK_LEN).zip(&tags).enumerate() {
                    cipher
                        .decrypt_inout_detached(&nonce(i).into(), &aad_bytes(), chunk.into(), tag)
                        .expect("the chunk is authentic");
                }
            }
        }));
    }
    if algorithm == Algorithm::Aes256Gcm {
        cases.push(openssl_gcm(direction));
    }
    cases
}

/// OpenSSL's AES-256-GCM, one keyed context, a new nonce for each chunk.
fn openssl_gcm(direction: Direction) -> Case {
    let seal = direction == Direction::Seal;
    let start = |ctx: &mut CipherCtx, cipher, key, seal, nonce: Option<&[u8]>| {
        if seal {
            ctx.encrypt_init(cipher, key, nonce)
        } else {
            ctx.decrypt_init(cipher, key, nonce)
        }
    };
    let context = |seal| {
        let mut ctx = CipherCtx::new().expect("OpenSSL allocates a context");
        start(
            &mut ctx,
            Some(Cipher::aes_256_gcm()),
            Some(&[5; 32]),
            seal,
            None,
        )
        .expect("OpenSSL takes the key");
        ctx
    };
    let chunk = move |ctx: &mut CipherCtx, seal, index, chunk: &mut [u8], tag: &mut [u8; 16]| {
        start(ctx, None, None, seal, Some(&nonce(index)))?;
        ctx.cipher_update(&aad_bytes(), None)?;
        ctx.cipher_update_inplace(chunk, chunk.len())?;
        if !seal {
            ctx.set_tag(tag)?;
        }
        ctx.cipher_final(&mut [])?;
        if seal {
            ctx.tag(tag)?;
        }
        Ok::<(), openssl::error::ErrorStack>(())
    };

    let mut sealer = context(true);
    let mut ciphertext = vec![0x5a; STREAM_LEN];
    let mut tags = vec![[0; TAG_LEN]; STREAM_LEN / CHUNK_LEN];
    for (i, (bytes, tag)) in ciphertext.chunks_mut(CHUNK_LEN).zip(&mut tags).enumerate() {
        chunk(&mut sealer, true, i, bytes, tag).expect("OpenSSL seals a chunk");
    }
    let mut ctx = context(seal);
    let mut buf = vec![0; STREAM_LEN];
    stream("openssl", move || {
        if !seal {
            buf.copy_from_slice(&ciphertext);
        }
        for (i, (bytes, tag)) in buf.chunks_mut(CHUNK_LEN).zip(&mut tags).enumerate() {
            chunk(&mut ctx, seal, i, bytes, tag).expect("OpenSSL runs a chunk");
        }
    })
}

fn sealing(algorithm: Algorithm, raw: LessSafeKey) -> Vec<Case> {
    let key = object_key();
    let mut buf = vec![0; STREAM_LEN];
    let ours = stream("stream", move || {
        let mut sealer = ChunkSealer::new(algorithm, key.part_key_with_salt(&[1; 32]), aad());
        let chunks = buf.len() / CHUNK_LEN;
        for (i, chunk) in buf.chunks_mut(CHUNK_LEN).enumerate() {
            let sealed = sealer.seal(chunk, i + 1 == chunks).expect("whole chunks");
            std::hint::black_box(sealed.tag());
        }
    });
    let mut buf = vec![0; STREAM_LEN];
    let raw = stream("aws-lc-rs", move || {
        for (i, chunk) in buf.chunks_mut(CHUNK_LEN).enumerate() {
            let nonce = Nonce::assume_unique_for_key(nonce(i));
            let tag = raw
                .seal_in_place_separate_tag(nonce, Aad::from(aad_bytes()), chunk)
                .expect("a chunk is short");
            std::hint::black_box(tag.as_ref());
        }
    });
    vec![ours, raw]
}

/// Opening destroys the ciphertext, so both copy it back first: the copy is in
/// both sides of the ratio.
fn opening(algorithm: Algorithm, raw: LessSafeKey) -> Vec<Case> {
    let plain = vec![0x5a; STREAM_LEN];

    let key = object_key();
    let (ciphertext, tags) = ChunkSealer::new(algorithm, key.part_key_with_salt(&[1; 32]), aad())
        .seal_vec(plain.clone(), true)
        .expect("whole chunks")
        .into_parts();
    let mut buf = vec![0; STREAM_LEN];
    let ours = stream("stream", move || {
        buf.copy_from_slice(&ciphertext);
        let opener = ChunkOpener::new(algorithm, key.open_key(&[1; 32]), aad(), STREAM_LEN as u64);
        for (i, (chunk, tag)) in (0..).zip(buf.chunks_mut(CHUNK_LEN).zip(&tags)) {
            opener.open(i, chunk, tag).expect("the chunk is authentic");
        }
    });

    let mut ciphertext = plain;
    let tags: Vec<[u8; TAG_LEN]> = ciphertext
        .chunks_mut(CHUNK_LEN)
        .enumerate()
        .map(|(i, chunk)| {
            let nonce = Nonce::assume_unique_for_key(nonce(i));
            let tag = raw
                .seal_in_place_separate_tag(nonce, Aad::from(aad_bytes()), chunk)
                .expect("a chunk is short");
            tag.as_ref().try_into().expect("tags have 16 bytes")
        })
        .collect();
    let mut buf = vec![0; STREAM_LEN];
    let raw = stream("aws-lc-rs", move || {
        buf.copy_from_slice(&ciphertext);
        for (i, (chunk, tag)) in buf.chunks_mut(CHUNK_LEN).zip(&tags).enumerate() {
            let nonce = Nonce::assume_unique_for_key(nonce(i));
            raw.open_in_place_separate_tag(nonce, Aad::from(aad_bytes()), tag, chunk)
                .expect("the chunk is authentic");
        }
    });
    vec![ours, raw]
}

/// Bytes of each stream handled by a call of [`md5`].
pub const MD5_LEN: usize = 64 * 1024;

/// MD5 of 1 to 16 streams at once with each of our kernels, `openssl` and crate
/// `md-5` with one; speeds are of all streams in sum.
pub fn md5() -> Vec<Case> {
    let data = vec![0x5a; MD5_LEN];
    let mut cases = vec![
        md5_case("md-5", 1, {
            let data = data.clone();
            move || {
                std::hint::black_box(Md5::digest(&data));
            }
        }),
        md5_case("openssl", 1, move || {
            let digest = openssl::hash::hash(openssl::hash::MessageDigest::md5(), &data);
            std::hint::black_box(digest.expect("OpenSSL has MD5"));
        }),
    ];
    for kernel in md5_lanes::Kernel::available() {
        let lanes = Lanes::with_kernel(kernel).expect("the kernel is available");
        let counts = [1, 2, 3, 4, 6, 8, 12, 16].into_iter();
        for count in counts.filter(|count| *count <= kernel.lanes()) {
            // Buffers of their own: those of uploads are not one another's neighbours.
            let data = vec![vec![0x5a; MD5_LEN]; count];
            let mut streams = vec![Stream::new(); count];
            cases.push(md5_case(&format!("{kernel}-{count}"), count, move || {
                let pieces: Vec<[&[u8]; 1]> = data.iter().map(|data| [&data[..]]).collect();
                let mut jobs: Vec<Job<'_>> = streams
                    .iter_mut()
                    .zip(&pieces)
                    .map(|(stream, pieces)| Job::new(stream, pieces))
                    .collect();
                lanes.update(&mut jobs);
            }));
        }
    }
    cases
}

fn md5_case(name: &str, count: usize, run: impl FnMut() + 'static) -> Case {
    Case {
        name: name.to_owned(),
        bytes: count * MD5_LEN,
        run: Box::new(run),
    }
}
