//! One suite of behaviour, run on every catalogue.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use catalogue::{FaultyCatalogue, MemoryCatalogue};
use fixture::{CHANGES_KEPT, Pair, STORE};

mod fixture;
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
