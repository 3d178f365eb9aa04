//! Tags over what is kept in clear.

use aws_lc_rs::hmac;

use crate::CryptoError;
use crate::derive::hkdf_sha256;
use crate::secret::SecretBytes;

/// Authenticates what is kept in clear, such as the frames of a metadata log:
/// HMAC-SHA256.
pub struct MacKey(hmac::Key);

impl MacKey {
    pub(crate) fn new(key: &SecretBytes<32>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// A key everybody knows, derived from `label`: a checksum in the shape of a
    /// MAC, for logs that have no secret to be authenticated with.
    pub fn public(label: &str) -> Self {
        Self::new(&SecretBytes::init_with(|key| {
            hkdf_sha256(
                b"",
                b"",
                &[b"sealgate public mac v1", label.as_bytes()],
                key,
            );
        }))
    }

    /// The tag over the concatenation of `parts`. The caller sees to it that the
    /// parts are told apart (fixed widths or length prefixes).
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let tag = self.context(parts).sign();
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Compares in constant time; a mismatch is [`CryptoError::Unauthentic`].
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8; 32]) -> Result<(), CryptoError> {
        use subtle::ConstantTimeEq;
        if bool::from(self.mac(parts).ct_eq(tag)) {
            Ok(())
        } else {
            Err(CryptoError::Unauthentic)
        }
    }

    fn context(&self, parts: &[&[u8]]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        context
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_verifies_over_its_own_parts_alone() {
        let mac = MacKey::public("log");
        let tag = mac.mac(&[b"ab", b"c"]);
        assert_eq!(mac.verify(&[b"abc"], &tag), Ok(()));
        assert_eq!(mac.verify(&[b"abd"], &tag), Err(CryptoError::Unauthentic));
        assert_ne!(MacKey::public("other").mac(&[b"abc"]), tag);
    }
}
