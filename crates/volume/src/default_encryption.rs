//! What volumes get that are made without a word about encryption: one record for an account and region, in the
//! catalogue. `FORMAT.md`, "Default encryption".

use std::{str::FromStr, sync::Arc};

use catalogue::{Batch, CatalogueError, Expect, Key, Table};
use keyring::{KeyArgument, KeyArn};
use serde::{Deserialize, Serialize};

use crate::{Encryption, VolumeError, registry::Registry};

/// Where the record stands.
pub(crate) const TABLE: Table = Table::new("volume-default");
/// Its id.
const ID: &[u8] = b"encryption";
/// The first byte of its contents.
const FORMAT: u8 = 1;
/// The key of volumes for which none is named, unless another one was chosen.
pub(crate) const DEFAULT_KEY: &str = "alias/aws/ebs";
/// How often a change that lost a race is planned anew.
const RACES_MAX: u32 = 8;

/// Whether volumes are encrypted without a word, and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultEncryption {
    /// Whether a volume is encrypted although its request did not ask for it.
    pub(crate) by_default: bool,
    /// The key of volumes whose request names none; `None`: [`DEFAULT_KEY`].
    pub(crate) key: Option<KeyArn>,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    by_default: bool,
    key: Option<String>,
}

impl DefaultEncryption {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = Body {
            by_default: self.by_default,
            key: self.key.as_ref().map(|key| key.as_str().to_owned()),
        };
        let mut contents = vec![FORMAT];
        serde_json::to_writer(&mut contents, &body).expect("a structure, into memory");
        contents
    }

    /// What the contents of a record say; why they do not read.
    pub(crate) fn decode(contents: &[u8]) -> Result<Self, &'static str> {
        let body = match contents {
            [FORMAT, body @ ..] => body,
            _ => return Err("its format is not known"),
        };
        let body: Body = serde_json::from_slice(body).map_err(|_| "its contents do not read")?;
        let key = match body.key {
            Some(key) => Some(KeyArn::from_str(&key).map_err(|_| "its key is no key's ARN")?),
            None => None,
        };
        Ok(Self {
            by_default: body.by_default,
            key,
        })
    }

    /// The key that is used where none is named.
    pub(crate) fn key_argument(&self) -> KeyArgument {
        match &self.key {
            Some(key) => KeyArgument::from(key),
            // Made on first use.
            None => DEFAULT_KEY.parse().expect("it is an alias's name"),
        }
    }

    /// The name of that key, as EC2 tells it.
    pub(crate) fn key_name(&self) -> String {
        match &self.key {
            Some(key) => key.as_str().to_owned(),
            None => DEFAULT_KEY.to_owned(),
        }
    }
}

impl Registry {
    /// What is so now, and the version of the record that says so; none if nobody ever changed it.
    pub(crate) async fn default_encryption(
        &self,
    ) -> Result<(Option<u64>, DefaultEncryption), VolumeError> {
        let policy = self.options.encryption;
        let key = self.default_key();
        let found = self.options.catalogue.get(TABLE, &key).await;
        let found = found.inspect_err(|error| self.judge(error))?;
        let (version, mut default) = match found {
            None => {
                let default = DefaultEncryption {
                    by_default: policy.by_default,
                    key: None,
                };
                (None, default)
            }
            Some(record) => {
                let damaged = |why| VolumeError::DamagedDefault { why };
                let contents = self
                    .vault
                    .defaults
                    .open(&record.place(TABLE), &record.sealed)
                    .map_err(|_| damaged("it does not authenticate"))?;
                let default = DefaultEncryption::decode(contents.expose()).map_err(damaged)?;
                (Some(record.version), default)
            }
        };
        // Whatever was said before it was required.
        default.by_default |= policy.required;
        Ok((version, default))
    }

    /// Changes it; returns what is so then. Whoever loses a race plans anew.
    pub(crate) async fn change_default_encryption(
        self: Arc<Self>,
        change: impl Fn(&mut DefaultEncryption),
    ) -> Result<DefaultEncryption, VolumeError> {
        let mut races = 0;
        loop {
            let (version, mut default) = self.default_encryption().await?;
            change(&mut default);
            let expect = version.map_or(Expect::Absent, Expect::Version);
            let key = self.default_key();
            // Not held across the next try, which may have to wait for a rotation of the store key.
            let committed = {
                let sealing = self.vault.defaults.sealing();
                let place = key.place(TABLE, expect.next_version());
                let sealed = sealing.seal(&place, &default.encode(), &*self.options.random);
                let batch = Batch::new().put(TABLE, key.clone(), expect, sealed);
                self.options.catalogue.commit(batch).await
            };
            match committed {
                Ok(_) => return Ok(default),
                Err(CatalogueError::Conflict { .. }) if races < RACES_MAX => races += 1,
                Err(error) => {
                    self.judge(&error);
                    return Err(error.into());
                }
            }
        }
    }

    fn default_key(&self) -> Key {
        Key::new(self.scope.clone(), ID)
    }

    /// How a new volume is protected: under which key, or `None` for not at all.
    pub(crate) async fn resolve(
        &self,
        asked: &Encryption,
    ) -> Result<Option<KeyArgument>, VolumeError> {
        match asked {
            Encryption::Sealed { key: Some(key) } => Ok(Some(key.clone())),
            Encryption::Unencrypted if self.options.encryption.required => {
                Err(VolumeError::EncryptionRequired)
            }
            Encryption::Sealed { key: None } => {
                Ok(Some(self.default_encryption().await?.1.key_argument()))
            }
            Encryption::Default { key } => {
                let (_, default) = self.default_encryption().await?;
                match key {
                    Some(_) if !default.by_default => Err(VolumeError::KeyWithoutEncryption),
                    Some(key) => Ok(Some(key.clone())),
                    None => Ok(default.by_default.then(|| default.key_argument())),
                }
            }
            // The account's default goes before what the request says, as on EC2.
            Encryption::Unencrypted => {
                let (_, default) = self.default_encryption().await?;
                Ok(default.by_default.then(|| default.key_argument()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::tests::golden;

    fn default() -> DefaultEncryption {
        let key = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        DefaultEncryption {
            by_default: false,
            key: Some(key.parse().unwrap()),
        }
    }

    #[test]
    fn the_golden_contents_read_and_are_written_the_same() {
        let golden = golden("default.contents", &default().encode());
        assert_eq!(DefaultEncryption::decode(&golden).unwrap(), default());
    }

    #[test]
    fn unknown_formats_fields_and_keys_are_refused() {
        let good = default().encode();
        let text = String::from_utf8(good[1..].to_vec()).unwrap();
        let mut newer = good.clone();
        newer[0] = 2;
        assert_eq!(
            DefaultEncryption::decode(&newer),
            Err("its format is not known")
        );
        assert_eq!(
            DefaultEncryption::decode(b""),
            Err("its format is not known")
        );
        for bad in [
            text.replacen("false", "0", 1),
            text.replacen("\"by_default\":false", "\"by_default\":false,\"more\":1", 1),
            text.replacen("\"by_default\":false,", "", 1),
            text.replacen("arn:aws:kms", "arn:aws:ec2", 1),
            text[..text.len() - 1].to_owned(),
        ] {
            assert_ne!(bad, text);
            let bad = [&[FORMAT], bad.as_bytes()].concat();
            assert!(DefaultEncryption::decode(&bad).is_err());
        }
    }
}
