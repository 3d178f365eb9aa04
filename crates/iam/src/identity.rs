//! Principals and their credentials.
//!
//! Everything here is parsed once, at the edge, and trusted afterwards. [`SecretAccessKey`] is
//! wiped on drop, cannot be cloned or printed, and is reached through one word, `expose`.
use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::arn::Arn;

pub use crate::account::{AccountId, IdentityError, Region};

/// Who a set of credentials belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// The account's root user.
    Root {
        /// The account it is the root of.
        account: AccountId,
    },
}

impl Principal {
    /// The root user of `account`.
    pub fn root(account: AccountId) -> Self {
        Self::Root { account }
    }

    /// The account the principal belongs to.
    pub fn account(&self) -> AccountId {
        match self {
            Self::Root { account } => *account,
        }
    }

    /// The principal's ARN, `arn:aws:iam::ACCOUNT:root` for the root user.
    pub fn arn(&self) -> Arn {
        match self {
            Self::Root { account } => Arn::account_root(account),
        }
    }

    /// The unique identifier STS answers as `UserId`; the root user's is its account number.
    pub fn user_id(&self) -> String {
        match self {
            Self::Root { account } => account.to_string(),
        }
    }
}

/// The public half of a pair of credentials.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccessKeyId(Arc<str>);

impl AccessKeyId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccessKeyId {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // AWS issues 16 to 128 word characters; other S3 tools let people choose shorter ones.
        // A slash would make the credential scope ambiguous.
        let well_formed = (3..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(IdentityError::AccessKeyId)
        }
    }
}

impl fmt::Display for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret half of a pair of credentials: wiped on drop, never printed, not `Clone`.
/// ```compile_fail,E0599
/// fn copy(secret: iam::SecretAccessKey) -> iam::SecretAccessKey {
///     secret.clone()
/// }
/// ```
pub struct SecretAccessKey(Zeroizing<Vec<u8>>);

impl SecretAccessKey {
    /// Takes a secret over. The caller wipes its own copy if it keeps one.
    pub fn new(secret: &str) -> Result<Self, IdentityError> {
        let well_formed =
            (8..=128).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
        if !well_formed {
            return Err(IdentityError::SecretAccessKey);
        }
        Ok(Self(Zeroizing::new(secret.as_bytes().to_vec())))
    }

    /// The secret itself: printable ASCII.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).expect("printable ASCII, checked when made")
    }
}

impl PartialEq for SecretAccessKey {
    /// In time that depends on the lengths alone.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretAccessKey {}

impl fmt::Debug for SecretAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretAccessKey(redacted)")
    }
}

/// What the verifier needs to know of one access key.
#[derive(Debug)]
pub struct Credential {
    /// Whom it identifies.
    pub principal: Principal,
    /// What its requests are signed with.
    pub secret: SecretAccessKey,
}

/// Where access keys are looked up. Implemented over memory: the verifier calls it inline.
pub trait Credentials: Send + Sync {
    /// The credential of `access_key`, or `None` if there is none or it is switched off.
    ///
    /// Return the same `Arc` while the credential is the same: the verifier keeps derived signing
    /// keys for as long as it does, and derives anew when another one is returned.
    fn lookup(&self, access_key: &AccessKeyId) -> Option<Arc<Credential>>;
}

/// Credentials that are fixed at start: each account's root user.
#[derive(Debug)]
pub struct FixedCredentials(HashMap<AccessKeyId, Arc<Credential>>);

impl FixedCredentials {
    /// Knows `access_key` and nothing else.
    pub fn one(access_key: AccessKeyId, credential: Credential) -> Self {
        [(access_key, credential)].into_iter().collect()
    }
}

impl FromIterator<(AccessKeyId, Credential)> for FixedCredentials {
    /// Of two credentials of one access key the last counts.
    fn from_iter<I: IntoIterator<Item = (AccessKeyId, Credential)>>(credentials: I) -> Self {
        let credentials = credentials.into_iter();
        Self(
            credentials
                .map(|(access_key, credential)| (access_key, Arc::new(credential)))
                .collect(),
        )
    }
}

impl Credentials for FixedCredentials {
    fn lookup(&self, access_key: &AccessKeyId) -> Option<Arc<Credential>> {
        self.0.get(access_key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_key_id_cannot_hold_a_slash() {
        assert!("AKIDEXAMPLE".parse::<AccessKeyId>().is_ok());
        for bad in ["", "AK", "AKID/EXAMPLE", "AKID EXAMPLE", "AKID\u{e9}XAMPLE"] {
            assert!(bad.parse::<AccessKeyId>().is_err(), "{bad}");
        }
        assert!("a".repeat(129).parse::<AccessKeyId>().is_err());
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = SecretAccessKey::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").unwrap();
        let account = "123456789012".parse().unwrap();
        let credential = Credential {
            principal: Principal::root(account),
            secret,
        };
        assert!(!format!("{credential:?}").contains("wJal"));
        assert!(credential.secret.expose().starts_with("wJal"));
    }

    #[test]
    fn the_root_user_is_named_as_aws_names_it() {
        let root = Principal::root("123456789012".parse().unwrap());
        assert_eq!(root.arn().to_string(), "arn:aws:iam::123456789012:root");
        assert_eq!(root.user_id(), "123456789012");
    }
}
