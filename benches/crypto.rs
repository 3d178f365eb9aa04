//! Every kernel and every peer through criterion: `cargo bench -p benches`.
//!
//! For bars and ratios use the program `hotpath`, which interleaves its rounds.
#![allow(missing_docs)]

use benches::cases::{Direction, md5, streams, xts};
use benches::measure::Case;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crypto::chunk::Algorithm;
use crypto::sector::SectorSize;

fn group(criterion: &mut Criterion, name: &str, cases: Vec<Case>) {
    let mut group = criterion.benchmark_group(name);
    for mut case in cases {
        group.throughput(Throughput::Bytes(case.bytes as u64));
        group.bench_function(&case.name, |bencher| bencher.iter(|| (case.run)()));
    }
    group.finish();
}

fn sectors(criterion: &mut Criterion) {
    for size in [SectorSize::B512, SectorSize::B4096] {
        for direction in Direction::BOTH {
            let name = format!("xts-{}-{}", size.bytes(), direction.name());
            group(criterion, &name, xts(size, direction));
        }
    }
}

fn chunks(criterion: &mut Criterion) {
    for (algorithm, label) in [
        (Algorithm::Aes256Gcm, "gcm"),
        (Algorithm::Aes256GcmSiv, "gcm-siv"),
    ] {
        for direction in Direction::BOTH {
            let name = format!("{label}-{}", direction.name());
            group(criterion, &name, streams(algorithm, direction));
        }
    }
}

fn digests(criterion: &mut Criterion) {
    group(criterion, "md5", md5());
}

criterion_group!(benches, sectors, chunks, digests);
criterion_main!(benches);
