//! The names of volumes.

use std::{fmt, str::FromStr};

use crypto::random::Random;

/// Hexadecimal digits after `vol-`.
const DIGITS: usize = 17;
/// Bits of an id: four a digit.
const BITS: u32 = 68;

/// Text that is no volume id: its beginning. The caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Value ({0}) for parameter volumeId is invalid. Expected: 'vol-' and 17 hexadecimal digits."
)]
pub struct MalformedId(pub(crate) String);

/// `vol-` and 17 hexadecimal digits: 68 random bits, as EC2's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId(u128);

impl VolumeId {
    /// A new id. That it is new the registry sees to.
    pub fn random(random: &dyn Random) -> Self {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        Self(u128::from_be_bytes(bytes) & ((1 << BITS) - 1))
    }

    /// The id as sixteen bytes, big endian: what keys are derived for and logs are bound to.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let value = u128::from_be_bytes(bytes);
        (value >> BITS == 0).then_some(Self(value))
    }
}

impl FromStr for VolumeId {
    type Err = MalformedId;

    /// Lower-case digits only, so that one volume has one name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("vol-")
            .filter(|digits| {
                digits.len() == DIGITS
                    && digits
                        .bytes()
                        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            })
            .and_then(|digits| u128::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| MalformedId(text.chars().take(64).collect()))
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vol-{:017x}", self.0)
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id: VolumeId = "vol-0123456789abcdef0".parse().unwrap();
        assert_eq!(id.to_string(), "vol-0123456789abcdef0");
        assert_eq!(VolumeId::from_bytes(id.to_bytes()), Some(id));
        let random = VolumeId::random(&crypto::random::SystemRandom);
        assert_eq!(random.to_string().parse::<VolumeId>().unwrap(), random);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for bad in [
            "",
            "vol-",
            "vol-0123456789abcdef",
            "vol-0123456789abcdef00",
            "vol-0123456789ABCDEF0",
            "vol-+123456789abcdef0",
            "snap-0123456789abcdef0",
            "../vol-0123456789abcdef0",
        ] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad:?}");
        }
        assert_eq!(VolumeId::from_bytes([0xff; 16]), None);
    }
}
