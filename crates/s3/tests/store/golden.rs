//! Format 3, as it was first written: a data file byte for byte, and a whole store that must open.
//!
//! `FORMAT.md` says what is in them. They were made by `write_the_golden_store` (with `SEALGATE_WRITE_GOLDEN`
//! set, where there is none) and are never made anew: a change of format gets a golden store of its own beside this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crypto::random::SeededRandom;
use s3::store::local::{LocalStore, Options};
use s3::store::{Condition, ListQuery, ObjectStore, PartSeen, UploadEntry, UploadQuery};

use crate::sealing::{bytes, commit, date, get, put, put_part, put_with, seal};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden/format-3")
}

fn data_files(dir: &Path) -> Vec<PathBuf> {
    let fans = fs::read_dir(dir.join("data"))
        .unwrap()
        .map(|fan| fan.unwrap().path());
    fans.flat_map(|fan| {
        fs::read_dir(fan)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect::<Vec<_>>()
    })
    .collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

const SMALL: (u64, usize) = (1, 300);
const LARGE: (u64, usize) = (2, 70_000);
const PARTS: [(u64, usize); 2] = [(3, 5_000), (4, 10)];
const IN_PROGRESS: (u64, usize) = (5, 100);

fn plain(of: (u64, usize)) -> Vec<u8> {
    bytes(of.0, of.1)
}

/// Compares with what was written into the golden store.
async fn check(store: &LocalStore) {
    let buckets = store.buckets(None, 10).await.unwrap().entries;
    let buckets: Vec<_> = buckets.iter().map(|b| (b.id.as_str(), b.closed)).collect();
    assert_eq!(buckets, [("closed", true), ("golden", false)]);
    assert!(get(store, "golden", "small").await.unwrap() == plain(SMALL));
    assert!(get(store, "golden", "a/large").await.unwrap() == plain(LARGE));
    assert!(
        get(store, "golden", "parts").await.unwrap() == [plain(PARTS[0]), plain(PARTS[1])].concat()
    );
    let small = store.head("golden", "small").await.unwrap();
    assert_eq!(
        (small.modified, &small.envelope[..], small.part_count),
        (date(1), &b"small envelope"[..], 0)
    );
    let (parts, reader) = store.open("golden", "parts").await.unwrap();
    assert_eq!(parts.part_count, 2);
    let numbers: Vec<_> = reader
        .parts()
        .iter()
        .map(|part| (part.number, part.envelope.clone()))
        .collect();
    assert_eq!(
        numbers,
        [(1, Bytes::from("part 1")), (5, Bytes::from("part 5"))]
    );
    let all = ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    let names: Vec<_> = store
        .list("golden", &all)
        .await
        .unwrap()
        .entries
        .iter()
        .map(|e| e.name().to_owned())
        .collect();
    assert_eq!(names, ["a/large", "parts", "small"]);
    let uploads = store
        .uploads(
            "golden",
            &UploadQuery {
                limit: 10,
                ..UploadQuery::default()
            },
        )
        .await
        .unwrap()
        .entries;
    let [UploadEntry::Upload(upload)] = &uploads[..] else {
        panic!("{uploads:?}")
    };
    assert_eq!(
        (upload.key.as_str(), upload.initiated, &upload.envelope[..]),
        ("later", date(9), &b"an upload"[..])
    );
    let parts = store
        .parts("golden", "later", &upload.id, 0, 10)
        .await
        .unwrap()
        .entries;
    assert_eq!(
        (parts.len(), parts[0].number, parts[0].plain_len),
        (1, 3, IN_PROGRESS.1 as u64)
    );
}

async fn fill(store: &LocalStore) {
    store.create_bucket("golden").await.unwrap();
    store.create_bucket("closed").await.unwrap();
    store.close_bucket("closed").await.unwrap();
    put_with(
        store,
        "golden",
        "small",
        &plain(SMALL),
        commit("small envelope"),
    )
    .await
    .unwrap();
    put(store, "golden", "a/large", &plain(LARGE)).await;
    let id = store
        .create_upload("golden", "parts", Bytes::new(), date(2))
        .await
        .unwrap()
        .id;
    let mut seen = Vec::new();
    for (number, of) in [(1, PARTS[0]), (5, PARTS[1])] {
        let part = put_part(store, "golden", "parts", &id, number, &plain(of))
            .await
            .unwrap();
        seen.push(PartSeen {
            number,
            sequence: part.sequence,
        });
    }
    store
        .complete_upload("golden", "parts", &id, &seen, commit("parts envelope"))
        .await
        .unwrap();
    let id = store
        .create_upload("golden", "later", Bytes::from_static(b"an upload"), date(9))
        .await
        .unwrap()
        .id;
    put_part(store, "golden", "later", &id, 3, &plain(IN_PROGRESS))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_format_2_opens_and_takes_changes() {
    if std::env::var_os("SEALGATE_WRITE_GOLDEN").is_some() {
        write_the_golden_store().await;
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(), dir.path());
    let store = LocalStore::open(Options::new(dir.path(), Arc::new(SeededRandom::new(2)))).unwrap();
    check(&store).await;
    let before = store.head("golden", "parts").await.unwrap().sequence;
    assert!(put(&store, "golden", "parts", b"over it").await.sequence > before);
    assert!(
        store
            .delete("golden", "a/large", Condition::Always)
            .await
            .unwrap()
    );
    store.close().await;
    assert_eq!(data_files(dir.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_file_has_the_bytes_that_the_format_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(Options::new(dir.path(), Arc::new(SeededRandom::new(1)))).unwrap();
    fill(&store).await;
    let id = |path: &Path| hex::decode(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let mut golden: Vec<_> = data_files(&golden())
        .iter()
        .map(|path| (id(path), fs::read(path).unwrap()))
        .collect();
    let mut now: Vec<_> = data_files(dir.path())
        .iter()
        .map(|path| (id(path), fs::read(path).unwrap()))
        .collect();
    // Names are random; all else is not.
    for (id, file) in golden.iter_mut().chain(&mut now) {
        let at = file.len() - 64 + 32;
        assert_eq!(file[at..at + 16], id[..]);
        file[at..at + 16].fill(0);
        id.clear();
    }
    golden.sort();
    now.sort();
    assert!(golden == now);

    // And by hand, from FORMAT.md.
    let file = now
        .iter()
        .map(|(_, file)| file)
        .find(|file| file.len() > 65_536)
        .unwrap();
    let chunks = seal(&plain(LARGE), 2);
    assert_eq!(file.len(), 73_728 + 4096);
    assert_eq!(&file[..70_000], chunks[0].ciphertext());
    assert!(file[70_000..73_728].iter().all(|byte| *byte == 0));
    assert_eq!(file[73_728..73_728 + 32], *chunks[0].tags().concat());
    let footer = &file[file.len() - 64..];
    assert_eq!(&footer[..8], b"SGSEALED");
    assert_eq!(footer[8..16], [1, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(footer[16..24], 70_000u64.to_le_bytes());
    assert_eq!(footer[24..32], 73_728u64.to_le_bytes());
    assert_eq!(footer[48..], [0; 16]);
}

/// Made the golden store.
async fn write_the_golden_store() {
    assert!(!golden().exists(), "there is one already");
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(Options::new(dir.path(), Arc::new(SeededRandom::new(1)))).unwrap();
    fill(&store).await;
    check(&store).await;
    store.close().await;
    fs::create_dir_all(golden().join("data")).unwrap();
    rusqlite::Connection::open(dir.path().join("index.db"))
        .unwrap()
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    fs::copy(dir.path().join("index.db"), golden().join("index.db")).unwrap();
    for file in data_files(dir.path()) {
        let fan = golden()
            .join("data")
            .join(file.parent().unwrap().file_name().unwrap());
        fs::create_dir_all(&fan).unwrap();
        fs::copy(&file, fan.join(file.file_name().unwrap())).unwrap();
    }
}
