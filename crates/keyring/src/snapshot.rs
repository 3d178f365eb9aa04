//! Everything known of keys and aliases, in memory, as one value that is replaced whole.
//!
//! Readers take the current value without a lock and see one moment of it; a change makes the next
//! value, sharing what did not change. Only backing keys are not in here: they are opened when used
//! and kept in a bounded cache.

use std::{sync::Arc, time::SystemTime};

use imbl::OrdMap;

use crate::{
    key::{AliasName, KeyArn, KeyId},
    metadata::{KeyMetadata, MaterialId, Service, Tier},
    vault::{AliasRecord, KeyRecord},
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
pub(crate) struct Snapshot {
    pub(crate) keys: OrdMap<KeyId, Arc<KeyEntry>>,
    pub(crate) aliases: OrdMap<AliasName, Arc<AliasEntry>>,
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
            spec: self.record.spec,
            usage: self.record.usage,
            origin: self.record.origin,
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

impl Snapshot {
    pub(crate) fn put_key(&mut self, entry: KeyEntry) {
        self.keys.insert(entry.id(), Arc::new(entry));
    }

    pub(crate) fn put_alias(&mut self, entry: AliasEntry) {
        self.aliases.insert(entry.name.clone(), Arc::new(entry));
    }

    /// Takes out the key whose record stood at `id`, if there is one.
    pub(crate) fn remove_key_at(&mut self, id: &[u8]) {
        let Ok(bytes) = id.try_into() else { return };
        for multi_region in [false, true] {
            self.keys.remove(&KeyId::from_parts(bytes, multi_region));
        }
    }

    /// Takes out the alias whose record stood at `id`, if there is one.
    pub(crate) fn remove_alias_at(&mut self, id: &[u8]) {
        let name = std::str::from_utf8(id)
            .ok()
            .and_then(|name| name.parse().ok());
        if let Some(name) = name {
            self.aliases.remove::<AliasName>(&name);
        }
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
