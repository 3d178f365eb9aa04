//! Jobs on a catalogue in memory: leases, retries, cancelling, crashes. Time is tokio's, paused.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use catalogue::{Call, Catalogue, Fault, FaultyCatalogue, MemoryCatalogue, Scope, StoreId};
use crypto::random::SeededRandom;
use host::{Clock, disk::sim::SimDisk, entropy::SeededEntropy};
use jobs::{
    Advance, JobError, JobId, Jobs, NewJob, NoObserver, Options, Outcome, Progress, RateLimit,
    ServicePrincipal, State, Step, Work, WorkError,
};
use parking_lot::Mutex;
use root::{FileProvider, StoreKey};
use tokio::{sync::watch, task::JoinHandle};

/// Follows tokio's time, so that it stands still and jumps with it.
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

const SCOPE: (&str, &str) = ("123456789012", "us-east-1");
const LEASE: Duration = Duration::from_secs(30);

/// One store, and any number of processes on it.
struct World {
    catalogue: Arc<dyn Catalogue>,
    store_key: StoreKey,
    clock: Arc<TokioClock>,
    processes: AtomicU64,
}

impl World {
    async fn new() -> Self {
        Self::on(Arc::new(MemoryCatalogue::new(StoreId([7; 16])))).await
    }

    async fn on(catalogue: Arc<dyn Catalogue>) -> Self {
        let (disk, random) = (Arc::new(SimDisk::new(1)), Arc::new(SeededRandom::new(99)));
        let provider = FileProvider::new("/root.key", disk.clone(), random.clone());
        let options = root::Options {
            disk,
            dir: "/".into(),
            provider: Arc::new(provider),
            random,
            may_make: true,
        };
        Self {
            catalogue,
            store_key: StoreKey::open(options).await.unwrap(),
            clock: Arc::new(TokioClock(tokio::time::Instant::now())),
            processes: AtomicU64::new(0),
        }
    }

    fn since(&self, moment: Duration) -> Duration {
        self.clock.elapsed().saturating_sub(moment)
    }

    fn process(&self, work: &Arc<Count>) -> Process {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let options = Options {
            catalogue: Arc::clone(&self.catalogue),
            store_key: self.store_key.clone(),
            scope: Scope {
                account: SCOPE.0.to_owned(),
                region: SCOPE.1.to_owned(),
            },
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(1000 + number)),
            random: Arc::new(SeededRandom::new(number)),
            observer: Arc::new(NoObserver),
            running_max: Options::RUNNING_MAX,
            lease: LEASE,
            kept: Options::KEPT,
        };
        let work = Arc::clone(work) as Arc<dyn Work>;
        Process {
            jobs: Arc::new(Jobs::new(options, vec![work])),
            stop: watch::Sender::new(false),
            runner: None,
        }
    }
}

struct Process {
    jobs: Arc<Jobs>,
    stop: watch::Sender<bool>,
    runner: Option<JoinHandle<Result<(), JobError>>>,
}

impl Process {
    fn run(mut self) -> Self {
        let stop = self.stop.subscribe();
        self.runner = Some(tokio::spawn(Arc::clone(&self.jobs).run(stop)));
        self
    }

    /// As an orderly end does.
    async fn stop(self) {
        self.stop.send_replace(true);
        self.runner.unwrap().await.unwrap().unwrap();
    }

    /// As `kill -9` does.
    async fn kill(self) {
        let runner = self.runner.unwrap();
        runner.abort();
        let _ = runner.await;
    }
}

/// Counts to the number that is its input, one a step, a second each.
#[derive(Default)]
struct Count {
    /// How often each step of each job was done.
    done: Mutex<HashMap<(JobId, u64), u32>>,
    undone: Mutex<HashMap<JobId, u32>>,
    /// Jobs that a step of is under way.
    busy: Mutex<HashMap<JobId, u32>>,
    overlapped: AtomicBool,
    /// Steps that fail first: so often, as this says.
    fails: Mutex<HashMap<u64, Vec<WorkError>>>,
    undo_fails: AtomicU64,
    panics: AtomicBool,
}

struct Busy<'a>(&'a Count, JobId);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *self.0.busy.lock().get_mut(&self.1).unwrap() -= 1;
    }
}

impl Count {
    fn enter(&self, job: JobId) -> Busy<'_> {
        let mut busy = self.busy.lock();
        let count = busy.entry(job).or_default();
        *count += 1;
        if *count > 1 {
            self.overlapped.store(true, Ordering::Relaxed);
        }
        Busy(self, job)
    }

    fn times(&self, job: JobId, step: u64) -> u32 {
        self.done.lock().get(&(job, step)).copied().unwrap_or(0)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

#[async_trait]
impl Work for Count {
    fn kind(&self) -> &'static str {
        "count"
    }

    async fn step(&self, step: &Step<'_>) -> Result<Advance, WorkError> {
        let _busy = self.enter(step.job());
        let at = number(step.cursor());
        assert_eq!(
            step.progress().done,
            at,
            "cursor and progress belong together"
        );
        assert_eq!(step.principal().as_str(), "ec2.amazonaws.com");
        step.take(10).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if self.panics.swap(false, Ordering::Relaxed) {
            panic!("a step panics, as the test wants");
        }
        if let Some(error) = self.fails.lock().get_mut(&at).and_then(Vec::pop) {
            return Err(error);
        }
        *self.done.lock().entry((step.job(), at)).or_default() += 1;
        let progress = Progress {
            done: at + 1,
            total: Some(number(step.input())),
        };
        if at + 1 == number(step.input()) {
            return Ok(Advance::Done { progress });
        }
        Ok(Advance::More {
            cursor: (at + 1).to_be_bytes().to_vec(),
            progress,
        })
    }

    async fn undo(&self, step: &Step<'_>) -> Result<(), WorkError> {
        let _busy = self.enter(step.job());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let left = self.undo_fails.load(Ordering::Relaxed);
        if left > 0 {
            self.undo_fails.store(left - 1, Ordering::Relaxed);
            return Err(WorkError::Fail("not yet".to_owned()));
        }
        *self.undone.lock().entry(step.job()).or_default() += 1;
        Ok(())
    }
}

fn count_to(end: u64, subject: &str) -> NewJob {
    NewJob {
        kind: "count",
        principal: ServicePrincipal::of("ec2"),
        input: end.to_be_bytes().to_vec(),
        subject: subject.to_owned(),
        rate: None,
    }
}

async fn ended(jobs: &Jobs, id: JobId) -> Outcome {
    tokio::time::timeout(Duration::from_secs(7200), jobs.wait(id))
        .await
        .expect("the job ends within two hours of paused time")
        .unwrap()
}

/// Lets time pass in small pieces, as long as `until` does not hold.
async fn pass(until: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if until() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come to that");
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_from_cursor_to_cursor_to_its_end() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let process = world.process(&work).run();
    let id = process.jobs.submit(count_to(5, "vol-1")).await.unwrap();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
    assert!((0..5).all(|step| work.times(id, step) == 1));
    let job = process.jobs.get(id).await.unwrap();
    assert_eq!(job.progress.done, 5);
    assert_eq!(job.state, State::Ended(Outcome::Done));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_can_do_waits_for_a_process_that_can() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let process = world.process(&work);
    let id = process.jobs.submit(count_to(1, "vol-1")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(process.jobs.get(id).await.unwrap().state, State::Waiting);
    let process = process.run();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_another_process_goes_on_from_the_last_cursor() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let first = world.process(&work).run();
    let id = first.jobs.submit(count_to(6, "vol-1")).await.unwrap();
    pass(|| work.times(id, 2) == 1).await;
    first.kill().await;
    let killed = world.clock.elapsed();
    let second = world.process(&work).run();
    assert_eq!(ended(&second.jobs, id).await, Outcome::Done);
    assert!((0..2).all(|step| work.times(id, step) == 1));
    assert!((3..6).all(|step| work.times(id, step) == 1));
    assert!(work.times(id, 2) <= 2, "what a kill repeats is one step");
    let waited = world.since(killed);
    assert!(waited < 3 * LEASE, "taken over after {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_gives_the_lease_back() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let first = world.process(&work).run();
    let id = first.jobs.submit(count_to(6, "vol-1")).await.unwrap();
    pass(|| work.times(id, 2) == 1).await;
    first.stop().await;
    let stopped = world.clock.elapsed();
    let second = world.process(&work).run();
    assert_eq!(second.jobs.get(id).await.unwrap().state, State::Waiting);
    assert_eq!(ended(&second.jobs, id).await, Outcome::Done);
    let took = world.since(stopped);
    assert!(took < LEASE / 2, "gone on with after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_cancelled_from_another_process_is_cleaned_up_and_ends() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let worker = world.process(&work).run();
    let other = world.process(&work);
    let id = other.jobs.submit(count_to(1000, "vol-1")).await.unwrap();
    pass(|| work.times(id, 3) == 1).await;
    work.undo_fails.store(2, Ordering::Relaxed);
    other.jobs.cancel(id).await.unwrap();
    other.jobs.cancel(id).await.unwrap();
    let state = other.jobs.get(id).await.unwrap().state;
    assert_eq!(state, State::Cancelling);
    let cancelled = world.clock.elapsed();
    assert_eq!(ended(&other.jobs, id).await, Outcome::Cancelled);
    assert!(world.since(cancelled) < LEASE);
    assert_eq!(work.undone.lock()[&id], 1);
    assert!(work.times(id, 30) == 0, "it was dropped at once");
    let again = other.jobs.cancel(id).await.unwrap_err();
    assert!(matches!(again, JobError::Ended(ended) if ended == id));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_cancelled_while_nobody_works_on_it_is_cleaned_up_later() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let process = world.process(&work);
    let id = process.jobs.submit(count_to(3, "vol-1")).await.unwrap();
    process.jobs.cancel(id).await.unwrap();
    let process = process.run();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Cancelled);
    assert_eq!(work.times(id, 0), 0);
    assert_eq!(work.undone.lock()[&id], 1);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_is_tried_again_later_and_later() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let retry = || WorkError::Retry("the disk is full".to_owned());
    work.fails.lock().insert(1, vec![retry(), retry(), retry()]);
    let process = world.process(&work).run();
    let id = process.jobs.submit(count_to(3, "vol-1")).await.unwrap();
    pass(|| work.fails.lock()[&1].len() == 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let job = process.jobs.get(id).await.unwrap();
    assert_eq!(job.last_failure.as_deref(), Some("the disk is full"));
    assert_eq!((job.failures, job.state), (1, State::Waiting));
    let began = world.clock.elapsed();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
    // Waits of 1, 2 and 4 s, each give or take a half.
    let took = world.since(began);
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(30),
        "{took:?}"
    );
    assert_eq!(process.jobs.get(id).await.unwrap().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_cannot_succeed_ends_the_job_after_cleaning_up() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let why = "the key is disabled".to_owned();
    work.fails
        .lock()
        .insert(1, vec![WorkError::Fail(why.clone())]);
    let process = world.process(&work).run();
    let id = process.jobs.submit(count_to(3, "vol-1")).await.unwrap();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Failed(why));
    assert_eq!(work.undone.lock()[&id], 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_step() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    work.panics.store(true, Ordering::Relaxed);
    let process = world.process(&work).run();
    let id = process.jobs.submit(count_to(2, "vol-1")).await.unwrap();
    pass(|| !work.panics.load(Ordering::Relaxed)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(process.jobs.get(id).await.unwrap().failures, 1);
    assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn of_a_kind_one_job_at_a_time_works_on_a_subject() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let process = world.process(&work).run();
    let id = process.jobs.submit(count_to(3, "vol-1")).await.unwrap();
    let error = process.jobs.submit(count_to(3, "vol-1")).await.unwrap_err();
    assert!(
        matches!(error, JobError::Exists(other) if other == id),
        "{error}"
    );
    let other = process.jobs.submit(count_to(3, "vol-2")).await.unwrap();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
    assert_eq!(ended(&process.jobs, other).await, Outcome::Done);
    process.jobs.submit(count_to(3, "vol-1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_on_the_injected_clock() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let process = world.process(&work).run();
    let mut new = count_to(20, "vol-1");
    // Ten units a step, and a step takes a second by itself.
    new.rate = RateLimit::per_second(2);
    let began = world.clock.elapsed();
    let id = process.jobs.submit(new).await.unwrap();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
    let took = world.since(began).as_secs();
    assert!(
        (95..=125).contains(&took),
        "200 units at 2 a second took {took} s"
    );
}

#[tokio::test(start_paused = true)]
async fn many_processes_share_the_jobs_and_no_two_work_on_one() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let processes: Vec<_> = (0..3).map(|_| world.process(&work).run()).collect();
    let mut ids = Vec::new();
    for subject in 0..20 {
        let new = count_to(3, &format!("vol-{subject}"));
        ids.push(processes[subject % 3].jobs.submit(new).await.unwrap());
    }
    for id in &ids {
        assert_eq!(ended(&processes[0].jobs, *id).await, Outcome::Done);
        assert!((0..3).all(|step| work.times(*id, step) == 1));
    }
    assert!(!work.overlapped.load(Ordering::Relaxed));
    let page = processes[1].jobs.list(None, 15).await.unwrap();
    let rest = processes[1].jobs.list(page.next, 15).await.unwrap();
    let mut listed: Vec<_> = page
        .jobs
        .iter()
        .chain(&rest.jobs)
        .map(|job| job.id)
        .collect();
    assert_eq!((listed.len(), rest.next), (20, None));
    listed.sort();
    ids.sort();
    assert_eq!(listed, ids);
}

#[tokio::test(start_paused = true)]
async fn an_ended_job_is_forgotten_after_its_time() {
    let (world, work) = (World::new().await, Arc::new(Count::default()));
    let process = world.process(&work).run();
    let id = process.jobs.submit(count_to(1, "vol-1")).await.unwrap();
    assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
    tokio::time::sleep(Options::KEPT.saturating_sub(Duration::from_secs(60))).await;
    assert!(process.jobs.get(id).await.is_ok());
    tokio::time::sleep(Duration::from_secs(180)).await;
    let error = process.jobs.get(id).await.unwrap_err();
    assert!(matches!(error, JobError::NotFound(_)), "{error}");
}

/// Each commit in turn fails, in each way it can, and the process is started anew where it stopped.
#[tokio::test(start_paused = true)]
async fn a_failure_of_the_catalogue_at_any_commit_loses_no_step_and_no_job() {
    for fault in [
        Fault::Unavailable,
        Fault::Full,
        Fault::UnknownDone,
        Fault::UnknownNotDone,
    ] {
        // The lease, three cursors, the end.
        for nth in 1..=5 {
            let memory = Arc::new(MemoryCatalogue::new(StoreId([7; 16])));
            let faulty = Arc::new(FaultyCatalogue::new(memory));
            let world = World::on(Arc::clone(&faulty) as Arc<dyn Catalogue>).await;
            let work = Arc::new(Count::default());
            let mut process = world.process(&work);
            let id = process.jobs.submit(count_to(4, "vol-1")).await.unwrap();
            faulty.fail(Call::Commit, nth, fault);
            process = process.run();
            for _ in 0..3 {
                let wait = process.jobs.wait(id);
                match tokio::time::timeout(Duration::from_secs(600), wait).await {
                    Ok(Ok(outcome)) => {
                        assert_eq!(outcome, Outcome::Done, "{fault:?} {nth}");
                        break;
                    }
                    // It stopped, or waits for a process: as after a restart.
                    _ => {
                        process.kill().await;
                        faulty.reopen();
                        process = world.process(&work).run();
                    }
                }
            }
            assert!(faulty.has_failed(), "{fault:?} {nth}: it happened");
            let job = process.jobs.get(id).await.unwrap();
            assert_eq!(job.state, State::Ended(Outcome::Done), "{fault:?} {nth}");
            for step in 0..4 {
                let times = work.times(id, step);
                assert!(
                    (1..=2).contains(&times),
                    "{fault:?} {nth}: step {step} {times} times"
                );
            }
            process.jobs.submit(count_to(1, "vol-1")).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_go_on_and_end_while_the_store_key_is_rotated_under_them() {
    let world = World::new().await;
    let work = Arc::new(Count::default());
    let process = world.process(&work).run();
    let submit = async |subject: String| process.jobs.submit(count_to(20, &subject)).await.unwrap();
    let mut jobs = Vec::new();
    for subject in 0..20 {
        jobs.push(submit(subject.to_string()).await);
    }
    let random: Arc<dyn crypto::random::Random> = Arc::new(SeededRandom::new(5));
    let owners = jobs::owners(&world.catalogue, &world.store_key, &random);
    for generation in 2..5 {
        let rotation = world.store_key.rotate().await.unwrap();
        let mut kept = root::Pass::default();
        while let root::Advanced::Page { next, .. } = rotation.advance(&owners, kept).await.unwrap()
        {
            kept = next;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let status = world.store_key.status().await;
        assert_eq!((status.generation, status.previous), (generation, None));
    }
    for id in jobs {
        assert_eq!(ended(&process.jobs, id).await, Outcome::Done);
        for step in 0..20 {
            assert_eq!(work.times(id, step), 1, "{id} {step}");
        }
    }
    // Each gave its subject up, though that record was written anew meanwhile.
    for subject in 0..20 {
        submit(subject.to_string()).await;
    }
    process.stop().await;
}
