//! The object stores: one suite of behaviour for all of them, and what is the local store's own.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod concurrency;
mod conformance;
mod crash;
mod disk;
mod golden;
mod model;
mod sealing;

use std::sync::Arc;

use crypto::random::SystemRandom;
use host::entropy::SeededEntropy;
use s3::store::ObjectStore;
use s3::store::faulty::{Faults, FaultyStore};
use s3::store::local::{LocalStore, Options};
use s3::store::memory::MemoryStore;

/// A store under test and what must live as long as it.
pub(crate) struct Subject {
    pub(crate) store: Arc<dyn ObjectStore>,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) fn local_options(dir: &std::path::Path) -> Options {
    Options::new(dir, Arc::new(SystemRandom))
}

fn memory() -> Subject {
    Subject {
        store: Arc::new(MemoryStore::new(Arc::new(SystemRandom))),
        _dir: None,
    }
}

/// A directory in memory, where there is one: for what is not about the disk.
pub(crate) fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn local_with(dir: tempfile::TempDir, change: impl FnOnce(&mut Options)) -> Subject {
    let mut options = local_options(dir.path());
    change(&mut options);
    Subject {
        store: Arc::new(LocalStore::open(options).unwrap()),
        _dir: Some(dir),
    }
}

fn local() -> Subject {
    local_with(quick_dir(), |_| {})
}

/// Everything in files, through the page cache.
fn local_in_files() -> Subject {
    local_with(quick_dir(), |options| {
        options.inline_len_max = 0;
        options.direct_io = false;
    })
}

/// A wrapper must pass every call on; slow, but without faults.
fn dawdling() -> Subject {
    let faults = Faults {
        delay_per_mille: 200,
        delay_max: std::time::Duration::from_millis(1),
        ..Faults::default()
    };
    let inner = MemoryStore::new(Arc::new(SystemRandom));
    Subject {
        store: Arc::new(FaultyStore::new(
            inner,
            faults,
            Arc::new(SeededEntropy::new(7)),
        )),
        _dir: None,
    }
}

conformance::suite!(memory, local, local_in_files, dawdling);
