//! A keyring in a directory of its own, with a clock that is set and a catalogue and a log that fail
//! when told to.

use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use catalogue::{
    Batch, Catalogue, CatalogueError, Changes, FaultyCatalogue, Key, MemoryCatalogue, Record,
    Scope, Sequence, StoreId, Table, sqlite::SqliteCatalogue,
};
use crypto::{context::EncryptionContext, random::SystemRandom, secret::SecretVec};
use host::{
    Clock, OsDisk,
    clock::ManualClock,
    disk::{
        HookedDisk,
        sim::{Call, SimDisk},
    },
};
use iam::{Action, Authorized, Authorizer, Caller, Principal, RequestContext, Via};
use keyring::{
    Account, AuditLog, AuditOptions, BlobUse, CreateKey, KeyArgument, KeyArn, KeyUse, Keyring,
    KeyringError, NamedKey, NoObserver, Options, SealedBlob,
};
use root::{FileProvider, StoreKey};

pub(crate) const ACCOUNT: &str = "123456789012";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A disk under the log that is full, or waits, when told to.
fn fault_disk(full: &Arc<AtomicU8>, gate: &Arc<tokio::sync::Mutex<()>>) -> HookedDisk {
    let (full, gate) = (Arc::clone(full), Arc::clone(gate));
    HookedDisk::new(Arc::new(OsDisk), move |call, path| {
        // A file is made under another name and renamed; only the log's own are of interest.
        match path.extension().and_then(|end| end.to_str()) {
            Some("journal") if call == Call::Write => {
                // Also called where the log is dropped: on a runtime's thread, which may not wait for its lock.
                while gate.try_lock().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            Some("jsonl") if call == Call::Write && full.load(Ordering::SeqCst) > 0 => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    })
}

/// The tables, as someone who has the disk knows them.
pub(crate) const KEYS: Table = Table::new("key");
pub(crate) const MATERIALS: Table = Table::new("material");
pub(crate) const ALIASES: Table = Table::new("alias");

/// A store: its catalogue and its key, with one keyring on it or none.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) key: StoreKey,
    /// What the catalogue holds, for those who tamper; empty if it is a file.
    pub(crate) memory: MemoryCatalogue,
    pub(crate) catalogue: Arc<dyn Catalogue>,
}

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
    /// This keyring's way to the catalogue.
    pub(crate) faults: Arc<FaultyCatalogue<Handle>>,
    pub(crate) disk_full: Arc<AtomicU8>,
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    pub(crate) keyring: Arc<Keyring>,
}

pub(crate) struct Closed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
}

impl Store {
    /// In memory, under a key of its own.
    pub(crate) async fn new() -> Self {
        let random = Arc::new(SystemRandom);
        let disk = Arc::new(SimDisk::new(1));
        let provider = FileProvider::new("/root.key", disk.clone(), random.clone());
        let options = root::Options {
            disk,
            dir: "/".into(),
            provider: Arc::new(provider),
            random,
            may_make: true,
        };
        let key = StoreKey::open(options).await.unwrap();
        let memory = MemoryCatalogue::new(StoreId(*key.store().as_bytes()));
        Self {
            key,
            catalogue: Arc::new(memory.clone()),
            memory,
        }
    }

    /// Where a record of ours stands.
    pub(crate) fn at(&self, id: &[u8]) -> Key {
        let scope = Scope {
            account: ACCOUNT.to_owned(),
            region: REGION.to_owned(),
        };
        Key::new(scope, id)
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Closed::new(tempfile::tempdir().unwrap(), Store::new().await)
            .open()
            .await
    }

    /// On a catalogue in a file.
    pub(crate) async fn on_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new().await;
        let mut options = catalogue::sqlite::Options::new(dir.path().join("catalogue.db"));
        options.create = Some(StoreId(*store.key.store().as_bytes()));
        options.disk = Arc::new(OsDisk);
        store.catalogue = Arc::new(SqliteCatalogue::open(options).unwrap());
        Closed::new(dir, store).open().await
    }

    /// Ends the keyring, as a stop of the process would.
    pub(crate) fn close(self) -> Closed {
        Closed {
            dir: self.dir,
            clock: self.clock,
            store: self.store,
        }
    }

    pub(crate) async fn restart(self) -> Self {
        self.close().open().await
    }

    /// Another process on the same store, with a log of its own.
    pub(crate) async fn beside(&self) -> Self {
        let mut closed = Closed::new(tempfile::tempdir().unwrap(), self.store.clone());
        closed.clock = Arc::clone(&self.clock);
        closed.open().await
    }

    pub(crate) async fn create(&self) -> KeyArn {
        let authorized = self.keyring.authorize(root(Via::Api), Account).await;
        self.keyring
            .create_key(authorized.unwrap(), CreateKey::default())
            .await
            .unwrap()
            .arn
    }

    pub(crate) async fn may<A: Action>(&self, key: &KeyArn) -> Authorized<A, NamedKey> {
        self.may_via(key, Via::Api).await.unwrap()
    }

    pub(crate) async fn may_via<A: Action>(
        &self,
        key: &KeyArn,
        via: Via,
    ) -> Result<Authorized<A, NamedKey>, KeyringError> {
        self.keyring
            .authorize(root(via), &KeyArgument::from(key))
            .await
    }

    pub(crate) async fn may_under<A: Action>(
        &self,
        key: &KeyArn,
        pairs: &[(&str, &str)],
    ) -> Result<Authorized<A, NamedKey>, KeyringError> {
        let key = &KeyArgument::from(key);
        let context = context(pairs);
        self.keyring
            .authorize(root(Via::Api), KeyUse { key, context })
            .await
    }

    /// The permission to open a blob under no context.
    pub(crate) async fn may_open<'a>(
        &self,
        blob: &'a [u8],
        via: Via,
    ) -> Result<Authorized<iam::Decrypt, SealedBlob<'a>>, KeyringError> {
        let (key, context) = (None, context(&[]));
        self.keyring
            .authorize(root(via), BlobUse { blob, key, context })
            .await
    }

    pub(crate) async fn seal(&self, key: &KeyArn, context: &[(&str, &str)]) -> Vec<u8> {
        self.try_seal(key, context).await.unwrap()
    }

    pub(crate) async fn try_seal(
        &self,
        key: &KeyArn,
        pairs: &[(&str, &str)],
    ) -> Result<Vec<u8>, KeyringError> {
        let authorized = self.may_under(key, pairs).await?;
        let encrypted = self
            .keyring
            .encrypt(authorized, secret(b"a secret"))
            .await?;
        Ok(encrypted.ciphertext)
    }

    pub(crate) async fn open(
        &self,
        blob: &[u8],
        key: Option<&KeyArn>,
        pairs: &[(&str, &str)],
    ) -> Result<SecretVec, KeyringError> {
        let key = key.map(KeyArgument::from);
        let authorized = self
            .keyring
            .authorize(
                root(Via::Api),
                BlobUse {
                    blob,
                    key: key.as_ref(),
                    context: context(pairs),
                },
            )
            .await?;
        let decrypted = self.keyring.decrypt(authorized).await?;
        Ok(decrypted.plaintext)
    }

    /// Whether `blob` opens to what [`Fixture::seal`] sealed.
    pub(crate) async fn opens(&self, blob: &[u8]) -> bool {
        matches!(self.open(blob, None, &[]).await, Ok(p) if p.expose() == b"a secret")
    }

    /// The audit log's lines, after everything was answered.
    pub(crate) fn audit_lines(&self) -> Vec<serde_json::Value> {
        audit_lines(&self.dir.path().join("audit"))
    }
}

/// A handle of a catalogue of whatever kind.
pub(crate) struct Handle(Arc<dyn Catalogue>);

#[async_trait::async_trait]
impl Catalogue for Handle {
    async fn store_id(&self) -> Result<StoreId, CatalogueError> {
        self.0.store_id().await
    }
    async fn get(&self, table: Table, key: &Key) -> Result<Option<Record>, CatalogueError> {
        self.0.get(table, key).await
    }
    async fn page(
        &self,
        table: Table,
        scope: Option<&Scope>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<catalogue::Page, CatalogueError> {
        self.0.page(table, scope, after, limit).await
    }
    async fn commit(&self, batch: Batch) -> Result<Sequence, CatalogueError> {
        self.0.commit(batch).await
    }
    async fn sequence(&self) -> Result<Sequence, CatalogueError> {
        self.0.sequence().await
    }
    async fn changes(&self, after: Sequence, limit: usize) -> Result<Changes, CatalogueError> {
        self.0.changes(after, limit).await
    }
    async fn wait(&self, after: Sequence) -> Result<Sequence, CatalogueError> {
        self.0.wait(after).await
    }
    async fn purge(&self) -> Result<(), CatalogueError> {
        self.0.purge().await
    }
}

impl Closed {
    pub(crate) fn new(dir: tempfile::TempDir, store: Store) -> Self {
        Self {
            dir,
            clock: Arc::new(ManualClock::new(
                UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            )),
            store,
        }
    }

    pub(crate) async fn open(self) -> Fixture {
        let opened = self.try_open(ACCOUNT, None).await;
        opened.map_err(|(_, error)| error).unwrap()
    }

    #[allow(clippy::result_large_err)]
    pub(crate) async fn try_open(
        self,
        account: &str,
        other_key: Option<StoreKey>,
    ) -> Result<Fixture, (Self, KeyringError)> {
        let mut options = AuditOptions::new(
            self.dir.path().join("audit"),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
        );
        let (disk_full, gate) = (Arc::new(AtomicU8::new(0)), Arc::default());
        options.disk = Arc::new(fault_disk(&disk_full, &gate));
        let handle = Handle(Arc::clone(&self.store.catalogue));
        let faults = Arc::new(FaultyCatalogue::new(Arc::new(handle)));
        let opened = Keyring::open(Options {
            catalogue: Arc::clone(&faults) as Arc<dyn Catalogue>,
            store_key: other_key.unwrap_or_else(|| self.store.key.clone()),
            audit: AuditLog::open(options).unwrap(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::new(SystemRandom),
            authorizer: Arc::new(Authorizer::new(account.parse().unwrap())),
            region: REGION.parse().unwrap(),
            observer: Arc::new(NoObserver),
        });
        match opened.await {
            Ok(keyring) => Ok(Fixture {
                dir: self.dir,
                clock: self.clock,
                store: self.store,
                faults,
                disk_full,
                gate,
                keyring,
            }),
            Err(error) => Err((self, error)),
        }
    }
}

/// The account's root user, always with the same request.
pub(crate) fn root(via: Via) -> Caller<'static> {
    static CONTEXT: LazyLock<Arc<RequestContext>> = LazyLock::new(|| {
        let principal = Principal::root(ACCOUNT.parse().unwrap());
        Arc::new(RequestContext::new(principal, "request-1"))
    });
    Caller::new(&CONTEXT, via)
}

pub(crate) fn secret(bytes: &[u8]) -> SecretVec {
    SecretVec::from_slice(bytes)
}

pub(crate) fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    EncryptionContext::from_pairs(pairs.iter().copied()).unwrap()
}

pub(crate) fn code<T>(result: Result<T, KeyringError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "Success")
}

pub(crate) fn audit_lines(dir: &std::path::Path) -> Vec<serde_json::Value> {
    let mut segments: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    segments.sort();
    segments
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines()
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}
