//! Lists in pages, and the operations that list keys, tags and policies.
//!
//! A marker is the last entry's own name in base64: it stays good while entries come and go, and
//! says nothing the page did not.

use std::{fmt::Display, ops::Bound, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use iam::Authorized;

use crate::{
    error::KeyringError,
    key::{KeyArn, KeyId},
    keyring::Keyring,
    metadata::{Listed, Page, Service, Tag, Tier},
    resource::{AllKeys, NamedKey},
};

/// How long a page may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    default: u32,
    max: u32,
}

impl Limits {
    pub(crate) const KEYS: Self = Self {
        default: 100,
        max: 1000,
    };
    pub(crate) const ALIASES: Self = Self {
        default: 50,
        max: 100,
    };
    pub(crate) const TAGS: Self = Self {
        default: 50,
        max: 50,
    };
}

/// A list being read, from where the page before ended.
pub(crate) struct Listing<K> {
    limit: usize,
    after: Option<K>,
}

impl<K: FromStr + Display> Listing<K> {
    pub(crate) fn new(page: &Page, limits: Limits) -> Result<Self, KeyringError> {
        let limit = page.limit.unwrap_or(limits.default);
        if !(1..=limits.max).contains(&limit) {
            return Err(KeyringError::Validation(format!(
                "Limit must be between 1 and {}.",
                limits.max
            )));
        }
        let after = match &page.marker {
            None => None,
            Some(marker) => Some(
                BASE64_URL_SAFE_NO_PAD
                    .decode(marker)
                    .ok()
                    .and_then(|name| String::from_utf8(name).ok())
                    .and_then(|name| name.parse().ok())
                    .ok_or(KeyringError::InvalidMarker)?,
            ),
        };
        Ok(Self {
            limit: limit as usize,
            after,
        })
    }

    /// What the page before ended with.
    pub(crate) fn after(&self) -> Option<&K> {
        self.after.as_ref()
    }

    /// One page of `entries`, which begin after [`Listing::after`].
    pub(crate) fn collect<T>(&self, entries: impl Iterator<Item = (K, T)>) -> Listed<T> {
        let mut page = Vec::new();
        let mut last = None;
        for (name, entry) in entries {
            if page.len() == self.limit {
                return Listed {
                    entries: page,
                    next_marker: last
                        .map(|last: K| BASE64_URL_SAFE_NO_PAD.encode(last.to_string())),
                };
            }
            page.push(entry);
            last = Some(name);
        }
        Listed {
            entries: page,
            next_marker: None,
        }
    }
}

impl Keyring {
    /// The keys an account sees: its own and the AWS managed ones.
    pub async fn list_keys(
        &self,
        authorized: Authorized<iam::ListKeys, AllKeys>,
        page: Page,
    ) -> Result<Listed<KeyArn>, KeyringError> {
        let inner = &self.inner;
        let list = || {
            inner.check_running()?;
            let listing = Listing::<KeyId>::new(&page, Limits::KEYS)?;
            let start = listing.after().map_or(Bound::Unbounded, Bound::Excluded);
            let snapshot = inner.snapshot.load();
            let now = inner.now();
            let keys = snapshot
                .keys
                .range::<_, KeyId>((start, Bound::Unbounded))
                .filter(|(_, entry)| {
                    !matches!(entry.record.tier, Tier::Owned(_)) && !entry.is_expired(now)
                })
                .map(|(id, entry)| (*id, entry.arn.clone()));
            Ok(listing.collect(keys))
        };
        let result = list();
        inner.finish(inner.account_trail(&authorized), result).await
    }

    /// A key's tags, in the order they were given.
    pub async fn list_resource_tags(
        &self,
        authorized: Authorized<iam::ListResourceTags, NamedKey>,
        page: Page,
    ) -> Result<Listed<Tag>, KeyringError> {
        let result = self.inner.admit(&authorized).and_then(|entry| {
            let listing = Listing::<usize>::new(&page, Limits::TAGS)?;
            let skip = listing.after().map_or(0, |last| last.saturating_add(1));
            let tags = entry.record.tags.iter().cloned().enumerate().skip(skip);
            Ok(listing.collect(tags))
        });
        self.inner
            .finish(self.inner.trail(&authorized), result)
            .await
    }

    /// A key's policy `default`, as JSON text. There is no other yet: a customer managed key
    /// delegates to the account, a managed one is its service's.
    pub async fn get_key_policy(
        &self,
        authorized: Authorized<iam::GetKeyPolicy, NamedKey>,
    ) -> Result<String, KeyringError> {
        let inner = &self.inner;
        let account = &inner.account;
        let result = inner.admit(&authorized).map(|entry| {
            let statements = match entry.record.tier {
                Tier::Customer => serde_json::json!([{
                    "Sid": "Enable IAM User Permissions",
                    "Effect": "Allow",
                    "Principal": {"AWS": format!("arn:aws:iam::{account}:root")},
                    "Action": "kms:*",
                    "Resource": "*",
                }]),
                Tier::Managed(service) | Tier::Owned(service) => {
                    let host = match service {
                        Service::S3 => "s3",
                        Service::Ebs => "ec2",
                    };
                    serde_json::json!([{
                        "Sid": "Allow access through the service for all principals in the account that may use it",
                        "Effect": "Allow",
                        "Principal": {"AWS": "*"},
                        "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                        "Resource": "*",
                        "Condition": {"StringEquals": {
                            "kms:CallerAccount": account.as_str(),
                            "kms:ViaService": format!("{host}.{}.amazonaws.com", inner.region),
                        }},
                    }, {
                        "Sid": "Allow direct access to key metadata to the account",
                        "Effect": "Allow",
                        "Principal": {"AWS": format!("arn:aws:iam::{account}:root")},
                        "Action": ["kms:Describe*", "kms:Get*", "kms:List*"],
                        "Resource": "*",
                    }])
                }
            };
            let policy = serde_json::json!({
                "Version": "2012-10-17",
                "Id": "key-default-1",
                "Statement": statements,
            });
            format!("{policy:#}")
        });
        inner.finish(inner.trail(&authorized), result).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_pages_that_meet() {
        let mut page = Page {
            limit: Some(2),
            marker: None,
        };
        let mut seen = Vec::new();
        loop {
            let listing = Listing::<u32>::new(&page, Limits::KEYS).unwrap();
            let after = listing.after().copied().unwrap_or(0);
            let listed = listing.collect((after + 1..=5).map(|n| (n, n)));
            seen.push(listed.entries);
            match listed.next_marker {
                Some(marker) => page.marker = Some(marker),
                None => break,
            }
        }
        assert_eq!(seen, [vec![1, 2], vec![3, 4], vec![5]]);
    }

    #[test]
    fn a_limit_out_of_bounds_and_a_foreign_marker_are_refused() {
        let code = |limit, marker: Option<&str>| {
            let page = Page {
                limit,
                marker: marker.map(str::to_owned),
            };
            Listing::<KeyId>::new(&page, Limits::KEYS)
                .err()
                .map(|error| error.code())
        };
        assert_eq!(code(Some(0), None), Some("ValidationException"));
        assert_eq!(code(Some(1001), None), Some("ValidationException"));
        assert_eq!(code(Some(1000), None), None);
        assert_eq!(code(None, Some("")), Some("InvalidMarkerException"));
        assert_eq!(code(None, Some("AAAA")), Some("InvalidMarkerException"));
        assert_eq!(code(None, Some("%")), Some("InvalidMarkerException"));
    }
}
