//! Everything that touches key material or bulk data, and nothing else.
//!
//! For the volume engine, the object gateway and the keyring: sectors
//! ([`sector`], [`volume_key`]), chunk streams ([`chunk`]), keys under keys
//! ([`wrap`], [`bucket_key`]), small records ([`record`], [`store_key`]), tags ([`mac`]), checksums ([`hash`],
//! [`md5_lanes`]), and
//! the types that carry secrets ([`secret`]) and randomness ([`random`]).
//!
//! What the crate promises:
//! - Sealed bytes have types of their own which only this crate can make, so a
//!   store that takes them cannot be handed plaintext.
//! - A key that may be used once is taken by value.
//! - Whatever fails authentication fails with one error that says nothing more,
//!   and no byte of it is handed out.
//! - Secrets are wiped on drop, do not print, do not clone, and are compared in
//!   constant time.
//!
//! What it does not: no I/O, no clock, no threads, no locking of pages against
//! swap, and no wiping of what the compiler left in registers and on the stack.
//!
//! # Misuse that does not compile
//!
//! A store that takes sealed sectors cannot be handed plaintext:
//! ```compile_fail,E0308
//! use crypto::sector::{PlainSectors, SealedSectors};
//! fn write(_: SealedSectors<'_>) {}
//! fn leak(plain: PlainSectors<'_>) {
//!     write(plain);
//! }
//! ```
//! nor can anybody but this crate make the sealed type:
//! ```compile_fail,E0451
//! use crypto::chunk::SealedBuf;
//! let forged = SealedBuf { ciphertext: vec![0], tags: vec![], last: true };
//! ```
//! or hand plain bytes to a sink of sealed chunks:
//! ```compile_fail,E0308
//! use crypto::chunk::SealedBuf;
//! fn write(_: SealedBuf) {}
//! write(vec![0; 16]);
//! ```
//! A one-use key seals one stream:
//! ```compile_fail,E0382
//! use crypto::chunk::{Algorithm, ChunkSealer, ObjectKey, StreamAad};
//! fn twice(key: &ObjectKey, place: StreamAad) {
//!     let (key, salt) = key.part_key(&crypto::random::SystemRandom);
//!     let first = ChunkSealer::new(Algorithm::Aes256Gcm, key, place.clone());
//!     let second = ChunkSealer::new(Algorithm::Aes256Gcm, key, place);
//! }
//! ```
//! and nobody chooses the salt it is derived with:
//! ```compile_fail,E0277
//! use crypto::chunk::ObjectKey;
//! fn again(key: &ObjectKey, salt: [u8; 32]) {
//!     key.part_key(&salt);
//! }
//! ```
//! A key that opens does not seal:
//! ```compile_fail,E0308
//! use crypto::chunk::{Algorithm, ChunkSealer, ObjectKey, StreamAad};
//! fn reseal(key: &ObjectKey, place: StreamAad) {
//!     let key = key.open_key(&[0; 32]);
//!     ChunkSealer::new(Algorithm::Aes256Gcm, key, place);
//! }
//! ```
//! Secrets do not print, do not clone, and are not compared with `==`:
//! ```compile_fail,E0277
//! use crypto::secret::SecretBytes;
//! fn print(secret: &SecretBytes<32>) {
//!     println!("{secret}");
//! }
//! ```
//! ```compile_fail,E0599
//! use crypto::secret::SecretBytes;
//! fn copy(secret: SecretBytes<32>) -> SecretBytes<32> {
//!     secret.clone()
//! }
//! ```
//! ```compile_fail,E0369
//! use crypto::secret::SecretVec;
//! fn same(a: SecretVec, b: SecretVec) -> bool {
//!     a == b
//! }
//! ```
//! What a store gave back cannot be read before it is opened, nor written again
//! as if it had just been sealed:
//! ```compile_fail,E0599
//! use crypto::sector::StoredSectors;
//! fn peek<'a>(stored: &'a StoredSectors<'a>) -> &'a [u8] {
//!     stored.as_bytes()
//! }
//! ```
//!
//! The same calls in the right order compile:
//! ```
//! use crypto::chunk::{Algorithm, ChunkOpener, ChunkSealer, ObjectKey, StreamAad};
//! use crypto::random::SystemRandom;
//!
//! let key = ObjectKey::generate(&SystemRandom);
//! let place = || StreamAad::new(["bucket", "key"]);
//! let (one_use, salt) = key.part_key(&SystemRandom);
//! let mut sealer = ChunkSealer::new(Algorithm::Aes256Gcm, one_use, place());
//! let (mut ciphertext, tags) = sealer.seal_vec(b"hello".to_vec(), true)?.into_parts();
//!
//! let opener = ChunkOpener::new(Algorithm::Aes256Gcm, key.open_key(&salt), place(), 5);
//! assert_eq!(opener.open(0, &mut ciphertext, &tags[0])?, b"hello");
//! # Ok::<(), crypto::CryptoError>(())
//! ```

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod committing;
mod data_unit;
mod derive;
mod error;
#[cfg(target_arch = "x86_64")]
mod x86;

pub mod bucket_key;
pub mod chunk;
pub mod context;
pub mod hash;
pub mod kernel;
pub mod mac;
pub mod md5_lanes;
pub mod random;
pub mod record;
pub mod secret;
pub mod sector;
pub mod store_key;
pub mod volume_key;
pub mod wrap;

// Raw ciphers, which take any nonce and any bytes: open to tests and benches alone.
macro_rules! raw {
    ($($name:ident)*) => {$(
        #[cfg(feature = "test-util")]
        pub mod $name;
        #[cfg(not(feature = "test-util"))]
        #[allow(unreachable_pub, dead_code, reason = "pub for the tests' sake")]
        mod $name;
    )*};
}
raw!(gcm_siv xts);

pub use error::CryptoError;
