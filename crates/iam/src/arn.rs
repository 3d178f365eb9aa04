//! Amazon Resource Names.
//!
//! `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`, where region and account may be empty and the
//! resource may hold anything, colons and slashes included. The text is kept as it came, so that
//! what is printed is what was parsed; the fields are offsets into it.
//!
//! Only partition `aws` exists here. A parsed ARN is not a claim that the resource exists.
use std::{fmt, str::FromStr, sync::Arc};

use crate::account::{AccountId, Region};

/// Longest ARN accepted from outside, in bytes (IAM's own bound).
const ARN_LEN_MAX: usize = 2048;

/// Text that is not an ARN. The caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid ARN")]
pub struct ArnError;

/// The name of a resource. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arn {
    text: Arc<str>,
    /// Where the colons stand after service, region and account.
    colons: [u16; 3],
    account: Option<AccountId>,
}

impl Arn {
    fn build(service: &str, region: &str, account: Option<AccountId>, resource: &str) -> Self {
        let account_text = account.as_ref().map_or("", AccountId::as_str);
        // Not through `format!`: each request names its caller.
        let text = ["arn:aws", service, region, account_text, resource]
            .join(":")
            .into();
        let service_end = "arn:aws:".len() + service.len();
        let region_end = service_end + 1 + region.len();
        let account_end = region_end + 1 + account_text.len();
        let colons = [service_end, region_end, account_end]
            .map(|at| u16::try_from(at).expect("service, region and account are short"));
        Self {
            text,
            colons,
            account,
        }
    }

    /// `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE` for a resource of ours. `service` is a short
    /// constant such as `kms`.
    pub fn regional(
        service: &'static str,
        region: &Region,
        account: &AccountId,
        resource: &str,
    ) -> Self {
        Self::build(service, region.as_str(), Some(*account), resource)
    }

    /// `arn:aws:SERVICE:REGION:ACCOUNT:*`: what an action is about that names no resource, such as
    /// `kms:ListKeys` or `ec2:DescribeVolumes`.
    pub fn every(service: &'static str, region: &Region, account: &AccountId) -> Self {
        Self::regional(service, region, account, "*")
    }

    /// `arn:aws:kms:REGION:ACCOUNT:key/ID`.
    pub fn kms_key(region: &Region, account: &AccountId, key_id: &str) -> Self {
        Self::regional("kms", region, account, &format!("key/{key_id}"))
    }

    /// `arn:aws:kms:REGION:ACCOUNT:alias/NAME`; `alias` with its prefix `alias/`.
    pub fn kms_alias(region: &Region, account: &AccountId, alias: &str) -> Self {
        Self::regional("kms", region, account, alias)
    }

    /// `arn:aws:ec2:REGION:ACCOUNT:volume/ID`.
    pub fn ec2_volume(region: &Region, account: &AccountId, volume_id: &str) -> Self {
        Self::regional("ec2", region, account, &format!("volume/{volume_id}"))
    }

    /// `arn:aws:s3:::BUCKET`.
    pub fn s3_bucket(bucket: &str) -> Self {
        Self::build("s3", "", None, bucket)
    }

    /// `arn:aws:s3:::BUCKET/KEY`; the key may hold anything.
    pub fn s3_object(bucket: &str, key: &str) -> Self {
        Self::build("s3", "", None, &format!("{bucket}/{key}"))
    }

    /// `arn:aws:s3:::*`: what `s3:ListAllMyBuckets` is about.
    pub fn s3_every() -> Self {
        Self::build("s3", "", None, "*")
    }

    /// `arn:aws:iam::ACCOUNT:root`.
    pub fn account_root(account: &AccountId) -> Self {
        Self::build("iam", "", Some(*account), "root")
    }

    /// `arn:aws:sts::ACCOUNT:*`: what `sts:GetCallerIdentity` is about.
    pub fn sts_every(account: &AccountId) -> Self {
        Self::build("sts", "", Some(*account), "*")
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The service, such as `kms`.
    pub fn service(&self) -> &str {
        &self.text["arn:aws:".len()..usize::from(self.colons[0])]
    }

    /// The region; `None` for a global resource.
    pub fn region(&self) -> Option<&str> {
        let region = &self.text[usize::from(self.colons[0]) + 1..usize::from(self.colons[1])];
        (!region.is_empty()).then_some(region)
    }

    /// The account; `None` for S3's names, which carry none.
    pub fn account(&self) -> Option<&AccountId> {
        self.account.as_ref()
    }

    /// Everything after the account: `key/ID`, `alias/NAME`, `bucket/key`.
    pub fn resource(&self) -> &str {
        &self.text[usize::from(self.colons[2]) + 1..]
    }
}

impl FromStr for Arn {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > ARN_LEN_MAX {
            return Err(ArnError);
        }
        let mut fields = text.splitn(6, ':');
        let mut field = || fields.next().ok_or(ArnError);
        if field()? != "arn" || field()? != "aws" {
            return Err(ArnError);
        }
        let (service, region, account, resource) = (field()?, field()?, field()?, field()?);
        let service_well_formed = (1..=32).contains(&service.len())
            && service
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !service_well_formed || resource.is_empty() || resource.contains(char::is_control) {
            return Err(ArnError);
        }
        if !region.is_empty() {
            region.parse::<Region>().map_err(|_| ArnError)?;
        }
        let account = match account {
            "" => None,
            digits => Some(digits.parse::<AccountId>().map_err(|_| ArnError)?),
        };
        Ok(Self::build(service, region, account, resource))
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_the_text_is_kept() {
        let text = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let arn: Arn = text.parse().unwrap();
        assert_eq!(arn.to_string(), text);
        assert_eq!(arn.service(), "kms");
        assert_eq!(arn.region(), Some("us-east-1"));
        assert_eq!(arn.account().unwrap().as_str(), "123456789012");
        assert_eq!(arn.resource(), "key/1234abcd-12ab-34cd-56ef-1234567890ab");
    }

    #[test]
    fn s3_names_carry_no_account_and_any_key() {
        let arn: Arn = "arn:aws:s3:::bucket/a:b/c d".parse().unwrap();
        assert_eq!((arn.region(), arn.account()), (None, None));
        assert_eq!(arn.resource(), "bucket/a:b/c d");
        assert_eq!(arn, Arn::s3_object("bucket", "a:b/c d"));
        assert_eq!(Arn::s3_object("b", "\n").resource(), "b/\n");
    }

    #[test]
    fn what_is_not_an_arn_is_refused() {
        for bad in [
            "",
            "arn",
            "arn:aws:kms",
            "arn:aws:kms:us-east-1:123456789012",
            "arn:aws:kms:us-east-1:123456789012:",
            "arn:aws-cn:kms:cn-north-1:123456789012:key/x",
            "arn:aws::us-east-1:123456789012:key/x",
            "arn:aws:KMS:us-east-1:123456789012:key/x",
            "arn:aws:kms:US EAST:123456789012:key/x",
            "arn:aws:kms:us-east-1:12345:key/x",
            "arn:aws:kms:us-east-1:123456789012:key/\nx",
            " arn:aws:s3:::b",
        ] {
            assert_eq!(bad.parse::<Arn>(), Err(ArnError), "{bad:?}");
        }
        assert!(
            format!("arn:aws:s3:::{}", "x".repeat(3000))
                .parse::<Arn>()
                .is_err()
        );
    }
}
