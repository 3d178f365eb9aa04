//! Encryption by default: the account's switch and its default key, as EC2's six calls of them.
//!
//! A change is a management call: its intent is in the audit log, durable, before it is made, and its outcome after.

use std::sync::Arc;

use iam::{Authorized, Caller, DescribeKey, Via};
use keyring::{KeyArgument, KeyArn, KeySpec, KeyState, KeyringError};

use crate::{
    VolumeError, Volumes, blocking::to_the_end, default_encryption::DefaultEncryption,
    resource::EveryVolume,
};

/// What the records of these calls are about.
const RESOURCE: &str = "volume-default-encryption";

impl Volumes {
    /// Whether volumes are encrypted although their requests do not ask for it.
    pub async fn encrypts_by_default(
        &self,
        authorized: Authorized<iam::GetEbsEncryptionByDefault, EveryVolume>,
    ) -> Result<bool, VolumeError> {
        self.permitted(&authorized)?;
        Ok(self.registry.default_encryption().await?.1.by_default)
    }

    /// Encrypts from now on every volume that is made. Runs to its end also if its caller stops waiting.
    pub async fn enable_encryption_by_default(
        &self,
        authorized: Authorized<iam::EnableEbsEncryptionByDefault, EveryVolume>,
    ) -> Result<(), VolumeError> {
        self.permitted(&authorized)?;
        let caller = authorized.caller();
        self.change_default("EnableEbsEncryptionByDefault", caller, |default| {
            default.by_default = true;
        })
        .await?;
        Ok(())
    }

    /// Makes plaintext volumes possible; [`VolumeError::EncryptionRequired`] where the operator forbids them. Runs to
    /// its end also if its caller stops waiting.
    pub async fn disable_encryption_by_default(
        &self,
        authorized: Authorized<iam::DisableEbsEncryptionByDefault, EveryVolume>,
    ) -> Result<(), VolumeError> {
        self.permitted(&authorized)?;
        let caller = authorized.caller();
        self.change_default("DisableEbsEncryptionByDefault", caller, |default| {
            default.by_default = false;
        })
        .await?;
        tracing::warn!(
            principal = %caller.context().principal_arn(),
            "encryption by default was disabled: volumes can be made that are not encrypted"
        );
        Ok(())
    }

    /// The key of volumes whose requests name none: `alias/aws/ebs`, or the ARN of the one that was chosen.
    pub async fn default_key(
        &self,
        authorized: Authorized<iam::GetEbsDefaultKmsKeyId, EveryVolume>,
    ) -> Result<String, VolumeError> {
        self.permitted(&authorized)?;
        Ok(self.registry.default_encryption().await?.1.key_name())
    }

    /// Makes `key` the one of volumes whose requests name none; returns its ARN. The key must be there, enabled and
    /// symmetric, and the caller may describe it. Runs to its end also if its caller stops waiting.
    pub async fn choose_default_key(
        &self,
        authorized: Authorized<iam::ModifyEbsDefaultKmsKeyId, EveryVolume>,
        key: &KeyArgument,
    ) -> Result<String, VolumeError> {
        self.permitted(&authorized)?;
        let caller = authorized.caller();
        let key = self.usable_key(caller, key).await?;
        let changed = self.change_default("ModifyEbsDefaultKmsKeyId", caller, move |default| {
            default.key = Some(key.clone());
        });
        Ok(changed.await?.key_name())
    }

    /// Makes `alias/aws/ebs` the key of volumes whose requests name none; returns that name. Runs to its end also if its
    /// caller stops waiting.
    pub async fn reset_default_key(
        &self,
        authorized: Authorized<iam::ResetEbsDefaultKmsKeyId, EveryVolume>,
    ) -> Result<String, VolumeError> {
        self.permitted(&authorized)?;
        let caller = authorized.caller();
        let changed = self.change_default("ResetEbsDefaultKmsKeyId", caller, |default| {
            default.key = None;
        });
        Ok(changed.await?.key_name())
    }

    /// The key that is named, if data keys can be wrapped under it.
    async fn usable_key(
        &self,
        caller: Caller<'_>,
        key: &KeyArgument,
    ) -> Result<KeyArn, VolumeError> {
        let keyring = &self.registry.options.keyring;
        let may = keyring.authorize::<DescribeKey, _>(caller.through(Via::Volume), key);
        let found = keyring.describe_key(may.await?).await?;
        let arn = || found.arn.as_arn().clone();
        match (found.state, found.spec) {
            (KeyState::Enabled, KeySpec::SymmetricDefault) => Ok(found.arn),
            (KeyState::Enabled, _) => Err(VolumeError::InvalidParameter(
                "The default key must be a symmetric key.".to_owned(),
            )),
            (KeyState::Disabled, _) => Err(KeyringError::Disabled { key: arn() }.into()),
            (state, _) => Err(KeyringError::InvalidState { key: arn(), state }.into()),
        }
    }

    async fn change_default(
        &self,
        operation: &'static str,
        caller: Caller<'_>,
        change: impl Fn(&mut DefaultEncryption) + Send + Sync + 'static,
    ) -> Result<DefaultEncryption, VolumeError> {
        self.registry.check_running()?;
        let registry = Arc::clone(&self.registry);
        let change_of = self.registry.asked(operation, caller, RESOURCE);
        to_the_end(async move {
            let required = registry.options.encryption.required;
            let work = async {
                if required && operation == "DisableEbsEncryptionByDefault" {
                    return Err(VolumeError::EncryptionRequired);
                }
                Arc::clone(&registry)
                    .change_default_encryption(change)
                    .await
            };
            registry.recorded(change_of, work).await
        })
        .await
    }
}
