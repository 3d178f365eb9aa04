//! The front from outside: HTTP requests in, answers out, over a store in
//! memory and a keyring on disk.

mod bodies;
mod bucket_keys;
mod buckets;
mod copies;
mod damage;
mod data_events;
mod dead_audit;
mod digests;
mod encryption;
mod holes;
mod listing;
mod multipart;
mod objects;
mod ranges;
mod reseal;
mod sealed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crypto::random::{Random, SeededRandom};
use host::clock::ManualClock;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use iam::sigv4::Payload;
use iam::{Caller, Principal, RequestContext, Via};
use keyring::{KeyArgument, Keyring};
use parking_lot::Mutex;

use crate::store::ObjectStore;
use crate::store::memory::MemoryStore;
use crate::{BucketKeyPolicy, Gateway, Observer, Options, RequestEnd};

const ACCOUNT: &str = "123456789012";
const MODE: &str = "x-amz-server-side-encryption";
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";

/// Counts what the front and the keyring tell.
#[derive(Default)]
struct Counts {
    requests: Mutex<Vec<RequestEnd>>,
    bucket_key_hits: AtomicU64,
    bucket_key_misses: AtomicU64,
    kms: Mutex<Vec<(&'static str, String)>>,
}

impl Counts {
    fn kms(&self, operation: &str) -> usize {
        self.kms
            .lock()
            .iter()
            .filter(|(name, _)| *name == operation)
            .count()
    }
}

impl Observer for Counts {
    fn request(&self, end: &RequestEnd) {
        self.requests.lock().push(*end);
    }

    fn bucket_key(&self, hit: bool) {
        let counter = if hit {
            &self.bucket_key_hits
        } else {
            &self.bucket_key_misses
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

struct KmsCounts(Arc<Counts>);

impl keyring::Observer for KmsCounts {
    fn request(&self, operation: &'static str, _via: Via, outcome: &str, _elapsed: Duration) {
        self.0.kms.lock().push((operation, outcome.to_owned()));
    }
}

/// The durable audit log has its own tests, and a disk to wait for: this one is in memory.
fn audit_on(
    disk: &host::disk::sim::SimDisk,
    clock: &Arc<ManualClock>,
    data_events: bool,
) -> keyring::AuditLog {
    let mut options =
        keyring::AuditOptions::new("/audit", Arc::clone(clock) as Arc<dyn host::Clock>);
    options.disk = Arc::new(disk.clone());
    options.data_events = data_events;
    keyring::AuditLog::open(options).unwrap()
}

/// A gateway and what is around it.
struct World {
    gateway: Gateway,
    keyring: Arc<Keyring>,
    clock: Arc<ManualClock>,
    counts: Arc<Counts>,
    context: Arc<RequestContext>,
    store: Arc<dyn ObjectStore>,
    catalogue: Arc<dyn catalogue::Catalogue>,
    store_key: root::StoreKey,
    ground: Ground,
    /// Where the audit log is.
    audit_disk: host::disk::sim::SimDisk,
}

/// A gateway over a store in memory, with the bucket `buc`.
async fn world() -> World {
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(7));
    let store = Arc::new(MemoryStore::new(random));
    world_over(store, BucketKeyPolicy::default()).await
}

/// What outlives a process, but for the objects: what exists, in a file, and the disk with the key that seals it.
struct Ground {
    dir: tempfile::TempDir,
    disk: Arc<host::disk::sim::SimDisk>,
    /// Whether the audit log keeps data events.
    data_events: bool,
}

impl Ground {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disk: Arc::new(host::disk::sim::SimDisk::new(1)),
            data_events: true,
        }
    }

    async fn open(&self) -> (Arc<dyn catalogue::Catalogue>, root::StoreKey) {
        let key = store_key_on(self.disk.clone()).await;
        let id = catalogue::StoreId(*key.store().as_bytes());
        let mut options = catalogue::sqlite::Options::new(self.dir.path().join("catalogue.db"));
        options.create = Some(id);
        let catalogue = catalogue::sqlite::SqliteCatalogue::open(options).unwrap();
        (Arc::new(catalogue), key)
    }
}

/// The store key whose header and root key are on a disk.
pub(crate) async fn store_key_on(disk: Arc<host::disk::sim::SimDisk>) -> root::StoreKey {
    let random = Arc::new(crypto::random::SystemRandom);
    let provider = root::FileProvider::new("/root.key", disk.clone(), random.clone());
    let options = root::Options {
        disk,
        dir: "/".into(),
        provider: Arc::new(provider),
        random,
        may_make: true,
    };
    root::StoreKey::open(options).await.unwrap()
}

async fn world_over(store: Arc<dyn ObjectStore>, bucket_keys: BucketKeyPolicy) -> World {
    let world = world_on(Ground::new(), store, bucket_keys).await.unwrap();
    world.put("/buc", "").send().await.expect(200);
    world
}

/// As a process finds it.
async fn world_on(
    ground: Ground,
    store: Arc<dyn ObjectStore>,
    bucket_keys: BucketKeyPolicy,
) -> Result<World, crate::Error> {
    let (catalogue, store_key) = ground.open().await;
    let counts = Arc::new(Counts::default());
    let clock = Arc::new(ManualClock::new(
        UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    ));
    let random: Arc<dyn Random> = Arc::new(crypto::random::SystemRandom);
    let authorizer = Arc::new(iam::Authorizer::new(ACCOUNT.parse().unwrap()));
    let audit_disk = host::disk::sim::SimDisk::new(7);
    let audit = audit_on(&audit_disk, &clock, ground.data_events);
    let keyring = Keyring::open(keyring::Options {
        catalogue: Arc::clone(&catalogue),
        store_key: store_key.clone(),
        audit: audit.clone(),
        clock: clock.clone(),
        random: Arc::clone(&random),
        authorizer: Arc::clone(&authorizer),
        region: "us-east-1".parse().unwrap(),
        observer: Arc::new(KmsCounts(Arc::clone(&counts))),
    })
    .await
    .unwrap();
    let gateway = Gateway::open(Options {
        store: Arc::clone(&store),
        keyring: Arc::clone(&keyring),
        authorizer,
        clock: clock.clone(),
        random,
        observer: counts.clone(),
        audit,
        account: ACCOUNT.parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        neighbours: Arc::default(),
        catalogue: Arc::clone(&catalogue),
        store_key: store_key.clone(),
        memory: host::memory::Memory::new(64 << 20, Duration::from_secs(10)),
        bucket_keys,
        virtual_host_domains: vec!["s3.example.com".to_owned()],
    })
    .await?;
    Ok(World {
        gateway,
        keyring,
        clock,
        counts,
        context: Arc::new(RequestContext::new(
            Principal::root(ACCOUNT.parse().unwrap()),
            "r",
        )),
        store,
        catalogue,
        store_key,
        ground,
        audit_disk,
    })
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// The body, or `None` if it was cut off.
    body: Option<Bytes>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone().unwrap().to_vec()).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The first element of this name in the XML.
    fn xml(&self, name: &str) -> String {
        elements(&self.text(), name)
            .into_iter()
            .next()
            .unwrap_or_default()
    }

    fn code(&self) -> String {
        self.xml("Code")
    }

    fn etag(&self) -> String {
        self.header("etag").to_owned()
    }

    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}", self.body);
        self
    }

    #[track_caller]
    fn fails(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status.as_u16(), self.code().as_str()),
            (status, code),
            "{:?}",
            self.body
        );
        self
    }
}

/// The text of every element of a name, in order.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open)
        .skip(1)
        .map(|rest| rest.split(&close).next().unwrap_or_default().to_owned())
        .collect()
}

/// A request in the making.
struct Call<'w> {
    world: &'w World,
    request: http::request::Builder,
    context: RequestContext,
    payload: Payload,
    body: Bytes,
    length: Option<u64>,
}

impl World {
    fn call(&self, method: Method, uri: &str, body: impl Into<Bytes>) -> Call<'_> {
        let principal = Principal::root(ACCOUNT.parse().unwrap());
        let mut context = RequestContext::new(principal, "REQUEST-1");
        context.source = Some("127.0.0.1".parse().unwrap());
        let body = body.into();
        Call {
            world: self,
            request: Request::builder()
                .method(method)
                .uri(uri)
                .header("host", "localhost:9000"),
            context,
            payload: Payload::Unsigned,
            length: Some(body.len() as u64),
            body,
        }
    }

    fn get(&self, uri: &str) -> Call<'_> {
        self.call(Method::GET, uri, "")
    }

    fn head(&self, uri: &str) -> Call<'_> {
        self.call(Method::HEAD, uri, "")
    }

    fn put(&self, uri: &str, body: impl Into<Bytes>) -> Call<'_> {
        self.call(Method::PUT, uri, body)
    }

    fn post(&self, uri: &str, body: impl Into<Bytes>) -> Call<'_> {
        self.call(Method::POST, uri, body)
    }

    fn delete(&self, uri: &str) -> Call<'_> {
        self.call(Method::DELETE, uri, "")
    }

    /// A new KMS key's ARN.
    async fn kms_key(&self) -> String {
        let may = self
            .keyring
            .authorize::<iam::CreateKey, _>(self.caller(), keyring::Account)
            .await
            .unwrap();
        let made = self
            .keyring
            .create_key(may, keyring::CreateKey::default())
            .await
            .unwrap();
        made.arn.to_string()
    }

    /// The id of the only bucket there is.
    async fn bucket_id(&self) -> String {
        let buckets = self.store.buckets(None, 10).await.unwrap().entries;
        assert_eq!(buckets.len(), 1);
        buckets[0].id.clone()
    }

    async fn disable(&self, key: &str) {
        let argument: KeyArgument = key.parse().unwrap();
        let may = self
            .keyring
            .authorize::<iam::DisableKey, _>(self.caller(), &argument)
            .await;
        self.keyring.disable_key(may.unwrap()).await.unwrap();
    }

    async fn enable(&self, key: &str) {
        let argument: KeyArgument = key.parse().unwrap();
        let may = self
            .keyring
            .authorize::<iam::EnableKey, _>(self.caller(), &argument)
            .await;
        self.keyring.enable_key(may.unwrap()).await.unwrap();
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(&self.context, Via::Api)
    }

    fn later(&self, by: Duration) {
        self.clock.advance(by);
    }
}

impl Call<'_> {
    fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.request = self.request.header(name, value.as_ref());
        self
    }

    fn headers(self, pairs: &[(&str, &str)]) -> Self {
        pairs
            .iter()
            .fold(self, |call, (name, value)| call.header(name, value))
    }

    /// The three headers of SSE-C.
    fn customer(self, key: u8) -> Self {
        let (key, md5) = customer_key(key);
        self.header("x-amz-server-side-encryption-customer-algorithm", "AES256")
            .header("x-amz-server-side-encryption-customer-key", key)
            .header("x-amz-server-side-encryption-customer-key-md5", md5)
    }

    fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// Announces another length than the body has.
    fn announcing(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }

    fn from(mut self, source: &str, secure: bool) -> Self {
        self.context.source = Some(source.parse().unwrap());
        self.context.secure_transport = secure;
        self
    }

    fn account(mut self, account: &str) -> Self {
        let mut context =
            RequestContext::new(Principal::root(account.parse().unwrap()), "REQUEST-1");
        context.source = self.context.source;
        self.context = context;
        self
    }

    async fn send(self) -> Answer {
        let mut request = self.request.body(Full::new(self.body)).unwrap();
        if let Some(length) = self.length {
            request
                .headers_mut()
                .insert("content-length", length.into());
        }
        let answer = self
            .world
            .gateway
            .serve(request, &self.payload, Arc::new(self.context))
            .await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.ok().map(|whole| whole.to_bytes());
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }
}

fn customer_key(key: u8) -> (String, String) {
    let key = [key; 32];
    (
        STANDARD.encode(key),
        STANDARD.encode(crypto::hash::Md5::digest(&key)),
    )
}

/// Bytes in which no offset looks like another.
fn data(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    SeededRandom::new(len as u64).fill(&mut bytes);
    bytes.into()
}
