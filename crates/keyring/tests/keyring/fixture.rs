//! A keyring in a directory of its own, with a clock that is set and a store and a log that fail
//! when told to.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use audit::{AuditSink, SegmentSink};
use crypto::{
    context::EncryptionContext,
    random::SystemRandom,
    secret::{SecretBytes, SecretVec},
    store_key::GenerationKey,
};
use iam::{Action, Authorized, Authorizer, Caller, Principal, RequestContext, Via};
use keyring::{
    Account, AuditLog, AuditOptions, BlobUse, Clock, CreateKey, KeyArgument, KeyArn, KeyUse,
    Keyring, KeyringError, NamedKey, NoObserver, Options, SealedBlob,
    store::{Batch, KeyStore, SqliteStore, StoreError, StoredRecord, Table},
};

pub(crate) const ACCOUNT: &str = "123456789012";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// A store that fails its next commit when told to.
pub(crate) struct FaultStore {
    inner: SqliteStore,
    fault: AtomicU8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None = 0,
    /// The commit fails and nothing is written.
    Before = 1,
    /// The commit is durable and says it failed.
    After = 2,
    /// The disk is full.
    Full = 3,
    /// The commit fails, and so does every read from then on.
    Dead = 4,
}

impl FaultStore {
    pub(crate) fn fail_next(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.fault.load(Ordering::SeqCst) == Fault::Dead as u8 {
            return Err(StoreError::Io("dead".to_owned()));
        }
        Ok(())
    }
}

impl KeyStore for FaultStore {
    fn get(&self, table: Table, id: &[u8]) -> Result<Option<StoredRecord>, StoreError> {
        self.alive()?;
        self.inner.get(table, id)
    }

    fn scan(&self, table: Table) -> Result<Vec<StoredRecord>, StoreError> {
        self.alive()?;
        self.inner.scan(table)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.alive()?;
        let fault = self.fault.swap(Fault::None as u8, Ordering::SeqCst);
        let io = || StoreError::Io("injected".to_owned());
        match fault {
            f if f == Fault::Before as u8 => Err(io()),
            f if f == Fault::After as u8 => {
                self.inner.commit(batch)?;
                Err(io())
            }
            f if f == Fault::Full as u8 => Err(StoreError::Full),
            _ => self.inner.commit(batch),
        }
    }

    fn purge(&self) -> Result<(), StoreError> {
        self.inner.purge()
    }
}

/// A log that fails, or waits, when told to.
pub(crate) struct FaultSink {
    inner: SegmentSink,
    pub(crate) full: Arc<AtomicU8>,
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
}

impl AuditSink for FaultSink {
    fn append(&mut self, first: u64, lines: &[u8]) -> io::Result<()> {
        drop(self.gate.blocking_lock());
        if self.full.load(Ordering::SeqCst) > 0 {
            // Once: the log itself must remember.
            self.full.store(0, Ordering::SeqCst);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.inner.append(first, lines)
    }
}

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) store: Arc<FaultStore>,
    pub(crate) disk_full: Arc<AtomicU8>,
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    pub(crate) keyring: Arc<Keyring>,
}

pub(crate) struct Closed {
    pub(crate) dir: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let closed = Closed {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(TestClock(AtomicU64::new(1_700_000_000))),
        };
        closed.open()
    }

    /// Ends the keyring, as a stop of the process would.
    pub(crate) fn close(self) -> Closed {
        Closed {
            dir: self.dir,
            clock: self.clock,
        }
    }

    pub(crate) fn restart(self) -> Self {
        self.close().open()
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

impl Closed {
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("keyring.db")
    }

    pub(crate) fn open(self) -> Fixture {
        self.try_open(None).map_err(|(_, error)| error).unwrap()
    }

    #[allow(clippy::result_large_err)]
    pub(crate) fn try_open(
        self,
        of: Option<keyring::StoreId>,
    ) -> Result<Fixture, (Self, KeyringError)> {
        match self.open_parts(of) {
            Ok((store, disk_full, gate, keyring)) => Ok(Fixture {
                dir: self.dir,
                clock: self.clock,
                store,
                disk_full,
                gate,
                keyring,
            }),
            Err(error) => Err((self, error)),
        }
    }

    #[allow(clippy::type_complexity)]
    fn open_parts(
        &self,
        of: Option<keyring::StoreId>,
    ) -> Result<
        (
            Arc<FaultStore>,
            Arc<AtomicU8>,
            Arc<tokio::sync::Mutex<()>>,
            Arc<Keyring>,
        ),
        KeyringError,
    > {
        let store = Arc::new(FaultStore {
            inner: SqliteStore::open(&self.database())?,
            fault: AtomicU8::new(0),
        });
        let key = GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(7)));
        let options = AuditOptions::new(self.dir.path().join("audit"));
        let (inner, next) = SegmentSink::open(&options.dir, options.segment_len)?;
        let (full, gate) = (Arc::new(AtomicU8::new(0)), Arc::default());
        let sink = FaultSink {
            inner,
            full: Arc::clone(&full),
            gate: Arc::clone(&gate),
        };
        let keyring = Keyring::open(Options {
            store: Arc::clone(&store) as Arc<dyn KeyStore>,
            records: key.record_key(keyring::RECORD_LABEL),
            part_of: of.unwrap_or(keyring::StoreId::from_bytes([1; 16])),
            audit: AuditLog::with_sink(Box::new(sink), next, options.queue_len)?,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::new(SystemRandom),
            authorizer: Arc::new(Authorizer::new(ACCOUNT.parse().unwrap())),
            region: REGION.parse().unwrap(),
            observer: Arc::new(NoObserver),
        })?;
        Ok((store, full, gate, keyring))
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
