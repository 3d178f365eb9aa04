//! Everything known of keys and aliases, in memory, as one value that is replaced whole.
//!
//! Readers take the current value without a lock and see one moment of it; a change makes the next
//! value, sharing what did not change. Only backing keys are not in here: they are opened when used
//! and kept in a bounded cache.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use iam::{AccountId, Region};
use rpds::RedBlackTreeMapSync;

use crate::{
    error::KeyringError,
    key::{AliasName, KeyArn, KeyId},
    metadata::{KeyMetadata, MaterialId, Service, Tier},
    store::{KeyStore, Table},
    vault::{AliasRecord, KeyRecord, Vault, damaged, material_id},
};

/// A key as it is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct KeyEntry {
    pub(crate) arn: KeyArn,
    pub(crate) record: KeyRecord,
    /// How often the record was written.
    pub(crate) version: u64,
}

/// An alias as it is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct AliasEntry {
    pub(crate) name: AliasName,
    pub(crate) target: KeyId,
    pub(crate) record: AliasRecord,
    pub(crate) version: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Catalogue {
    pub(crate) keys: RedBlackTreeMapSync<KeyId, Arc<KeyEntry>>,
    pub(crate) aliases: RedBlackTreeMapSync<AliasName, Arc<AliasEntry>>,
}

impl KeyEntry {
    pub(crate) fn id(&self) -> KeyId {
        self.arn.key_id()
    }

    /// Whether its deletion date has come: it is treated as gone, swept or not.
    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.record
            .deletion
            .is_some_and(|date| SystemTime::from(date) <= now)
    }

    pub(crate) fn metadata(&self) -> KeyMetadata {
        KeyMetadata {
            arn: self.arn.clone(),
            created: self.record.created.into(),
            description: self.record.description.clone(),
            state: self.record.state,
            tier: self.record.tier,
            deletion_date: self.record.deletion.map(SystemTime::from),
            current_material: MaterialId::of(self.id(), self.record.current()),
        }
    }

    /// Whether it may be seen and used by callers that come through `via`, and that only by its
    /// own service if it is one's owned key.
    pub(crate) fn is_visible(&self, via: iam::Via) -> bool {
        match self.record.tier {
            Tier::Customer | Tier::Managed(_) => true,
            Tier::Owned(service) => via == service.via(),
        }
    }

    /// A changed copy, to be written over this one.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut KeyRecord)) -> Self {
        let mut next = self.clone();
        change(&mut next.record);
        next.version += 1;
        next
    }
}

impl Catalogue {
    /// Reads, opens and checks everything in `store`. A record that was changed or moved is an
    /// error that names it, as are a key one of whose materials is missing and a material that no key
    /// names. An old copy of a record in its own row is noticed only if a rotation lies between.
    pub(crate) fn load(
        store: &dyn KeyStore,
        vault: &Vault,
        region: &Region,
        account: &AccountId,
    ) -> Result<Self, KeyringError> {
        let mut catalogue = Self::default();
        // What is left of these once every key has named its own is nobody's.
        let mut materials: HashSet<Vec<u8>> = store
            .scan(Table::Material)?
            .into_iter()
            .map(|stored| stored.id)
            .collect();
        for stored in store.scan(Table::Key)? {
            let (id, record) = vault.open_key(&stored)?;
            for number in 1..=record.current() {
                let material = material_id(id, number);
                if !materials.remove(&material) {
                    return Err(damaged(Table::Material, &material, "it is missing"));
                }
            }
            catalogue.put_key(KeyEntry {
                arn: KeyArn::new(region, account, id),
                record,
                version: stored.version,
            });
        }
        for stored in store.scan(Table::Alias)? {
            let (name, target, record) = vault.open_alias(&stored)?;
            if !catalogue.keys.contains_key(&target) {
                return Err(damaged(
                    Table::Key,
                    target.as_bytes(),
                    "it is missing: an alias points to it",
                ));
            }
            catalogue.put_alias(AliasEntry {
                name,
                target,
                record,
                version: stored.version,
            });
        }
        // A key and its materials are written and erased together, so a material that no key names
        // means that a key's record was lost, or put back to one from before a rotation.
        if let Some(orphan) = materials.iter().min() {
            return Err(damaged(
                Table::Material,
                orphan,
                "no key names it: the key's record is missing or an old one",
            ));
        }
        Ok(catalogue)
    }

    pub(crate) fn put_key(&mut self, entry: KeyEntry) {
        self.keys.insert_mut(entry.id(), Arc::new(entry));
    }

    pub(crate) fn put_alias(&mut self, entry: AliasEntry) {
        self.aliases.insert_mut(entry.name.clone(), Arc::new(entry));
    }

    /// The key with this id, if there is one and it is not past its deletion date.
    pub(crate) fn key(&self, id: KeyId, now: SystemTime) -> Option<&Arc<KeyEntry>> {
        self.keys.get(&id).filter(|entry| !entry.is_expired(now))
    }

    /// The key an alias points to.
    pub(crate) fn aliased(&self, name: &AliasName, now: SystemTime) -> Option<&Arc<KeyEntry>> {
        self.key(self.aliases.get(name)?.target, now)
    }

    pub(crate) fn managed(&self, service: Service) -> Option<&Arc<KeyEntry>> {
        let alias = self.aliases.get(&service.alias())?;
        self.keys.get(&alias.target)
    }

    /// Looks at every key: its caller remembers the answer.
    pub(crate) fn owned(&self, service: Service) -> Option<&Arc<KeyEntry>> {
        self.keys
            .values()
            .find(|entry| entry.record.tier == Tier::Owned(service))
    }

    pub(crate) fn aliases_of(&self, key: KeyId) -> impl Iterator<Item = &Arc<AliasEntry>> {
        self.aliases
            .values()
            .filter(move |alias| alias.target == key)
    }
}
