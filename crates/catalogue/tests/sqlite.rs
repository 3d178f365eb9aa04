//! What is the embedded catalogue's own: its file, how it is refused, renewed and stopped.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use catalogue::{
    Batch, Catalogue, CatalogueError, Expect, Key, Scope, SealedRecord, Sequence, StoreId, Table,
    sqlite::{Options, SqliteCatalogue},
};
use crypto::{
    random::SeededRandom, record::RecordKey, secret::SecretBytes, store_key::GenerationKey,
};
use rusqlite::Connection;

const TABLE: Table = Table::new("keys");
const STORE: StoreId = StoreId(*b"the golden store");

fn options(path: &Path) -> Options {
    let mut options = Options::new(path);
    options.create = Some(STORE);
    options.patience = Duration::from_millis(50);
    options
}

fn open(path: &Path) -> SqliteCatalogue {
    SqliteCatalogue::open(options(path)).unwrap()
}

fn refused(path: &Path) -> CatalogueError {
    SqliteCatalogue::open(options(path)).unwrap_err()
}

fn key(id: &str) -> Key {
    let scope = Scope {
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
    };
    Key::new(scope, id)
}

fn record_key() -> RecordKey {
    GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(7))).record_key("golden")
}

fn seal(id: &str, expect: Expect, plaintext: &[u8]) -> SealedRecord {
    let key = key(id);
    let place = key.place(TABLE, expect.next_version());
    record_key().seal_at(&place, 1, plaintext, &SeededRandom::new(1))
}

fn put(id: &str, expect: Expect, plaintext: &[u8]) -> Batch {
    Batch::new().put(TABLE, key(id), expect, seal(id, expect, plaintext))
}

async fn look(store: &SqliteCatalogue, id: &str) -> Option<(u64, Vec<u8>)> {
    let record = store.get(TABLE, &key(id)).await.unwrap()?;
    let opened = record_key()
        .open_at(&record.place(TABLE), &record.sealed)
        .unwrap();
    Some((record.version, opened.expose().to_vec()))
}

/// The names in a folder but for the lock's, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

/// A catalogue as a crash leaves it: `one` is in the database, `two` in the log alone.
async fn crashed(dir: &Path) -> PathBuf {
    let living = dir.join("living");
    let crashed = dir.join("crashed");
    fs::create_dir(&living).unwrap();
    fs::create_dir(&crashed).unwrap();
    let path = living.join("catalogue.db");
    let store = open(&path);
    store
        .commit(put("one", Expect::Absent, b"1"))
        .await
        .unwrap();
    store.purge().await.unwrap();
    store
        .commit(put("two", Expect::Absent, b"2"))
        .await
        .unwrap();
    for name in ["catalogue.db", "catalogue.db-wal"] {
        fs::copy(living.join(name), crashed.join(name)).unwrap();
    }
    crashed.join("catalogue.db")
}

#[tokio::test]
async fn the_golden_file_of_format_1_reads_as_it_was_written() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/catalogue.db");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    if std::env::var_os("CATALOGUE_WRITE_GOLDEN").is_some() {
        write_golden(&golden).await;
    }
    fs::copy(&golden, &path).unwrap();
    let mut options = Options::new(&path);
    options.create = None;
    let store = SqliteCatalogue::open(options).unwrap();
    assert_eq!(store.store_id().await.unwrap(), STORE);
    assert_eq!(store.sequence().await.unwrap(), Sequence(4));
    assert_eq!(look(&store, "one").await, Some((2, b"1 again".to_vec())));
    assert_eq!(look(&store, "two").await, Some((1, b"2".to_vec())));
    assert_eq!(look(&store, "three").await, None);
    let changes = store.changes(Sequence(0), 100).await.unwrap().changes;
    let changes: Vec<_> = changes
        .iter()
        .map(|c| (c.sequence.0, &c.key, c.version))
        .collect();
    let (one, two, three) = (key("one"), key("two"), key("three"));
    assert_eq!(
        changes,
        [
            (1, &one, Some(1)),
            (2, &two, Some(1)),
            (2, &three, Some(1)),
            (3, &one, Some(2)),
            (4, &three, None),
        ]
    );
}

async fn write_golden(path: &Path) {
    let _ = fs::remove_file(path);
    let store = open(path);
    store
        .commit(put("one", Expect::Absent, b"1"))
        .await
        .unwrap();
    let both = put("two", Expect::Absent, b"2");
    let both = both.put(
        TABLE,
        key("three"),
        Expect::Absent,
        seal("three", Expect::Absent, b"3"),
    );
    store.commit(both).await.unwrap();
    store
        .commit(put("one", Expect::Version(1), b"1 again"))
        .await
        .unwrap();
    store
        .commit(Batch::new().erase(TABLE, key("three"), 1))
        .await
        .unwrap();
    drop(store);
    for beside in ["-wal", "-shm", ".lock"] {
        let _ = fs::remove_file(format!("{}{beside}", path.display()));
    }
}

#[tokio::test]
async fn a_catalogue_is_found_again_and_its_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let store = open(&path);
    store
        .commit(put("one", Expect::Absent, b"1"))
        .await
        .unwrap();
    for name in names(dir.path()) {
        let mode = dir
            .path()
            .join(&name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(store);
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    assert_eq!(
        fs::metadata(log).map_or(0, |log| log.len()),
        0,
        "the file is whole by itself"
    );
    let mut other = options(&path);
    other.create = Some(StoreId([1; 16]));
    let store = SqliteCatalogue::open(other).unwrap();
    assert_eq!(look(&store, "one").await, Some((1, b"1".to_vec())));
    assert_eq!(
        store.store_id().await.unwrap(),
        STORE,
        "it stays the store it was"
    );
}

#[tokio::test]
async fn a_catalogue_that_is_missing_is_made_only_where_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let mut must_be_there = options(&path);
    must_be_there.create = None;
    let error = SqliteCatalogue::open(must_be_there).unwrap_err();
    assert!(matches!(error, CatalogueError::Missing), "{error}");
    assert_eq!(names(dir.path()), [""; 0]);
    // A log without its file is a loss, not a beginning.
    fs::write(dir.path().join("catalogue.db-wal"), b"log").unwrap();
    let error = refused(&path);
    assert!(matches!(error, CatalogueError::Damaged(_)), "{error}");
    assert_eq!(names(dir.path()), ["catalogue.db-wal"]);
}

#[tokio::test]
async fn newer_foreign_empty_and_damaged_files_are_told_apart_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let store = open(&path);
    for n in 0..200 {
        let id = format!("{n}");
        store
            .commit(put(&id, Expect::Absent, &[0; 300]))
            .await
            .unwrap();
    }
    drop(store);
    let good = fs::read(&path).unwrap();
    let check = |what: &str, bytes: &[u8], is: &dyn Fn(&CatalogueError) -> bool| {
        fs::write(&path, bytes).unwrap();
        let error = refused(&path);
        assert!(is(&error), "{what}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what} was changed");
    };
    let with = |offset: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[offset..offset + bytes.len()].copy_from_slice(bytes);
        changed
    };
    // Offsets in the database header: https://sqlite.org/fileformat.html, section 1.3.
    check("newer", &with(60, &7u32.to_be_bytes()), &|error| {
        matches!(error, CatalogueError::Newer { found: 7, known: 1 })
    });
    let foreign = |error: &CatalogueError| matches!(error, CatalogueError::Foreign);
    check("older", &with(60, &0u32.to_be_bytes()), &foreign);
    check("another program's", &with(68, b"ABCD"), &foreign);
    check("no database", &[7; 8192], &foreign);
    let damaged = |error: &CatalogueError| matches!(error, CatalogueError::Damaged(_));
    check("empty", b"", &damaged);
    check("cut", &good[..good.len() - 4096], &damaged);
    for page in 1..good.len() / 4096 {
        check(
            &format!("page {page}"),
            &with(page * 4096, &[0xa5; 4096]),
            &damaged,
        );
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(open(&path).sequence().await.unwrap(), Sequence(200));
}

#[tokio::test]
async fn erased_and_replaced_bytes_are_in_no_file_after_a_purge() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("catalogue.db"));
    let gone = [
        seal("one", Expect::Absent, &[1; 20_000]),
        seal("two", Expect::Absent, &[2; 100]),
    ];
    let stays = seal("two", Expect::Version(1), &[3; 100]);
    let (first, second) = (gone[0].clone(), gone[1].clone());
    let batch = Batch::new()
        .put(TABLE, key("one"), Expect::Absent, first)
        .put(TABLE, key("two"), Expect::Absent, second);
    store.commit(batch).await.unwrap();
    let found = |record: &SealedRecord| {
        // A long record is in pieces, a page each.
        let piece = &record.as_bytes()[record.as_bytes().len() - 60..];
        names(dir.path()).iter().any(|name| {
            let bytes = fs::read(dir.path().join(name)).unwrap();
            bytes.windows(piece.len()).any(|window| window == piece)
        })
    };
    assert!(gone.iter().all(found), "the search finds what is there");
    let batch = Batch::new().erase(TABLE, key("one"), 1).put(
        TABLE,
        key("two"),
        Expect::Version(1),
        stays.clone(),
    );
    store.commit(batch).await.unwrap();
    store.purge().await.unwrap();
    assert!(!gone.iter().any(found));
    assert!(found(&stays));
}

#[tokio::test]
async fn after_a_crash_the_file_is_rewritten_before_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = crashed(dir.path()).await;
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = inode(&path);
    let store = open(&path);
    assert_ne!(inode(&path), before, "it is a fresh file");
    assert_eq!(look(&store, "one").await, Some((1, b"1".to_vec())));
    assert_eq!(look(&store, "two").await, Some((1, b"2".to_vec())));
    assert_eq!(store.store_id().await.unwrap(), STORE);
    store
        .commit(put("three", Expect::Absent, b"3"))
        .await
        .unwrap();
    drop(store);
    let between = inode(&path);
    let store = open(&path);
    assert_eq!(inode(&path), between, "after a stop in order it stays");
    assert_eq!(store.sequence().await.unwrap(), Sequence(3));
}

#[tokio::test]
async fn a_rewriting_that_was_cut_off_is_finished_or_begun_anew() {
    // Where a crash may cut it: in the copy; before the log is removed; before the copy is in place; before the
    // mark is gone.
    for cut in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let path = crashed(dir.path()).await;
        let beside = |suffix: &str| path.with_file_name(format!("catalogue.db{suffix}"));
        fs::write(beside(".failed"), b"a sync").unwrap();
        if cut == 0 {
            fs::write(beside(".new"), b"half of a copy").unwrap();
        } else {
            let mut whole = dir.path().join("whole");
            fs::create_dir(&whole).unwrap();
            whole.push("catalogue.db");
            fs::copy(&path, &whole).unwrap();
            fs::copy(beside("-wal"), whole.with_file_name("catalogue.db-wal")).unwrap();
            drop(open(&whole));
            fs::copy(&whole, beside(".renewed")).unwrap();
        }
        if cut > 1 {
            fs::remove_file(beside("-wal")).unwrap();
        }
        if cut > 2 {
            fs::rename(beside(".renewed"), &path).unwrap();
        }
        let store = open(&path);
        assert_eq!(
            look(&store, "one").await,
            Some((1, b"1".to_vec())),
            "cut at {cut}"
        );
        assert_eq!(
            look(&store, "two").await,
            Some((1, b"2".to_vec())),
            "cut at {cut}"
        );
        drop(store);
        let left = names(path.parent().unwrap());
        let ours = |name: &&String| !name.ends_with("-wal") && !name.ends_with("-shm");
        assert_eq!(
            left.iter().filter(ours).collect::<Vec<_>>(),
            ["catalogue.db"],
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn after_a_failed_sync_none_is_let_in_before_all_are_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let living = open(&path);
    living
        .commit(put("one", Expect::Absent, b"1"))
        .await
        .unwrap();
    fs::write(
        dir.path().join("catalogue.db.failed"),
        b"another handle's sync",
    )
    .unwrap();
    let error = refused(&path);
    assert!(matches!(error, CatalogueError::Unavailable(_)), "{error}");
    drop(living);
    let store = open(&path);
    assert_eq!(look(&store, "one").await, Some((1, b"1".to_vec())));
    assert!(!names(dir.path()).contains(&"catalogue.db.failed".to_owned()));
}

#[tokio::test]
async fn a_second_handle_opens_beside_one_that_has_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let first = open(&path);
    first
        .commit(put("one", Expect::Absent, b"1"))
        .await
        .unwrap();
    let second = open(&path);
    second
        .commit(put("two", Expect::Absent, b"2"))
        .await
        .unwrap();
    assert_eq!(look(&first, "two").await, Some((1, b"2".to_vec())));
}

#[tokio::test]
async fn an_exclusive_handle_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let mut exclusive = options(&path);
    exclusive.exclusive = true;
    let store = SqliteCatalogue::open(exclusive.clone()).unwrap();
    store
        .commit(put("one", Expect::Absent, b"1"))
        .await
        .unwrap();
    let error = refused(&path);
    assert!(matches!(error, CatalogueError::Unavailable(_)), "{error}");
    assert!(
        !names(dir.path()).contains(&"catalogue.db-shm".to_owned()),
        "no shared memory"
    );
    drop(store);
    let shared = open(&path);
    let error = SqliteCatalogue::open(exclusive).unwrap_err();
    assert!(matches!(error, CatalogueError::Unavailable(_)), "{error}");
    assert_eq!(look(&shared, "one").await, Some((1, b"1".to_vec())));
}

#[tokio::test]
async fn a_commit_that_another_process_holds_up_is_refused_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let store = open(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store
        .commit(put("one", Expect::Absent, b"1"))
        .await
        .unwrap_err();
    assert!(matches!(error, CatalogueError::Unavailable(_)), "{error}");
    assert_eq!(look(&store, "one").await, None, "readers are not held up");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    assert_eq!(
        store
            .commit(put("one", Expect::Absent, b"1"))
            .await
            .unwrap(),
        Sequence(1)
    );
}

#[tokio::test]
async fn what_was_queued_is_committed_before_a_handle_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let store = open(&path);
    {
        let mut cancelled = std::pin::pin!(store.commit(put("one", Expect::Absent, b"1")));
        // Polled once, it is in the queue; then its caller goes away.
        tokio::select! {
            biased;
            _ = &mut cancelled => {}
            () = std::future::ready(()) => {}
        }
    }
    drop(store);
    assert_eq!(look(&open(&path), "one").await, Some((1, b"1".to_vec())));
}
