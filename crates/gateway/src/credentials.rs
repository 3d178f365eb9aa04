//! The account's root user: an access key in an AWS shared-credentials file.

use std::fmt;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use crypto::random::Random;
use crypto::secret::SecretVec;
use host::{OsDisk, private};

/// The characters of an access key id after its prefix: RFC 4648 base32, as AWS uses.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// An access key of the account's root user.
pub(crate) struct RootCredentials {
    /// Public half.
    pub(crate) access_key_id: String,
    /// Secret half.
    pub(crate) secret_access_key: SecretVec,
}

impl fmt::Debug for RootCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl RootCredentials {
    /// Reads profile `default` of the file, or creates the file (mode 0600) with a new key.
    pub(crate) fn load_or_create(path: &Path, random: &dyn Random) -> anyhow::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                Self::parse(&text).with_context(|| format!("{} is damaged", path.display()))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(path, random),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Reads profile `default` of the file.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// What stands for them among the parts of the data directory.
    pub(crate) fn mark(&self) -> parts::Mark {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.access_key_id.as_bytes());
        context.update(&[0]);
        context.update(self.secret_access_key.expose());
        let digest = context.finish();
        parts::Mark {
            sequence: 1,
            digest: digest.as_ref().try_into().expect("SHA-256 has 32 bytes"),
        }
    }

    fn create(path: &Path, random: &dyn Random) -> anyhow::Result<Self> {
        use base64::Engine as _;
        let mut id = [0; 16];
        random.fill(&mut id);
        let id: String = id
            .iter()
            .map(|b| char::from(BASE32[usize::from(b & 31)]))
            .collect();
        let access_key_id = format!("AKIA{id}");
        // 30 bytes are 40 characters of base64, the length AWS uses.
        let mut secret = zeroize::Zeroizing::new([0; 30]);
        random.fill(&mut *secret);
        let secret =
            zeroize::Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(*secret));
        let text = zeroize::Zeroizing::new(format!(
            "# Root user of this Sealgate account. Whoever reads this file may use every key in it.\n\
             [default]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {}\n",
            secret.as_str()
        ));
        private::replace(&OsDisk, path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut in_default, mut id, mut secret) = (false, None, None);
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_default = line == "[default]";
            } else if let (true, Some((name, value))) = (in_default, line.split_once('=')) {
                match name.trim() {
                    "aws_access_key_id" => id = Some(value.trim().to_owned()),
                    "aws_secret_access_key" => secret = Some(value.trim().as_bytes()),
                    _ => {}
                }
            }
        }
        match (id, secret) {
            (Some(id), Some(secret)) if !id.is_empty() && !secret.is_empty() => Ok(Self {
                access_key_id: id,
                secret_access_key: SecretVec::from_slice(secret),
            }),
            _ => bail!("profile [default] lacks aws_access_key_id or aws_secret_access_key"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_created_key_is_found_again_and_does_not_print() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let made = RootCredentials::load_or_create(&path, &crypto::random::SystemRandom).unwrap();
        let found = RootCredentials::load_or_create(&path, &crypto::random::SystemRandom).unwrap();
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
    fn a_file_without_the_profile_is_refused() {
        for text in [
            "",
            "[other]\naws_access_key_id=a\naws_secret_access_key=b",
            "[default]\naws_access_key_id = a",
        ] {
            assert!(RootCredentials::parse(text).is_err(), "{text}");
        }
    }
}
