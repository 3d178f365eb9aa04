//! The record of the default encryption: one for an account and region, in the catalogue.

use std::sync::Arc;

use catalogue::{Batch, CatalogueError, Expect, Key};
use keyring::KeyArgument;

use crate::{
    Encryption, VolumeError,
    default_encryption::{DefaultEncryption, TABLE},
    registry::Registry,
};

/// The record's id.
const ID: &[u8] = b"encryption";
/// How often a change that lost a race is planned anew.
const RACES_MAX: u32 = 8;

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
