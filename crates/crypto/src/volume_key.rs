//! From a volume's data key to the keys that seal its sectors and its log.
//!
//! A volume has one 64-byte data key. Each generation (a layer above a
//! snapshot) and each 1 TiB region gets a sector key of its own, so two
//! histories never share key and tweak, and no key seals more than IEEE 1619
//! advises:
//!
//! ```text
//! sector key (64) = HKDF-SHA256(salt = "", ikm = data key,
//!     info = "sealgate sector key v1" ‖ volume (16) ‖ generation (u32 BE) ‖ region (u32 BE))
//! log key (32)    = HKDF-SHA256(salt = "", ikm = data key,
//!     info = "sealgate volume log key v1" ‖ volume (16))
//! ```

use crate::CryptoError;
use crate::derive::hkdf_sha256;
use crate::record::MacKey;
use crate::secret::{SecretBytes, SecretVec};
use crate::sector::SectorKey;
use crate::xts::XtsKey;

/// A volume's data key, as the keyring gave it; in memory only while attached.
#[derive(Debug)]
pub struct VolumeDataKey(SecretBytes<64>);

impl VolumeDataKey {
    /// Length in bytes, as EBS asks of its key service.
    pub const LEN: usize = 64;

    /// Takes the key from the keyring; fails unless it is 64 bytes.
    pub fn from_secret(secret: SecretVec) -> Result<Self, CryptoError> {
        secret.to_secret_bytes().map(Self)
    }

    /// The key for one region of one generation. Deriving costs a microsecond or
    /// so: keep it.
    ///
    /// # Panics
    /// If HKDF gives a key with equal halves, at odds of 2^-256.
    pub fn sector_key(&self, volume: &[u8; 16], generation: u32, region: u32) -> SectorKey {
        let key = SecretBytes::<64>::init_with(|key| {
            let info: [&[u8]; 4] = [
                b"sealgate sector key v1",
                volume,
                &generation.to_be_bytes(),
                &region.to_be_bytes(),
            ];
            hkdf_sha256(b"", self.0.expose(), &info, key);
        });
        let xts = XtsKey::new(&key).expect("equal halves have odds of 2^-256");
        SectorKey::new(xts, region)
    }

    /// The key that authenticates the volume's metadata log.
    pub fn log_key(&self, volume: &[u8; 16]) -> MacKey {
        MacKey::new(&SecretBytes::init_with(|key| {
            hkdf_sha256(
                b"",
                self.0.expose(),
                &[b"sealgate volume log key v1", volume],
                key,
            );
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::{PlainSectors, SectorIndex, SectorSize};

    #[test]
    fn volume_and_generation_each_change_the_ciphertext() {
        let data_key = VolumeDataKey::from_secret(SecretVec::init_with(64, |k| k.fill(3))).unwrap();
        let seal = |volume: u8, generation| {
            let mut buf = [0; 512];
            data_key.sector_key(&[volume; 16], generation, 0).seal(
                PlainSectors::new(&mut buf, SectorSize::B512).unwrap(),
                SectorIndex::new(0),
            );
            buf
        };
        assert_eq!(seal(1, 1), seal(1, 1));
        assert_ne!(seal(1, 1), seal(2, 1));
        assert_ne!(seal(1, 1), seal(1, 2));
        assert_ne!(
            data_key.log_key(&[1; 16]).mac(&[]),
            data_key.log_key(&[2; 16]).mac(&[])
        );
    }

    #[test]
    fn a_data_key_of_another_length_is_refused() {
        let refused = VolumeDataKey::from_secret(SecretVec::init_with(32, |_| ())).unwrap_err();
        assert_eq!(
            refused,
            CryptoError::KeyLength {
                expected: 64,
                actual: 32
            }
        );
    }
}
