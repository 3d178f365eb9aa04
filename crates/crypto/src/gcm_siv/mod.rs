//! AES-256-GCM-SIV (RFC 8452), in place, with the tag apart.
//!
//! For chunk streams, wrapped keys and records: an AEAD that stays safe if a nonce
//! is ever repeated, except that equal messages then show as equal. Nonces of 96
//! bits, tags of 128.
//!
//! Two kernels, the same bytes: VAES on 512 bits, and crate `aes-gcm-siv` for every
//! other processor. Sealing reads the plaintext twice, since the tag comes first;
//! opening does both in one pass.
//!
//! Promises: what does not authenticate is wiped, and the error says nothing more;
//! tags are compared in constant time; round keys, what is derived from them and spare
//! room are wiped where they are kept. Does not: reach the copies a compiler makes in
//! registers and on the stack, choose nonces, commit to its key (`wrap` and `record` do), or
//! detect that a message was put back in place of a newer one.

mod lengths;
#[cfg(target_arch = "x86_64")]
mod x86;

use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use subtle::ConstantTimeEq;

use crate::CryptoError;
use crate::kernel::Kernel;
use crate::secret::{SecretBytes, wipe};

pub use lengths::{MESSAGE_LEN_MAX, NONCE_LEN, TAG_LEN};

/// An AES-256-GCM-SIV key, bound to a kernel.
pub struct GcmSivKey(Form);

enum Form {
    #[cfg(target_arch = "x86_64")]
    Vaes512(x86::Key),
    Portable(Box<Aes256GcmSiv>),
}

impl GcmSivKey {
    /// The key, for the fastest kernel.
    pub fn new(key: &SecretBytes<32>) -> Self {
        Self::bound_to(key, Kernel::detect())
    }

    /// The key, for a kernel of the caller's choice; fails if the processor cannot
    /// run it. Kernels between [`Kernel::Vaes512`] and [`Kernel::Portable`] have no
    /// form of their own and are the portable one.
    pub fn with_kernel(key: &SecretBytes<32>, kernel: Kernel) -> Result<Self, CryptoError> {
        if !kernel.is_available() {
            return Err(CryptoError::KernelUnavailable {
                kernel: kernel.name(),
            });
        }
        Ok(Self::bound_to(key, kernel))
    }

    fn bound_to(key: &SecretBytes<32>, kernel: Kernel) -> Self {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vaes512 => Self(Form::Vaes512(x86::Key::new(key.expose()))),
            _ => {
                let cipher =
                    Aes256GcmSiv::new_from_slice(key.expose()).expect("32 bytes are a key");
                Self(Form::Portable(Box::new(cipher)))
            }
        }
    }

    /// The kernel that runs.
    pub fn kernel(&self) -> Kernel {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Form::Vaes512(_) => Kernel::Vaes512,
            Form::Portable(_) => Kernel::Portable,
        }
    }

    /// Encrypts `buf` in place and returns the tag.
    ///
    /// Fails with [`CryptoError::PlaintextLength`], `buf` untouched, above
    /// [`MESSAGE_LEN_MAX`].
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CryptoError> {
        check_len(aad)?;
        check_len(buf)?;
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Form::Vaes512(key) => Ok(key.seal(nonce, aad, buf)),
            Form::Portable(cipher) => cipher
                .encrypt_inout_detached(&(*nonce).into(), aad, buf.into())
                .map(Into::into)
                .map_err(|_| CryptoError::Unauthentic),
        }
    }

    /// Decrypts `buf` in place.
    ///
    /// Fails with [`CryptoError::Unauthentic`], `buf` wiped, if anything is not what
    /// was sealed.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), CryptoError> {
        let authentic = check_len(aad).and_then(|()| check_len(buf)).is_ok()
            && match &self.0 {
                #[cfg(target_arch = "x86_64")]
                Form::Vaes512(key) => key.open(nonce, aad, buf, tag).ct_eq(tag).into(),
                Form::Portable(cipher) => cipher
                    .decrypt_inout_detached(
                        &(*nonce).into(),
                        aad,
                        (&mut *buf).into(),
                        &(*tag).into(),
                    )
                    .is_ok(),
            };
        if authentic {
            Ok(())
        } else {
            wipe(buf);
            Err(CryptoError::Unauthentic)
        }
    }
}

fn check_len(bytes: &[u8]) -> Result<(), CryptoError> {
    if bytes.len() as u64 > MESSAGE_LEN_MAX {
        return Err(CryptoError::PlaintextLength {
            len: bytes.len(),
            min: 0,
            max: usize::try_from(MESSAGE_LEN_MAX).unwrap_or(usize::MAX),
        });
    }
    Ok(())
}

impl std::fmt::Debug for GcmSivKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GcmSivKey({}, redacted)", self.kernel())
    }
}
