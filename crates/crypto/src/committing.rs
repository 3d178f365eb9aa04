//! The one construction under every wrapped key and sealed record.
//!
//! AES-256-GCM-SIV (RFC 8452) under a key derived for this message alone, so
//! that neither the 96-bit nonce nor the number of messages a key is ever a
//! limit, with a commitment to that key in front: GCM-SIV by itself lets one
//! ciphertext open under two keys that somebody constructed for it.
//!
//! ```text
//! okm (64 bytes)  = HKDF-SHA256(salt = nonce, ikm = key, info = label ‖ header)
//! subkey          = okm[0..32]
//! commitment      = okm[32..64]
//! ciphertext, tag = AES-256-GCM-SIV(subkey, nonce = 0^12, aad, plaintext)
//! sealed          = nonce (32) ‖ commitment (32) ‖ ciphertext ‖ tag (16)
//! ```
//!
//! The commitment is a collision-resistant function of the key and the random
//! nonce; finding two keys with one commitment means colliding HMAC-SHA256.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::CryptoError;
use crate::derive::hkdf_sha256;
use crate::gcm_siv::{self, GcmSivKey};
use crate::random::Random;
use crate::secret::{SecretBytes, SecretVec};

pub(crate) const NONCE_LEN: usize = 32;
pub(crate) const COMMITMENT_LEN: usize = 32;
pub(crate) const TAG_LEN: usize = gcm_siv::TAG_LEN;
/// The key is used once, so its nonce need not change.
const SUBKEY_NONCE: [u8; gcm_siv::NONCE_LEN] = [0; gcm_siv::NONCE_LEN];
/// What sealing adds to a plaintext, besides the caller's header.
pub(crate) const OVERHEAD: usize = NONCE_LEN + COMMITMENT_LEN + TAG_LEN;

/// Appends the sealed form of `plaintext` to `out`. `label` separates uses of
/// one key, `header` is bound by the derivation, `aad` by the tag.
pub(crate) fn seal_onto(
    out: &mut Vec<u8>,
    key: &SecretBytes<32>,
    label: &[u8],
    header: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    random: &dyn Random,
) {
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce);
    let (cipher, commitment) = message_key(key, &nonce, label, header);
    out.reserve_exact(OVERHEAD + plaintext.len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&commitment);
    let start = out.len();
    out.extend_from_slice(plaintext);
    let tag = cipher
        .seal(&SUBKEY_NONCE, aad, &mut out[start..])
        .expect("far below GCM-SIV's limit of 2^36 bytes");
    out.extend_from_slice(&tag);
}

/// Opens what [`seal_onto`] appended. Every failure is the same one.
pub(crate) fn open(
    key: &SecretBytes<32>,
    label: &[u8],
    header: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<SecretVec, CryptoError> {
    let (nonce, rest) = sealed
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(CryptoError::Unauthentic)?;
    let (stored_commitment, rest) = rest
        .split_first_chunk::<COMMITMENT_LEN>()
        .ok_or(CryptoError::Unauthentic)?;
    let (ciphertext, tag) = rest
        .split_last_chunk::<TAG_LEN>()
        .ok_or(CryptoError::Unauthentic)?;
    let (cipher, commitment) = message_key(key, nonce, label, header);
    if !bool::from(commitment.ct_eq(stored_commitment)) {
        return Err(CryptoError::Unauthentic);
    }
    SecretVec::try_init_with(ciphertext.len(), |plaintext| {
        plaintext.copy_from_slice(ciphertext);
        cipher.open(&SUBKEY_NONCE, aad, plaintext, tag)
    })
}

fn message_key(
    key: &SecretBytes<32>,
    nonce: &[u8; NONCE_LEN],
    label: &[u8],
    header: &[u8],
) -> (GcmSivKey, [u8; COMMITMENT_LEN]) {
    let mut okm = Zeroizing::new([0; 32 + COMMITMENT_LEN]);
    hkdf_sha256(nonce, key.expose(), &[label, header], &mut *okm);
    let subkey = SecretBytes::init_with(|subkey| subkey.copy_from_slice(&okm[..32]));
    let mut commitment = [0; COMMITMENT_LEN];
    commitment.copy_from_slice(&okm[32..]);
    (GcmSivKey::new(&subkey), commitment)
}
