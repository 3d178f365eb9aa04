//! The accounts and regions that are served, and whether they are all that the catalogue has records of.

use std::str::FromStr;

use anyhow::{Context, ensure};
use catalogue::{Catalogue, Scope};
use iam::{AccountId, Region};

/// Pairs of account and region at most: each follows the catalogue for keys, volumes and buckets of its own.
const PAIRS_MAX: usize = 32;

/// Every account in every region.
#[derive(Debug, Clone)]
pub(crate) struct Scopes {
    /// The operator's account.
    operator: AccountId,
    more_accounts: Vec<AccountId>,
    /// Where clients are that do not say.
    home: Region,
    more_regions: Vec<Region>,
}

impl Scopes {
    /// Reads `accounts` and `regions` of the configuration. An error names the key.
    pub(crate) fn parse(
        accounts: &[String],
        regions: &[String],
    ) -> Result<Self, (&'static str, String)> {
        let twelve = "must be account ids of twelve digits";
        let (operator, more_accounts) = list(accounts, twelve).map_err(|why| ("accounts", why))?;
        let letters = "must be lower-case letters, digits and hyphens, such as us-east-1";
        let (home, more_regions) = list(regions, letters).map_err(|why| ("regions", why))?;
        let pairs = accounts.len() * regions.len();
        if pairs > PAIRS_MAX {
            let why = format!(
                "with `accounts` they make {pairs} pairs of account and region; {PAIRS_MAX} are served at most"
            );
            return Err(("regions", why));
        }
        Ok(Self {
            operator,
            more_accounts,
            home,
            more_regions,
        })
    }

    /// Every account, the operator's first.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = AccountId> + '_ {
        std::iter::once(self.operator).chain(self.more_accounts.iter().copied())
    }

    /// The first region.
    pub(crate) fn home(&self) -> &Region {
        &self.home
    }

    /// Every region but the first.
    pub(crate) fn more_regions(&self) -> &[Region] {
        &self.more_regions
    }

    /// Every region, the first one first.
    pub(crate) fn regions(&self) -> impl Iterator<Item = &Region> {
        std::iter::once(&self.home).chain(&self.more_regions)
    }

    fn serve(&self, scope: &Scope) -> bool {
        self.accounts()
            .any(|account| account.as_str() == scope.account)
            && self.regions().any(|region| region.as_str() == scope.region)
    }

    /// Fails if there are keys, volumes or buckets of an account or a region that is not served: nobody could reach them,
    /// and a mistyped number would begin an empty account beside them. Changes nothing.
    pub(crate) async fn check(&self, catalogue: &dyn Catalogue) -> anyhow::Result<()> {
        let found = [
            ("keys", keyring::scopes(catalogue).await),
            ("volumes", volume::scopes(catalogue).await),
            ("buckets", s3::scopes(catalogue).await),
        ];
        for (what, scopes) in found {
            for scope in scopes.context("catalogue")? {
                let Scope { account, region } = &scope;
                ensure!(
                    self.serve(&scope),
                    "there are {what} of account {account} in region {region}, and the configuration leaves it out: \
                     name them in `accounts` and `regions`, or delete what is there first"
                );
            }
        }
        Ok(())
    }
}

/// The first of a list and the others, each there once.
fn list<T: FromStr + PartialEq>(texts: &[String], form: &str) -> Result<(T, Vec<T>), String> {
    let mut parsed = Vec::new();
    for text in texts {
        let one: T = text.parse().map_err(|_| format!("`{text}`: {form}"))?;
        if parsed.contains(&one) {
            return Err(format!("`{text}` is there twice"));
        }
        parsed.push(one);
    }
    if parsed.is_empty() {
        return Err("must name at least one".to_owned());
    }
    let first = parsed.remove(0);
    Ok((first, parsed))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use catalogue::{Batch, Expect, Key, MemoryCatalogue, StoreId, Table};
    use crypto::random::SeededRandom;
    use crypto::store_key::GenerationKey;

    use super::*;

    fn parse(accounts: &[&str], regions: &[&str]) -> Result<Scopes, (&'static str, String)> {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        Scopes::parse(&owned(accounts), &owned(regions))
    }

    #[test]
    fn lists_that_cannot_be_served_are_refused_and_the_key_is_named() {
        let (one, here) = ("123456789012", "us-east-1");
        let scopes = parse(&[one, "210987654321"], &[here, "eu-west-1"]).unwrap();
        assert_eq!(scopes.accounts().next().unwrap().as_str(), one);
        assert_eq!(scopes.home().as_str(), here);
        assert_eq!(scopes.accounts().count() * scopes.regions().count(), 4);
        let many: Vec<String> = (0..33).map(|n| format!("{n:012}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(parse(&many[..32], &[here]).is_ok());
        for (accounts, regions, key) in [
            (&[][..], &[here][..], "accounts"),
            (&["12"], &[here], "accounts"),
            (&[one, one], &[here], "accounts"),
            (&[one], &[], "regions"),
            (&[one], &["US"], "regions"),
            (&[one], &[here, "x", here], "regions"),
            (&many, &[here], "regions"),
        ] {
            let (named, why) = parse(accounts, regions).unwrap_err();
            assert_eq!(named, key, "{why}");
        }
    }

    #[tokio::test]
    async fn records_of_an_account_or_region_that_is_left_out_are_refused_and_named() {
        let key = GenerationKey::generate(&SeededRandom::new(1)).record_key("t");
        for (table, what) in [
            ("key", "keys"),
            ("volume", "volumes"),
            ("bucket", "buckets"),
        ] {
            let catalogue = MemoryCatalogue::new(StoreId([1; 16]));
            let table = Table::new(table);
            let scope = Scope {
                account: "123456789012".to_owned(),
                region: "eu-west-1".to_owned(),
            };
            let at = Key::new(scope, [1]);
            let sealed = key.seal_at(&at.place(table, 1), 1, b"r", &SeededRandom::new(2));
            let batch = Batch::new().put(table, at, Expect::Absent, sealed);
            catalogue.commit(batch).await.unwrap();
            let served = parse(
                &["210987654321", "123456789012"],
                &["us-east-1", "eu-west-1"],
            );
            served.unwrap().check(&catalogue).await.unwrap();
            for left_out in [
                parse(&["210987654321"], &["eu-west-1"]),
                parse(&["123456789012"], &["us-east-1"]),
            ] {
                let refused = left_out.unwrap().check(&catalogue).await.unwrap_err();
                let refused = refused.to_string();
                let named = format!("{what} of account 123456789012 in region eu-west-1");
                assert!(refused.contains(&named), "{refused}");
            }
        }
    }
}
