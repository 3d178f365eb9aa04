//! A store with many keys, filled beside the keyring and opened by it.
//!
//! One key is made by the keyring; its records, opened and sealed again under other ids, are the others: a million
//! commits one after another would take longer than what is measured.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalogue::sqlite::SqliteCatalogue;
use catalogue::{Batch, Catalogue, Expect, Key, Scope, Table};
use crypto::context::EncryptionContext;
use crypto::hash::Sha256;
use crypto::random::SystemRandom;
use crypto::secret::SecretBytes;
use crypto::wrap::{BackingKey, BlobHeader, KeyBlob};
use host::{OsDisk, SystemClock};
use iam::{Authorizer, Caller, Principal, RequestContext, Via};
use keyring::{Account, AuditLog, AuditOptions, CreateKey, Keyring, KeyringError, NoObserver};
use root::{FileProvider, StoreKey};

use crate::silent_disk::SilentDisk;

/// Whose the keys are.
pub const ACCOUNT: &str = "123456789012";
/// Where they say they are.
pub const REGION: &str = "us-east-1";

const KEYS: Table = Table::new("key");
const MATERIALS: Table = Table::new("material");
/// Keys that one batch of the catalogue takes, two records each.
const BATCH_KEYS: usize = 500;

/// Whatever went wrong: a measurement is given up.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What an audit log is kept on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// The disk: each record is durable before the answer.
    Durable,
    /// Nothing: records are made, chained and handed over, and forgotten.
    Forgotten,
}

/// A folder with a store key, a catalogue and logs.
pub struct KeyStore {
    dir: PathBuf,
    key: StoreKey,
    logs: std::sync::atomic::AtomicU32,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl KeyStore {
    /// A new store in an empty folder.
    pub async fn make(dir: &Path) -> Result<Self, Failure> {
        let (disk, random) = (Arc::new(OsDisk), Arc::new(SystemRandom));
        let provider = FileProvider::new(dir.join("root.key"), disk.clone(), random.clone());
        let key = StoreKey::open(root::Options {
            disk,
            dir: dir.to_owned(),
            provider: Arc::new(provider),
            random,
            may_make: true,
        })
        .await?;
        Ok(Self {
            dir: dir.to_owned(),
            key,
            logs: std::sync::atomic::AtomicU32::new(0),
        })
    }

    fn catalogue(&self) -> Result<Arc<SqliteCatalogue>, Failure> {
        let mut options = catalogue::sqlite::Options::new(self.dir.join("catalogue.db"));
        options.create = Some(catalogue::StoreId(*self.key.store().as_bytes()));
        Ok(Arc::new(SqliteCatalogue::open(options)?))
    }

    /// Opens the keyring, with a log of its own.
    pub async fn open(&self, audit: Audit) -> Result<Arc<Keyring>, Failure> {
        let number = self.logs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let disk = Arc::new(SilentDisk::default());
        let clock = Arc::new(SystemClock::new());
        let mut log = AuditOptions::new(self.dir.join(format!("audit-{number}")), clock.clone());
        log.disk = disk.clone();
        if audit == Audit::Forgotten {
            // A new segment would be made on the disk, which does not forget names.
            log.segment_len = u64::MAX;
        }
        let log = AuditLog::open(log)?;
        if audit == Audit::Forgotten {
            disk.silence();
        }
        let keyring = Keyring::open(keyring::Options {
            catalogue: self.catalogue()?,
            store_key: self.key.clone(),
            audit: log,
            clock,
            random: Arc::new(SystemRandom),
            authorizer: Arc::new(Authorizer::new(ACCOUNT.parse()?)),
            region: REGION.parse()?,
            observer: Arc::new(NoObserver),
        });
        Ok(keyring.await?)
    }

    /// Adds keys up to `count`, each with one material; `first` is how many there are.
    pub async fn fill(&self, first: usize, count: usize) -> Result<(), Failure> {
        let keyring = self.open(Audit::Forgotten).await?;
        let template = create(&keyring).await?;
        drop(keyring);
        let catalogue = self.catalogue()?;
        let (keys, materials) = (self.key.table("key"), self.key.table("material"));
        let named = template.as_bytes().to_vec();
        let kept = catalogue.get(KEYS, &at(named)).await?;
        let kept = kept.ok_or("the key that was made is not there")?;
        let contents = keys.open(&kept.place(KEYS), &kept.sealed)?;
        let named = [template.as_bytes().as_slice(), &1_u32.to_be_bytes()].concat();
        let kept = catalogue.get(MATERIALS, &at(named)).await?;
        let kept = kept.ok_or("the material that was made is not there")?;
        let made = materials.open(&kept.place(MATERIALS), &kept.sealed)?;
        let format = *made.expose().first().ok_or("an empty record")?;
        let version = Expect::Absent.next_version();
        let mut next = first;
        while next < count {
            let end = count.min(next + BATCH_KEYS);
            let mut batch = Batch::new();
            let (seals, material_seals) = (keys.sealing(), materials.sealing());
            for number in next..end {
                let key = at(id(number));
                let sealed =
                    seals.seal(&key.place(KEYS, version), contents.expose(), &SystemRandom);
                batch = batch.put(KEYS, key, Expect::Absent, sealed);
                let key = at([id(number).as_slice(), &1_u32.to_be_bytes()].concat());
                let material = [&[format], material(number).as_slice()].concat();
                let sealed =
                    material_seals.seal(&key.place(MATERIALS, version), &material, &SystemRandom);
                batch = batch.put(MATERIALS, key, Expect::Absent, sealed);
            }
            catalogue.commit(batch).await?;
            next = end;
        }
        Ok(())
    }
}

/// The account root's request.
pub fn request() -> Result<Arc<RequestContext>, Failure> {
    let principal = Principal::root(ACCOUNT.parse()?);
    Ok(Arc::new(RequestContext::new(principal, "benchmark")))
}

/// The encryption context of every blob.
pub fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("bench", "k2")]).expect("one short pair")
}

/// The key that material `number` is of, as who opens blobs without a keyring needs it.
pub fn backing_key(number: usize) -> BackingKey {
    let material = material(number);
    BackingKey::from_secret(SecretBytes::init_with(|key| key.copy_from_slice(&material)))
}

/// A data key of 32 bytes, sealed under the key `number`.
pub fn blob(number: usize) -> Vec<u8> {
    let header = BlobHeader {
        key_id: id(number),
        multi_region: false,
        material: 1,
    };
    KeyBlob::seal(
        &backing_key(number),
        header,
        &context(),
        &[7; 32],
        &SystemRandom,
    )
    .expect("32 bytes can be sealed")
}

async fn create(keyring: &Keyring) -> Result<keyring::KeyId, Failure> {
    let request = request()?;
    let may = keyring.authorize(Caller::new(&request, Via::Api), Account);
    let made: Result<_, KeyringError> = keyring.create_key(may.await?, CreateKey::default()).await;
    Ok(made?.arn.key_id())
}

fn at(id: impl Into<Vec<u8>>) -> Key {
    let scope = Scope {
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
    };
    Key::new(scope, id)
}

/// The id of a key: rising with its number, so that the catalogue is filled from front to back.
fn id(number: usize) -> [u8; 16] {
    let mut id = Sha256::digest(&number.to_be_bytes())[..16]
        .try_into()
        .unwrap_or([0; 16]);
    let front = u32::try_from(number).unwrap_or(u32::MAX);
    <[u8; 16] as AsMut<[u8]>>::as_mut(&mut id)[..4].copy_from_slice(&front.to_be_bytes());
    id
}

fn material(number: usize) -> [u8; 32] {
    Sha256::digest(&[b"material".as_slice(), &number.to_be_bytes()].concat())
}
