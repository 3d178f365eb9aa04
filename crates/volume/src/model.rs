//! What is asked of the registry and what it answers: sizes, kinds, tags, states.

use std::{fmt, str::FromStr, time::SystemTime};

use keyring::{KeyArgument, KeyArn};

use crate::{VolumeError, VolumeId};

const GIB: u64 = 1 << 30;
/// Most tags a resource may have, as EC2's.
const TAGS_MAX: usize = 50;

/// The size of a volume: 1 to 65536 whole GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeSize(u64);

impl VolumeSize {
    /// Of a volume in error whose record is lost with all its copies. No volume is made with it.
    pub const UNKNOWN: Self = Self(0);

    /// From GiB, as EC2 counts.
    pub fn from_gib(gib: u64) -> Result<Self, VolumeError> {
        if !(1..=65536).contains(&gib) {
            return Err(VolumeError::InvalidParameter(format!(
                "Volume of {gib}GiB is outside the range of 1 to 65536GiB."
            )));
        }
        Ok(Self(gib * GIB))
    }

    /// From bytes, a whole number of GiB.
    pub fn from_bytes(bytes: u64) -> Result<Self, VolumeError> {
        if !bytes.is_multiple_of(GIB) {
            return Err(VolumeError::InvalidParameter(format!(
                "A volume of {bytes} bytes is no whole number of GiB."
            )));
        }
        Self::from_gib(bytes / GIB)
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// In GiB.
    pub fn gib(self) -> u64 {
        self.0 / GIB
    }
}

/// The volume type asked for. Kept and told, no more: every volume is served alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum VolumeType {
    Standard,
    Io1,
    Io2,
    Gp2,
    #[default]
    Gp3,
    Sc1,
    St1,
}

impl VolumeType {
    /// EC2's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
            Self::Gp2 => "gp2",
            Self::Gp3 => "gp3",
            Self::Sc1 => "sc1",
            Self::St1 => "st1",
        }
    }
}

impl FromStr for VolumeType {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [
            Self::Standard,
            Self::Io1,
            Self::Io2,
            Self::Gp2,
            Self::Gp3,
            Self::Sc1,
            Self::St1,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            VolumeError::InvalidParameter(format!(
                "Value ({text}) for parameter volumeType is invalid."
            ))
        })
    }
}

impl fmt::Display for VolumeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name and a value that people gave a volume. The tag `Name` names its export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// 1 to 127 characters, not beginning with `aws:`.
    pub key: String,
    /// Up to 255 characters.
    pub value: String,
}

impl Tag {
    /// A tag within its bounds.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Result<Self, VolumeError> {
        let (key, value) = (key.into(), value.into());
        if !(1..=127).contains(&key.chars().count()) || key.starts_with("aws:") {
            return Err(VolumeError::InvalidParameter(
                "Tag keys have 1 to 127 characters and must not begin with 'aws:'.".to_owned(),
            ));
        }
        if value.chars().count() > 255 {
            return Err(VolumeError::InvalidParameter(
                "Tag values have at most 255 characters.".to_owned(),
            ));
        }
        Ok(Self { key, value })
    }
}

pub(crate) fn check_tags(tags: &[Tag]) -> Result<(), VolumeError> {
    if tags.len() > TAGS_MAX {
        return Err(VolumeError::InvalidParameter(format!(
            "A volume has at most {TAGS_MAX} tags."
        )));
    }
    for (i, tag) in tags.iter().enumerate() {
        Tag::new(tag.key.as_str(), tag.value.as_str())?;
        if tags[..i].iter().any(|other| other.key == tag.key) {
            return Err(VolumeError::InvalidParameter(format!(
                "The tag key '{}' is given twice.",
                tag.key
            )));
        }
    }
    Ok(())
}

/// How a new volume is protected.
#[derive(Debug, Clone)]
pub enum Encryption {
    /// As the account's default says: with EC2, a request that does not say `Encrypted`.
    Default {
        /// The wrapping key, if the default is to encrypt; [`VolumeError::KeyWithoutEncryption`] if it is not. `None`: the
        /// account's default key.
        key: Option<KeyArgument>,
    },
    /// Sealed under a data key of its own, wrapped by this key; `None`: by the account's default key.
    Sealed {
        /// The wrapping key.
        key: Option<KeyArgument>,
    },
    /// Not encrypted, unless the account's default is to encrypt: that goes before.
    Unencrypted,
}

/// A request for a volume.
#[derive(Debug, Clone)]
pub struct CreateVolume {
    /// How big.
    pub size: VolumeSize,
    /// How protected.
    pub encryption: Encryption,
    /// Of which type.
    pub volume_type: VolumeType,
    /// Where it says it is.
    pub availability_zone: String,
    /// Tags, each key once.
    pub tags: Vec<Tag>,
    /// Makes a repeated request answer with the volume that the first one made.
    pub client_token: Option<String>,
}

/// How a volume is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Sealed; the data key is wrapped by this key.
    Sealed {
        /// The wrapping key.
        key: KeyArn,
    },
    /// Not encrypted.
    Unencrypted,
}

/// What a volume is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeState {
    /// Being made.
    Creating,
    /// Can be attached.
    Available,
    /// Attached.
    InUse,
    /// Going away.
    Deleting,
    /// Its row or its folder is damaged or missing: it can be repaired or deleted and nothing else. Or its attachment has
    /// failed.
    Error,
}

impl VolumeState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Creating,
        Self::Available,
        Self::InUse,
        Self::Deleting,
        Self::Error,
    ];

    /// EC2's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::InUse => "in-use",
            Self::Deleting => "deleting",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A volume, described.
#[derive(Debug, Clone)]
pub struct VolumeInfo {
    /// Its id.
    pub id: VolumeId,
    /// Its size.
    pub size: VolumeSize,
    /// How it is protected.
    pub protection: Protection,
    /// The type that was asked for.
    pub volume_type: VolumeType,
    /// Where it says it is.
    pub availability_zone: String,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// When it was made.
    pub created: SystemTime,
    /// What it is doing.
    pub state: VolumeState,
}

impl VolumeInfo {
    /// The value of the tag `Name`.
    pub fn name(&self) -> Option<&str> {
        self.tags
            .iter()
            .find(|tag| tag.key == "Name")
            .map(|tag| tag.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_gib_up_to_64_tib() {
        assert!(VolumeSize::from_gib(0).is_err());
        assert!(VolumeSize::from_gib(65537).is_err());
        assert!(VolumeSize::from_bytes(GIB + 512).is_err());
        assert_eq!(VolumeSize::from_gib(65536).unwrap().bytes(), 64 << 40);
    }

    #[test]
    fn tags_are_bounded_and_unique() {
        assert!(Tag::new("", "x").is_err());
        assert!(Tag::new("aws:x", "x").is_err());
        assert!(Tag::new("k", "v".repeat(256)).is_err());
        let tag = |key: &str| Tag {
            key: key.to_owned(),
            value: String::new(),
        };
        assert!(check_tags(&[tag("a"), tag("b")]).is_ok());
        assert!(check_tags(&[tag("a"), tag("a")]).is_err());
        assert!(check_tags(&vec![tag("a"); 51]).is_err());
    }
}
