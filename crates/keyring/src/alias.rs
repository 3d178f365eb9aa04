//! Names for keys that can be pointed elsewhere.

use std::ops::Bound;

use iam::{Arn, Authorized};

use crate::{
    change::{Edit, Moment, Plan},
    error::KeyringError,
    key::{AliasName, KeyArgument},
    keyring::{Inner, Keyring},
    list::{Limits, Listing},
    metadata::{Alias, Listed, Page},
    resource::{AllKeys, NamedAlias, NamedKey},
    snapshot::AliasEntry,
    trail::Trail,
    vault::AliasRecord,
};

/// Aliases of a key, at most (KMS quota).
const ALIASES_MAX: usize = 50;

impl Keyring {
    /// Makes an alias of the key that `authorized` is for.
    pub async fn create_alias(
        &self,
        authorized: Authorized<iam::CreateAlias, NamedKey>,
        name: AliasName,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized).with_alias(name.clone());
        let plan = move |inner: &Inner, moment: &Moment, _: &mut Trail| {
            refuse_reserved(&name)?;
            let target = inner.admit(&authorized)?;
            if moment.snapshot.aliases.contains_key(&name) {
                let arn = Arn::kms_alias(&inner.region, &inner.account, name.as_str());
                return Err(KeyringError::AlreadyExists(arn.to_string()));
            }
            check_count(moment, &target)?;
            let now = moment.now.into();
            let entry = AliasEntry {
                name: name.clone(),
                target: target.id(),
                record: AliasRecord {
                    target: target.id().to_string(),
                    created: now,
                    updated: now,
                },
                version: 1,
            };
            Ok(Plan::edit((), vec![Edit::Alias(entry)]))
        };
        self.inner.change(trail, plan).await
    }

    /// Points an alias at the key that `authorized` is for.
    pub async fn update_alias(
        &self,
        authorized: Authorized<iam::UpdateAlias, NamedKey>,
        name: AliasName,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized).with_alias(name.clone());
        let plan = move |inner: &Inner, moment: &Moment, _: &mut Trail| {
            refuse_reserved(&name)?;
            let target = inner.admit(&authorized)?;
            let Some(alias) = moment.snapshot.aliases.get(&name) else {
                return Err(inner.no_alias(&name));
            };
            if alias.target == target.id() {
                return Ok(Plan::nothing(()));
            }
            check_count(moment, &target)?;
            let mut next = AliasEntry::clone(alias);
            next.target = target.id();
            next.record.target = target.id().to_string();
            next.record.updated = moment.now.into();
            next.version += 1;
            Ok(Plan::edit((), vec![Edit::Alias(next)]))
        };
        self.inner.change(trail, plan).await
    }

    /// Deletes the alias that `authorized` is for, if it still points to the key it pointed to.
    pub async fn delete_alias(
        &self,
        authorized: Authorized<iam::DeleteAlias, NamedAlias>,
    ) -> Result<(), KeyringError> {
        let trail = self
            .inner
            .trail(&authorized)
            .with_alias(authorized.resource().name.clone());
        let plan = move |inner: &Inner, moment: &Moment, _: &mut Trail| {
            refuse_reserved(&authorized.resource().name)?;
            let target = inner.admit(&authorized)?;
            let name = &authorized.resource().name;
            match moment.snapshot.aliases.get(name) {
                Some(alias) if alias.target == target.id() => {
                    let erase = Edit::EraseAlias(name.clone(), alias.version);
                    Ok(Plan::edit((), vec![erase]))
                }
                // Gone, or pointed elsewhere since the permission was asked for.
                _ => Err(inner.no_alias(name)),
            }
        };
        self.inner.change(trail, plan).await
    }

    /// The aliases, those of `key` only if given (as id or ARN), in the order of their names.
    pub async fn list_aliases(
        &self,
        authorized: Authorized<iam::ListAliases, AllKeys>,
        key: Option<KeyArgument>,
        page: Page,
    ) -> Result<Listed<Alias>, KeyringError> {
        let inner = &self.inner;
        let via = authorized.caller().via();
        let list = || {
            inner.check_running()?;
            let listing = Listing::<AliasName>::new(&page, Limits::ALIASES)?;
            let only = match key {
                Some(key) => Some(inner.resolve(&key.without_alias()?, via)?.id()),
                None => None,
            };
            let start = listing.after().map_or(Bound::Unbounded, Bound::Excluded);
            let snapshot = inner.snapshot.load();
            let now = inner.now();
            let aliases = snapshot
                .aliases
                .range::<_, AliasName>((start, Bound::Unbounded))
                .filter(|(_, alias)| only.is_none_or(|key| alias.target == key))
                .filter_map(|(name, alias)| {
                    let target = snapshot.key(alias.target, now)?;
                    let alias = Alias {
                        name: name.clone(),
                        arn: Arn::kms_alias(&inner.region, &inner.account, name.as_str()),
                        target: target.arn.clone(),
                        created: alias.record.created.into(),
                        updated: alias.record.updated.into(),
                    };
                    Some((name.clone(), alias))
                });
            Ok(listing.collect(aliases))
        };
        let result = list();
        inner.finish(inner.account_trail(&authorized), result).await
    }
}

fn refuse_reserved(name: &AliasName) -> Result<(), KeyringError> {
    if name.is_reserved() {
        return Err(KeyringError::InvalidAliasName(
            "Alias names that begin with \"alias/aws/\" are reserved.".to_owned(),
        ));
    }
    Ok(())
}

fn check_count(moment: &Moment, target: &crate::snapshot::KeyEntry) -> Result<(), KeyringError> {
    if moment.snapshot.aliases_of(target.id()).count() >= ALIASES_MAX {
        return Err(KeyringError::LimitExceeded(format!(
            "{} has {ALIASES_MAX} aliases, the most a key can have.",
            target.arn
        )));
    }
    Ok(())
}
