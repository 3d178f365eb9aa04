//! Accounts and regions: what every resource name is made of.
use std::{fmt, str::FromStr, sync::Arc};

/// A name that is not in the form its type requires. The caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not twelve ASCII digits.
    #[error("an account id is twelve digits")]
    AccountId,
    /// Not a region name.
    #[error("a region is 1 to 32 lower-case letters, digits and hyphens")]
    Region,
    /// Not an access key id.
    #[error("an access key id is 3 to 128 letters, digits, '_', '-' and '.'")]
    AccessKeyId,
    /// Not a usable secret access key. Says nothing about the secret itself.
    #[error("a secret access key is 8 to 128 printable ASCII characters")]
    SecretAccessKey,
}

/// A twelve-digit AWS account number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId([u8; 12]);

impl AccountId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("twelve ASCII digits, checked when parsed")
    }
}

impl FromStr for AccountId {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: [u8; 12] = text
            .as_bytes()
            .try_into()
            .map_err(|_| IdentityError::AccountId)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(IdentityError::AccountId);
        }
        Ok(Self(digits))
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a region, such as `us-east-1`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Arc<str>);

impl Region {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(IdentityError::Region)
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_ids_are_twelve_digits() {
        assert_eq!(
            "123456789012".parse::<AccountId>().unwrap().as_str(),
            "123456789012"
        );
        for bad in [
            "",
            "12345678901",
            "1234567890123",
            "12345678901a",
            "１23456789012",
        ] {
            assert_eq!(
                bad.parse::<AccountId>(),
                Err(IdentityError::AccountId),
                "{bad}"
            );
        }
    }
}
