//! The local store under tasks that run in parallel, come too late, or give up half-way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use s3::store::local::LocalStore;
use s3::store::memory::MemoryStore;
use s3::store::{Condition, ListQuery, ObjectStore, PartSeen, StoreError};

use crate::sealing::{bytes, commit, commit_if, date, get, put, put_part, put_with, read_all};
use crate::{local_options, quick_dir};

fn open(dir: &std::path::Path) -> Arc<LocalStore> {
    Arc::new(LocalStore::open(local_options(dir)).unwrap())
}

fn data_files(dir: &std::path::Path) -> usize {
    let count = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().count();
    let fans = std::fs::read_dir(dir.join("data")).unwrap();
    fans.map(|fan| count(&fan.unwrap().path())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_meet_a_file_that_was_taken_away() {
    let dir = quick_dir();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    put(&*store, "b", "k", &bytes(0, 300_000)).await;
    let (stop, reads) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (store, stop, reads) = (store.clone(), stop.clone(), reads.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (record, reader) = match store.open("b", "k").await {
                        Err(StoreError::NoSuchKey) => continue,
                        opened => opened.unwrap(),
                    };
                    tokio::task::yield_now().await;
                    let content = read_all(&*reader).await.unwrap();
                    assert_eq!(content.len() as u64, record.size);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // In turns: a file, parts, nothing, inline.
    for round in 1..60u64 {
        put(&*store, "b", "k", &bytes(round, 200_000)).await;
        let id = store
            .create_upload("b", "k", Bytes::new(), date(0))
            .await
            .unwrap()
            .id;
        let mut seen = Vec::new();
        for number in 1..=3 {
            let part = put_part(&*store, "b", "k", &id, number, &bytes(round, 70_000))
                .await
                .unwrap();
            seen.push(PartSeen {
                number,
                sequence: part.sequence,
            });
        }
        store
            .complete_upload("b", "k", &id, &seen, commit("e"))
            .await
            .unwrap();
        if round % 3 == 0 {
            store.delete("b", "k", Condition::Always).await.unwrap();
        }
        if round % 4 == 0 {
            put(&*store, "b", "k", b"inline").await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(reads.load(Ordering::Relaxed) > 60);
    store.delete("b", "k", Condition::Always).await.unwrap();
    store.close().await;
    assert_eq!(
        data_files(dir.path()),
        0,
        "every file went with its last reader"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compare_and_swap_loses_no_update() {
    let dir = quick_dir();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    put(&*store, "b", "counter", b"0").await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < 20 {
                    let seen = store.head("b", "counter").await.unwrap();
                    let count: u32 = std::str::from_utf8(&seen.envelope)
                        .unwrap()
                        .parse()
                        .unwrap_or(0);
                    let next = Bytes::from((count + 1).to_string());
                    match store
                        .replace_envelope("b", "counter", seen.sequence, next)
                        .await
                    {
                        Ok(_) => done += 1,
                        Err(StoreError::PreconditionFailed { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        &store.head("b", "counter").await.unwrap().envelope[..],
        b"160"
    );
}

/// SQLite can only start its log over when no reader holds it; ours are many and short.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_of_the_index_stays_bounded_under_readers() {
    let dir = quick_dir();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    put(&*store, "b", "k", b"x").await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|n| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let all = ListQuery {
                    limit: 1000,
                    ..ListQuery::default()
                };
                while !stop.load(Ordering::Relaxed) {
                    if n % 2 == 0 {
                        store.list("b", &all).await.unwrap();
                    } else {
                        get(&*store, "b", "k").await.unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let plain = bytes(1, 60_000);
    for n in 0..1200u64 {
        put(&*store, "b", &format!("w{}", n % 50), &plain).await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let len = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    let (log, index) = (len("index.db-wal"), len("index.db"));
    println!("log {log}, index {index}");
    // 1200 puts are 75 MB of log; it starts over every 16 MiB or soon after.
    assert!(log < 40 << 20, "the log has grown to {log} bytes");
    assert!(index < 20 << 20, "the index has grown to {index} bytes");
}

/// Polls a future so many times at most, with a moment in between for other threads, then drops it.
async fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let once = std::future::poll_fn(|context: &mut Context<'_>| {
            Poll::Ready(future.as_mut().poll(context))
        });
        if let Poll::Ready(done) = once.await {
            return Some(done);
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_all_or_nothing() {
    let dir = quick_dir();
    let store = open(dir.path());
    store.create_bucket("b").await.unwrap();
    let (mut finished, mut dropped) = (0, 0);
    for polls in 0..40 {
        for len in [100, 2_500_000] {
            let (old, new) = (bytes(1, 90_000), bytes(2, len));
            put(&*store, "b", "k", &old).await;
            let result = give_up_after(polls, put_with(&*store, "b", "k", &new, commit("e"))).await;
            match result {
                Some(done) => {
                    done.unwrap();
                    finished += 1;
                    assert!(get(&*store, "b", "k").await.unwrap() == new);
                }
                None => {
                    dropped += 1;
                    let now = get(&*store, "b", "k").await.unwrap();
                    assert!(now == old || now == new);
                }
            }
            // Whatever is still on its way is overtaken by nothing: a change queues up behind it.
            let _ = give_up_after(polls % 5, store.delete("b", "k", Condition::Always)).await;
        }
    }
    assert!(
        finished > 0 && dropped > 0,
        "{finished} finished, {dropped} dropped"
    );
    store.delete("b", "k", Condition::Always).await.unwrap();
    store.close().await;
    for _ in 0..1000 {
        if data_files(dir.path()) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{} files are left", data_files(dir.path()));
}

/// Every page of every query, against the reference that filters all keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_random_keys_are_those_of_a_map() {
    let dir = quick_dir();
    let store = open(dir.path());
    let reference = MemoryStore::new(Arc::new(crypto::random::SystemRandom));
    let mut state = 11u64;
    let mut below = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let alphabet = ["a", "b", "/", "/", "\0", "é", "\u{10ffff}", "z"];
    let mut word = |longest: u64| {
        let len = below(longest + 1);
        (0..len)
            .map(|_| alphabet[below(8) as usize])
            .collect::<String>()
    };
    let stores: [&dyn ObjectStore; 2] = [&*store, &reference];
    for store in stores {
        store.create_bucket("b").await.unwrap();
    }
    for _ in 0..120 {
        let key = format!("{}a", word(5));
        for store in stores {
            put_with(store, "b", &key, b"x", commit_if("e", Condition::Always))
                .await
                .unwrap();
        }
    }
    for n in 0..1500usize {
        let query = ListQuery {
            prefix: word(2),
            delimiter: (n % 4 != 0).then(|| word(2)),
            after: (n % 3 != 0).then(|| word(4)),
            limit: [1, 2, 5, 1000][n % 4],
        };
        let mut pages = Vec::new();
        for store in stores {
            let page = store.list("b", &query).await.unwrap();
            let names: Vec<_> = page
                .entries
                .iter()
                .map(|entry| entry.name().to_owned())
                .collect();
            pages.push((names, page.truncated));
        }
        assert_eq!(pages[0], pages[1], "{query:?}");
    }
}
