//! The registry on real files, with a real keyring, on every catalogue.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::{path::Path, sync::Arc, time::UNIX_EPOCH};

use catalogue::{Batch, Catalogue, MemoryCatalogue, Table, sqlite::SqliteCatalogue};
use crypto::random::SystemRandom;
use host::{
    Clock, OsDisk,
    clock::ManualClock,
    disk::sim::{Call, Failure, Fault, SimDisk},
};
use iam::{
    AccountId, Action, Authorized, Authorizer, Caller, Principal, Region, RequestContext, Resource,
    Via,
};
use keyring::Keyring;
use volume::{
    AttachedVolume, CreateVolume, Encryption, EncryptionPolicy, Options, Protection, Tag,
    VolumeError, VolumeId, VolumeInfo, VolumeSize, VolumeState, VolumeType, Volumes,
};

const GIB: u64 = 1 << 30;

/// What most tests here need: a volume is what its request says.
const PLAIN_UNLESS_ASKED: EncryptionPolicy = EncryptionPolicy {
    by_default: false,
    required: false,
};

struct World {
    dir: tempfile::TempDir,
    catalogue: Arc<dyn Catalogue>,
    store_key: root::StoreKey,
    keyring: Arc<Keyring>,
    audit: keyring::AuditLog,
    audit_disk: SimDisk,
    authorizer: Arc<Authorizer>,
    context: Arc<RequestContext>,
}

fn account() -> AccountId {
    "123456789012".parse().unwrap()
}

fn region() -> Region {
    "us-east-1".parse().unwrap()
}

/// Where rows are.
#[derive(Debug, Clone, Copy)]
enum On {
    Memory,
    Sqlite,
}

/// A store of its own: what exists, and the key that seals it.
async fn store(on: On, dir: &Path) -> (Arc<dyn Catalogue>, root::StoreKey) {
    let (disk, random) = (
        Arc::new(host::disk::sim::SimDisk::new(1)),
        Arc::new(SystemRandom),
    );
    let provider = root::FileProvider::new("/root.key", disk.clone(), random.clone());
    let options = root::Options {
        disk,
        dir: "/".into(),
        provider: Arc::new(provider),
        random,
        may_make: true,
    };
    let key = root::StoreKey::open(options).await.unwrap();
    let id = catalogue::StoreId(*key.store().as_bytes());
    let catalogue: Arc<dyn Catalogue> = match on {
        On::Memory => Arc::new(MemoryCatalogue::new(id)),
        On::Sqlite => {
            let mut options = catalogue::sqlite::Options::new(dir.join("catalogue.db"));
            options.create = Some(id);
            Arc::new(SqliteCatalogue::open(options).unwrap())
        }
    };
    (catalogue, key)
}

/// Runs each test on every catalogue.
macro_rules! on_every_catalogue {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::World::new(super::On::Memory).await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::World::new(super::On::Sqlite).await).await;
            })*
        }
    };
}

on_every_catalogue! {
    a_volume_is_there_again_after_a_restart,
    attachments_are_shared_and_the_last_one_detaches,
    a_deleted_volume_is_gone_and_what_a_crash_left_is_swept,
    a_client_token_makes_one_volume,
    two_handles_that_are_asked_with_one_client_token_make_one_volume,
    a_client_token_can_be_used_again_once_its_volume_is_deleted,
    disabling_the_key_stops_the_next_attachment_and_not_this_one,
    nothing_is_attached_while_the_audit_log_is_dead,
    copies_cannot_be_swapped,
    a_permission_for_another_resource_is_refused,
    exports_are_named_by_id_and_by_the_tag_name,
    the_number_of_volumes_is_bounded,
    a_volume_that_failed_is_read_from_the_disk_when_it_comes_back,
    threads_that_write_side_by_side_do_not_disturb_each_other,
    two_handles_see_what_the_other_changes,
    volumes_are_listed_page_by_page,
    changes_of_two_handles_are_all_kept,
    of_two_handles_that_delete_one_volume_one_does,
}

impl World {
    async fn new(on: On) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let (catalogue, store_key) = store(on, path).await;
        let authorizer = Arc::new(Authorizer::new(account()));
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(UNIX_EPOCH));
        let mut audit = keyring::AuditOptions::new("/audit", Arc::clone(&clock));
        let audit_disk = SimDisk::new(1);
        audit.disk = Arc::new(audit_disk.clone());
        let audit = keyring::AuditLog::open(audit).unwrap();
        let keyring = Keyring::open(keyring::Options {
            catalogue: Arc::clone(&catalogue),
            store_key: store_key.clone(),
            audit: audit.clone(),
            clock,
            random: Arc::new(SystemRandom),
            authorizer: Arc::clone(&authorizer),
            region: region(),
            observer: Arc::new(keyring::NoObserver),
        })
        .await
        .unwrap();
        Self {
            catalogue,
            store_key,
            keyring,
            audit,
            audit_disk,
            authorizer,
            context: Arc::new(RequestContext::new(Principal::root(account()), "request")),
            dir,
        }
    }

    /// The outcomes of an operation, as the audit log has them.
    fn audited(&self, operation: &str) -> Vec<String> {
        let text = self
            .audit_disk
            .bytes("/audit/audit-00000000000000000001.jsonl");
        let text = String::from_utf8(text).unwrap();
        let of = format!("\"operation\":\"{operation}\"");
        text.lines()
            .filter(|line| line.contains(&of))
            .map(|line| line.split("\"outcome\":\"").nth(1).unwrap())
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect()
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("volumes")
    }

    async fn volumes(&self) -> Arc<Volumes> {
        self.volumes_in(self.path(), region()).await
    }

    async fn volumes_in(&self, dir: std::path::PathBuf, region: Region) -> Arc<Volumes> {
        self.try_volumes(dir, region, PLAIN_UNLESS_ASKED)
            .await
            .unwrap()
    }

    async fn try_volumes(
        &self,
        dir: std::path::PathBuf,
        region: Region,
        encryption: EncryptionPolicy,
    ) -> Result<Arc<Volumes>, VolumeError> {
        Volumes::open(Options {
            audit: self.audit.clone(),
            encryption,
            catalogue: Arc::clone(&self.catalogue),
            store_key: self.store_key.clone(),
            disk: Arc::new(OsDisk),
            dir,
            keyring: Arc::clone(&self.keyring),
            clock: Arc::new(ManualClock::new(UNIX_EPOCH)),
            random: Arc::new(SystemRandom),
            authorizer: Arc::clone(&self.authorizer),
            region,
            boot: None,
            volumes_max: 5,
        })
        .await
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(&self.context, Via::Api)
    }

    fn may<A: Action, R: Resource>(&self, resource: R) -> Authorized<A, R> {
        self.authorizer.authorize(self.caller(), resource).unwrap()
    }

    async fn create(
        &self,
        volumes: &Volumes,
        request: CreateVolume,
    ) -> Result<VolumeInfo, VolumeError> {
        volumes.create(self.may(volumes.new_one()), request).await
    }

    async fn attach(
        &self,
        volumes: &Volumes,
        id: VolumeId,
    ) -> Result<Arc<AttachedVolume>, VolumeError> {
        volumes.attach(self.may(volumes.one(id))).await
    }

    async fn audit_detach(&self, volumes: &Volumes, id: VolumeId) {
        volumes.record_detach(self.caller(), id).await;
    }

    async fn delete(&self, volumes: &Volumes, id: VolumeId) -> Result<(), VolumeError> {
        volumes.delete(self.may(volumes.one(id))).await
    }

    fn describe(&self, volumes: &Volumes) -> Vec<VolumeInfo> {
        volumes.describe(self.may(volumes.every()), &[]).unwrap()
    }
}

fn request(encryption: Encryption) -> CreateVolume {
    CreateVolume {
        size: VolumeSize::from_gib(1).unwrap(),
        encryption,
        volume_type: VolumeType::Gp3,
        availability_zone: "us-east-1a".to_owned(),
        tags: Vec::new(),
        client_token: None,
    }
}

fn sealed() -> CreateVolume {
    request(Encryption::Sealed { key: None })
}

fn named(name: &str) -> CreateVolume {
    CreateVolume {
        tags: vec![Tag::new("Name", name).unwrap()],
        ..request(Encryption::Unencrypted)
    }
}

fn read(volume: &AttachedVolume, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    volume.read(offset, &mut bytes).unwrap();
    bytes
}

fn holds(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

async fn a_volume_is_there_again_after_a_restart(world: World) {
    let needle = b"a needle that is nowhere else in these files";
    let mut ids = Vec::new();
    for encryption in [Encryption::Sealed { key: None }, Encryption::Unencrypted] {
        let volumes = world.volumes().await;
        let made = world.create(&volumes, request(encryption)).await.unwrap();
        assert_eq!(made.state, VolumeState::Available);
        let attached = world.attach(&volumes, made.id).await.unwrap();
        assert_eq!(attached.size(), GIB);
        assert_eq!(
            attached.is_sealed(),
            matches!(made.protection, Protection::Sealed { .. })
        );
        attached.write(12_345, &mut needle.to_vec(), true).unwrap();
        if attached.is_sealed() {
            assert!(!holds(world.dir.path(), needle));
        }
        ids.push(made.id);
    }
    let volumes = world.volumes().await;
    assert_eq!(world.describe(&volumes).len(), 2);
    for id in ids {
        let attached = world.attach(&volumes, id).await.unwrap();
        assert_eq!(read(&attached, 12_345, needle.len()), needle);
        assert_eq!(read(&attached, GIB - 10, 10), [0; 10]);
    }
    assert!(holds(world.dir.path(), needle), "the unencrypted volume's");
}

async fn attachments_are_shared_and_the_last_one_detaches(world: World) {
    let volumes = world.volumes().await;
    let id = world.create(&volumes, sealed()).await.unwrap().id;
    let first = world.attach(&volumes, id).await.unwrap();
    let second = world.attach(&volumes, id).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    // Another process, or another registry in this one, does not get it.
    let others = world.volumes().await;
    assert!(matches!(
        world.attach(&others, id).await,
        Err(VolumeError::Locked(_))
    ));
    assert_eq!(
        world.audited("AttachVolume"),
        ["Success", "Success", "IncorrectState"]
    );
    world.audit_detach(&volumes, id).await;
    assert_eq!(world.audited("DetachVolume"), ["Success"]);
    let epoch = first.epoch();
    drop(first);
    assert_eq!(world.describe(&volumes)[0].state, VolumeState::InUse);
    assert!(matches!(
        world.delete(&volumes, id).await,
        Err(VolumeError::InUse(_))
    ));
    drop(second);
    assert_eq!(world.describe(&volumes)[0].state, VolumeState::Available);
    let again = world.attach(&others, id).await.unwrap();
    assert_eq!(again.epoch(), epoch, "it was detached cleanly");
}

async fn a_deleted_volume_is_gone_and_what_a_crash_left_is_swept(world: World) {
    let volumes = world.volumes().await;
    let id = world.create(&volumes, sealed()).await.unwrap().id;
    world.delete(&volumes, id).await.unwrap();
    assert!(matches!(
        world.attach(&volumes, id).await,
        Err(VolumeError::NotFound(_))
    ));
    assert!(matches!(
        world.delete(&volumes, id).await,
        Err(VolumeError::NotFound(_))
    ));
    for left in [format!(".creating-{id}"), format!(".deleted-{id}")] {
        std::fs::create_dir_all(world.path().join(&left)).unwrap();
        std::fs::write(world.path().join(left).join("slots"), b"x").unwrap();
    }
    assert!(world.describe(&*world.volumes().await).is_empty());
    assert_eq!(std::fs::read_dir(world.path()).unwrap().count(), 0);
}

async fn a_client_token_makes_one_volume(world: World) {
    let volumes = world.volumes().await;
    let tokened = |gib| CreateVolume {
        size: VolumeSize::from_gib(gib).unwrap(),
        client_token: Some("token".to_owned()),
        ..sealed()
    };
    let first = world.create(&volumes, tokened(1)).await.unwrap();
    let again = world.create(&volumes, tokened(1)).await.unwrap();
    assert_eq!(first.id, again.id);
    let again = world
        .create(&*world.volumes().await, tokened(1))
        .await
        .unwrap();
    assert_eq!(first.id, again.id);
    assert!(matches!(
        world.create(&volumes, tokened(2)).await,
        Err(VolumeError::IdempotentParameterMismatch)
    ));
}

async fn two_handles_that_are_asked_with_one_client_token_make_one_volume(world: World) {
    let (one, two) = (world.volumes().await, world.volumes().await);
    for round in 0..20 {
        let request = |gib| CreateVolume {
            size: VolumeSize::from_gib(gib).unwrap(),
            client_token: Some(format!("token-{round}")),
            ..request(Encryption::Unencrypted)
        };
        let (a, b) = (
            world.create(&one, request(1)),
            world.create(&two, request(1)),
        );
        let (a, b) = tokio::join!(a, b);
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.id, b.id, "round {round}");
        for volumes in [&one, &two] {
            assert!(matches!(
                world.create(volumes, request(2)).await,
                Err(VolumeError::IdempotentParameterMismatch)
            ));
        }
        let there = world.volumes().await;
        let ids: Vec<_> = world.describe(&there).iter().map(|v| v.id).collect();
        assert_eq!(ids, [a.id], "round {round}");
        drop(there);
        world.delete(&one, a.id).await.unwrap();
    }
}

async fn a_client_token_can_be_used_again_once_its_volume_is_deleted(world: World) {
    let tokens = Table::new("volume-token");
    let claims = async || {
        let page = world.catalogue.page(tokens, None, None, 10).await.unwrap();
        page.records.len()
    };
    let volumes = world.volumes().await;
    let tokened = |gib| CreateVolume {
        size: VolumeSize::from_gib(gib).unwrap(),
        client_token: Some("token".to_owned()),
        ..sealed()
    };
    let first = world.create(&volumes, tokened(1)).await.unwrap();
    assert_eq!(claims().await, 1);
    world.delete(&volumes, first.id).await.unwrap();
    assert_eq!(claims().await, 0);
    let second = world.create(&volumes, tokened(2)).await.unwrap();
    assert_ne!(first.id, second.id);

    // Left without a volume, as by a catalogue that lost the row.
    let row = Table::new("volume");
    let page = world.catalogue.page(row, None, None, 10).await.unwrap();
    let at = page
        .records
        .iter()
        .find(|row| row.key.id == second.id.to_bytes());
    let at = at.unwrap();
    let lost = Batch::new().erase(row, at.key.clone(), at.version);
    world.catalogue.commit(lost).await.unwrap();
    let third = world.create(&volumes, tokened(1)).await.unwrap();
    assert_ne!(second.id, third.id);
    assert_eq!(
        world.create(&volumes, tokened(1)).await.unwrap().id,
        third.id
    );
    assert_eq!(claims().await, 1);
}

async fn disabling_the_key_stops_the_next_attachment_and_not_this_one(world: World) {
    let volumes = world.volumes().await;
    let keyring = &world.keyring;
    let key = keyring
        .create_key(
            keyring
                .authorize(world.caller(), keyring::Account)
                .await
                .unwrap(),
            keyring::CreateKey::default(),
        )
        .await
        .unwrap()
        .arn;
    let argument = keyring::KeyArgument::from(&key);
    let own_key = request(Encryption::Sealed {
        key: Some(argument.clone()),
    });
    let made = world.create(&volumes, own_key).await.unwrap();
    assert_eq!(made.protection, Protection::Sealed { key });
    let attached = world.attach(&volumes, made.id).await.unwrap();
    attached.write(0, &mut [1; 4096], false).unwrap();
    let may = keyring.authorize(world.caller(), &argument).await.unwrap();
    assert!(volumes.review().is_empty());
    keyring.disable_key(may).await.unwrap();
    // It is reported, each time it is asked for, and stays attached.
    for _ in 0..2 {
        let review = volumes.review();
        assert_eq!(review.len(), 1);
        assert_eq!(review[0].0, made.id);
        assert_eq!(review[0].1.code(), "InvalidKmsKey.InvalidState");
    }
    let may = keyring.authorize(world.caller(), &argument).await.unwrap();
    keyring.enable_key(may).await.unwrap();
    assert!(volumes.review().is_empty());
    let may = keyring.authorize(world.caller(), &argument).await.unwrap();
    keyring.disable_key(may).await.unwrap();
    // One more connection is an attach too.
    let info = world.describe(&volumes).remove(0);
    assert_eq!(info.state, VolumeState::InUse);
    let listed = volumes.may_be_attached(&info).unwrap_err();
    assert_eq!(listed.code(), "InvalidKmsKey.InvalidState");
    let second = world.attach(&volumes, made.id).await.unwrap_err();
    assert_eq!(second.code(), "InvalidKmsKey.InvalidState");
    assert_eq!(
        world.audited("AttachVolume"),
        ["Success", "InvalidKmsKey.InvalidState"]
    );
    attached.flush().unwrap();
    assert_eq!(read(&attached, 0, 4096), [1; 4096]);
    drop(attached);
    let refused = world.attach(&volumes, made.id).await.unwrap_err();
    assert!(matches!(refused, VolumeError::Key(_)), "{refused}");
    assert_eq!(refused.code(), "InvalidKmsKey.InvalidState");
}

async fn nothing_is_attached_while_the_audit_log_is_dead(world: World) {
    let volumes = world.volumes().await;
    let kinds = [Encryption::Sealed { key: None }, Encryption::Unencrypted];
    let mut attached = Vec::new();
    for kind in kinds {
        let made = world.create(&volumes, request(kind.clone())).await.unwrap();
        let idle = world.create(&volumes, request(kind)).await.unwrap();
        let volume = world.attach(&volumes, made.id).await.unwrap();
        volume.write(0, &mut [7; 4096], true).unwrap();
        attached.push((volume, made.id, idle.id));
    }
    let fault = Fault::new(Failure::Io).on(&[Call::SyncData]);
    world.audit_disk.fail(fault.at(".journal"));
    for _ in 0..2 {
        for (volume, again, first) in &attached {
            for id in [again, first] {
                let refused = world.attach(&volumes, *id).await.unwrap_err();
                assert!(refused.is_internal(), "{refused}");
            }
            // Who has it keeps it.
            assert_eq!(read(volume, 0, 4096), [7; 4096]);
            volume.write(0, &mut [7; 4096], true).unwrap();
        }
    }
    // What cannot be recorded of an end is no reason to hold on.
    for (volume, id, _) in attached {
        world.audit_detach(&volumes, id).await;
        drop(volume);
    }
}

async fn copies_cannot_be_swapped(world: World) {
    let volumes = world.volumes().await;
    let sealed = world.create(&volumes, sealed()).await.unwrap().id;
    let plain = request(Encryption::Unencrypted);
    let plain = world.create(&volumes, plain).await.unwrap().id;
    let file = |id: VolumeId, name: &str| world.path().join(id.to_string()).join(name);
    // The row decides: another volume's copy changes nothing, and is replaced.
    let own = std::fs::read(file(sealed, "volume.copy")).unwrap();
    for name in ["volume.copy", "volume.copy2"] {
        std::fs::copy(file(plain, name), file(sealed, name)).unwrap();
    }
    drop(volumes);
    let volumes = world.volumes().await;
    assert!(world.attach(&volumes, sealed).await.unwrap().is_sealed());
    let copies = ["volume.copy", "volume.copy2"].map(|name| std::fs::read(file(sealed, name)));
    let [one, two] = copies.map(Result::unwrap);
    assert_eq!(one, two);
    // Their headers are the same: store, id, revision, account, region.
    assert_eq!(one[..49], own[..49]);
    // The log of another volume is refused.
    std::fs::copy(file(sealed, "map.log"), file(plain, "map.log")).unwrap();
    assert!(matches!(
        world.attach(&volumes, plain).await,
        Err(VolumeError::Damaged { .. })
    ));
}

async fn a_permission_for_another_resource_is_refused(world: World) {
    let volumes = world.volumes().await;
    let elsewhere = world.dir.path().join("elsewhere");
    let elsewhere = world
        .volumes_in(elsewhere, "eu-west-1".parse().unwrap())
        .await;
    let one = world.create(&volumes, named("one")).await.unwrap().id;
    let foreign = world.may(elsewhere.one(one));
    assert!(matches!(
        volumes.attach(foreign).await,
        Err(VolumeError::PermissionMismatch(_))
    ));
    let foreign = world.may(elsewhere.one(one));
    assert!(matches!(
        volumes.delete(foreign).await,
        Err(VolumeError::PermissionMismatch(_))
    ));
}

async fn exports_are_named_by_id_and_by_the_tag_name(world: World) {
    let volumes = world.volumes().await;
    let one = world.create(&volumes, named("data")).await.unwrap().id;
    let two = world.create(&volumes, named("")).await.unwrap().id;
    assert_eq!(volumes.find_by_export_name("data").unwrap(), one);
    assert_eq!(volumes.find_by_export_name(&two.to_string()).unwrap(), two);
    for unknown in ["", "other", "vol-00000000000000000"] {
        assert!(matches!(
            volumes.find_by_export_name(unknown),
            Err(VolumeError::NotFound(_))
        ));
    }
    let tags = vec![Tag::new("Name", "data").unwrap()];
    volumes
        .create_tags(world.may(volumes.one(two)), tags)
        .await
        .unwrap();
    assert!(matches!(
        volumes.find_by_export_name("data"),
        Err(VolumeError::AmbiguousName(_))
    ));
    let tags = vec![("Name".to_owned(), None)];
    volumes
        .delete_tags(world.may(volumes.one(one)), tags)
        .await
        .unwrap();
    assert_eq!(volumes.find_by_export_name("data").unwrap(), two);
    assert_eq!(
        world.volumes().await.find_by_export_name("data").unwrap(),
        two
    );
}

async fn the_number_of_volumes_is_bounded(world: World) {
    let volumes = world.volumes().await;
    for n in 0..5 {
        world.create(&volumes, named(&n.to_string())).await.unwrap();
    }
    let refused = world.create(&volumes, named("6")).await.unwrap_err();
    assert_eq!(refused.code(), "VolumeLimitExceeded");
}

async fn a_volume_that_failed_is_read_from_the_disk_when_it_comes_back(world: World) {
    let volumes = world.volumes().await;
    let id = world.create(&volumes, sealed()).await.unwrap().id;
    let attached = world.attach(&volumes, id).await.unwrap();
    attached.write(0, &mut [7; 8192], true).unwrap();
    let epoch = attached.epoch();
    drop(attached);
    let mark = world.path().join(id.to_string()).join("failed");
    std::fs::write(&mark, b"").unwrap();
    let attached = world.attach(&volumes, id).await.unwrap();
    assert_eq!(read(&attached, 0, 8192), [7; 8192]);
    assert!(!mark.exists());
    assert_ne!(attached.epoch(), epoch, "answers may have been lost");
}

async fn threads_that_write_side_by_side_do_not_disturb_each_other(world: World) {
    const THREADS: u64 = 4;
    let volumes = world.volumes().await;
    let id = world.create(&volumes, sealed()).await.unwrap().id;
    let attached = world.attach(&volumes, id).await.unwrap();
    // Each thread has every fourth kilobyte, so that four of them share each sector.
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let attached = &attached;
            scope.spawn(move || {
                for n in 0..300_u64 {
                    let place = n * 37 % 3000;
                    let at = (place * THREADS + thread) * 1024;
                    let mut bytes = vec![(place % 251) as u8 + thread as u8; 1024];
                    attached.write(at, &mut bytes, n % 100 == 0).unwrap();
                    if n % 50 == 0 {
                        attached.flush().unwrap();
                        attached.trim(900 << 20, 10 << 20, false).unwrap();
                    }
                }
            });
        }
    });
    drop(attached);
    let attached = world.attach(&volumes, id).await.unwrap();
    for thread in 0..THREADS {
        for n in 0..300_u64 {
            let place = n * 37 % 3000;
            let found = read(&attached, (place * THREADS + thread) * 1024, 1024);
            assert!(
                found
                    .iter()
                    .all(|byte| *byte == (place % 251) as u8 + thread as u8)
            );
        }
    }
}

/// Waits until `holds`: what another handle changed is seen within a second or so.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let long = std::time::Duration::from_secs(60);
    assert!(tokio::time::timeout(long, waited).await.is_ok(), "{what}");
}

async fn two_handles_see_what_the_other_changes(world: World) {
    let (one, two) = (world.volumes().await, world.volumes().await);
    let id = world.create(&one, named("first")).await.unwrap().id;
    let found = |volumes: &Volumes, name: &str| volumes.find_by_export_name(name).ok();
    eventually("it is made", || found(&two, "first") == Some(id)).await;
    let attached = world.attach(&two, id).await.unwrap();
    // Who has it not attached does not delete it under who has.
    assert!(matches!(
        world.delete(&one, id).await,
        Err(VolumeError::InUse(_))
    ));
    let tags = vec![Tag::new("Name", "second").unwrap()];
    let may = world.may(one.one(id));
    one.create_tags(may, tags).await.unwrap();
    eventually("it is renamed", || found(&two, "second") == Some(id)).await;
    assert_eq!(found(&two, "first"), None);
    drop(attached);
    world.delete(&one, id).await.unwrap();
    eventually("it is deleted", || world.describe(&two).is_empty()).await;
    assert!(matches!(
        world.attach(&two, id).await,
        Err(VolumeError::NotFound(_))
    ));
}

async fn changes_of_two_handles_are_all_kept(world: World) {
    let (one, two) = (world.volumes().await, world.volumes().await);
    let id = world.create(&one, named("shared")).await.unwrap().id;
    eventually("it is made", || !world.describe(&two).is_empty()).await;
    let change = async |volumes: &Volumes, side: &str| {
        for n in 0..5 {
            let tags = vec![Tag::new(format!("{side}{n}"), "x").unwrap()];
            let may = world.may(volumes.one(id));
            volumes.create_tags(may, tags).await.unwrap();
        }
    };
    tokio::join!(change(&one, "one"), change(&two, "two"));
    let all_seen = |volumes: &Volumes| world.describe(volumes)[0].tags.len() == 11;
    eventually("both see all", || all_seen(&one) && all_seen(&two)).await;
    assert!(all_seen(&*world.volumes().await));
}

async fn of_two_handles_that_delete_one_volume_one_does(world: World) {
    let (one, two) = (world.volumes().await, world.volumes().await);
    let id = world.create(&one, sealed()).await.unwrap().id;
    eventually("it is made", || !world.describe(&two).is_empty()).await;
    let both = tokio::join!(world.delete(&one, id), world.delete(&two, id));
    let done = usize::from(both.0.is_ok()) + usize::from(both.1.is_ok());
    assert_eq!(done, 1, "{both:?}");
    let seen = || world.describe(&one).len() + world.describe(&two).len();
    eventually("it is gone", || seen() == 0).await;
    assert!(world.describe(&*world.volumes().await).is_empty());
}

async fn volumes_are_listed_page_by_page(world: World) {
    let volumes = world.volumes().await;
    for name in ["a", "b", "c", "d", "a"] {
        world.create(&volumes, named(name)).await.unwrap();
    }
    let all: Vec<VolumeId> = world.describe(&volumes).iter().map(|one| one.id).collect();
    let list = |after, limit, wanted: fn(&VolumeInfo) -> bool| {
        let listing = volumes.list(world.may(volumes.every()), after, limit, wanted);
        let listing = listing.unwrap();
        let ids: Vec<VolumeId> = listing.volumes.iter().map(|one| one.id).collect();
        (ids, listing.more)
    };
    assert_eq!(list(None, 2, |_| true), (all[..2].to_vec(), true));
    assert_eq!(list(Some(all[1]), 3, |_| true), (all[2..].to_vec(), false));
    assert_eq!(list(Some(all[4]), 3, |_| true), (vec![], false));
    let (named_a, more) = list(None, 2, |one| one.name() == Some("a"));
    assert_eq!((named_a.len(), more), (2, false));
    assert!(list(None, 1, |one| one.name() == Some("a")).1);
}
