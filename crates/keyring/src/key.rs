//! How keys are named: ids, ARNs, aliases, and the argument of a request that may be any of them.

use std::{fmt, str::FromStr};

use crypto::random::Random;
use iam::{AccountId, Arn, Region};
use uuid::Uuid;

use crate::error::KeyringError;

/// Longest alias name, in characters, `alias/` included.
const ALIAS_LEN_MAX: usize = 256;
/// Prefix of every alias name.
const ALIAS_PREFIX: &str = "alias/";
/// Prefix of the names that only the gateway itself gives.
const RESERVED_PREFIX: &str = "alias/aws/";
/// Prefix of the id of a multi-Region key.
const MULTI_REGION_PREFIX: &str = "mrk-";

/// The id of a key: 128 random bits, and whether it belongs to a multi-Region key.
///
/// Written as a UUID, or as `mrk-` and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId {
    bytes: [u8; 16],
    multi_region: bool,
}

impl KeyId {
    /// A new id, never used before: 122 random bits in the form of a version 4 UUID.
    pub fn random(random: &dyn Random) -> Self {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        Self {
            bytes: uuid::Builder::from_random_bytes(bytes)
                .into_uuid()
                .into_bytes(),
            multi_region: false,
        }
    }

    pub(crate) fn from_parts(bytes: [u8; 16], multi_region: bool) -> Self {
        Self {
            bytes,
            multi_region,
        }
    }

    /// The 128 bits, as they stand in ciphertext blobs and in the store.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }

    /// Whether the key is a multi-Region key. None is made yet; the form is understood.
    pub fn is_multi_region(&self) -> bool {
        self.multi_region
    }
}

impl FromStr for KeyId {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || KeyringError::NotFound(format!("Invalid keyId '{text}'"));
        if let Some(digits) = text.strip_prefix(MULTI_REGION_PREFIX) {
            let mut bytes = [0; 16];
            hex::decode_to_slice(digits, &mut bytes).map_err(|_| unknown())?;
            return Ok(Self::from_parts(bytes, true));
        }
        // `Uuid` also takes the braced, the URN and the undashed form; a key id has one form.
        if text.len() != 36 {
            return Err(unknown());
        }
        let uuid = Uuid::try_parse(text).map_err(|_| unknown())?;
        Ok(Self::from_parts(uuid.into_bytes(), false))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.multi_region {
            write!(f, "{MULTI_REGION_PREFIX}{}", hex::encode(self.bytes))
        } else {
            Uuid::from_bytes(self.bytes).hyphenated().fmt(f)
        }
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `arn:aws:kms:REGION:ACCOUNT:key/ID`. Cheap enough to clone: one allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyArn {
    arn: Arn,
    key: KeyId,
}

impl KeyArn {
    pub(crate) fn new(region: &Region, account: &AccountId, key: KeyId) -> Self {
        Self {
            arn: Arn::kms_key(region, account, &key.to_string()),
            key,
        }
    }

    /// The id in it.
    pub fn key_id(&self) -> KeyId {
        self.key
    }

    /// The name as IAM knows it.
    pub fn as_arn(&self) -> &Arn {
        &self.arn
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.arn.as_str()
    }
}

impl TryFrom<&Arn> for KeyArn {
    type Error = KeyringError;

    fn try_from(arn: &Arn) -> Result<Self, Self::Error> {
        let id = arn
            .resource()
            .strip_prefix("key/")
            .filter(|_| arn.service() == "kms" && arn.region().is_some() && arn.account().is_some())
            .ok_or_else(|| KeyringError::InvalidArn(arn.to_string()))?;
        Ok(Self {
            arn: arn.clone(),
            key: id.parse()?,
        })
    }
}

impl FromStr for KeyArn {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let arn: Arn = text
            .parse()
            .map_err(|_| KeyringError::InvalidArn(text.to_owned()))?;
        Self::try_from(&arn)
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arn.fmt(f)
    }
}

impl fmt::Debug for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arn.fmt(f)
    }
}

/// An alias name: `alias/` and at least one of `a-z A-Z 0-9 / _ -`, 256 characters at most.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasName(Box<str>);

impl AliasName {
    /// The name, `alias/` included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with `alias/aws/`, which a caller may name but not give.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

impl FromStr for AliasName {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(name) = text.strip_prefix(ALIAS_PREFIX) else {
            return Err(KeyringError::InvalidAliasName(
                "Alias must start with the prefix \"alias/\".".to_owned(),
            ));
        };
        let well_formed = !name.is_empty()
            && text.len() <= ALIAS_LEN_MAX
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b));
        if !well_formed {
            return Err(KeyringError::InvalidAliasName(
                "Alias must be 'alias/' and up to 250 letters, digits, '/', '_' and '-'."
                    .to_owned(),
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request may give as `KeyId`: id, key ARN, alias name or alias ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyArgument {
    /// An id, of the gateway's own account and region.
    Id(KeyId),
    /// The ARN of a key.
    Arn(KeyArn),
    /// An alias, of the gateway's own account and region.
    Alias(AliasName),
    /// The ARN of an alias.
    AliasArn(Arn, AliasName),
}

impl KeyArgument {
    /// Refuses aliases, as most operations that change a key do.
    pub fn without_alias(self) -> Result<Self, KeyringError> {
        match self {
            Self::Id(_) | Self::Arn(_) => Ok(self),
            Self::Alias(name) => Err(KeyringError::NotFound(format!("Invalid keyId '{name}'"))),
            Self::AliasArn(arn, _) => Err(KeyringError::InvalidArn(arn.to_string())),
        }
    }
}

impl FromStr for KeyArgument {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("arn:") {
            let arn: Arn = text
                .parse()
                .map_err(|_| KeyringError::InvalidArn(text.to_owned()))?;
            if arn.service() == "kms"
                && let Ok(name) = arn.resource().parse()
            {
                return Ok(Self::AliasArn(arn, name));
            }
            return Ok(Self::Arn(KeyArn::try_from(&arn)?));
        }
        if text.starts_with(ALIAS_PREFIX) {
            return text.parse().map(Self::Alias);
        }
        text.parse().map(Self::Id)
    }
}

impl From<&KeyArn> for KeyArgument {
    fn from(arn: &KeyArn) -> Self {
        Self::Arn(arn.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
    const MRK: &str = "mrk-1234abcd12ab34cd56ef1234567890ab";

    #[test]
    fn a_key_id_has_one_form() {
        assert_eq!(ID.parse::<KeyId>().unwrap().to_string(), ID);
        let mrk: KeyId = MRK.parse().unwrap();
        assert!(mrk.is_multi_region());
        assert_eq!(mrk.to_string(), MRK);
        for bad in [
            "",
            "x",
            "1234abcd12ab34cd56ef1234567890ab",
            "{1234abcd-12ab-34cd-56ef-1234567890ab}",
            "urn:uuid:1234abcd-12ab-34cd-56ef-1234567890ab",
            "mrk-1234",
            "mrk-1234abcd-12ab-34cd-56ef-1234567890ab",
        ] {
            let error = bad.parse::<KeyId>().unwrap_err();
            assert_eq!(error.code(), "NotFoundException", "{bad}");
        }
    }

    #[test]
    fn an_argument_takes_its_four_forms() {
        let arn = format!("arn:aws:kms:us-east-1:123456789012:key/{ID}");
        assert!(matches!(
            arn.parse::<KeyArgument>().unwrap(),
            KeyArgument::Arn(a) if a.key_id().to_string() == ID && a.as_str() == arn
        ));
        assert!(matches!(ID.parse().unwrap(), KeyArgument::Id(_)));
        assert!(matches!(
            "alias/a/b_c-1".parse().unwrap(),
            KeyArgument::Alias(_)
        ));
        assert!(matches!(
            "arn:aws:kms:us-east-1:123456789012:alias/x".parse().unwrap(),
            KeyArgument::AliasArn(_, name) if name.as_str() == "alias/x"
        ));
        for (bad, code) in [
            ("arn:aws:s3:::bucket", "InvalidArnException"),
            (
                "arn:aws:kms:us-east-1:123456789012:grant/x",
                "InvalidArnException",
            ),
            ("arn:aws:kms::123456789012:key/x", "InvalidArnException"),
            (
                "arn:aws:kms:us-east-1:123456789012:key/x",
                "NotFoundException",
            ),
            ("arn:", "InvalidArnException"),
            ("alias/", "InvalidAliasNameException"),
            ("alias/a b", "InvalidAliasNameException"),
            ("alias/\u{e4}", "InvalidAliasNameException"),
            ("nothing", "NotFoundException"),
        ] {
            assert_eq!(
                bad.parse::<KeyArgument>().unwrap_err().code(),
                code,
                "{bad}"
            );
        }
    }

    #[test]
    fn an_alias_name_is_bounded_and_reserved_names_are_known() {
        let longest = format!("alias/{}", "x".repeat(250));
        assert!(longest.parse::<AliasName>().is_ok());
        assert!(format!("{longest}x").parse::<AliasName>().is_err());
        assert!("alias/aws/s3".parse::<AliasName>().unwrap().is_reserved());
        assert!(!"alias/awsome".parse::<AliasName>().unwrap().is_reserved());
    }
}
