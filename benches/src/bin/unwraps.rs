//! Opening data keys in process: how many a core, how soon after a start, and whether a million keys slow it down.
//!
//! `unwraps --dir FOLDER` makes a folder of its own in that one, and removes it. A core's rate counts the CPU time of all
//! threads, those of the audit log too. The start is one whose catalogue is in the page cache.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::key_store::{Audit, Failure, KeyStore, backing_key, blob, context, request};
use clap::Parser;
use crypto::wrap::KeyBlob;
use iam::{Caller, RequestContext, Via};
use keyring::{BlobUse, Keyring};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure unwraps in process.
#[derive(Parser)]
struct Arguments {
    /// Where the store is made.
    #[arg(long)]
    dir: PathBuf,
    /// Keys of the large store; the small one has 1000.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Callers at a time.
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// Of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds of the latencies.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

const FEW: usize = 1000;
/// Blobs that are opened, of keys spread evenly over all: more than the keyring keeps opened materials of.
const BLOBS: usize = 50_000;

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let folder = tempfile::Builder::new()
        .prefix("sealgate-unwraps-")
        .tempdir_in(&arguments.dir)?;
    runtime.block_on(measure(&arguments, folder.path()))
}

async fn measure(arguments: &Arguments, dir: &std::path::Path) -> Result<(), Failure> {
    let seconds = Duration::from_secs(arguments.seconds);
    println!(
        "KeyBlob::open, one thread: {:.0}/s of CPU time",
        cipher(seconds)
    );

    let small = store(dir, "small", FEW).await?;
    let keyring = small.open(Audit::Forgotten).await?;
    let blobs = Arc::new(blobs(FEW));
    for callers in [1, arguments.callers, 256] {
        let run = run(&keyring, &blobs, callers, seconds).await?;
        println!(
            "Keyring::decrypt, its record forgotten, {callers} callers: {:.0}/s, {:.0}/s of CPU time",
            run.rate, run.rate_of_cpu
        );
    }
    drop(keyring);

    let started = Instant::now();
    let large = store(dir, "large", arguments.keys).await?;
    println!(
        "{} keys filled in {:.1} s",
        arguments.keys,
        started.elapsed().as_secs_f64()
    );
    let (started, spent) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    let many = large.open(Audit::Durable).await?;
    println!(
        "start with {} keys: {:.2} s, {:.2} s of CPU time",
        arguments.keys,
        started.elapsed().as_secs_f64(),
        cpu(ClockId::ProcessCPUTime)
            .saturating_sub(spent)
            .as_secs_f64()
    );
    let few = small.open(Audit::Durable).await?;
    let many_blobs = Arc::new(self::blobs(arguments.keys));
    let mut ratios = Vec::new();
    for _ in 0..arguments.rounds {
        let few = run(&few, &blobs, arguments.callers, seconds).await?;
        let many = run(&many, &many_blobs, arguments.callers, seconds).await?;
        let ratio = many.p99.as_secs_f64() / few.p99.as_secs_f64();
        println!(
            "decrypt, durable, {} callers: {FEW} keys {:.0}/s p50 {:?} p99 {:?}; {} keys {:.0}/s p50 {:?} p99 {:?}; p99 x{ratio:.2}",
            arguments.callers,
            few.rate,
            few.p50,
            few.p99,
            arguments.keys,
            many.rate,
            many.p50,
            many.p99,
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    if let (Some(low), Some(median), Some(high)) =
        (ratios.first(), ratios.get(ratios.len() / 2), ratios.last())
    {
        println!(
            "p99 of {} keys over that of {FEW}: {median:.2} ({low:.2} to {high:.2})",
            arguments.keys
        );
    }
    Ok(())
}

async fn store(dir: &std::path::Path, name: &str, keys: usize) -> Result<KeyStore, Failure> {
    let dir = dir.join(name);
    std::fs::create_dir(&dir)?;
    let store = KeyStore::make(&dir).await?;
    store.fill(0, keys).await?;
    Ok(store)
}

/// Blobs of keys spread over `keys`, in no order.
fn blobs(keys: usize) -> Vec<Vec<u8>> {
    // Odd and prime to what there is: every key comes once before one comes twice.
    let step = 7_368_787;
    let numbers = (0..keys.min(BLOBS)).map(|n| n.wrapping_mul(step) % keys);
    numbers.map(blob).collect()
}

/// Opens a second of CPU time, the cipher alone.
fn cipher(seconds: Duration) -> f64 {
    let (key, blob, context) = (backing_key(0), blob(0), context());
    let started = cpu(ClockId::ThreadCPUTime);
    let mut count = 0_u32;
    loop {
        for _ in 0..1000 {
            let blob = KeyBlob::parse(std::hint::black_box(&blob)).expect("made above");
            std::hint::black_box(blob.open(&key, &context)).expect("made above");
        }
        count += 1000;
        let spent = cpu(ClockId::ThreadCPUTime).saturating_sub(started);
        if spent >= seconds {
            return f64::from(count) / spent.as_secs_f64();
        }
    }
}

struct Run {
    rate: f64,
    rate_of_cpu: f64,
    p50: Duration,
    p99: Duration,
}

/// Callers that open one blob after the other.
async fn run(
    keyring: &Arc<Keyring>,
    blobs: &Arc<Vec<Vec<u8>>>,
    callers: usize,
    seconds: Duration,
) -> Result<Run, Failure> {
    let request = request()?;
    let (started, spent) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (keyring, blobs) = (Arc::clone(keyring), Arc::clone(blobs));
        let request = Arc::clone(&request);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut at = caller * blobs.len() / callers;
            while started.elapsed() < seconds {
                let begun = Instant::now();
                open(&keyring, &request, &blobs[at]).await?;
                latencies.push(begun.elapsed());
                at = (at + 1) % blobs.len();
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        latencies.extend(ended??);
    }
    let (elapsed, spent) = (
        started.elapsed(),
        cpu(ClockId::ProcessCPUTime).saturating_sub(spent),
    );
    latencies.sort_unstable();
    let quantile = |percent: usize| {
        let at = latencies.len() * percent / 100;
        latencies.get(at).copied().unwrap_or_default()
    };
    let count = f64::from(u32::try_from(latencies.len())?);
    Ok(Run {
        rate: count / elapsed.as_secs_f64(),
        rate_of_cpu: count / spent.as_secs_f64(),
        p50: quantile(50),
        p99: quantile(99),
    })
}

async fn open(
    keyring: &Keyring,
    request: &Arc<RequestContext>,
    blob: &[u8],
) -> Result<(), Failure> {
    let target = BlobUse {
        blob,
        key: None,
        context: context(),
    };
    let may = keyring.authorize(Caller::new(request, Via::Api), target);
    std::hint::black_box(keyring.decrypt(may.await?).await?);
    Ok(())
}

fn cpu(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let whole = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(whole, u32::try_from(now.tv_nsec).unwrap_or_default())
}
