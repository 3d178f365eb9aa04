//! A simulated machine: a disk, a catalogue that fails when told to, and a store key, under one keyring.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use catalogue::{Catalogue, FaultyCatalogue, Key, MemoryCatalogue, Scope, StoreId, Table};
use crypto::random::SystemRandom;
use host::{Clock, clock::ManualClock, disk::sim::SimDisk};
use iam::{
    AccountId, Action, Authorized, Authorizer, Caller, Principal, RequestContext, Resource, Via,
};
use keyring::Keyring;
use root::StoreKey;
use volume::{
    CreateVolume, Encryption, FolderReport, Options, Rebuild, Tag, VolumeError, VolumeId,
    VolumeInfo, VolumeSize, VolumeState, VolumeType, Volumes,
};

pub(crate) const TABLE: Table = Table::new("volume");
pub(crate) const VOLUMES: &str = "/volumes";
/// Bytes of a copy's file before what is sealed, for this account and region.
const COPY_HEADER: usize = 49 + 1 + 12 + 1 + 9;

/// What all machines of a test share.
pub(crate) struct Ground {
    pub(crate) store_key: StoreKey,
    keyring: Arc<Keyring>,
    audit: keyring::AuditLog,
    authorizer: Arc<Authorizer>,
    context: Arc<RequestContext>,
}

/// A disk and a catalogue.
pub(crate) struct Machine {
    pub(crate) ground: Arc<Ground>,
    pub(crate) disk: SimDisk,
    pub(crate) memory: MemoryCatalogue,
    pub(crate) catalogue: Arc<FaultyCatalogue<MemoryCatalogue>>,
}

fn account() -> AccountId {
    "123456789012".parse().unwrap()
}

pub(crate) fn scope() -> Scope {
    Scope {
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
    }
}

async fn store_key() -> StoreKey {
    let (disk, random) = (Arc::new(SimDisk::new(1)), Arc::new(SystemRandom));
    let provider = root::FileProvider::new("/root.key", disk.clone(), random.clone());
    let options = root::Options {
        disk,
        dir: "/".into(),
        provider: Arc::new(provider),
        random,
        may_make: true,
    };
    StoreKey::open(options).await.unwrap()
}

impl Ground {
    pub(crate) async fn new() -> Arc<Self> {
        let store_key = store_key().await;
        let authorizer = Arc::new(Authorizer::new(account()));
        let id = StoreId(*store_key.store().as_bytes());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(UNIX_EPOCH));
        let mut audit = keyring::AuditOptions::new("/audit", Arc::clone(&clock));
        audit.disk = Arc::new(SimDisk::new(1));
        let audit = keyring::AuditLog::open(audit).unwrap();
        let keyring = Keyring::open(keyring::Options {
            // Its own: what is told to fail is about volumes.
            catalogue: Arc::new(MemoryCatalogue::new(id)),
            store_key: store_key.clone(),
            audit: audit.clone(),
            clock,
            random: Arc::new(SystemRandom),
            authorizer: Arc::clone(&authorizer),
            region: "us-east-1".parse().unwrap(),
            observer: Arc::new(keyring::NoObserver),
        })
        .await
        .unwrap();
        Arc::new(Self {
            store_key,
            keyring,
            audit,
            authorizer,
            context: Arc::new(RequestContext::new(Principal::root(account()), "request")),
        })
    }

    pub(crate) fn machine(self: &Arc<Self>, seed: u64) -> Machine {
        self.machine_on(SimDisk::new(seed))
    }

    /// That disk, and a catalogue without rows.
    pub(crate) fn machine_on(self: &Arc<Self>, disk: SimDisk) -> Machine {
        let memory = MemoryCatalogue::new(StoreId(*self.store_key.store().as_bytes()));
        Machine {
            ground: Arc::clone(self),
            disk,
            catalogue: Arc::new(FaultyCatalogue::new(Arc::new(memory.clone()))),
            memory,
        }
    }

    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::new(&self.context, Via::Api)
    }

    pub(crate) fn may<A: Action, R: Resource>(&self, resource: R) -> Authorized<A, R> {
        let caller = Caller::new(&self.context, Via::Api);
        self.authorizer.authorize(caller, resource).unwrap()
    }
}

pub(crate) fn named(name: &str) -> CreateVolume {
    CreateVolume {
        size: VolumeSize::from_gib(1).unwrap(),
        encryption: Encryption::Unencrypted,
        volume_type: VolumeType::Gp3,
        availability_zone: "us-east-1a".to_owned(),
        tags: vec![Tag::new("Name", name).unwrap()],
        client_token: None,
    }
}

/// What is said of a volume: its id, its name, its state.
pub(crate) type Said = (VolumeId, String, VolumeState);

impl Machine {
    fn options(&self) -> Options {
        let Ground {
            store_key,
            keyring,
            audit,
            authorizer,
            ..
        } = &*self.ground;
        Options {
            disk: Arc::new(self.disk.clone()),
            dir: VOLUMES.into(),
            catalogue: Arc::clone(&self.catalogue) as Arc<dyn Catalogue>,
            store_key: store_key.clone(),
            keyring: Arc::clone(keyring),
            audit: audit.clone(),
            encryption: volume::EncryptionPolicy {
                by_default: false,
                required: false,
            },
            authorizer: Arc::clone(authorizer),
            clock: Arc::new(ManualClock::new(UNIX_EPOCH)),
            random: Arc::new(SystemRandom),
            region: "us-east-1".parse().unwrap(),
            boot: None,
            volumes_max: 1000,
        }
    }

    /// What a volume is checked and repaired with.
    pub(crate) fn inspection(&self) -> volume::Inspection {
        let Options {
            disk,
            dir,
            catalogue,
            store_key,
            keyring,
            random,
            ..
        } = self.options();
        volume::Inspection {
            disk,
            dir,
            catalogue,
            store_key,
            keyring,
            random,
            scope: scope(),
        }
    }

    pub(crate) async fn try_open(&self) -> Result<Arc<Volumes>, VolumeError> {
        Volumes::open(self.options()).await
    }

    pub(crate) async fn open(&self) -> Arc<Volumes> {
        self.try_open().await.unwrap()
    }

    /// The rows made again from this disk.
    pub(crate) async fn rebuild(&self) -> Vec<FolderReport> {
        self.rebuild_under(&self.ground.store_key).await.unwrap()
    }

    pub(crate) async fn rebuild_under(
        &self,
        store_key: &StoreKey,
    ) -> Result<Vec<FolderReport>, VolumeError> {
        volume::rebuild(Rebuild {
            disk: Arc::new(self.disk.clone()),
            dir: VOLUMES.into(),
            catalogue: Arc::clone(&self.catalogue) as Arc<dyn Catalogue>,
            store_key: store_key.clone(),
            random: Arc::new(SystemRandom),
        })
        .await
    }

    pub(crate) async fn create(
        &self,
        volumes: &Volumes,
        name: &str,
    ) -> Result<VolumeInfo, VolumeError> {
        let may = self.ground.may(volumes.new_one());
        volumes.create(may, named(name)).await
    }

    pub(crate) async fn delete(&self, volumes: &Volumes, id: VolumeId) -> Result<(), VolumeError> {
        volumes.delete(self.ground.may(volumes.one(id))).await
    }

    pub(crate) async fn rename(
        &self,
        volumes: &Volumes,
        id: VolumeId,
        name: &str,
    ) -> Result<(), VolumeError> {
        let tags = vec![Tag::new("Name", name).unwrap()];
        volumes
            .create_tags(self.ground.may(volumes.one(id)), tags)
            .await
    }

    pub(crate) fn list(&self, volumes: &Volumes) -> Vec<Said> {
        let all = volumes.describe(self.ground.may(volumes.every()), &[]);
        let said = |volume: &VolumeInfo| {
            (
                volume.id,
                volume.name().unwrap_or_default().to_owned(),
                volume.state,
            )
        };
        all.unwrap().iter().map(said).collect()
    }

    /// Attaches each volume that is said to be available, and writes and reads it.
    pub(crate) async fn use_all(&self, volumes: &Volumes) {
        for (id, ..) in self.list(volumes) {
            let attached = volumes.attach(self.ground.may(volumes.one(id))).await;
            let attached = attached.unwrap();
            attached.write(4096, &mut [7; 512], true).unwrap();
            let mut read = [0; 512];
            attached.read(4096, &mut read).unwrap();
            assert_eq!(read, [7; 512]);
        }
    }

    /// Waits until what is deleted is removed, or the machine is down.
    pub(crate) async fn settle(&self) {
        let settled = async {
            while !self.disk.is_down() && (self.leftovers() || self.deleting().await) {
                tokio::task::yield_now().await;
            }
        };
        let long = std::time::Duration::from_secs(60);
        tokio::time::timeout(long, settled).await.unwrap();
    }

    async fn deleting(&self) -> bool {
        let page = self.memory.page(TABLE, None, None, 1000).await.unwrap();
        // A row that says no more is shorter than any volume's.
        page.records.iter().any(|row| row.sealed.len() < 150)
    }

    fn leftovers(&self) -> bool {
        let is_left = |path: &PathBuf| {
            let path = path.to_string_lossy();
            path.contains(".creating-") || path.contains(".deleted-")
        };
        self.disk.paths().iter().any(is_left)
    }

    /// Nothing is half made or half removed, nor set aside.
    pub(crate) async fn is_clean(&self) {
        assert!(!self.leftovers(), "{:?}", self.disk.paths());
        assert!(!self.deleting().await);
        let quarantine = Path::new(VOLUMES).join("quarantine");
        let aside = |path: &PathBuf| path.starts_with(&quarantine);
        assert!(!self.disk.paths().iter().any(aside));
    }

    pub(crate) fn key(&self, id: VolumeId) -> Key {
        Key::new(scope(), id.to_bytes().as_slice())
    }

    /// How many rows and copies are under an older generation of the store key.
    pub(crate) async fn stale(&self) -> (usize, usize) {
        let (rows, copies) = (
            self.ground.store_key.table("volume"),
            self.ground.store_key.table("volume-copy"),
        );
        let page = self.memory.page(TABLE, None, None, 1000).await.unwrap();
        let is_stale = |row: &&catalogue::Record| rows.is_stale(&row.sealed);
        let rows = page.records.iter().filter(is_stale).count();
        let files = self.disk.paths();
        let files = files.iter().filter(|path| {
            let name = path.file_name().unwrap();
            name == "volume.copy" || name == "volume.copy2"
        });
        let copies = files
            .filter(|file| copies.is_stale(&self.disk.bytes(file)[COPY_HEADER..]))
            .count();
        (rows, copies)
    }
}

pub(crate) fn file(id: VolumeId, name: &str) -> PathBuf {
    Path::new(VOLUMES).join(id.to_string()).join(name)
}
