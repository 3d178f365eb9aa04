//! How fast the engine is by itself, against a plain file with the same I/O: no protocol, one thread, page cache.
//!
//! `cargo run --release -p volume --example throughput [DIR]`. Prints the better of three runs of each; the file and the
//! volumes take turns, since machines drift.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crypto::random::SystemRandom;
use host::{Clock, OsDisk, SystemClock};
use iam::{Authorizer, Caller, Principal, RequestContext, Via};
use keyring::Keyring;
use volume::{AttachedVolume, CreateVolume, Encryption, Options, VolumeSize, VolumeType, Volumes};

const LEN: u64 = 1 << 30;
const MIB: usize = 1 << 20;
const SMALL_COUNT: u64 = 50_000;

/// What is measured.
trait Store {
    fn read(&self, offset: u64, buf: &mut [u8]);
    fn write(&self, offset: u64, buf: &mut [u8]);
    fn flush(&self);
}

impl Store for File {
    fn read(&self, offset: u64, buf: &mut [u8]) {
        self.read_exact_at(buf, offset).unwrap();
    }

    fn write(&self, offset: u64, buf: &mut [u8]) {
        self.write_all_at(buf, offset).unwrap();
    }

    fn flush(&self) {
        self.sync_data().unwrap();
    }
}

impl Store for Arc<AttachedVolume> {
    fn read(&self, offset: u64, buf: &mut [u8]) {
        AttachedVolume::read(self, offset, buf).unwrap();
    }

    fn write(&self, offset: u64, buf: &mut [u8]) {
        AttachedVolume::write(self, offset, buf, false).unwrap();
    }

    fn flush(&self) {
        AttachedVolume::flush(self).unwrap();
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn sequential(mut each: impl FnMut(u64)) {
    for n in 0..LEN / MIB as u64 {
        each(n * MIB as u64);
    }
}

fn scattered(count: u64, mut each: impl FnMut(u64)) {
    let mut state = 1_u64;
    for _ in 0..count {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        each((state >> 33) % (LEN / 4096) * 4096);
    }
}

const ROWS: [&str; 6] = [
    "first write, 1 MiB, MB/s",
    "write again, 1 MiB, MB/s",
    "read, 1 MiB, MB/s",
    "scattered write, 4 KiB, thousand/s",
    "scattered read, 4 KiB, thousand/s",
    "write 4 KiB + flush, /s",
];

#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn measure(store: &dyn Store) -> [f64; 6] {
    // What the one before left: pages to write back, blocks to discard.
    rustix::fs::sync();
    let mut large = vec![7; MIB];
    let mut small = vec![7; 4096];
    let megabytes = |took: Duration| LEN as f64 / 1e6 / took.as_secs_f64();
    let thousands = |took: Duration| SMALL_COUNT as f64 / 1e3 / took.as_secs_f64();
    let first = time(|| sequential(|at| store.write(at, &mut large)));
    store.flush();
    let again = time(|| sequential(|at| store.write(at, &mut large)));
    store.flush();
    let read = time(|| sequential(|at| store.read(at, &mut large)));
    let small_write = time(|| scattered(SMALL_COUNT, |at| store.write(at, &mut small)));
    store.flush();
    let small_read = time(|| scattered(SMALL_COUNT, |at| store.read(at, &mut small)));
    let flushes = time(|| {
        scattered(500, |at| {
            store.write(at, &mut small);
            store.flush();
        });
    });
    [
        megabytes(first),
        megabytes(again),
        megabytes(read),
        thousands(small_write),
        thousands(small_read),
        500.0 / flushes.as_secs_f64(),
    ]
}

/// A store of its own, in memory: what exists, and the key that seals it.
async fn store() -> (Arc<dyn catalogue::Catalogue>, root::StoreKey) {
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
    (Arc::new(catalogue::MemoryCatalogue::new(id)), key)
}

async fn registry(dir: &Path, authorizer: &Arc<Authorizer>) -> Arc<Volumes> {
    let region: iam::Region = "us-east-1".parse().unwrap();
    let (catalogue, store_key) = store().await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let audit = keyring::AuditOptions::new(dir.join("audit"), Arc::clone(&clock));
    let audit = keyring::AuditLog::open(audit).unwrap();
    let keyring = Keyring::open(keyring::Options {
        catalogue: Arc::clone(&catalogue),
        store_key: store_key.clone(),
        audit: audit.clone(),
        clock: Arc::clone(&clock),
        random: Arc::new(SystemRandom),
        authorizer: Arc::clone(authorizer),
        region: region.clone(),
        observer: Arc::new(keyring::NoObserver),
    })
    .await
    .unwrap();
    Volumes::open(Options {
        disk: Arc::new(OsDisk),
        dir: dir.join("volumes"),
        keyring,
        audit,
        encryption: volume::EncryptionPolicy {
            by_default: false,
            required: false,
        },
        catalogue,
        store_key,
        clock: Arc::clone(&clock),
        random: Arc::new(SystemRandom),
        authorizer: Arc::clone(authorizer),
        region,
        boot: None,
        volumes_max: 100,
    })
    .await
    .unwrap()
}

#[tokio::main]
async fn main() {
    let dir = match std::env::args().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let account = "123456789012".parse().unwrap();
    let authorizer = Arc::new(Authorizer::new(account));
    let volumes = registry(dir.path(), &authorizer).await;
    let context = Arc::new(RequestContext::new(Principal::root(account), "throughput"));
    let caller = Caller::new(&context, Via::Api);
    let mut best = [[0.0_f64; 6]; 3];
    for round in 0..3 {
        let path = dir.path().join("plain");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        let mut results = vec![measure(&file)];
        std::fs::remove_file(&path).unwrap();
        for encryption in [Encryption::Unencrypted, Encryption::Sealed { key: None }] {
            let may = authorizer.authorize(caller, volumes.new_one()).unwrap();
            let request = CreateVolume {
                size: VolumeSize::from_bytes(LEN).unwrap(),
                encryption,
                volume_type: VolumeType::Gp3,
                availability_zone: "us-east-1a".to_owned(),
                tags: Vec::new(),
                client_token: None,
            };
            let id = volumes.create(may, request).await.unwrap().id;
            let may = authorizer.authorize(caller, volumes.one(id)).unwrap();
            let attached = volumes.attach(may).await.unwrap();
            results.push(measure(&attached));
            drop(attached);
            let may = authorizer.authorize(caller, volumes.one(id)).unwrap();
            volumes.delete(may).await.unwrap();
        }
        for (best, result) in best.iter_mut().zip(results) {
            for (best, result) in best.iter_mut().zip(result) {
                *best = best.max(result);
            }
        }
        eprintln!("round {} of 3", round + 1);
    }
    println!(
        "{:36} {:>9} {:>19} {:>19}",
        "", "file", "volume, plain", "volume, sealed"
    );
    for (row, name) in ROWS.iter().enumerate() {
        let [file, plain, sealed] = [best[0][row], best[1][row], best[2][row]];
        println!(
            "{name:36} {file:9.0} {plain:9.0} ({:4.2} x) {sealed:9.0} ({:4.2} x)",
            plain / file,
            sealed / file
        );
    }
}
