//! What a start refuses, part by part, on a simulated disk.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalogue::{Catalogue, MemoryCatalogue, StoreId};
use crypto::random::{Random, SeededRandom};
use host::disk::sim::{Call, Crash, Failure, Fault, SimDisk};
use host::{Disk, private};
use parts::{FolderStamp, Ledger, Mark, Part, Refusal, STAMP_FILE, Stamped, Stamps, WayOut, Wrong};
use root::{FileProvider, StoreKey};

const FOLDERS: [Part; 3] = [Part::Audit, Part::Volumes, Part::Objects];

struct Store {
    disk: SimDisk,
    key: StoreKey,
    random: Arc<dyn Random>,
    catalogue: Arc<dyn Catalogue>,
}

impl Store {
    async fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let shared: Arc<SimDisk> = Arc::new(disk.clone());
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(seed));
        let provider = FileProvider::new("/root.key", shared.clone(), Arc::clone(&random));
        let key = StoreKey::open(root::Options {
            disk: shared,
            dir: "/".into(),
            provider: Arc::new(provider),
            random: Arc::clone(&random),
            may_make: true,
        })
        .await
        .unwrap();
        for part in FOLDERS {
            private::create_dirs(&disk, &folder(part)).unwrap();
        }
        let catalogue = MemoryCatalogue::new(StoreId(*key.store().as_bytes()));
        Self {
            disk,
            key,
            random,
            catalogue: Arc::new(catalogue),
        }
    }

    fn stamped(&self) -> Vec<Arc<dyn Stamped>> {
        let stamps = Stamps::new(&self.key, Arc::clone(&self.random));
        let stamp = |part| {
            let disk = Arc::new(self.disk.clone());
            let stamp = FolderStamp::new(part, &folder(part), disk, Arc::clone(&stamps));
            Arc::new(stamp) as Arc<dyn Stamped>
        };
        FOLDERS.map(stamp).into()
    }

    async fn ledger(&self) -> Arc<Ledger> {
        let catalogue = Arc::clone(&self.catalogue);
        let ledger = Ledger::load(catalogue, &self.key, Arc::clone(&self.random)).await;
        Arc::new(ledger.unwrap())
    }

    async fn keep(&self) {
        let observed = [(Part::Credentials, credentials(1))];
        let ledger = self.ledger().await;
        assert!(ledger.keep(&self.stamped(), &observed, true).await.unwrap());
    }

    /// What a start finds.
    async fn check(&self) -> Result<(), Refusal> {
        let ledger = self.ledger().await;
        for stamped in self.stamped() {
            let found = stamped.read().await;
            let path = folder(stamped.part());
            ledger
                .check_stamp(stamped.part(), &path, Path::new("/catalogue.db"), found)
                .await?;
        }
        let path = Path::new("/credentials");
        ledger
            .check_mark(Part::Credentials, path, Some(credentials(1)))
            .await
    }

    fn read(&self, part: Part) -> Vec<u8> {
        private::read(&self.disk, &folder(part).join(STAMP_FILE), 4096).unwrap()
    }

    fn write(&self, part: Part, bytes: &[u8]) {
        private::replace(&self.disk, &folder(part).join(STAMP_FILE), bytes).unwrap();
    }
}

fn folder(part: Part) -> PathBuf {
    Path::new("/").join(part.name())
}

fn credentials(byte: u8) -> Mark {
    Mark {
        sequence: 1,
        digest: [byte; 32],
    }
}

#[tokio::test]
async fn a_store_that_was_never_marked_and_one_that_was_are_accepted() {
    let store = Store::new(1).await;
    assert!(store.ledger().await.is_new().await);
    store.check().await.unwrap();
    store.keep().await;
    assert!(!store.ledger().await.is_new().await);
    store.check().await.unwrap();
}

#[tokio::test]
async fn each_folder_that_is_missing_older_damaged_or_anothers_is_named() {
    let other = Store::new(2).await;
    other.keep().await;
    for part in FOLDERS {
        let store = Store::new(1).await;
        store.keep().await;
        let old = store.read(part);
        store.keep().await;
        let new = store.read(part);
        let refused = async || {
            let refusal = store.check().await.unwrap_err();
            assert_eq!((refusal.part, &refusal.path), (part, &folder(part)));
            let out = format!("sealgate doctor --accept-older {part}");
            assert!(refusal.to_string().ends_with(&out), "{refusal}");
            refusal.wrong
        };
        store.write(part, &old);
        let older = Wrong::Older {
            found: 1,
            marked: 2,
        };
        assert_eq!(refused().await, older);
        store.write(part, &other.read(part));
        let others = Wrong::OtherStore {
            store: other.key.store(),
        };
        assert_eq!(refused().await, others);
        for at in 0..new.len() {
            let mut bytes = new.clone();
            bytes[at] ^= 1;
            store.write(part, &bytes);
            assert!(matches!(refused().await, Wrong::Damaged(_)), "byte {at}");
        }
        for cut in [0, 1, new.len() - 1] {
            store.write(part, &new[..cut]);
            assert!(matches!(refused().await, Wrong::Damaged(_)), "{cut} bytes");
        }
        store.disk.remove(&folder(part).join(STAMP_FILE)).unwrap();
        assert_eq!(refused().await, Wrong::Missing);
        // And the way out.
        let ledger = store.ledger().await;
        ledger.accept(part, &store.stamped(), None).await.unwrap();
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn the_stamp_of_one_part_is_none_of_another() {
    let store = Store::new(1).await;
    store.keep().await;
    store.write(Part::Volumes, &store.read(Part::Objects));
    let refusal = store.check().await.unwrap_err();
    assert_eq!(refusal.part, Part::Volumes);
    assert!(matches!(refusal.wrong, Wrong::Damaged(_)));
}

#[tokio::test]
async fn a_catalogue_behind_a_stamp_is_named_and_can_be_accepted() {
    let mut store = Store::new(1).await;
    store.keep().await;
    store.keep().await;
    // As after restoring a catalogue from before the first start had ended.
    let old = MemoryCatalogue::new(StoreId(*store.key.store().as_bytes()));
    store.catalogue = Arc::new(old);
    let refusal = store.check().await.unwrap_err();
    let older = Wrong::Older {
        found: 0,
        marked: 1,
    };
    assert_eq!((refusal.part, refusal.wrong), (Part::Catalogue, older));
    let ledger = store.ledger().await;
    ledger
        .accept(Part::Catalogue, &store.stamped(), None)
        .await
        .unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn what_has_no_stamp_is_compared_with_its_mark() {
    let store = Store::new(1).await;
    store.keep().await;
    let ledger = store.ledger().await;
    let check = async |found| {
        let path = Path::new("/credentials");
        let checked = ledger.check_mark(Part::Credentials, path, found).await;
        checked.map_err(|refusal| refusal.wrong)
    };
    assert_eq!(check(Some(credentials(1))).await, Ok(()));
    assert_eq!(check(Some(Mark::at(2))).await, Ok(()), "newer");
    assert_eq!(check(Some(credentials(2))).await, Err(Wrong::Other));
    assert_eq!(check(None).await, Err(Wrong::Missing));
    let older = Wrong::Older {
        found: 0,
        marked: 1,
    };
    assert_eq!(check(Some(Mark::at(0))).await, Err(older));
    let stamped = store.stamped();
    let accepted = ledger.accept(Part::Credentials, &stamped, Some(credentials(2)));
    accepted.await.unwrap();
    assert_eq!(check(Some(credentials(2))).await, Ok(()));
}

#[tokio::test]
async fn a_stamp_that_cannot_be_read_is_not_called_damaged_and_nothing_is_to_be_accepted() {
    for part in FOLDERS {
        let store = Store::new(1).await;
        store.keep().await;
        for call in [Call::Open, Call::Read] {
            let fault = Fault::new(Failure::Io).on(&[call]);
            store.disk.fail(fault.at(&format!("{part}/{STAMP_FILE}")));
            let refusal = store.check().await.unwrap_err();
            assert_eq!((refusal.part, refusal.way_out()), (part, WayOut::Mend));
            assert!(
                matches!(refusal.wrong, Wrong::Unreadable { .. }),
                "{refusal}"
            );
            let message = refusal.to_string();
            assert!(!message.contains("doctor"), "{message}");
            assert!(message.contains("start again"), "{message}");
            store.check().await.unwrap();
        }
    }
}

#[tokio::test]
async fn contents_that_are_set_back_under_a_stamp_that_is_not_are_refused_and_can_be_accepted() {
    let store = Store::new(1).await;
    let (ledger, stamped) = (store.ledger().await, store.stamped());
    let at = |sequence, byte| Mark {
        sequence,
        digest: [byte; 32],
    };
    let keep = async |mark, always| {
        let observed = [(Part::Audit, mark)];
        ledger.keep(&stamped, &observed, always).await.unwrap()
    };
    let check = async |found| {
        let ledger = store.ledger().await;
        let checked = ledger.check_contents(Part::Audit, Path::new("/audit"), found);
        checked.await.map_err(|refusal| refusal.wrong)
    };
    assert_eq!(check(at(0, 0)).await, Ok(()), "nothing is marked yet");
    assert!(keep(at(7, 1), false).await);
    assert!(!keep(at(7, 1), false).await);
    assert!(keep(at(9, 2), false).await);
    // A rotation of the store key keeps them without a look at the log.
    assert!(ledger.keep(&stamped, &[], true).await.unwrap());
    let older = Wrong::Older {
        found: 7,
        marked: 9,
    };
    assert_eq!(check(at(7, 1)).await, Err(older));
    assert_eq!(check(at(9, 1)).await, Err(Wrong::Other));
    assert_eq!(check(at(9, 2)).await, Ok(()));
    assert_eq!(check(at(10, 3)).await, Ok(()));
    store.check().await.unwrap();
    let fresh = store.ledger().await;
    let accepted = fresh.accept(Part::Audit, &stamped, Some(at(7, 1)));
    accepted.await.unwrap();
    assert_eq!(check(at(7, 1)).await, Ok(()));
    store.check().await.unwrap();
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let store = Store::new(1).await;
    let (ledger, stamped) = (store.ledger().await, store.stamped());
    let observed = [(Part::Credentials, credentials(1))];
    assert!(ledger.keep(&stamped, &observed, false).await.unwrap());
    assert!(!ledger.keep(&stamped, &observed, false).await.unwrap());
    let changed = [(Part::Credentials, credentials(2))];
    assert!(ledger.keep(&stamped, &changed, false).await.unwrap());
    assert!(!ledger.keep(&stamped, &changed, false).await.unwrap());
}

#[tokio::test]
async fn a_crash_at_any_call_while_marks_are_kept_refuses_no_start() {
    for crash in [Crash::Process, Crash::Power] {
        for calls in 0.. {
            let store = Store::new(calls + 7).await;
            store.keep().await;
            let ledger = store.ledger().await;
            store.disk.stop_after(calls);
            let kept = ledger.keep(&store.stamped(), &[], true).await;
            store.disk.restart(crash);
            let checked = store.check().await;
            assert_eq!(checked, Ok(()), "{crash:?} after {calls} calls");
            if kept.is_ok() {
                assert!(calls > 8, "{calls} calls are too few");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_rotation_of_the_store_key_seals_marks_and_stamps_anew() {
    let store = Store::new(1).await;
    store.keep().await;
    let owner = store.ledger().await.owner(store.stamped());
    let rotation = store.key.rotate().await.unwrap();
    rotation.run(&[Arc::clone(&owner)], &|_| ()).await.unwrap();
    assert_eq!(store.key.status().await.previous, None);
    store.check().await.unwrap();
    assert_eq!(owner.reseal(None).await.unwrap().resealed, 0);
}
