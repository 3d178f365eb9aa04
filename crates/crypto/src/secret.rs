//! Bytes that must not leak: keys, data keys, plaintext of keys.
//!
//! Both types wipe themselves on drop, have no `Clone` and no `Serialize`, print
//! a placeholder, and compare in constant time. There is one way to the bytes
//! and it can be searched for: [`SecretBytes::expose`].
//!
//! They live on the heap, so moving the owner does not leave copies on the
//! stack; fill them in place with [`SecretBytes::init_with`]. Wiping does not
//! reach registers, stack spills of the ciphers, swap or core dumps: `gateway`
//! locks the pages and forbids the dumps.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

use crate::CryptoError;
use crate::random::Random;

/// Overwrites `bytes` with zeros, also where nobody reads them again.
///
/// At the speed of memory: crate `zeroize` stores a slice byte by byte, which for a
/// chunk takes longer than decrypting it.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    zeroize::optimization_barrier(bytes);
}

/// Secret bytes of fixed length `N`.
pub struct SecretBytes<const N: usize>(Box<[u8; N]>);

impl<const N: usize> SecretBytes<N> {
    /// Makes a secret by letting `fill` write it in place, over zeros.
    pub fn init_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// As [`init_with`](Self::init_with); what was written is wiped on error.
    pub fn try_init_with<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// A fresh secret from `random`.
    pub fn random(random: &dyn Random) -> Self {
        Self::init_with(|bytes| random.fill(bytes))
    }

    /// Copies `bytes`; the caller wipes the source.
    ///
    /// Fails with [`CryptoError::KeyLength`] unless there are exactly `N`.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        if bytes.len() != N {
            return Err(CryptoError::KeyLength {
                expected: N,
                actual: bytes.len(),
            });
        }
        Ok(Self::init_with(|secret| secret.copy_from_slice(bytes)))
    }

    /// The bytes themselves. Every use of a secret passes through here.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> ConstantTimeEq for SecretBytes<N> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.as_slice().ct_eq(other.0.as_slice())
    }
}

impl<const N: usize> fmt::Debug for SecretBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes<{N}>(redacted)")
    }
}

impl<const N: usize> Drop for SecretBytes<N> {
    fn drop(&mut self) {
        wipe(self.0.as_mut_slice());
    }
}

/// Secret bytes of a length known at run time. Never grows, so never leaves a
/// copy behind in a freed allocation.
pub struct SecretVec(Box<[u8]>);

impl SecretVec {
    /// Makes a secret of `len` bytes by letting `fill` write it over zeros.
    pub fn init_with(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut secret = Self(vec![0; len].into_boxed_slice());
        fill(&mut secret.0);
        secret
    }

    /// As [`init_with`](Self::init_with); what was written is wiped on error.
    pub fn try_init_with<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut secret = Self(vec![0; len].into_boxed_slice());
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// A fresh secret of `len` bytes from `random`.
    pub fn random(len: usize, random: &dyn Random) -> Self {
        Self::init_with(len, |bytes| random.fill(bytes))
    }

    /// Copies `bytes`; the caller wipes the source.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self::init_with(bytes.len(), |secret| secret.copy_from_slice(bytes))
    }

    /// Takes over `bytes`, wiping the vector it came in.
    pub fn from_vec(mut bytes: Vec<u8>) -> Self {
        let secret = Self::from_slice(&bytes);
        // What was in it before it was truncated goes too.
        bytes.resize(bytes.capacity(), 0);
        wipe(&mut bytes);
        secret
    }

    /// The bytes themselves. Every use of a secret passes through here.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes, which is not secret.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same secret as a fixed-length one.
    ///
    /// Fails with [`CryptoError::KeyLength`] unless there are exactly `N` bytes.
    pub fn to_secret_bytes<const N: usize>(&self) -> Result<SecretBytes<N>, CryptoError> {
        SecretBytes::from_slice(&self.0)
    }
}

impl ConstantTimeEq for SecretVec {
    /// Unequal lengths are unequal at once: lengths are not secret.
    fn ct_eq(&self, other: &Self) -> Choice {
        (*self.0).ct_eq(&*other.0)
    }
}

impl fmt::Debug for SecretVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretVec(redacted)")
    }
}

impl Drop for SecretVec {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Defines a key type around `SecretBytes<32>`: one type a role, so that a key
/// of one role cannot be passed for another.
macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name($crate::secret::SecretBytes<32>);

        impl $name {
            /// Length of the key in bytes.
            pub const LEN: usize = 32;

            /// Takes over key material, from a key store or a key service.
            pub fn from_secret(secret: $crate::secret::SecretBytes<32>) -> Self {
                Self(secret)
            }

            /// A fresh key.
            pub fn generate(random: &dyn $crate::random::Random) -> Self {
                Self($crate::secret::SecretBytes::random(random))
            }

            /// The key material, for whoever must hand it on or wrap it.
            pub fn secret(&self) -> &$crate::secret::SecretBytes<32> {
                &self.0
            }
        }
    };
}
pub(crate) use secret_key;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_a_placeholder_and_nothing_else() {
        let secret = SecretBytes::<4>::init_with(|b| *b = *b"abcd");
        assert_eq!(format!("{secret:?}"), "SecretBytes<4>(redacted)");
        assert_eq!(
            format!("{:?}", SecretVec::from_slice(b"abcd")),
            "SecretVec(redacted)"
        );
    }

    #[test]
    fn secrets_of_equal_content_are_equal_and_others_are_not() {
        let a = SecretVec::from_slice(b"abcd");
        assert!(bool::from(a.ct_eq(&SecretVec::from_slice(b"abcd"))));
        assert!(!bool::from(a.ct_eq(&SecretVec::from_slice(b"abce"))));
        assert!(!bool::from(a.ct_eq(&SecretVec::from_slice(b"abc"))));
    }

    #[test]
    fn a_secret_of_the_wrong_length_is_refused() {
        assert_eq!(
            SecretVec::from_slice(b"abc")
                .to_secret_bytes::<4>()
                .unwrap_err(),
            CryptoError::KeyLength {
                expected: 4,
                actual: 3
            }
        );
    }

    #[test]
    fn a_failed_initialisation_hands_on_its_error() {
        assert_eq!(
            SecretBytes::<4>::try_init_with(|_| Err("no")).unwrap_err(),
            "no"
        );
    }
}
