//! The actions that can be authorized, one type each.
//!
//! An action is a type and not a value, so that [`Authorized<Decrypt>`](crate::Authorized) cannot
//! stand in for `Authorized<Encrypt>`. The names are IAM's.

mod sealed {
    pub trait Sealed {}
}

/// An action of IAM's, such as `kms:Decrypt`. Sealed: the list below is all there is.
pub trait Action: sealed::Sealed + Send + Sync + 'static {
    /// The name policies use, `service:Operation`.
    const NAME: &'static str;
    /// The part of [`NAME`](Action::NAME) before the colon.
    const SERVICE: &'static str;
}

macro_rules! actions {
    ($(#[$doc:meta])* $service:ident, $prefix:literal: $($action:ident)*) => {
        $(#[$doc])*
        pub mod $service {
            $(
                #[doc = concat!("`", $prefix, ":", stringify!($action), "`")]
                #[derive(Debug)]
                pub enum $action {}
                impl super::sealed::Sealed for $action {}
                impl super::Action for $action {
                    const NAME: &'static str = concat!($prefix, ":", stringify!($action));
                    const SERVICE: &'static str = $prefix;
                }
            )*
        }
    };
}

actions! {
    /// Key management.
    kms, "kms":
    CreateKey DescribeKey ListKeys EnableKey DisableKey UpdateKeyDescription
    ScheduleKeyDeletion CancelKeyDeletion
    CreateAlias UpdateAlias DeleteAlias ListAliases
    Encrypt Decrypt ReEncryptFrom ReEncryptTo
    GenerateDataKey GenerateDataKeyWithoutPlaintext GenerateRandom
    RotateKeyOnDemand EnableKeyRotation DisableKeyRotation GetKeyRotationStatus ListKeyRotations
    GetKeyPolicy PutKeyPolicy ListKeyPolicies
    TagResource UntagResource ListResourceTags
    CreateGrant ListGrants ListRetirableGrants RetireGrant RevokeGrant
}

actions! {
    /// Objects.
    s3, "s3":
    ListAllMyBuckets CreateBucket DeleteBucket ListBucket ListBucketVersions
    ListBucketMultipartUploads GetBucketLocation GetBucketVersioning PutBucketVersioning
    GetEncryptionConfiguration PutEncryptionConfiguration
    GetBucketPolicy PutBucketPolicy DeleteBucketPolicy GetBucketTagging PutBucketTagging
    PutObject GetObject GetObjectAttributes DeleteObject
    AbortMultipartUpload ListMultipartUploadParts
    GetObjectTagging PutObjectTagging DeleteObjectTagging GetObjectAcl PutObjectAcl
    UpdateObjectEncryption
}

actions! {
    /// Volumes. Attaching through NBD is `ec2:AttachVolume`.
    ec2, "ec2":
    CreateVolume DeleteVolume DescribeVolumes ModifyVolume AttachVolume DetachVolume
    CreateTags DeleteTags DescribeTags
    DescribeAvailabilityZones DescribeRegions
    EnableEbsEncryptionByDefault DisableEbsEncryptionByDefault GetEbsEncryptionByDefault
    GetEbsDefaultKmsKeyId ModifyEbsDefaultKmsKeyId ResetEbsDefaultKmsKeyId
}

actions! {
    /// Sealgate's own: jobs and the root key.
    sealgate, "sealgate":
    ListJobs DescribeJob CancelJob DescribeRootKey RotateStoreKey
}

actions! {
    /// Identity.
    sts, "sts":
    GetCallerIdentity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_named_as_in_a_policy() {
        assert_eq!(kms::ReEncryptFrom::NAME, "kms:ReEncryptFrom");
        assert_eq!(ec2::AttachVolume::NAME, "ec2:AttachVolume");
        assert_eq!(s3::PutObject::SERVICE, "s3");
    }
}
