//! The rotation of the store key, as a job.
//!
//! The job's input is the generation that it leaves, so that a job taken up again after the rotation had ended, but
//! before its own record said so, does not begin another one. Its cursor is a [`Pass`].

use std::sync::Arc;

use async_trait::async_trait;
use jobs::{
    Advance, JobError, JobId, Jobs, NewJob, Progress, ServicePrincipal, Step, Work, WorkError,
};
use root::{Advanced, Pass, Reseal, RootError, StoreKey};

/// The kind of the job, and what it works on: the one store key.
const KIND: &str = "reseal";
const SUBJECT: &str = "store-key";
/// Pages between two durable cursors: a second or two of work.
const PAGES_A_STEP: usize = 16;

/// A part of the store that holds records sealed under the store key.
pub(crate) struct Part {
    /// What it is called in messages.
    pub(crate) name: &'static str,
    /// Who re-seals its records; `None` if nobody can yet.
    pub(crate) owners: Option<Vec<Arc<dyn Reseal>>>,
}

/// All parts that hold sealed records. **A part that is missing here loses its records at the next rotation.**
pub(crate) struct Parts(pub(crate) Vec<Part>);

/// Parts whose records nobody can re-seal: with them the store key is not rotated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not every part can be re-sealed yet: {}", self.0.join(", "))]
pub(crate) struct CannotReseal(Vec<&'static str>);

impl Parts {
    /// The owners of every record there is.
    pub(crate) fn owners(&self) -> Result<Vec<Arc<dyn Reseal>>, CannotReseal> {
        let without = self.0.iter().filter(|part| part.owners.is_none());
        let without: Vec<&'static str> = without.map(|part| part.name).collect();
        if !without.is_empty() {
            return Err(CannotReseal(without));
        }
        let owners = self.0.iter().filter_map(|part| part.owners.as_ref());
        Ok(owners.flatten().cloned().collect())
    }
}

/// Re-seals everything under a new generation of the store key.
pub(crate) struct RotateStoreKey {
    key: StoreKey,
    owners: Result<Vec<Arc<dyn Reseal>>, CannotReseal>,
}

/// Errors of asking for a rotation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    #[error(transparent)]
    CannotReseal(#[from] CannotReseal),
    #[error(transparent)]
    Job(#[from] JobError),
}

impl RotateStoreKey {
    /// Rotates `key`, under which `parts` are sealed.
    pub(crate) fn new(key: StoreKey, parts: &Parts) -> Self {
        Self {
            key,
            owners: parts.owners(),
        }
    }

    /// The job that rotates the store key: the one under way, or else a new one.
    pub(crate) async fn submit(&self, jobs: &Jobs) -> Result<JobId, RotateError> {
        self.owners.as_ref().map_err(Clone::clone)?;
        let status = self.key.status().await;
        let from = status.previous.unwrap_or(status.generation);
        let submitted = jobs.submit(NewJob {
            kind: KIND,
            principal: ServicePrincipal::of("sealgate"),
            input: from.to_be_bytes().to_vec(),
            subject: SUBJECT.to_owned(),
            rate: None,
        });
        match submitted.await {
            Ok(id) | Err(JobError::Exists(id)) => Ok(id),
            Err(error) => Err(error.into()),
        }
    }

    /// Submits the job again if the header has two generations: one that was cancelled, or whose record was lost,
    /// would leave records under both for ever.
    pub(crate) async fn resume(&self, jobs: &Jobs) -> Result<(), RotateError> {
        if self.key.status().await.previous.is_some() {
            let id = self.submit(jobs).await?;
            tracing::info!(job = %id, "the rotation of the store key goes on");
        }
        Ok(())
    }
}

#[async_trait]
impl Work for RotateStoreKey {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn step(&self, step: &Step<'_>) -> Result<Advance, WorkError> {
        let fail = |why: &str| WorkError::Fail(why.to_owned());
        let from = <[u8; 4]>::try_from(step.input());
        let from = u32::from_be_bytes(from.map_err(|_| fail("the input names no generation"))?);
        let pass = Pass::decode(step.cursor()).ok_or_else(|| fail("the cursor does not read"))?;
        let owners = self.owners.clone();
        let owners = owners.map_err(|error| WorkError::Fail(error.to_string()))?;
        let done = step.progress().done;
        let key = self.key.clone();
        // A task of its own: a change of the header that is dropped half-way leaves it unknown until a restart.
        let step = tokio::spawn(async move { reseal(&key, from, &owners, pass, done).await });
        match step.await {
            Ok(Ok(advance)) => Ok(advance),
            Ok(Err(error @ RootError::Exhausted)) => Err(WorkError::Fail(error.to_string())),
            Ok(Err(error)) => Err(WorkError::Retry(error.to_string())),
            Err(error) => Err(WorkError::Retry(error.to_string())),
        }
    }

    /// Nothing to clean up: both generations stay, and the next rotation goes on with this one.
    async fn undo(&self, _: &Step<'_>) -> Result<(), WorkError> {
        Ok(())
    }
}

/// Some pages of the rotation that leaves `from`.
async fn reseal(
    key: &StoreKey,
    from: u32,
    owners: &[Arc<dyn Reseal>],
    mut pass: Pass,
    mut done: u64,
) -> Result<Advance, RootError> {
    let progress = |done| Progress { done, total: None };
    let status = key.status().await;
    let ours = status.previous.unwrap_or(status.generation);
    if ours != from {
        // It ended, and the step that ended it was not noted.
        return Ok(Advance::Done {
            progress: progress(done),
        });
    }
    let rotation = key.rotate().await?;
    for _ in 0..PAGES_A_STEP {
        match rotation.advance(owners, pass).await? {
            Advanced::Page { next, resealed } => {
                done += resealed;
                pass = next;
            }
            Advanced::Finished => {
                tracing::info!(from, records = done, "the store key is rotated");
                return Ok(Advance::Done {
                    progress: progress(done),
                });
            }
        }
    }
    Ok(Advance::More {
        cursor: pass.encode(),
        progress: progress(done),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, SystemTime};

    use catalogue::{Call, Catalogue, Fault, FaultyCatalogue, MemoryCatalogue, Scope, Table};
    use crypto::random::{Random, SeededRandom};
    use crypto::record::generation_of;
    use host::Clock;
    use host::disk::sim::{Crash, SimDisk};
    use host::entropy::SeededEntropy;
    use jobs::{NoObserver, Outcome, State};
    use root::FileProvider;
    use tokio::sync::watch;

    use super::*;

    /// Jobs of a kind that nobody works on: the records that are re-sealed.
    const OTHERS: usize = 40;

    /// What outlives a process: the disk that the header is on, and the catalogue.
    struct World {
        disk: SimDisk,
        catalogue: Arc<FaultyCatalogue<MemoryCatalogue>>,
        lives: u64,
        began: tokio::time::Instant,
    }

    /// Follows tokio's time, which the tests let jump.
    struct TokioClock(tokio::time::Instant);

    impl Clock for TokioClock {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }
    }

    /// A process.
    struct Life {
        key: StoreKey,
        jobs: Arc<Jobs>,
        rotate: Arc<RotateStoreKey>,
    }

    impl World {
        async fn new() -> Self {
            let memory = Arc::new(MemoryCatalogue::new(catalogue::StoreId([7; 16])));
            let mut world = Self {
                disk: SimDisk::new(3),
                catalogue: Arc::new(FaultyCatalogue::new(memory)),
                lives: 0,
                began: tokio::time::Instant::now(),
            };
            let life = world.start().await.unwrap();
            for n in 0..OTHERS {
                life.jobs
                    .submit(NewJob {
                        kind: "other",
                        principal: ServicePrincipal::of("s3"),
                        input: Vec::new(),
                        subject: n.to_string(),
                        rate: None,
                    })
                    .await
                    .unwrap();
            }
            world
        }

        /// Starts a process; what it opens may refuse.
        async fn start(&mut self) -> Result<Life, RotateError> {
            self.lives += 1;
            let disk: Arc<SimDisk> = Arc::new(self.disk.clone());
            let random: Arc<dyn Random> = Arc::new(SeededRandom::new(self.lives));
            let provider = FileProvider::new("/root.key", disk.clone(), Arc::clone(&random));
            let key = StoreKey::open(root::Options {
                disk,
                dir: "/".into(),
                provider: Arc::new(provider),
                random: Arc::clone(&random),
                may_make: self.lives == 1,
            })
            .await
            .unwrap();
            let catalogue: Arc<dyn Catalogue> = self.catalogue.clone();
            let parts = Parts(vec![Part {
                name: "jobs",
                owners: Some(jobs::owners(&catalogue, &key, &random)),
            }]);
            let rotate = Arc::new(RotateStoreKey::new(key.clone(), &parts));
            let options = jobs::Options {
                catalogue,
                store_key: key.clone(),
                scope: Scope {
                    account: "123456789012".to_owned(),
                    region: "us-east-1".to_owned(),
                },
                clock: Arc::new(TokioClock(self.began)),
                entropy: Arc::new(SeededEntropy::new(self.lives)),
                random,
                observer: Arc::new(NoObserver),
                running_max: 4,
                lease: jobs::Options::LEASE,
                kept: jobs::Options::KEPT,
            };
            let work = Arc::clone(&rotate) as Arc<dyn Work>;
            let jobs = Arc::new(Jobs::new(options, vec![work]));
            rotate.resume(&jobs).await?;
            Ok(Life { key, jobs, rotate })
        }

        /// Every record that there is opens, is under the newest generation, and that is the only one.
        async fn check(&self, life: &Life, why: &str) {
            let status = life.key.status().await;
            assert_eq!(status.previous, None, "{why}");
            let listed = life.jobs.list(None, 1000).await.unwrap().jobs;
            let others = listed.iter().filter(|job| job.kind == "other").count();
            assert_eq!(others, OTHERS, "{why}");
            for table in [Table::new("job"), Table::new("job-subject")] {
                let page = self.catalogue.page(table, None, None, 1000).await.unwrap();
                assert!(page.records.len() >= OTHERS, "{why}");
                for record in page.records {
                    let key = life.key.table(table.name());
                    key.open(&record.place(table), &record.sealed).unwrap();
                    assert_eq!(
                        generation_of(&record.sealed),
                        Ok(status.generation),
                        "{why}"
                    );
                }
            }
        }
    }

    impl Life {
        /// Works on jobs until all that can be worked on has ended, or the process dies of `dead`.
        async fn run(&self, dead: impl Fn() -> bool) -> bool {
            let stop = watch::Sender::new(false);
            let mut runner = tokio::spawn(Arc::clone(&self.jobs).run(stop.subscribe()));
            loop {
                tokio::select! {
                    ended = &mut runner => {
                        assert!(ended.unwrap().is_err(), "only an error ends it");
                        return false;
                    }
                    () = tokio::time::sleep(Duration::from_millis(2)) => {}
                }
                let open = match self.jobs.list(None, 1000).await {
                    Ok(page) if !dead() => page
                        .jobs
                        .into_iter()
                        .any(|job| job.kind == KIND && !matches!(job.state, State::Ended(_))),
                    // As `kill -9` does.
                    _ => {
                        runner.abort();
                        let _ = runner.await;
                        return false;
                    }
                };
                if !open {
                    stop.send_replace(true);
                    runner.await.unwrap().unwrap();
                    return true;
                }
            }
        }
    }

    async fn outcome(life: &Life) -> Vec<(Outcome, u64)> {
        let jobs = life.jobs.list(None, 1000).await.unwrap().jobs;
        let rotations = jobs.into_iter().filter(|job| job.kind == KIND);
        rotations
            .map(|job| match job.state {
                State::Ended(outcome) => (outcome, job.progress.done),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotation_re_seals_every_record_and_leaves_one_generation() {
        let mut world = World::new().await;
        let life = world.start().await.unwrap();
        let id = life.rotate.submit(&life.jobs).await.unwrap();
        let again = life.rotate.submit(&life.jobs).await.unwrap();
        assert_eq!(again, id, "the one under way is named");
        assert!(life.run(|| false).await);
        world.check(&life, "").await;
        assert_eq!(life.key.status().await.generation, 2);
        let ended = outcome(&life).await;
        let records = 2 * OTHERS as u64;
        assert!(
            matches!(ended[..], [(Outcome::Done, n)] if n >= records),
            "{ended:?}"
        );
        // The next is another one.
        assert_ne!(life.rotate.submit(&life.jobs).await.unwrap(), id);
        assert!(life.run(|| false).await);
        world.check(&life, "").await;
        assert_eq!(life.key.status().await.generation, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn killed_at_any_commit_it_goes_on_after_a_restart() {
        for fault in [Fault::UnknownDone, Fault::UnknownNotDone] {
            for n in 1.. {
                let mut world = World::new().await;
                let life = world.start().await.unwrap();
                world.catalogue.fail(Call::Commit, n, fault);
                let submitted = life.rotate.submit(&life.jobs).await.is_ok();
                if submitted {
                    life.run(|| false).await;
                }
                let why = format!("{fault:?} at commit {n}");
                let failed = world.catalogue.has_failed();
                world.catalogue.reopen();
                tokio::time::sleep(Duration::from_secs(31)).await;
                let life = world.start().await.unwrap();
                assert!(life.run(|| false).await, "{why}");
                world.check(&life, &why).await;
                let ended = outcome(&life).await;
                let all_done = ended.iter().all(|(outcome, _)| *outcome == Outcome::Done);
                assert!(all_done, "{why}: {ended:?}");
                let generation = life.key.status().await.generation;
                let asked = submitted || !ended.is_empty();
                assert_eq!(generation, if asked { 2 } else { 1 }, "{why}");
                if !failed {
                    assert!(n > 8, "{n} commits are too few");
                    break;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn killed_at_any_write_of_the_header_it_goes_on_after_a_restart() {
        for crash in [Crash::Process, Crash::Power] {
            for calls in 0.. {
                let mut world = World::new().await;
                let life = world.start().await.unwrap();
                world.disk.stop_after(calls);
                life.rotate.submit(&life.jobs).await.unwrap();
                let disk = world.disk.clone();
                let survived = life.run(|| disk.is_down()).await;
                drop(life);
                let why = format!("{crash:?} after {calls} calls of the disk");
                world.disk.restart(crash);
                tokio::time::sleep(Duration::from_secs(31)).await;
                let life = world.start().await.unwrap();
                assert!(life.run(|| false).await, "{why}");
                world.check(&life, &why).await;
                assert_eq!(life.key.status().await.generation, 2, "{why}");
                if survived {
                    assert!(calls > 8, "{calls} calls are too few");
                    break;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_rotation_leaves_both_generations_and_the_next_start_goes_on() {
        let mut world = World::new().await;
        let life = world.start().await.unwrap();
        let rotation = life.key.rotate().await.unwrap();
        assert_eq!(rotation.old_generation(), 1);
        let id = life.rotate.submit(&life.jobs).await.unwrap();
        life.jobs.cancel(id).await.unwrap();
        assert!(life.run(|| false).await);
        assert_eq!(outcome(&life).await[0].0, Outcome::Cancelled);
        assert_eq!(life.key.status().await.previous, Some(1));
        drop(life);
        let life = world.start().await.unwrap();
        assert!(life.run(|| false).await);
        world.check(&life, "").await;
        assert_eq!(life.key.status().await.generation, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_nobody_can_re_seal_refuses_the_rotation() {
        let mut world = World::new().await;
        let life = world.start().await.unwrap();
        let part = |name, owners| Part { name, owners };
        let parts = Parts(vec![
            part("jobs", Some(Vec::new())),
            part("volumes", None),
            part("objects", None),
        ]);
        let rotate = RotateStoreKey::new(life.key.clone(), &parts);
        let refused = rotate.submit(&life.jobs).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "not every part can be re-sealed yet: volumes, objects"
        );
        assert_eq!(life.key.status().await.generation, 1);
    }
}
