//! The keyring's part of the catalogue: its three tables, of one account and region.

use std::sync::Arc;

use catalogue::{Catalogue, CatalogueError, Key, Record, Scope, Sequence, Table};
use crypto::random::Random;
use iam::{AccountId, Region};

use crate::{
    error::KeyringError,
    key::{AliasName, KeyArn, KeyId},
    material::{self, Material},
    snapshot::{AliasEntry, KeyEntry, Snapshot},
    vault::{ALIASES, KEYS, MATERIALS, Vault, damaged, material_id},
};

/// Records read at a time.
const PAGE: usize = 1000;
/// How often tables that others change meanwhile are read anew, until they agree with one another.
const READS_MAX: u32 = 8;

/// The accounts and regions that have keys in `catalogue`: each wants a keyring of its own. May be cancelled.
///
/// # Errors
/// Those of the catalogue.
pub async fn scopes(catalogue: &dyn Catalogue) -> Result<Vec<Scope>, CatalogueError> {
    // Aliases and materials are there beside keys alone.
    catalogue::scopes(catalogue, KEYS).await
}

/// The records, and what opens them.
pub(crate) struct Records {
    pub(crate) catalogue: Arc<dyn Catalogue>,
    pub(crate) vault: Vault,
    pub(crate) account: AccountId,
    pub(crate) region: Region,
}

impl Records {
    /// Reads, opens and checks everything there is. A record that was changed or moved is an error
    /// that names it, as are a key one of whose materials is missing and a material that no key
    /// names. Returns the sequence too from which on changes may be missing.
    pub(crate) async fn load(&self) -> Result<(Snapshot, Sequence), KeyringError> {
        let mut reads = 1;
        loop {
            let from = self.catalogue.sequence().await?;
            match self.load_once().await {
                // Pages are of several moments: what does not fit may have been changed between them.
                Err(KeyringError::Damaged { .. })
                    if reads < READS_MAX && self.catalogue.sequence().await? != from =>
                {
                    reads += 1;
                }
                loaded => return Ok((loaded?, from)),
            }
        }
    }

    async fn load_once(&self) -> Result<Snapshot, KeyringError> {
        let mut snapshot = Snapshot::default();
        // In the order of their ids, as the keys come too: each key finds its own where the one before left off.
        let mut materials = Vec::new();
        let id = |stored: &mut Record| Ok(std::mem::take(&mut stored.key.id));
        self.each(MATERIALS, id, |id| {
            materials.push(id);
            Ok(())
        })
        .await?;
        let mut materials = materials.into_iter().peekable();
        // The first that no key names.
        let mut orphan: Option<Vec<u8>> = None;
        let open = |stored: &mut Record| self.open_key(stored);
        self.each(KEYS, open, |entry| {
            for number in 1..=entry.record.current() {
                let material = material_id(entry.id(), number);
                while let Some(nobodys) = materials.next_if(|id| *id < material) {
                    orphan.get_or_insert(nobodys);
                }
                if materials.next_if_eq(&material).is_none() {
                    return Err(damaged(MATERIALS, &material, "it is missing"));
                }
            }
            snapshot.put_key(entry);
            Ok(())
        })
        .await?;
        let open = |stored: &mut Record| self.open_alias(stored);
        self.each(ALIASES, open, |entry| {
            if !snapshot.keys.contains_key(&entry.target) {
                return Err(damaged(
                    KEYS,
                    entry.target.as_bytes(),
                    "it is missing: an alias points to it",
                ));
            }
            snapshot.put_alias(entry);
            Ok(())
        })
        .await?;
        // A key and its materials are written and erased together, so a material that no key names
        // means that a key's record was lost, or put back to one from before a rotation.
        if let Some(orphan) = orphan.or_else(|| materials.next()) {
            return Err(damaged(
                MATERIALS,
                &orphan,
                "no key names it: the key's record is missing or an old one",
            ));
        }
        Ok(snapshot)
    }

    /// Gives `take` what `open` makes of each of our records of a table, in the order of their ids. The next page is read
    /// while one is opened, by two threads if it is long: with a million keys that is most of a start.
    async fn each<T: Send>(
        &self,
        table: Table,
        open: impl Fn(&mut Record) -> Result<T, KeyringError> + Send + Sync,
        mut take: impl FnMut(T) -> Result<(), KeyringError> + Send,
    ) -> Result<(), KeyringError> {
        let scope = Some(self.vault.scope());
        let mut page = self.catalogue.page(table, scope, None, PAGE).await?;
        loop {
            let mut records = std::mem::take(&mut page.records);
            let following = async {
                match &page.next {
                    Some(after) => {
                        let page = self.catalogue.page(table, scope, Some(after), PAGE);
                        page.await.map(Some)
                    }
                    None => Ok(None),
                }
            };
            let taken = async {
                opened(&mut records, &open)?
                    .into_iter()
                    .try_for_each(&mut take)
            };
            // In this order: the page is asked for before there is no moment to ask.
            let (following, taken) = tokio::join!(biased; following, taken);
            taken?;
            match following? {
                Some(next) => page = next,
                None => return Ok(()),
            }
        }
    }

    fn open_key(&self, stored: &Record) -> Result<KeyEntry, KeyringError> {
        let (id, record) = self.vault.open_key(stored)?;
        Ok(KeyEntry {
            arn: KeyArn::new(&self.region, &self.account, id),
            record,
            version: stored.version,
        })
    }

    fn open_alias(&self, stored: &Record) -> Result<AliasEntry, KeyringError> {
        let (name, target, record) = self.vault.open_alias(stored)?;
        Ok(AliasEntry {
            name,
            target,
            record,
            version: stored.version,
        })
    }

    /// The key whose record stands at `at`, as it is now.
    pub(crate) async fn key(&self, at: &Key) -> Result<Option<KeyEntry>, KeyringError> {
        let stored = self.catalogue.get(KEYS, at).await?;
        stored.map(|stored| self.open_key(&stored)).transpose()
    }

    /// The alias whose record stands at `at`, as it is now.
    pub(crate) async fn alias(&self, at: &Key) -> Result<Option<AliasEntry>, KeyringError> {
        let stored = self.catalogue.get(ALIASES, at).await?;
        stored.map(|stored| self.open_alias(&stored)).transpose()
    }

    /// A material of a key.
    pub(crate) async fn material(
        &self,
        key: &KeyEntry,
        number: u32,
        random: &Arc<dyn Random>,
    ) -> Result<Arc<dyn Material>, KeyringError> {
        let at = self.vault.at(material_id(key.id(), number));
        match self.catalogue.get(MATERIALS, &at).await? {
            Some(stored) if stored.key == at => {
                let kept = self.vault.open_material(&stored)?;
                material::from_record(key.record.spec, &kept, random)
                    .map_err(|why| damaged(MATERIALS, &at.id, why))
            }
            _ => Err(damaged(MATERIALS, &at.id, "it is missing")),
        }
    }

    /// How often a key's materials were written, number 1 first; those that are there.
    pub(crate) async fn material_versions(
        &self,
        key: KeyId,
        materials: u32,
    ) -> Result<Vec<(Key, u64)>, CatalogueError> {
        let mut versions = Vec::new();
        for number in 1..=materials {
            let at = self.vault.at(material_id(key, number));
            if let Some(stored) = self.catalogue.get(MATERIALS, &at).await? {
                versions.push((at, stored.version));
            }
        }
        Ok(versions)
    }

    pub(crate) fn key_at(&self, id: KeyId) -> Key {
        self.vault.at(*id.as_bytes())
    }

    pub(crate) fn alias_at(&self, name: &AliasName) -> Key {
        self.vault.at(name.as_str())
    }
}

/// Opens records, the second half on a thread of its own if there are many.
fn opened<T: Send>(
    records: &mut [Record],
    open: &(impl Fn(&mut Record) -> Result<T, KeyringError> + Sync),
) -> Result<Vec<T>, KeyringError> {
    let all = |records: &mut [Record]| records.iter_mut().map(open).collect();
    if records.len() < PAGE / 2 {
        return all(records);
    }
    let (first, second) = records.split_at_mut(records.len() / 2);
    let (first, second): (Result<Vec<T>, _>, Result<Vec<T>, _>) = std::thread::scope(|scope| {
        let second = scope.spawn(|| all(second));
        let first = all(first);
        match second.join() {
            Ok(second) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let mut opened = first?;
    opened.append(&mut second?);
    Ok(opened)
}
