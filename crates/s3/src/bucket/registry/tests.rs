//! Two accounts, two processes, kills at every step.

use catalogue::{Call, Fault, FaultyCatalogue, Key, MemoryCatalogue, StoreId};
use crypto::chunk::{Algorithm, ChunkSealer, ObjectKey, StreamAad};
use crypto::random::{SeededRandom, SystemRandom};
use crypto::secret::SecretBytes;
use host::disk::sim::SimDisk;

use super::*;
use crate::bucket::follow;
use crate::store::Commit;
use crate::store::memory::MemoryStore;
use crate::tests::store_key_on;

/// What outlives a process.
struct World {
    catalogue: Arc<FaultyCatalogue<MemoryCatalogue>>,
    memory: Arc<MemoryCatalogue>,
    store: Arc<MemoryStore>,
    key: StoreKey,
}

impl World {
    async fn new() -> Self {
        let memory = Arc::new(MemoryCatalogue::new(StoreId([7; 16])));
        Self {
            catalogue: Arc::new(FaultyCatalogue::new(Arc::clone(&memory))),
            memory,
            store: Arc::new(MemoryStore::new(Arc::new(SystemRandom))),
            key: store_key_on(Arc::new(SimDisk::new(1))).await,
        }
    }

    /// A process of an account, after a restart.
    async fn open_as(&self, account: &str) -> Result<Arc<Registry>, Error> {
        self.catalogue.reopen();
        Registry::open(RegistryOptions {
            catalogue: self.catalogue.clone(),
            store_key: &self.key,
            scope: scope(account),
            random: Arc::new(SystemRandom),
            store: self.store.clone(),
            buckets_max: 30,
        })
        .await
    }

    async fn open(&self) -> Arc<Registry> {
        self.open_as(OURS).await.unwrap()
    }

    async fn upload(&self, bucket: &BucketId) {
        let upload = self
            .store
            .create_upload(bucket.as_str(), "up", bytes::Bytes::new(), now());
        upload.await.unwrap();
    }

    async fn uploads(&self, bucket: &BucketId) -> Result<usize, StoreError> {
        let query = UploadQuery {
            limit: 9,
            ..UploadQuery::default()
        };
        let page = self.store.uploads(bucket.as_str(), &query).await?;
        Ok(page.entries.len())
    }

    async fn put(&self, bucket: &BucketId) -> Result<(), StoreError> {
        let mut sink = self.store.begin_put(bucket.as_str(), "k", None).await?;
        let key = ObjectKey::from_secret(SecretBytes::init_with(|key| key.fill(1)));
        let (key, _) = key.part_key(&SeededRandom::new(1));
        let mut sealer = ChunkSealer::new(Algorithm::Aes256Gcm, key, StreamAad::new(["t"]));
        sink.write(sealer.seal_vec(b"x".to_vec(), true).unwrap())
            .await?;
        let commit = Commit {
            envelope: bytes::Bytes::new(),
            modified: now(),
            condition: crate::store::Condition::Always,
        };
        sink.commit(commit).await.map(drop)
    }

    /// Every bucket that the store has, and whether it is closed.
    async fn fences(&self) -> Vec<(String, bool)> {
        let page = self.store.buckets(None, 100).await.unwrap();
        let fences = page.entries.into_iter();
        fences.map(|found| (found.id, found.closed)).collect()
    }

    async fn records(&self, table: catalogue::Table) -> usize {
        let page = self.memory.page(table, None, None, 1000).await;
        page.unwrap().records.len()
    }
}

const OURS: &str = "123456789012";
const THEIRS: &str = "210987654321";

fn scope(account: &str) -> Scope {
    Scope {
        account: account.to_owned(),
        region: "us-east-1".to_owned(),
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000)
}

fn names(registry: &Registry) -> Vec<String> {
    let page = registry.page("", None, 100);
    let names = page.entries.iter().map(|bucket| bucket.name().to_owned());
    names.collect()
}

fn kms() -> Option<BucketDefault> {
    Some(BucketDefault::Kms {
        key: Some("alias/a".to_owned()),
        bucket_key: true,
    })
}

#[tokio::test]
async fn buckets_outlive_a_process_with_how_they_are_set_up() {
    let world = World::new().await;
    let registry = world.open().await;
    for name in ["beta", "alpha", "alpine", "gamma"] {
        let created = registry.create(name, now()).await.unwrap();
        assert_eq!(created, Created::New);
    }
    let again = registry.create("beta", now()).await.unwrap();
    assert_eq!(again, Created::Ours);
    registry.set_encryption("beta", kms()).await.unwrap();
    registry.delete("gamma").await.unwrap();
    let id = registry.get("beta").unwrap().id.clone();
    for registry in [registry, world.open().await] {
        assert_eq!(names(&registry), ["alpha", "alpine", "beta"]);
        let beta = registry.get("beta").unwrap();
        assert_eq!((&beta.id, beta.created()), (&id, now()));
        assert_eq!(Some(beta.default_encryption()), kms());
        let of = |prefix, after, limit| {
            let page = registry.page(prefix, after, limit);
            let names = page.entries.iter().map(|bucket| bucket.name().to_owned());
            (names.collect::<Vec<_>>(), page.truncated)
        };
        assert_eq!(of("al", None, 1), (vec!["alpha".to_owned()], true));
        assert_eq!(
            of("al", Some("alpha"), 1),
            (vec!["alpine".to_owned()], false)
        );
        assert_eq!(of("", Some("alpine"), 9), (vec!["beta".to_owned()], false));
        assert_eq!(of("b", Some("alpine"), 9), (vec!["beta".to_owned()], false));
        assert_eq!(of("", None, 0), (vec![], false));
    }
    assert_eq!(world.fences().await.len(), 3);
}

#[tokio::test]
async fn a_name_is_one_accounts_alone_and_free_once_it_is_given_up() {
    let world = World::new().await;
    let (ours, theirs) = (world.open().await, world.open_as(THEIRS).await.unwrap());
    assert_eq!(ours.create("name", now()).await.unwrap(), Created::New);
    assert_eq!(theirs.create("name", now()).await.unwrap(), Created::Taken);
    assert!(theirs.get("name").is_none());
    assert!(matches!(
        theirs.delete("name").await,
        Err(Error::Store(StoreError::NoSuchBucket))
    ));
    // What the loser had opened is gone; each sees its own.
    assert_eq!(world.fences().await.len(), 1);
    let old = ours.get("name").unwrap().id.clone();
    ours.delete("name").await.unwrap();
    assert_eq!(theirs.create("name", now()).await.unwrap(), Created::New);
    assert_eq!(ours.create("name", now()).await.unwrap(), Created::Taken);
    assert_ne!(
        theirs.get("name").unwrap().id,
        old,
        "ids are not used again"
    );
    assert_eq!(names(&*world.open().await), [""; 0]);
    assert_eq!(world.fences().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_claim_a_name_at_once_one_gets_it() {
    let world = World::new().await;
    let mut registries = Vec::new();
    for n in 0..8 {
        let account = format!("11111111111{n}");
        registries.push(world.open_as(&account).await.unwrap());
    }
    for round in 0..20 {
        let name = format!("name-{round}");
        let claims = registries.iter().map(|registry| {
            let (registry, name) = (Arc::clone(registry), name.clone());
            tokio::spawn(async move { registry.create(&name, now()).await.unwrap() })
        });
        let results = futures::future::join_all(claims).await;
        let won = results
            .into_iter()
            .filter(|won| matches!(won, Ok(Created::New)))
            .count();
        assert_eq!(won, 1, "{name}");
    }
    assert_eq!(world.fences().await.len(), 20);
    assert_eq!(world.records(TABLE).await, 20);
    assert_eq!(world.records(NAMES).await, 20);
}

#[tokio::test]
async fn what_other_processes_do_is_seen_and_changes_are_planned_on_it() {
    let world = World::new().await;
    let (one, two) = (world.open().await, world.open().await);
    let _following = follow(&two);
    let seen = async |what: &dyn Fn() -> bool| {
        while !what() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    one.create("a", now()).await.unwrap();
    seen(&|| two.get("a").is_some()).await;
    two.set_encryption("a", kms()).await.unwrap();
    // `one` does not follow, and looks when it changes something itself.
    assert_eq!(one.create("b", now()).await.unwrap(), Created::New);
    one.set_encryption("a", None).await.unwrap();
    let default = || two.get("a").unwrap().default_encryption();
    seen(&|| default() == BucketDefault::default()).await;
    two.set_encryption("a", kms()).await.unwrap();
    one.delete("a").await.unwrap();
    seen(&|| two.get("a").is_none()).await;
    assert_eq!(two.create("b", now()).await.unwrap(), Created::Ours);
    two.delete("b").await.unwrap();
    assert_eq!(two.create("b", now()).await.unwrap(), Created::New);
    one.delete("b").await.unwrap();
    assert!(matches!(
        two.delete("b").await,
        Err(Error::Store(StoreError::NoSuchBucket))
    ));
}

#[tokio::test]
async fn a_bucket_with_objects_is_not_deleted_and_takes_more() {
    let world = World::new().await;
    let registry = world.open().await;
    registry.create("a", now()).await.unwrap();
    let id = registry.get("a").unwrap().id.clone();
    world.put(&id).await.unwrap();
    assert!(matches!(
        registry.delete("a").await,
        Err(Error::Store(StoreError::BucketNotEmpty))
    ));
    world.put(&id).await.unwrap();
    assert_eq!(world.records(TABLE).await, 1);
}

#[tokio::test]
async fn a_bucket_whose_deletion_is_refused_is_what_it_was() {
    for fault in [Fault::Full, Fault::Unavailable] {
        let world = World::new().await;
        let registry = world.open().await;
        registry.create("a", now()).await.unwrap();
        let id = registry.get("a").unwrap().id.clone();
        world.upload(&id).await;
        world.catalogue.fail(Call::Commit, 1, fault);
        assert!(registry.delete("a").await.is_err());
        assert_eq!(names(&registry), ["a"]);
        assert_eq!(world.uploads(&id).await.unwrap(), 1);
        world.put(&id).await.unwrap();
    }
}

#[tokio::test]
async fn there_are_no_more_buckets_than_allowed() {
    let world = World::new().await;
    let registry = world.open().await;
    for n in 0..30 {
        let created = registry.create(&format!("n-{n}"), now()).await;
        assert_eq!(created.unwrap(), Created::New);
    }
    let refused = registry.create("more", now()).await.unwrap_err();
    assert_eq!(refused.code(), "TooManyBuckets");
    assert_eq!(registry.create("n-7", now()).await.unwrap(), Created::Ours);
    registry.delete("n-7").await.unwrap();
    assert_eq!(registry.create("more", now()).await.unwrap(), Created::New);
    assert_eq!(world.fences().await.len(), 30);
}

#[tokio::test]
async fn a_bucket_that_could_not_be_made_leaves_nothing() {
    for fault in [Fault::Full, Fault::Unavailable] {
        let world = World::new().await;
        let registry = world.open().await;
        world.catalogue.fail(Call::Commit, 1, fault);
        assert!(registry.create("a", now()).await.is_err());
        assert_eq!(names(&registry), [""; 0]);
        assert!(world.fences().await.is_empty());
        assert_eq!(registry.create("a", now()).await.unwrap(), Created::New);
    }
}

#[tokio::test]
async fn killed_while_a_bucket_is_made_it_is_there_and_open_or_not_at_all() {
    for (fault, made) in [(Fault::UnknownDone, true), (Fault::UnknownNotDone, false)] {
        let world = World::new().await;
        let registry = world.open().await;
        world.catalogue.fail(Call::Commit, 1, fault);
        assert!(registry.create("a", now()).await.is_err());
        let registry = world.open().await;
        assert_eq!(registry.get("a").is_some(), made);
        assert_eq!(world.fences().await.len(), usize::from(made));
        if let Some(bucket) = registry.get("a") {
            world.put(&bucket.id).await.unwrap();
        }
        let again = registry.create("a", now()).await.unwrap();
        assert_eq!(again == Created::Ours, made);
    }
}

#[tokio::test]
async fn killed_while_a_bucket_is_deleted_it_is_gone_or_there_with_its_uploads() {
    for (fault, gone) in [(Fault::UnknownDone, true), (Fault::UnknownNotDone, false)] {
        let world = World::new().await;
        let registry = world.open().await;
        registry.create("a", now()).await.unwrap();
        let id = registry.get("a").unwrap().id.clone();
        world.upload(&id).await;
        world.catalogue.fail(Call::Commit, 1, fault);
        assert!(registry.delete("a").await.is_err());
        // Until it is known nothing gets in.
        assert!(matches!(
            world.put(&id).await,
            Err(StoreError::NoSuchBucket)
        ));
        let registry = world.open().await;
        assert_eq!(registry.get("a").is_none(), gone);
        if gone {
            assert!(world.fences().await.is_empty());
            assert_eq!(world.records(NAMES).await, 0);
        } else {
            assert_eq!(world.uploads(&id).await.unwrap(), 1);
            world.put(&id).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_start_deletes_nothing_for_want_of_an_owner() {
    let world = World::new().await;
    let id = |n| BucketId::from_bytes([n; 16]);
    let (empty, closed, objects, uploads) = (id(1), id(2), id(3), id(4));
    for id in [&empty, &closed, &objects, &uploads] {
        world.store.create_bucket(id.as_str()).await.unwrap();
    }
    world.upload(&closed).await;
    world.store.close_bucket(closed.as_str()).await.unwrap();
    world.put(&objects).await.unwrap();
    world.upload(&uploads).await;
    let foreign = "not an id of ours";
    world.store.create_bucket(foreign).await.unwrap();
    // Another account's, which this one does not open, is not touched.
    let theirs = world.open_as(THEIRS).await.unwrap();
    theirs.create("theirs", now()).await.unwrap();
    let kept = theirs.get("theirs").unwrap().id.to_string();
    let left = world.fences().await;
    let registry = world.open().await;
    assert_eq!(names(&registry), [""; 0]);
    let mut wanted = vec![objects.to_string(), uploads.to_string(), kept];
    wanted.sort();
    let found: Vec<String> = world.fences().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, wanted, "of {left:?}");
    assert_eq!(world.uploads(&uploads).await.unwrap(), 1);
}

#[tokio::test]
async fn a_bucket_that_the_store_lost_is_open_again_after_the_next_start() {
    let world = World::new().await;
    let registry = world.open().await;
    registry.create("a", now()).await.unwrap();
    let id = registry.get("a").unwrap().id.clone();
    world.store.delete_bucket(id.as_str()).await.unwrap();
    let registry = world.open().await;
    assert_eq!(registry.get("a").unwrap().id, id, "the catalogue decides");
    world.put(&id).await.unwrap();
}

#[tokio::test]
async fn a_record_that_was_altered_or_put_back_is_refused_and_nothing_is_changed() {
    let world = World::new().await;
    let registry = world.open().await;
    registry.create("a", now()).await.unwrap();
    let id = registry.get("a").unwrap().id.clone();
    let at = registry.records.at(&id);
    let old = world.memory.get(TABLE, &at).await.unwrap().unwrap();
    registry.set_encryption("a", kms()).await.unwrap();
    let fences = world.fences().await;
    // The first version under the number of the second: an older default would be in force.
    world
        .memory
        .tamper(TABLE, &at, Some((2, old.sealed.clone())));
    assert!(matches!(
        world.open_as(OURS).await.map(drop),
        Err(Error::Integrity)
    ));
    assert_eq!(world.fences().await, fences);
    let elsewhere = Key::new(scope(OURS), [9; 16].as_slice());
    world.memory.tamper(TABLE, &at, None);
    world
        .memory
        .tamper(TABLE, &elsewhere, Some((1, old.sealed)));
    assert!(matches!(
        world.open_as(OURS).await.map(drop),
        Err(Error::Integrity)
    ));
}
