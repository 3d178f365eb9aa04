//! What is known of a key besides its material, and the lists of it.

use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::{
    error::KeyringError,
    key::{AliasName, KeyArn, KeyId},
    key_state::KeyState,
    spec::{KeyOrigin, KeySpec, KeyUsage},
};

/// Whose key it is, and so who may see and change it (spec: tiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Tier {
    /// The account's own: everything is allowed on it.
    Customer,
    /// AWS managed: visible, used through its service alone, never disabled or deleted.
    Managed(Service),
    /// AWS owned: invisible, used by its service alone.
    Owned(Service),
}

/// A service that has keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Service {
    /// Objects: `alias/aws/s3`, and the owned key of SSE-S3.
    S3,
    /// Volumes: `alias/aws/ebs`.
    Ebs,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 2] = [Self::S3, Self::Ebs];

    /// The alias of its managed key.
    pub fn alias(self) -> AliasName {
        match self {
            Self::S3 => "alias/aws/s3",
            Self::Ebs => "alias/aws/ebs",
        }
        .parse()
        .expect("a constant in the alias form")
    }

    /// The service as a principal, in audit records of what it does for itself.
    pub(crate) fn principal(self) -> &'static str {
        match self {
            Self::S3 => "s3.amazonaws.com",
            Self::Ebs => "ec2.amazonaws.com",
        }
    }

    /// The side of the gateway that acts for it.
    pub(crate) fn via(self) -> iam::Via {
        match self {
            Self::S3 => iam::Via::S3,
            Self::Ebs => iam::Via::Volume,
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::S3 => "Default key that protects my S3 objects when no other key is defined",
            Self::Ebs => "Default key that protects my EBS volumes when no other key is defined",
        }
    }
}

/// The answer of DescribeKey and CreateKey. Single Region: there are no others yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMetadata {
    /// Its name.
    pub arn: KeyArn,
    /// What its material is.
    pub spec: KeySpec,
    /// What it is for.
    pub usage: KeyUsage,
    /// Where its material came from.
    pub origin: KeyOrigin,
    /// When it was made.
    pub created: SystemTime,
    /// What the owner says of it.
    pub description: String,
    /// Its state now.
    pub state: KeyState,
    /// Whose it is.
    pub tier: Tier,
    /// When it will be destroyed, if it is pending deletion.
    pub deletion_date: Option<SystemTime>,
    /// The material that seals new ciphertexts.
    pub current_material: MaterialId,
}

impl KeyMetadata {
    /// `AWS` or `CUSTOMER`, the API's `KeyManager`.
    pub fn manager(&self) -> &'static str {
        match self.tier {
            Tier::Customer => "CUSTOMER",
            Tier::Managed(_) | Tier::Owned(_) => "AWS",
        }
    }
}

/// The public name of one version of a key's material: 64 hexadecimal digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MaterialId([u8; 32]);

impl MaterialId {
    /// A name for material `number` of `key`; nothing of the material is in it.
    pub(crate) fn of(key: KeyId, number: u32) -> Self {
        let mut hash = Sha256::new_with_prefix(b"sealgate key material id\0");
        hash.update(key.as_bytes());
        hash.update(number.to_be_bytes());
        Self(hash.finalize().into())
    }
}

impl std::fmt::Display for MaterialId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).expect("two digits a byte");
        f.write_str(std::str::from_utf8(&digits).expect("digits"))
    }
}

/// Why a material was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RotationKind {
    /// With the key.
    Creation,
    /// By RotateKeyOnDemand.
    OnDemand,
    /// By the calendar.
    Automatic,
}

/// One rotation, as ListKeyRotations tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The material it made.
    pub material: MaterialId,
    /// When.
    pub date: SystemTime,
    /// Why.
    pub kind: RotationKind,
}

/// The answer of GetKeyRotationStatus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationStatus {
    /// The key.
    pub key: KeyArn,
    /// Whether it rotates by the calendar, and how often.
    pub period_days: Option<u32>,
    /// When next.
    pub next: Option<SystemTime>,
}

/// An alias, as ListAliases tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Its name.
    pub name: AliasName,
    /// Its ARN.
    pub arn: iam::Arn,
    /// The key it points to.
    pub target: KeyArn,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last pointed elsewhere.
    pub updated: SystemTime,
}

/// A tag of a key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Its name, 1 to 128 characters.
    pub key: String,
    /// Its value, 0 to 256 characters.
    pub value: String,
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Greatest number of entries: 1 to 1000 for keys and rotations (100 if not given), to 100 for
    /// aliases and to 50 for tags (50 if not given).
    pub limit: Option<u32>,
    /// Where the page before ended, as that page said.
    pub marker: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Where the next page starts; `None` if this is the last (`Truncated` is false).
    pub next_marker: Option<String>,
}

/// What CreateKey is asked for.
#[derive(Debug, Clone, Default)]
pub struct CreateKey {
    /// Up to 8192 characters.
    pub description: String,
    /// Up to 50.
    pub tags: Vec<Tag>,
}

/// The length of a data key, in bytes: 1 to 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataKeyLen(u16);

impl DataKeyLen {
    /// `AES_128`.
    pub const AES_128: Self = Self(16);
    /// `AES_256`.
    pub const AES_256: Self = Self(32);
    /// The two halves of AES-256-XTS, what a volume asks for.
    pub const XTS_256: Self = Self(64);

    /// `NumberOfBytes`.
    pub fn new(bytes: u64) -> Result<Self, KeyringError> {
        match u16::try_from(bytes) {
            Ok(len @ 1..=1024) => Ok(Self(len)),
            _ => Err(KeyringError::Validation(
                "NumberOfBytes must be between 1 and 1024.".to_owned(),
            )),
        }
    }

    /// In bytes.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// How long a key waits for its deletion: 7 to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingWindow(u8);

impl PendingWindow {
    /// `PendingWindowInDays`.
    pub fn from_days(days: i64) -> Result<Self, KeyringError> {
        match u8::try_from(days) {
            Ok(days @ 7..=30) => Ok(Self(days)),
            _ => Err(KeyringError::Validation(
                "PendingWindowInDays must be between 7 and 30.".to_owned(),
            )),
        }
    }

    /// In days.
    pub fn days(self) -> u8 {
        self.0
    }

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 86_400)
    }
}

impl Default for PendingWindow {
    /// 30 days.
    fn default() -> Self {
        Self(30)
    }
}
