//! A bucket's default encryption: what new objects get when their request says
//! nothing.
//!
//! Kept in the bucket's record. None set means AES256, and answers say so.

use keyring::KeyArgument;
use s3s::dto::{
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The one rule a bucket has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum BucketDefault {
    /// SSE-S3.
    Owned {
        /// Kept because it is answered, and used by requests that ask for
        /// SSE-KMS themselves.
        bucket_key: bool,
    },
    /// SSE-KMS.
    Kms {
        /// Id, alias or ARN as given; none means `alias/aws/s3`.
        key: Option<String>,
        /// Whether bucket keys are used.
        bucket_key: bool,
    },
}

impl Default for BucketDefault {
    fn default() -> Self {
        Self::Owned { bucket_key: false }
    }
}

impl BucketDefault {
    /// From PutBucketEncryption's document.
    pub(crate) fn of_request(config: ServerSideEncryptionConfiguration) -> Result<Self, Error> {
        let [rule] = <[ServerSideEncryptionRule; 1]>::try_from(config.rules)
            .map_err(|_| Error::malformed_xml())?;
        let bucket_key = rule.bucket_key_enabled.unwrap_or(false);
        let Some(default) = rule.apply_server_side_encryption_by_default else {
            return Err(Error::malformed_xml());
        };
        let key = default.kms_master_key_id.filter(|key| !key.is_empty());
        match default.sse_algorithm.as_str() {
            ServerSideEncryption::AES256 if key.is_some() => Err(Error::invalid_argument(
                "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
            )),
            ServerSideEncryption::AES256 => Ok(Self::Owned { bucket_key }),
            ServerSideEncryption::AWS_KMS => {
                if let Some(key) = &key {
                    key.parse::<KeyArgument>()?;
                }
                Ok(Self::Kms { key, bucket_key })
            }
            ServerSideEncryption::AWS_KMS_DSSE => Err(Error::not_implemented(
                "Dual-layer server-side encryption with KMS keys (aws:kms:dsse) is not implemented by this gateway yet; use aws:kms",
            )),
            _ => Err(Error::malformed_xml()),
        }
    }

    /// As GetBucketEncryption answers it.
    pub(crate) fn to_answer(&self) -> ServerSideEncryptionConfiguration {
        let (algorithm, key) = match self {
            Self::Owned { .. } => (ServerSideEncryption::AES256, None),
            Self::Kms { key, .. } => (ServerSideEncryption::AWS_KMS, key.clone()),
        };
        ServerSideEncryptionConfiguration {
            rules: vec![ServerSideEncryptionRule {
                apply_server_side_encryption_by_default: Some(ServerSideEncryptionByDefault {
                    kms_master_key_id: key,
                    sse_algorithm: ServerSideEncryption::from_static(algorithm),
                }),
                bucket_key_enabled: Some(self.bucket_key()),
            }],
        }
    }

    /// Whether bucket keys are on.
    pub(crate) fn bucket_key(&self) -> bool {
        match self {
            Self::Owned { bucket_key } | Self::Kms { bucket_key, .. } => *bucket_key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_survives_and_a_damaged_one_is_no_default() {
        let kms = BucketDefault::Kms {
            key: Some("alias/a".into()),
            bucket_key: true,
        };
        for default in [BucketDefault::default(), kms] {
            let json = serde_json::to_vec(&default).unwrap();
            let read: BucketDefault = serde_json::from_slice(&json).unwrap();
            assert_eq!(read, default);
        }
        assert!(serde_json::from_slice::<BucketDefault>(b"{}").is_err());
    }

    #[test]
    fn a_document_has_exactly_one_rule() {
        let config = |rules| ServerSideEncryptionConfiguration { rules };
        let answer = BucketDefault::default().to_answer();
        let rule = answer.rules[0].clone();
        for rules in [vec![], vec![rule.clone(), rule.clone()]] {
            let error = BucketDefault::of_request(config(rules)).unwrap_err();
            assert_eq!(error.code(), "MalformedXML");
        }
        let mut keyed = rule;
        if let Some(default) = &mut keyed.apply_server_side_encryption_by_default {
            default.kms_master_key_id = Some("k".into());
        }
        let error = BucketDefault::of_request(config(vec![keyed])).unwrap_err();
        assert_eq!(error.code(), "InvalidArgument");
    }
}
