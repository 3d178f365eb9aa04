//! From a volume's data key to the keys that seal its sectors, its log and its slots' owner table.
//!
//! A volume has one 64-byte data key. Each generation (a layer above a
//! snapshot) and each 1 TiB region gets a sector key of its own, so two
//! histories never share key and tweak, and no key seals more than IEEE 1619
//! advises:
//!
//! ```text
//! sector key (64) = HKDF-SHA256(salt = "", ikm = data key,
//!     info = "sealgate sector key v1" ‖ volume (16) ‖ generation (u32 BE) ‖ region (u32 BE)
//!            ‖ data unit (u32 BE), left out when it is 4096)
//! log key (32)    = HKDF-SHA256(salt = "", ikm = data key,
//!     info = "sealgate volume log key v1" ‖ volume (16))
//! owner key (32)  = HKDF-SHA256(salt = "", ikm = data key,
//!     info = "sealgate volume owner key v1" ‖ volume (16))
//! ```

use crate::CryptoError;
use crate::derive::hkdf_sha256;
use crate::mac::MacKey;
use crate::secret::{SecretBytes, SecretVec};
use crate::sector::{SectorKey, SectorSize};
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

    /// The key for one region of one generation, for sectors of one size: a sector
    /// and eight smaller ones in its place would share tweaks. Deriving costs a
    /// microsecond or so: keep it.
    ///
    /// # Panics
    /// If HKDF gives a key with equal halves, at odds of 2^-256.
    pub fn sector_key(
        &self,
        volume: &[u8; 16],
        generation: u32,
        region: u32,
        size: SectorSize,
    ) -> SectorKey {
        let unit = match size {
            SectorSize::B4096 => None,
            SectorSize::B512 => Some(512u32.to_be_bytes()),
        };
        let key = SecretBytes::<64>::init_with(|key| {
            let info: [&[u8]; 5] = [
                b"sealgate sector key v1",
                volume,
                &generation.to_be_bytes(),
                &region.to_be_bytes(),
                unit.as_ref().map_or(&[], |unit| unit),
            ];
            hkdf_sha256(b"", self.0.expose(), &info, key);
        });
        let xts = XtsKey::new(&key).expect("equal halves have odds of 2^-256");
        SectorKey::new(xts, region, size)
    }

    /// The key that authenticates the volume's metadata log.
    pub fn log_key(&self, volume: &[u8; 16]) -> MacKey {
        self.mac_key(b"sealgate volume log key v1", volume)
    }

    /// The key that authenticates the header and the owner table of the volume's slot file.
    pub fn owner_key(&self, volume: &[u8; 16]) -> MacKey {
        self.mac_key(b"sealgate volume owner key v1", volume)
    }

    fn mac_key(&self, label: &[u8], volume: &[u8; 16]) -> MacKey {
        MacKey::new(&SecretBytes::init_with(|key| {
            hkdf_sha256(b"", self.0.expose(), &[label, volume], key);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::{PlainSectors, SectorIndex};

    #[test]
    fn volume_generation_and_sector_size_each_change_the_key() {
        let data_key = VolumeDataKey::from_secret(SecretVec::init_with(64, |k| k.fill(3))).unwrap();
        let seal = |volume: u8, generation, size| {
            let mut buf = [0; 4096];
            let sectors = PlainSectors::new(&mut buf, size).unwrap();
            let key = data_key.sector_key(&[volume; 16], generation, 0, size);
            key.seal(sectors, SectorIndex::new(0));
            buf
        };
        let (small, large) = (SectorSize::B512, SectorSize::B4096);
        assert_eq!(seal(1, 1, large), seal(1, 1, large));
        assert_ne!(seal(1, 1, large), seal(2, 1, large));
        assert_ne!(seal(1, 1, large), seal(1, 2, large));
        // The first 512 bytes have the same tweak under both sizes.
        assert_ne!(seal(1, 1, large)[..512], seal(1, 1, small)[..512]);
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
