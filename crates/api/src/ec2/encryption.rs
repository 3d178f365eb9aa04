//! Encryption by default: EnableEbsEncryptionByDefault, DisableEbsEncryptionByDefault, GetEbsEncryptionByDefault,
//! GetEbsDefaultKmsKeyId, ModifyEbsDefaultKmsKeyId, ResetEbsDefaultKmsKeyId.
use volume::VolumeError;

use super::{fault::Fault, request::Request};

impl Request<'_> {
    pub(super) async fn enable_encryption_by_default(self) -> Result<String, Fault> {
        self.check("EnableEbsEncryptionByDefault")?;
        let authorized = self.authorize(self.volumes.every())?;
        let enabled = self.volumes.enable_encryption_by_default(authorized);
        enabled.await?;
        Ok(self.switched("EnableEbsEncryptionByDefaultResponse", true))
    }

    pub(super) async fn disable_encryption_by_default(self) -> Result<String, Fault> {
        self.check("DisableEbsEncryptionByDefault")?;
        let authorized = self.authorize(self.volumes.every())?;
        let disabled = self.volumes.disable_encryption_by_default(authorized);
        disabled.await?;
        Ok(self.switched("DisableEbsEncryptionByDefaultResponse", false))
    }

    pub(super) async fn get_encryption_by_default(self) -> Result<String, Fault> {
        self.check("GetEbsEncryptionByDefault")?;
        let authorized = self.authorize(self.volumes.every())?;
        let by_default = self.volumes.encrypts_by_default(authorized).await?;
        Ok(self.answer("GetEbsEncryptionByDefaultResponse", |xml| {
            xml.text("ebsEncryptionByDefault", by_default);
            xml.text("sseType", if by_default { "sse-kms" } else { "none" });
        }))
    }

    pub(super) async fn get_default_key(self) -> Result<String, Fault> {
        self.check("GetEbsDefaultKmsKeyId")?;
        let authorized = self.authorize(self.volumes.every())?;
        let key = self.volumes.default_key(authorized).await?;
        Ok(self.key_answer("GetEbsDefaultKmsKeyIdResponse", &key))
    }

    pub(super) async fn modify_default_key(self) -> Result<String, Fault> {
        self.check("ModifyEbsDefaultKmsKeyId")?;
        let key = self.required("KmsKeyId")?;
        let key = key.parse().map_err(VolumeError::from)?;
        let authorized = self.authorize(self.volumes.every())?;
        let key = self.volumes.choose_default_key(authorized, &key).await?;
        Ok(self.key_answer("ModifyEbsDefaultKmsKeyIdResponse", &key))
    }

    pub(super) async fn reset_default_key(self) -> Result<String, Fault> {
        self.check("ResetEbsDefaultKmsKeyId")?;
        let authorized = self.authorize(self.volumes.every())?;
        let key = self.volumes.reset_default_key(authorized).await?;
        Ok(self.key_answer("ResetEbsDefaultKmsKeyIdResponse", &key))
    }

    fn switched(&self, name: &str, by_default: bool) -> String {
        self.answer(name, |xml| xml.text("ebsEncryptionByDefault", by_default))
    }

    fn key_answer(&self, name: &str, key: &str) -> String {
        self.answer(name, |xml| xml.text("kmsKeyId", key))
    }
}
