//! What kind of key a key is: what its material is, what it is for, where it came from.
//!
//! Each record says its own. There is one of each as yet; a name that is not known is a record that is not read.

use serde::{Deserialize, Serialize};

/// What the material is (API, `KeySpec`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeySpec {
    /// 256 bits, for authenticated encryption.
    #[serde(rename = "SYMMETRIC_DEFAULT")]
    SymmetricDefault,
}

impl KeySpec {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SymmetricDefault => "SYMMETRIC_DEFAULT",
        }
    }

    /// The API's names of what such a key seals with.
    pub fn encryption_algorithms(self) -> &'static [&'static str] {
        match self {
            Self::SymmetricDefault => &["SYMMETRIC_DEFAULT"],
        }
    }
}

/// What the key is for (API, `KeyUsage`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyUsage {
    /// Sealing and opening.
    #[serde(rename = "ENCRYPT_DECRYPT")]
    EncryptDecrypt,
}

impl KeyUsage {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EncryptDecrypt => "ENCRYPT_DECRYPT",
        }
    }
}

/// Where the material came from (API, `Origin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyOrigin {
    /// Made here.
    #[serde(rename = "AWS_KMS")]
    AwsKms,
}

impl KeyOrigin {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwsKms => "AWS_KMS",
        }
    }
}
