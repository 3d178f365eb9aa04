//! Crashes of the local store, as far as one process can play them: the directory is copied while
//! the store is live, as a power cut would leave it, and opened again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use s3::store::local::{LocalStore, stamp};
use s3::store::{Condition, ListQuery, ObjectStore, PartSeen, StoreError};

use crate::local_options;
use crate::sealing::{
    bytes, commit, commit_if, date, get, put, put_part, put_with, read_all, seal,
};

/// Copies a directory as it is now.
fn image(from: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                match fs::copy(entry.path(), to) {
                    // Replaced meanwhile, in a store under load.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    copied => drop(copied.unwrap()),
                }
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy(from, to.path());
    to
}

fn open(dir: &Path) -> LocalStore {
    LocalStore::open(local_options(dir)).unwrap()
}

/// Every file below `data`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let fans = fs::read_dir(dir.join("data")).unwrap();
    let folders: Vec<_> = fans.map(|fan| fan.unwrap().path()).collect();
    for folder in folders {
        all.extend(
            fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().path()),
        );
    }
    all
}

async fn keys(store: &LocalStore) -> Vec<String> {
    let query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    store
        .list("b", &query)
        .await
        .unwrap()
        .entries
        .iter()
        .map(|entry| entry.name().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    let (small, large) = (bytes(1, 1000), bytes(2, 3_000_000));
    put(&store, "b", "small", &small).await;
    put(&store, "b", "large", &large).await;
    put(&store, "b", "replaced", &bytes(3, 500_000)).await;
    put(&store, "b", "replaced", &large).await;
    put(&store, "b", "deleted", &large).await;
    store
        .delete("b", "deleted", Condition::Always)
        .await
        .unwrap();
    let id = store
        .create_upload("b", "parts", Bytes::new(), date(1))
        .await
        .unwrap()
        .id;
    let part = put_part(&store, "b", "parts", &id, 1, &large)
        .await
        .unwrap();
    // In flight when it happens: an object, a part, both with much on disk.
    let mut sink = store
        .begin_put("b", "unfinished", Some(9 << 20))
        .await
        .unwrap();
    let mut part_sink = store.begin_part("b", "parts", &id, 2, None).await.unwrap();
    for sealed in seal(&bytes(4, 8 << 20), 16) {
        sink.write(sealed).await.unwrap();
    }
    for sealed in seal(&bytes(5, 8 << 20), 16) {
        part_sink.write(sealed).await.unwrap();
    }

    let crashed = image(dir.path());
    let again = open(crashed.path());
    assert_eq!(keys(&again).await, ["large", "replaced", "small"]);
    assert!(get(&again, "b", "small").await.unwrap() == small);
    assert!(get(&again, "b", "large").await.unwrap() == large);
    assert!(get(&again, "b", "replaced").await.unwrap() == large);
    assert_eq!(
        again.parts("b", "parts", &id, 0, 10).await.unwrap().entries,
        std::slice::from_ref(&part)
    );
    assert_eq!(files(crashed.path()).len(), 3);
    let seen = [PartSeen {
        number: 1,
        sequence: part.sequence,
    }];
    again
        .complete_upload("b", "parts", &id, &seen, commit("e"))
        .await
        .unwrap();
    assert!(get(&again, "b", "parts").await.unwrap() == large);
}

/// The ids that there is an intent for.
fn intents(dir: &Path) -> Vec<String> {
    let index = rusqlite::Connection::open(dir.join("index.db")).unwrap();
    let mut statement = index.prepare("SELECT hex(file) FROM intent").unwrap();
    let ids = statement
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap();
    ids.map(|id| id.unwrap().to_lowercase()).collect()
}

fn data_file(dir: &Path, id: &str) -> PathBuf {
    dir.join("data").join(&id[..2]).join(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_intent_names_is_removed_after_a_crash_and_what_nothing_names_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    let plain = bytes(1, 200_000);
    put(&store, "b", "k", &plain).await;
    let crashed = image(dir.path());
    let kept = files(crashed.path());
    assert_eq!(kept.len(), 1);
    // Written but never committed; only just made.
    let intents = intents(crashed.path());
    fs::copy(&kept[0], data_file(crashed.path(), &intents[0])).unwrap();
    fs::write(data_file(crashed.path(), &intents[1]), b"").unwrap();
    // Of a newer index than this one.
    let unnamed = "ab".repeat(16);
    fs::copy(&kept[0], data_file(crashed.path(), &unnamed)).unwrap();
    // Not ours: left alone.
    let foreign = crashed.path().join("data").join("00").join("notes.txt");
    fs::write(&foreign, b"mine").unwrap();
    let again = open(crashed.path());
    assert_eq!(again.quarantined(), 1);
    assert!(get(&again, "b", "k").await.unwrap() == plain);
    let mut left = files(crashed.path());
    left.retain(|file| *file != foreign);
    assert_eq!(left, kept);
    assert!(foreign.exists());
    let aside = crashed.path().join("quarantine").join(&unnamed);
    assert!(fs::read(aside).unwrap() == fs::read(&kept[0]).unwrap());
    // It stays there and is counted; another of its name does not replace it.
    drop(again);
    let crashed = image(crashed.path());
    fs::write(data_file(crashed.path(), &unnamed), b"another").unwrap();
    mark_open(crashed.path());
    let again = open(crashed.path());
    assert_eq!(again.quarantined(), 2);
    assert!(
        files(crashed.path())
            .iter()
            .all(|file| !file.ends_with(&unnamed))
    );
}

/// Makes the index look as that of a store that was not closed.
fn mark_open(dir: &Path) {
    let index = rusqlite::Connection::open(dir.join("index.db")).unwrap();
    index
        .execute("UPDATE meta SET value = 0 WHERE name = 'clean'", [])
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_files_without_their_index_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    put(&store, "b", "k", &bytes(1, 200_000)).await;
    store.close().await;
    drop(store);
    let before = files(dir.path());
    let index = dir.path().join("index.db");
    let aside = dir.path().join("aside.db");
    fs::rename(&index, &aside).unwrap();
    for beside in ["index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(dir.path().join(beside));
    }
    let refused = LocalStore::open(local_options(dir.path())).map(drop);
    assert!(
        matches!(&refused, Err(StoreError::Corrupt(why)) if why.contains("index.db is gone")),
        "{refused:?}"
    );
    assert_eq!(files(dir.path()), before);
    assert!(!index.exists());
    fs::rename(&aside, &index).unwrap();
    let again = open(dir.path());
    assert_eq!(get(&again, "b", "k").await.unwrap().len(), 200_000);
}

/// An index put back from a copy: what was put since is not lost, though the index does not know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_index_loses_no_data_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    put(&store, "b", "old", &bytes(1, 200_000)).await;
    let older = image(dir.path());
    // More than were drawn ahead.
    for n in 0..200 {
        put(&store, "b", &format!("new {n}"), &bytes(n, 70_000)).await;
    }
    store.close().await;
    drop(store);
    for name in ["index.db", "index.db-wal"] {
        fs::copy(older.path().join(name), dir.path().join(name)).unwrap();
    }
    let ahead = intents(dir.path()).len();
    let again = open(dir.path());
    assert_eq!(keys(&again).await, ["old"]);
    // But for those whose names were drawn and whose intents that index had.
    assert!(again.quarantined() as usize >= 200 - ahead);
}

/// The same, accepted by name: not one is lost, drawn ahead or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_index_that_is_accepted_removes_no_data_file_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    put(&store, "b", "old", &bytes(1, 200_000)).await;
    let older = image(dir.path());
    for n in 0..100 {
        put(&store, "b", &format!("new {n}"), &bytes(n, 70_000)).await;
    }
    store.close().await;
    drop(store);
    let data = || {
        files(dir.path())
            .into_iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = data();
    assert_eq!(before.len(), 101);
    for name in ["index.db", "index.db-wal"] {
        fs::copy(older.path().join(name), dir.path().join(name)).unwrap();
    }
    let named = intents(dir.path());
    assert!(!named.is_empty(), "it has names that were drawn ahead");
    stamp::replace(dir.path(), b"accepted").unwrap();
    let again = open(dir.path());
    assert_eq!(keys(&again).await, ["old"]);
    assert_eq!(again.quarantined(), 100);
    let quarantine = fs::read_dir(dir.path().join("quarantine")).unwrap();
    let mut after = data();
    after.extend(quarantine.map(|entry| entry.unwrap().file_name()));
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_close_needs_no_sweep_and_frees_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    assert!(matches!(
        LocalStore::open(local_options(dir.path())).map(drop),
        Err(StoreError::Held)
    ));
    let mut late = store.begin_put("b", "late", None).await.unwrap();
    for sealed in seal(&bytes(1, 3_000_000), 8) {
        late.write(sealed).await.unwrap();
    }
    store.close().await;
    assert!(matches!(
        late.commit(commit("e")).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        put_with(&store, "b", "k", b"x", commit("e")).await,
        Err(StoreError::Closed)
    ));
    // An orphan that a sweep would find stays: there was none.
    let decoy = dir.path().join("data").join("00").join("00".repeat(16));
    fs::write(&decoy, b"").unwrap();
    let again = open(dir.path());
    assert!(decoy.exists());
    assert!(keys(&again).await.is_empty());
    assert_eq!(files(dir.path()), [decoy]);
    drop(store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_dropped_closes_when_its_last_sink_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    let mut sink = store.begin_put("b", "k", None).await.unwrap();
    drop(store);
    for sealed in seal(b"still taken", 1) {
        sink.write(sealed).await.unwrap();
    }
    sink.commit(commit("e")).await.unwrap();
    let again = loop {
        match LocalStore::open(local_options(dir.path())) {
            Err(StoreError::Held) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(get(&again, "b", "k").await.unwrap(), b"still taken");
}

/// Images taken while eight writers are at it: each must open, and every object in it be whole and
/// no older than what was acknowledged before the copying began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_load_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    store.create_bucket("b").await.unwrap();
    for round in 0..2u64 {
        let acknowledged = Arc::new(parking_lot::Mutex::new(std::collections::BTreeMap::new()));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writers: Vec<_> = (0..8u64)
            .map(|writer| {
                let (store, acknowledged, stop) =
                    (store.clone(), acknowledged.clone(), stop.clone());
                tokio::spawn(async move {
                    for n in 0u64.. {
                        if stop.load(std::sync::atomic::Ordering::SeqCst) {
                            break;
                        }
                        let plain = [
                            &n.to_le_bytes()[..],
                            &bytes(writer, if n % 3 == 0 { 100_000 } else { 500 }),
                        ]
                        .concat();
                        put(&*store, "b", &format!("w{writer}"), &plain).await;
                        acknowledged.lock().insert(writer, n);
                    }
                })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let before = acknowledged.lock().clone();
        // A copy is not a snapshot: the writer of the index is held while it is made. Files go on
        // coming and going, but none that a row names.
        let index = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
        index
            .busy_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        index.execute_batch("BEGIN IMMEDIATE").unwrap();
        let crashed = image(dir.path());
        index.execute_batch("ROLLBACK").unwrap();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        futures::future::join_all(writers).await;

        let again = open(crashed.path());
        for (writer, n) in before {
            let key = format!("w{writer}");
            let (_, reader) = again.open("b", &key).await.unwrap();
            let content = read_all(&*reader).await.unwrap();
            let found = u64::from_le_bytes(content[..8].try_into().unwrap());
            assert!(
                found >= n,
                "round {round}, {key}: {found} is older than {n}"
            );
            assert!(content[8..] == bytes(writer, content.len() - 8));
        }
        again.close().await;
        let large =
            futures::future::join_all((0..8).map(|writer| again_size(&again, writer))).await;
        let large = large.into_iter().filter(|size| *size > 65_536).count();
        assert_eq!(files(crashed.path()).len(), large, "orphans were swept");
    }
}

async fn again_size(store: &LocalStore, writer: u64) -> u64 {
    store
        .head("b", &format!("w{writer}"))
        .await
        .map_or(0, |record| record.size)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_apart_from_absence() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    let damage = async |change: &dyn Fn(&Path)| {
        put(&store, "b", "k", &bytes(1, 200_000)).await;
        // The replaced file goes in the background.
        store.settle().await;
        let file = files(dir.path()).pop().unwrap();
        change(&file);
        let (_, reader) = store.open("b", "k").await.unwrap();
        reader.read(0, 0, 4).await.map(drop)
    };
    let shortened = damage(&|file| {
        fs::OpenOptions::new()
            .write(true)
            .open(file)
            .unwrap()
            .set_len(100_000)
            .unwrap();
    });
    assert!(matches!(shortened.await, Err(StoreError::Corrupt(_))));
    assert!(matches!(
        damage(&|file| fs::remove_file(file).unwrap()).await,
        Err(StoreError::Corrupt(_))
    ));
    assert!(matches!(
        damage(&|file| fs::write(file, vec![0; 266_240]).unwrap()).await,
        Err(StoreError::Corrupt(_))
    ));
    // The old object goes, even though its file is gone already.
    put(&store, "b", "k", b"fine").await;
    assert_eq!(get(&store, "b", "k").await.unwrap(), b"fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_data_and_still_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    put(&store, "b", "k", b"old").await;
    put(&store, "b", "l", &bytes(1, 100_000)).await;
    let id = store
        .create_upload("b", "p", Bytes::new(), date(0))
        .await
        .unwrap()
        .id;
    store.close().await;
    let mut options = local_options(dir.path());
    options.reserve_bytes = u64::MAX;
    let store = LocalStore::open(options).unwrap();
    assert!(matches!(
        put_with(&store, "b", "k", b"new", commit("e")).await,
        Err(StoreError::NoSpace)
    ));
    assert!(matches!(
        put_part(&store, "b", "p", &id, 1, b"new").await,
        Err(StoreError::NoSpace)
    ));
    assert_eq!(get(&store, "b", "k").await.unwrap(), b"old");
    assert!(store.delete("b", "l", Condition::Always).await.unwrap());
    // One that says how much it will be is refused before it sends it.
    store.close().await;
    let mut options = local_options(dir.path());
    options.reserve_bytes = 0;
    let store = LocalStore::open(options).unwrap();
    assert!(matches!(
        store.begin_put("b", "k", Some(u64::MAX)).await.map(drop),
        Err(StoreError::NoSpace)
    ));
    put_with(&store, "b", "k", b"new", commit_if("e", Condition::Always))
        .await
        .unwrap();
}

/// The operator with the disk sees names and sizes; never what is inside, nor envelopes' plaintext,
/// which this test plays by sealing it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_holds_a_needle_of_plaintext() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    let needle = b"needle-of-plaintext-0123456789";
    let plain = needle.repeat(10_000);
    put(&store, "b", "small", &plain[..5000]).await;
    put(&store, "b", "large", &plain).await;
    let id = store
        .create_upload("b", "parts", Bytes::new(), date(1))
        .await
        .unwrap()
        .id;
    put_part(&store, "b", "parts", &id, 1, &plain[..70_000])
        .await
        .unwrap();
    let mut sink = store.begin_put("b", "unfinished", None).await.unwrap();
    for sealed in seal(&needle.repeat(100_000), 16) {
        sink.write(sealed).await.unwrap();
    }
    let mut seen = 0;
    let mut all = files(dir.path());
    all.extend(["index.db", "index.db-wal"].map(|name| dir.path().join(name)));
    for file in all {
        let content = fs::read(&file).unwrap();
        assert!(
            !content.windows(16).any(|window| window == &needle[..16]),
            "{}",
            file.display()
        );
        seen += content.len();
    }
    assert!(seen > plain.len());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(dir.path().join("quarantine"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
}
