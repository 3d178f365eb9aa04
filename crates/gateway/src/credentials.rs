//! The accounts' root users: an access key each, in an AWS shared-credentials file.
//!
//! The first account's is the profile `default`, every other one's has its account id for a name. Each says in
//! `aws_account_id` whose it is, so that another order of `accounts` in the configuration gives nobody another account.
//! Profiles are added at the end and never taken out; other profiles are nobody's here.

use std::fmt;
use std::io;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest;
use crypto::random::Random;
use crypto::secret::SecretVec;
use host::{OsDisk, private};
use iam::AccountId;
use zeroize::Zeroizing;

use crate::data_dir::refuse_open_to_others;

/// The characters of an access key id after its prefix: RFC 4648 base32, as AWS uses.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// The profile that SDKs use unless told otherwise.
const DEFAULT: &str = "default";

/// An access key of an account's root user.
pub(crate) struct RootCredentials {
    /// Whose.
    pub(crate) account: AccountId,
    /// Public half.
    pub(crate) access_key_id: String,
    /// Secret half.
    pub(crate) secret_access_key: SecretVec,
    profile: String,
}

impl fmt::Debug for RootCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCredentials")
            .field("account", &self.account)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Every root user in the file, in its order.
#[derive(Debug, Default)]
pub(crate) struct RootUsers(Vec<RootCredentials>);

impl RootUsers {
    /// Reads the file and adds what it lacks: a root user for each of `accounts`. A file that is not there is made (mode
    /// 0600).
    pub(crate) fn load_or_create(
        path: &Path,
        accounts: impl IntoIterator<Item = AccountId>,
        random: &dyn Random,
    ) -> anyhow::Result<Self> {
        refuse_open_to_others(path)?;
        let (mut text, mut users) = match std::fs::read_to_string(path).map(Zeroizing::new) {
            Ok(text) => {
                let users = Self::parse(&text);
                let users = users.with_context(|| format!("{} is damaged", path.display()))?;
                (text, users)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Default::default(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let there = users.0.len();
        for account in accounts {
            if users.of(account).is_some() {
                continue;
            }
            let profile = match users.0.is_empty() {
                true => DEFAULT.to_owned(),
                false => account.to_string(),
            };
            text = add(&text, &profile, account, random);
            users = Self::parse(&text)?;
        }
        if users.0.len() > there {
            private::replace(&OsDisk, path, text.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(users)
    }

    /// Reads the file.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        refuse_open_to_others(path)?;
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// The root user of an account.
    pub(crate) fn of(&self, account: AccountId) -> Option<&RootCredentials> {
        self.0.iter().find(|user| user.account == account)
    }

    /// The one that commands use.
    pub(crate) fn into_default(self) -> RootCredentials {
        let mut users = self.0.into_iter();
        users
            .find(|user| user.profile == DEFAULT)
            .expect("looked for when the file was read")
    }

    /// The root user of an account.
    #[cfg(test)]
    pub(crate) fn into_user(self, account: AccountId) -> Option<RootCredentials> {
        self.0.into_iter().find(|user| user.account == account)
    }

    /// What stands for them among the parts of the data directory. Each one more comes after the others.
    pub(crate) fn mark(&self) -> parts::Mark {
        self.mark_of_first(u64::MAX)
    }

    /// What stood for them when there were so many.
    pub(crate) fn mark_of_first(&self, sequence: u64) -> parts::Mark {
        let count = usize::try_from(sequence).unwrap_or(usize::MAX);
        let count = count.min(self.0.len());
        let mut context = digest::Context::new(&digest::SHA256);
        for user in &self.0[..count] {
            context.update(user.account.as_str().as_bytes());
            context.update(user.access_key_id.as_bytes());
            context.update(&[0]);
            context.update(user.secret_access_key.expose());
            context.update(&[0]);
        }
        let digest = context.finish();
        parts::Mark {
            sequence: count as u64,
            digest: digest.as_ref().try_into().expect("SHA-256 has 32 bytes"),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut sections: Vec<(&str, [Option<&str>; 3])> = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').unwrap_or(name).trim();
                sections.push((name, [None; 3]));
            } else if let (Some((_, section)), Some((name, value))) =
                (sections.last_mut(), line.split_once('='))
            {
                let names = [
                    "aws_access_key_id",
                    "aws_secret_access_key",
                    "aws_account_id",
                ];
                let at = names.iter().position(|known| *known == name.trim());
                if let Some(at) = at {
                    section[at] = Some(value.trim());
                }
            }
        }
        let mut users: Vec<RootCredentials> = Vec::new();
        for (profile, section) in sections {
            if profile != DEFAULT && profile.parse::<AccountId>().is_err() {
                continue;
            }
            let [Some(id), Some(secret), Some(account)] =
                section.map(|v| v.filter(|v| !v.is_empty()))
            else {
                bail!(
                    "profile [{profile}] lacks aws_access_key_id, aws_secret_access_key or aws_account_id"
                );
            };
            let account = account
                .parse()
                .ok()
                .filter(|account: &AccountId| profile == DEFAULT || profile == account.as_str());
            let Some(account) = account else {
                bail!("aws_account_id of profile [{profile}] is not its account's");
            };
            let known = |user: &RootCredentials| {
                user.account == account || user.access_key_id == id || user.profile == profile
            };
            ensure!(
                !users.iter().any(known),
                "profile [{profile}] has the account, the name or the access key of another one"
            );
            users.push(RootCredentials {
                account,
                access_key_id: id.to_owned(),
                secret_access_key: SecretVec::from_slice(secret.as_bytes()),
                profile: profile.to_owned(),
            });
        }
        ensure!(
            users.iter().any(|user| user.profile == DEFAULT),
            "there is no profile [{DEFAULT}]"
        );
        Ok(Self(users))
    }
}

/// The text with a new access key behind it.
fn add(text: &str, profile: &str, account: AccountId, random: &dyn Random) -> Zeroizing<String> {
    use base64::Engine as _;
    let mut id = [0; 16];
    random.fill(&mut id);
    let id: String = id
        .iter()
        .map(|b| char::from(BASE32[usize::from(b & 31)]))
        .collect();
    // 30 bytes are 40 characters of base64, the length AWS uses.
    let mut secret = Zeroizing::new([0; 30]);
    random.fill(&mut *secret);
    let secret = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(*secret));
    let end = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    Zeroizing::new(format!(
        "{text}{end}# Root user of Sealgate account {account}. Whoever reads this file may use every key in it.\n\
         [{profile}]\naws_access_key_id = AKIA{id}\naws_secret_access_key = {}\naws_account_id = {account}\n",
        secret.as_str()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crypto::random::SystemRandom;

    use super::*;

    fn account(text: &str) -> AccountId {
        text.parse().unwrap()
    }

    const ONE: &str = "123456789012";
    const TWO: &str = "210987654321";

    #[test]
    fn a_created_key_is_found_again_and_does_not_print() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let make = || RootUsers::load_or_create(&path, [account(ONE)], &SystemRandom).unwrap();
        let (made, found) = (make().into_default(), make().into_default());
        assert_eq!(made.access_key_id, found.access_key_id);
        assert_eq!(made.access_key_id.len(), 20);
        assert_eq!(found.secret_access_key.expose().len(), 40);
        assert_eq!(
            made.secret_access_key.expose(),
            found.secret_access_key.expose()
        );
        let secret = String::from_utf8(found.secret_access_key.expose().to_vec()).unwrap();
        assert!(!format!("{found:?}").contains(&secret));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let make = || RootUsers::load_or_create(&path, [account(ONE)], &SystemRandom);
        make().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (load, start) = (RootUsers::load(&path), make());
        for refused in [load, start] {
            let why = refused.unwrap_err().to_string();
            assert!(why.contains("mode 644") && why.contains("chmod"), "{why}");
        }
    }

    #[test]
    fn a_file_without_the_profile_is_refused() {
        let whole = "[default]\naws_access_key_id = a\naws_secret_access_key = b\naws_account_id = 123456789012";
        assert!(RootUsers::parse(whole).is_ok());
        for text in [
            "",
            &whole.replace("default", "other"),
            &whole.replace("default", ONE),
            &whole.replace("aws_access_key_id = a", ""),
            &whole.replace("aws_secret_access_key = b", "aws_secret_access_key ="),
            &whole.replace("aws_account_id = 123456789012", ""),
            &whole.replace("123456789012", "12"),
            // Another account's by its name, and one that is there twice.
            &format!("{whole}\n{}", whole.replace("default", TWO)),
            &format!("{whole}\n{}", whole.replace("default", ONE)),
            &format!(
                "{whole}\n{}",
                whole.replace("default", TWO).replace(ONE, TWO)
            ),
        ] {
            assert!(RootUsers::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_account_that_is_added_gets_a_root_user_of_its_own_and_nobody_elses_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let make = |accounts: &[&str]| {
            let accounts = accounts.iter().map(|text| account(text));
            RootUsers::load_or_create(&path, accounts, &SystemRandom).unwrap()
        };
        let id = |users: &RootUsers, of| users.of(account(of)).unwrap().access_key_id.clone();
        let before = make(&[ONE]);
        // First in the configuration, and yet not the owner of the profile that was another's.
        let after = make(&[TWO, ONE]);
        assert_eq!(id(&after, ONE), id(&before, ONE));
        assert_ne!(id(&after, TWO), id(&before, ONE));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n[210987654321]\n"), "{text}");
        let again = make(&[ONE, TWO]);
        assert_eq!(again.mark(), after.mark());
        assert_eq!(id(&again, TWO), id(&after, TWO));
        assert_eq!(again.into_default().account, account(ONE));

        // What was there is what it was.
        assert_eq!(after.mark().sequence, before.mark().sequence + 1);
        assert_eq!(after.mark_of_first(1), before.mark());
        assert_ne!(after.mark().digest, before.mark().digest);
    }
}
