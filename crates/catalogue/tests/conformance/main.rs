//! One suite of behaviour, run on every catalogue.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use catalogue::{
    Catalogue, Expect, FaultyCatalogue, MemoryCatalogue,
    sqlite::{Options, SqliteCatalogue},
};
use fixture::{CHANGES_KEPT, Pair, STORE};

mod fixture;
mod postgres;
mod process;
mod suite;

/// A module of tests, one a case, on the pairs that `$open` makes.
macro_rules! conforms {
    ($name:ident, $open:path) => {
        mod $name {
            macro_rules! case {
                ($case:ident) => {
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        crate::suite::$case($open().await).await;
                    }
                };
            }
            crate::suite::for_each_case!(case);
        }
    };
}

conforms!(memory, crate::memory_pair);
conforms!(faulty_without_a_fault, crate::faulty_pair);
conforms!(sqlite, crate::sqlite_pair);
conforms!(sqlite_in_two_processes, crate::sqlite_process_pair);
conforms!(sqlite_exclusive, crate::sqlite_exclusive_pair);

async fn memory_pair() -> Pair {
    let store = MemoryCatalogue::keeping(STORE, CHANGES_KEPT);
    Pair {
        a: Arc::new(store.clone()),
        b: Arc::new(store),
        _ground: Box::new(()),
    }
}

async fn faulty_pair() -> Pair {
    let store = Arc::new(MemoryCatalogue::keeping(STORE, CHANGES_KEPT));
    Pair {
        a: Arc::new(FaultyCatalogue::new(store.clone())),
        b: Arc::new(FaultyCatalogue::new(store)),
        _ground: Box::new(()),
    }
}

/// How a test's catalogue is opened, and made if it is not there.
fn options(path: &Path) -> Options {
    let mut options = Options::new(path);
    options.create = Some(STORE);
    options.changes_kept = CHANGES_KEPT;
    options
}

fn sqlite(options: Options) -> Arc<dyn Catalogue> {
    Arc::new(SqliteCatalogue::open(options).unwrap())
}

async fn sqlite_pair() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    Pair {
        a: sqlite(options(&path)),
        b: sqlite(options(&path)),
        _ground: Box::new(dir),
    }
}

/// One handle for both: another is not let in.
async fn sqlite_exclusive_pair() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir.path().join("catalogue.db"));
    options.exclusive = true;
    let handle = sqlite(options);
    Pair {
        a: handle.clone(),
        b: handle,
        _ground: Box::new(dir),
    }
}

async fn sqlite_process_pair() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    Pair {
        a: sqlite(options(&path)),
        b: Arc::new(process::ProcessCatalogue::start(&path)),
        _ground: Box::new(dir),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_committed_is_there_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.db");
    let child = process::ProcessCatalogue::start(&path);
    let k = fixture::key("k");
    child
        .commit(fixture::one(&k, Expect::Absent, b"k"))
        .await
        .unwrap();
    child.kill();
    let next = sqlite(options(&path));
    assert_eq!(fixture::look(&*next, &k).await, Some((1, b"k".to_vec())));
    assert_eq!(next.sequence().await.unwrap(), catalogue::Sequence(1));
}
