//! A store key through its life: made, opened, damaged, rotated, and cut off after every step.
#![allow(clippy::unwrap_used)]

mod disk;
mod records;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use crypto::{random::SystemRandom, secret::SecretVec};
use disk::DyingDisk;
use host::{Disk, OsDisk};
use records::{Rows, Table};
use root::{
    COPY_NAME, FileProvider, HEADER_NAME, Options, PassphraseProvider, Reseal, RootError,
    RootKeyProvider, StoreKey, replace_root_key_file,
};

fn file(dir: &Path, name: &str, disk: &Arc<dyn Disk>) -> Arc<dyn RootKeyProvider> {
    let path = dir.join(name);
    Arc::new(FileProvider::new(
        path,
        Arc::clone(disk),
        Arc::new(SystemRandom),
    ))
}

fn passphrase(words: &str) -> Arc<dyn RootKeyProvider> {
    let secret = SecretVec::from_slice(words.as_bytes());
    Arc::new(PassphraseProvider::new(secret, Arc::new(SystemRandom)).unwrap())
}

fn options(dir: &Path, disk: &Arc<dyn Disk>, provider: Arc<dyn RootKeyProvider>) -> Options {
    Options {
        disk: Arc::clone(disk),
        dir: dir.into(),
        provider,
        random: Arc::new(SystemRandom),
        may_make: false,
    }
}

fn os() -> Arc<dyn Disk> {
    Arc::new(OsDisk)
}

async fn open(dir: &Path, provider: Arc<dyn RootKeyProvider>) -> Result<StoreKey, RootError> {
    StoreKey::open(options(dir, &os(), provider)).await
}

async fn open_file(dir: &Path) -> Result<StoreKey, RootError> {
    open(dir, file(dir, "root.key", &os())).await
}

async fn make(dir: &Path, provider: Arc<dyn RootKeyProvider>) -> StoreKey {
    StoreKey::open(Options {
        may_make: true,
        ..options(dir, &os(), provider)
    })
    .await
    .unwrap()
}

/// A store with a root key file and five records.
async fn store(dir: &Path) -> Rows {
    let key = make(dir, file(dir, "root.key", &os())).await;
    let rows = Rows::default();
    let table = Table::new(&key, &rows, u32::MAX);
    (0..5).for_each(|id| table.put(id));
    rows
}

async fn reseal(key: &StoreKey, table: &Arc<Table>) -> Result<(), RootError> {
    let owners = [Arc::clone(table) as Arc<dyn Reseal>];
    key.rotate().await?.run(&owners, &|_| {}).await
}

/// Runs `step` on copies of the directory that `prepare` fills, killed after every number of changes until it is not
/// killed any more, and hands each directory to `check`. Says how many kills there were.
async fn killed_everywhere(
    prepare: impl AsyncFn(&Path) -> Rows,
    step: impl AsyncFn(&Path, Arc<dyn Disk>, &Rows) -> Result<(), RootError>,
    check: impl AsyncFn(&Path, &Rows, i64),
) -> i64 {
    for kill in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let rows = prepare(dir.path()).await;
        let disk = DyingDisk::after(kill);
        let result = step(dir.path(), Arc::new(disk.clone()), &rows).await;
        assert_eq!(result.is_err(), disk.died(), "kill {kill}: {result:?}");
        check(dir.path(), &rows, kill).await;
        if !disk.died() {
            return kill;
        }
    }
    unreachable!("every step ends")
}

#[tokio::test]
async fn a_store_key_is_found_again_and_another_root_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rows = store(dir.path()).await;
    let key = open_file(dir.path()).await.unwrap();
    Table::new(&key, &rows, 0).check();
    let status = key.status().await;
    assert_eq!(
        (status.generation, status.previous, status.sequence),
        (1, None, 1)
    );

    let before = fs::read(dir.path().join(HEADER_NAME)).unwrap();
    let other = file(dir.path(), "other.key", &os());
    let missing = open(dir.path(), Arc::clone(&other)).await.unwrap_err();
    assert!(matches!(missing, RootError::Missing { .. }), "{missing}");
    assert!(!dir.path().join("other.key").exists());
    other.ensure().await.unwrap();
    let wrong = open(dir.path(), other).await.unwrap_err();
    assert!(matches!(wrong, RootError::WrongRootKey { .. }), "{wrong}");
    let kind = open(dir.path(), passphrase("correct horse"))
        .await
        .unwrap_err();
    assert!(matches!(kind, RootError::WrongKind { .. }), "{kind}");
    assert_eq!(fs::read(dir.path().join(HEADER_NAME)).unwrap(), before);
}

#[tokio::test]
async fn a_header_that_is_gone_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path()).await;
    fs::remove_file(dir.path().join(HEADER_NAME)).unwrap();
    fs::remove_file(dir.path().join(COPY_NAME)).unwrap();
    let error = open_file(dir.path()).await.unwrap_err();
    assert!(matches!(error, RootError::HeaderMissing { .. }), "{error}");
    assert!(!dir.path().join(HEADER_NAME).exists());
}

#[tokio::test]
async fn one_copy_of_the_header_may_be_damaged_or_gone_and_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let rows = store(dir.path()).await;
    let whole = fs::read(dir.path().join(HEADER_NAME)).unwrap();
    for name in [HEADER_NAME, COPY_NAME] {
        let path = dir.path().join(name);
        for at in (0..whole.len()).step_by(7) {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let key = open_file(dir.path()).await.unwrap();
            Table::new(&key, &rows, 0).check();
            assert_eq!(fs::read(&path).unwrap(), whole, "{name}, byte {at}");
        }
        fs::remove_file(&path).unwrap();
        open_file(dir.path()).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    for name in [HEADER_NAME, COPY_NAME] {
        fs::write(dir.path().join(name), &whole[..40]).unwrap();
    }
    let error = open_file(dir.path()).await.unwrap_err();
    assert!(matches!(error, RootError::HeaderDamaged { .. }), "{error}");
    assert!(error.to_string().contains(COPY_NAME), "{error}");
}

#[tokio::test]
async fn a_header_of_another_store_beside_ours_is_named() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    store(ours.path()).await;
    store(other.path()).await;
    fs::copy(other.path().join(COPY_NAME), ours.path().join(COPY_NAME)).unwrap();
    let error = open_file(ours.path()).await.unwrap_err();
    assert!(matches!(error, RootError::HeaderDamaged { .. }), "{error}");
}

#[tokio::test]
async fn making_a_store_may_be_killed_at_every_step_and_begun_again() {
    let kills = killed_everywhere(
        async |_| Rows::default(),
        async |dir, disk, _| {
            let provider = file(dir, "root.key", &disk);
            let options = options(dir, &disk, provider);
            let options = Options {
                may_make: true,
                ..options
            };
            StoreKey::open(options).await.map(|_| ())
        },
        async |dir, rows, _| {
            let key = make(dir, file(dir, "root.key", &os())).await;
            Table::new(&key, rows, 0).put(1);
            let again = open_file(dir).await.unwrap();
            Table::new(&again, rows, 0).check();
        },
    )
    .await;
    assert!(kills >= 15, "{kills}");
}

#[tokio::test]
async fn moving_the_root_key_to_another_file_may_be_killed_at_every_step() {
    let kills = killed_everywhere(
        async |dir| store(dir).await,
        async |dir, disk, _| {
            let key = StoreKey::open(options(dir, &disk, file(dir, "root.key", &disk))).await?;
            key.rotate_root(file(dir, "moved.key", &disk)).await
        },
        async |dir, rows, kill| {
            let old = open_file(dir).await;
            let key = match old {
                Ok(key) => key,
                Err(_) => open(dir, file(dir, "moved.key", &os())).await.unwrap(),
            };
            Table::new(&key, rows, 0).check();
            assert!(
                open_file(dir).await.is_ok()
                    || open(dir, file(dir, "moved.key", &os())).await.is_ok(),
                "{kill}"
            );
        },
    )
    .await;
    assert!(kills >= 15, "{kills}");
}

#[tokio::test]
async fn replacing_the_root_key_in_its_place_may_be_killed_at_every_step() {
    let kills = killed_everywhere(
        async |dir| store(dir).await,
        async |dir, disk, _| {
            let provider = file(dir, "root.key", &disk);
            let key = StoreKey::open(options(dir, &disk, Arc::clone(&provider))).await?;
            key.open_to_both(&file(dir, "root.key.next", &disk)).await?;
            replace_root_key_file(&*disk, &dir.join("root.key.next"), &dir.join("root.key"))?;
            key.rotate_root(provider).await
        },
        async |dir, rows, _| {
            // The same file opens it in every state, and after that alone.
            for _ in 0..2 {
                let key = open_file(dir).await.unwrap();
                Table::new(&key, rows, 0).check();
            }
        },
    )
    .await;
    assert!(kills >= 20, "{kills}");
}

#[tokio::test]
async fn the_replaced_root_key_does_not_open_the_store_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let rows = store(dir.path()).await;
    let stolen = dir.path().join("stolen.key");
    fs::copy(dir.path().join("root.key"), &stolen).unwrap();
    let key = open_file(dir.path()).await.unwrap();
    key.rotate_root(passphrase("correct horse")).await.unwrap();
    let error = open(dir.path(), file(dir.path(), "stolen.key", &os())).await;
    assert!(matches!(error, Err(RootError::WrongKind { .. })));
    let key = open(dir.path(), passphrase("correct horse")).await.unwrap();
    Table::new(&key, &rows, 0).check();
    key.rotate_root(passphrase("battery staple")).await.unwrap();
    let error = open(dir.path(), passphrase("correct horse")).await;
    assert!(matches!(error, Err(RootError::WrongRootKey { .. })));
    open(dir.path(), passphrase("battery staple"))
        .await
        .unwrap();
}

#[tokio::test]
async fn rotating_the_store_key_may_be_killed_at_every_change_and_every_page() {
    for pages in 0..=7 {
        let kills = killed_everywhere(
            async |dir| store(dir).await,
            async |dir, disk, rows| {
                let key = StoreKey::open(options(dir, &disk, file(dir, "root.key", &disk))).await?;
                let table = Table::new(&key, rows, pages);
                match reseal(&key, &table).await {
                    // Killed between two pages, and not by the disk.
                    Err(RootError::Reseal { .. }) => Ok(()),
                    other => other,
                }
            },
            async |dir, rows, _| {
                let key = open_file(dir).await.unwrap();
                let table = Table::new(&key, rows, u32::MAX);
                table.check();
                table.put(9);
                reseal(&key, &table).await.unwrap();
                table.check();
                let status = key.status().await;
                assert_eq!(status.previous, None);
                assert!(status.generation >= 2);
                let reopened = open_file(dir).await.unwrap();
                Table::new(&reopened, rows, 0).check();
                for (_, sealed) in rows.lock().unwrap().values() {
                    assert!(!table.key.is_stale(sealed));
                }
            },
        )
        .await;
        assert!(kills >= 10, "{kills}");
    }
}

#[tokio::test]
async fn both_generations_open_while_records_are_sealed_again_and_the_old_one_does_not_after_a_restart()
 {
    let dir = tempfile::tempdir().unwrap();
    let rows = store(dir.path()).await;
    let key = open_file(dir.path()).await.unwrap();
    let table = Table::new(&key, &rows, u32::MAX);
    let old = rows.lock().unwrap()[&0].clone();
    let rotation = key.rotate().await.unwrap();
    assert_eq!(rotation.old_generation(), 1);
    table.check();
    table.put(7);
    table.check();
    let owners = [Arc::clone(&table) as Arc<dyn Reseal>];
    rotation.run(&owners, &|_| {}).await.unwrap();
    table.check();
    // Who read it before the end opens it after.
    let place = records::place(&0, old.0);
    table.key.open(&place, &old.1).unwrap();
    for _ in 0..4 {
        let rotation = key.rotate().await.unwrap();
        rotation.run(&owners, &|_| {}).await.unwrap();
    }
    let error = table.key.open(&place, &old.1).unwrap_err();
    assert!(
        matches!(error, RootError::Generation { found: 1 }),
        "{error}"
    );
    drop((table, owners, key));
    let key = open_file(dir.path()).await.unwrap();
    Table::new(&key, &rows, u32::MAX).check();
}

#[tokio::test]
async fn the_pass_waits_for_a_record_that_was_sealed_before_the_rotation_and_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let rows = store(dir.path()).await;
    let key = open_file(dir.path()).await.unwrap();
    let table = Table::new(&key, &rows, u32::MAX);
    let sealing = table.key.sealing();
    let late = sealing.seal(&records::place(&8, 1), &[8; 3], &SystemRandom);

    let (rotating, owner) = (key.clone(), Arc::clone(&table));
    let begun = Arc::new(Mutex::new(false));
    let pages = Arc::clone(&begun);
    let rotation = key.rotate().await.unwrap();
    let pass = tokio::spawn(async move {
        let owners = [owner as Arc<dyn Reseal>];
        let progress = move |_| *pages.lock().unwrap() = true;
        rotation.run(&owners, &progress).await
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!*begun.lock().unwrap(), "the pass did not wait");
    rows.lock().unwrap().insert(8, (1, late.into_bytes()));
    drop(sealing);
    pass.await.unwrap().unwrap();
    table.check();
    assert_eq!(rotating.status().await.previous, None);
}

#[tokio::test]
async fn after_a_failed_change_nothing_is_changed_until_the_store_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let rows = store(dir.path()).await;
    let disk: Arc<dyn Disk> = Arc::new(DyingDisk::after(4));
    let provider = file(dir.path(), "root.key", &disk);
    let key = StoreKey::open(options(dir.path(), &disk, provider))
        .await
        .unwrap();
    let failed = key.rotate().await.unwrap_err();
    assert!(matches!(failed, RootError::Io { .. }), "{failed}");
    let refused = key.rotate().await.unwrap_err();
    assert!(matches!(refused, RootError::Unknown), "{refused}");
    // Sealing goes on under the generation that is durable for sure.
    let table = Table::new(&key, &rows, 0);
    table.put(3);
    let again = open_file(dir.path()).await.unwrap();
    Table::new(&again, &rows, 0).check();
}
