//! Opening a keyring.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use catalogue::Scope;
use iam::Arn;
use moka::sync::Cache;
use parking_lot::RwLock;
use root::{Reseal, StoreId};
use tokio::sync::{Mutex, Semaphore};

use crate::{
    error::KeyringError,
    follow::follow,
    keyring::{COLD_READS_MAX, Inner, Keyring, OPENED_MAX, Options},
    metadata::Service,
    records::Records,
    snapshot::KeyEntry,
    vault::{TABLES, Vault},
    wall::Wall,
};

impl Keyring {
    /// Opens the keyring in `options.catalogue`; a catalogue without keys is one without keys yet.
    ///
    /// Reads and opens every record; may be cancelled. Keys whose deletion date has passed are refused as keys that do not
    /// exist, and erased by a [`sweep`](Keyring::sweep) once the clock has gone on evenly for an hour.
    /// Refused with nothing changed: the store key of another store; a record that was changed or moved;
    /// a lost key; a lost material. Keys of other accounts and regions are left alone: whether these are
    /// served, [`scopes`](crate::scopes) tells. A lost alias is not noticed, nor is an old copy of a record together with the version it had,
    /// unless a rotation lies between.
    pub async fn open(options: Options) -> Result<Arc<Self>, KeyringError> {
        let Options {
            catalogue,
            store_key,
            audit,
            clock,
            random,
            authorizer,
            region,
            observer,
        } = options;
        let account = *authorizer.account();
        let keyring = StoreId::from_bytes(catalogue.store_id().await?.0);
        let header = store_key.store();
        if keyring != header {
            return Err(KeyringError::WrongStore { keyring, header });
        }
        let scope = Scope {
            account: account.to_string(),
            region: region.to_string(),
        };
        let owners = TABLES
            .map(|table| jobs::table_owner(table, &catalogue, &store_key, &random))
            .to_vec();
        let records = Records {
            catalogue,
            vault: Vault::new(&store_key, scope, Arc::clone(&random)),
            account,
            region: region.clone(),
        };
        let (snapshot, followed) = records.load().await?;
        let written = |entry: &Arc<KeyEntry>| {
            let materials = entry.record.materials.iter();
            materials
                .map(|material| SystemTime::from(material.created))
                .max()
        };
        let newest = snapshot.keys.values().filter_map(written).max();
        let wall = Wall::new(Arc::clone(&clock), newest);
        let inner = Arc::new(Inner {
            wall,
            records,
            audit,
            clock,
            random,
            observer,
            everything: Arn::every("kms", &region, &account),
            account,
            region,
            authorizer,
            snapshot: ArcSwap::from_pointee(snapshot),
            opened: Cache::new(OPENED_MAX),
            cold_reads: Semaphore::new(COLD_READS_MAX),
            followed: Mutex::new(followed),
            behind: parking_lot::Mutex::default(),
            listeners: RwLock::default(),
            owned: [const { OnceLock::new() }; Service::ALL.len()],
            stopped: OnceLock::new(),
        });
        inner.say_what_is_expired();
        Ok(Arc::new(Self {
            _following: follow(&inner),
            inner,
            owners,
        }))
    }

    /// The owners of the keyring's records, of all accounts and regions, for [`root::Rotation::run`]: whose keyring is not
    /// open would lose its keys with the old generation.
    pub fn owners(&self) -> Vec<Arc<dyn Reseal>> {
        self.owners.clone()
    }
}
