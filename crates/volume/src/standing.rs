//! The permissions an attached volume rests on, and deciding about them again.

use iam::{AttachVolume, Authorizer, Decrypt, Standing};
use keyring::{Keyring, NamedKey};

use crate::{VolumeError, resource::OneVolume};

/// The decisions behind an attachment: to attach, and to use the key.
///
/// When one of them does not hold any more the volume stays attached: its data key was opened when it
/// might be, and a disk that goes away under a file system loses what was not written. It is reported.
#[derive(Debug)]
pub(crate) struct Grounds {
    pub(crate) attach: Standing<AttachVolume, OneVolume>,
    /// None for an unencrypted volume.
    pub(crate) key: Option<Standing<Decrypt, NamedKey>>,
}

impl Grounds {
    /// Whether nothing that decides has changed since. Two atomic loads.
    pub(crate) fn are_current(&self) -> bool {
        self.attach.is_current() && self.key.as_ref().is_none_or(Standing::is_current)
    }

    /// Decides again about what is not current. What is refused stays so, and is asked again next time.
    pub(crate) fn renew(
        &mut self,
        authorizer: &Authorizer,
        keyring: &Keyring,
    ) -> Result<(), VolumeError> {
        if !self.attach.is_current() {
            let now = self.attach.resource().clone();
            authorizer
                .renew(&mut self.attach, now)
                .map_err(keyring::KeyringError::from)?;
        }
        match &mut self.key {
            Some(key) if !key.is_current() => Ok(keyring.renew(key)?),
            _ => Ok(()),
        }
    }
}
