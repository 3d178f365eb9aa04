//! Working on jobs: finding what is due, leasing it, step after step.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use catalogue::{CatalogueError, Sequence};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::{self, JoinSet},
};

use crate::{
    error::{JobError, WorkError},
    job::{JobId, Outcome},
    queue::{INPUT_LEN_MAX, Jobs, Written},
    rate::Bucket,
    record::{Lease, Stored, TABLE, millis},
    work::{Advance, Step, Work},
};

/// Jobs read at a time.
const PAGE: usize = 200;
/// A failed step is tried again after this, doubled with each failure in a row.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Doublings at most: about 17 minutes.
const RETRY_DOUBLINGS_MAX: u32 = 10;
/// After the catalogue failed, it is asked again no sooner.
const CATALOGUE_PAUSE: Duration = Duration::from_secs(1);

/// Open jobs that this process could work on, and when (milliseconds since 1970).
type Due = BTreeMap<JobId, u64>;

/// The tasks of this process, and which job each works on.
#[derive(Default)]
struct Tasks {
    set: JoinSet<()>,
    jobs: HashMap<task::Id, JobId>,
}

/// How a step ended, or why it did not.
enum Ending {
    Advanced(Advance),
    Undone,
    Failed(WorkError),
    /// The job was cancelled meanwhile: its record says so.
    Cancelled,
    /// Another process has the job now.
    Lost,
    /// This process stops.
    Stopping,
}

impl Jobs {
    /// Works on jobs until `stop` says true or its sender is gone. At the end each step under way is dropped and its
    /// lease given back, so that another process, or this one after a restart, goes on at once.
    ///
    /// Fails when the catalogue has stopped.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) -> Result<(), JobError> {
        let mut tasks = Tasks::default();
        let result = self.schedule(&mut stop, &mut tasks).await;
        if result.is_err() {
            tasks.set.abort_all();
        }
        // They see `stop` too; a lease that could not be given back ends by itself.
        while tasks.set.join_next().await.is_some() {}
        result
    }

    async fn schedule(
        self: &Arc<Self>,
        stop: &mut watch::Receiver<bool>,
        tasks: &mut Tasks,
    ) -> Result<(), JobError> {
        let (mut since, mut due) = self.look_until_there(stop).await?;
        let mut looked = self.clock.elapsed();
        loop {
            if *stop.borrow() {
                return Ok(());
            }
            self.start_due(&due, stop, tasks);
            let wake = self.next_wake(&due, looked);
            tokio::select! {
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() {
                        return Ok(());
                    }
                }
                Some(ended) = tasks.set.join_next_with_id() => {
                    let task = match &ended {
                        Ok((task, ())) => *task,
                        Err(error) => error.id(),
                    };
                    if let Some(id) = tasks.jobs.remove(&task) {
                        if ended.is_err() {
                            self.panicked(id).await?;
                        }
                        self.reconsider(id, &mut due).await?;
                    }
                }
                now = self.catalogue.wait(since) => match now {
                    Ok(_) => match self.follow(since, &mut due).await {
                        Ok(upto) => since = upto,
                        Err(JobError::Catalogue(CatalogueError::Trimmed)) => {
                            (since, due) = self.look_until_there(stop).await?;
                            looked = self.clock.elapsed();
                        }
                        Err(error) => self.bear(error).await?,
                    },
                    Err(error) => self.bear(error.into()).await?,
                },
                () = tokio::time::sleep(wake) => {
                    if self.clock.elapsed().saturating_sub(looked) >= self.lease {
                        (since, due) = self.look_until_there(stop).await?;
                        looked = self.clock.elapsed();
                    }
                }
            }
        }
    }

    /// Waits out an error that may pass; returns one that will not.
    async fn bear(&self, error: JobError) -> Result<(), JobError> {
        match error {
            JobError::Catalogue(CatalogueError::Unavailable(_) | CatalogueError::Full) => {
                tracing::warn!(%error, "jobs: the catalogue does not answer");
                tokio::time::sleep(CATALOGUE_PAUSE).await;
                Ok(())
            }
            JobError::Damaged { .. } => {
                // It stops that job alone.
                tracing::error!(%error, "a job cannot be worked on");
                Ok(())
            }
            error => Err(error),
        }
    }

    async fn look_until_there(
        &self,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(Sequence, Due), JobError> {
        loop {
            match self.look().await {
                Ok(found) => return Ok(found),
                Err(_) if *stop.borrow() => return Ok((Sequence(0), Due::new())),
                Err(error) => self.bear(error).await?,
            }
        }
    }

    /// Reads every job; forgets those that ended long ago.
    async fn look(&self) -> Result<(Sequence, Due), JobError> {
        // Asked first: what is written while the pages are read is looked at again.
        let since = self.catalogue.sequence().await?;
        let now = millis(self.clock.now());
        let kept = u64::try_from(self.kept.as_millis()).unwrap_or(u64::MAX);
        let mut due = Due::new();
        let mut after = None;
        loop {
            let page = self
                .catalogue
                .page(TABLE, Some(&self.vault.scope), after.as_ref(), PAGE)
                .await?;
            for record in &page.records {
                match self.vault.open(record) {
                    Ok(stored)
                        if stored.record.ended.is_some()
                            && stored.record.updated.saturating_add(kept) < now =>
                    {
                        self.forget(&stored).await?;
                    }
                    Ok(stored) => self.consider(&stored, &mut due),
                    Err(error) => self.bear(error).await?,
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((since, due)),
            }
        }
    }

    /// Looks again at what was changed since.
    async fn follow(&self, mut since: Sequence, due: &mut Due) -> Result<Sequence, JobError> {
        loop {
            let changes = self.catalogue.changes(since, PAGE).await?;
            for changed in &changes.changes {
                if changed.table != TABLE.name() || changed.key.scope != self.vault.scope {
                    continue;
                }
                if let Some(id) = JobId::from_bytes(&changed.key.id)
                    && !self.running.lock().contains_key(&id)
                {
                    self.reconsider(id, due).await?;
                }
            }
            if changes.upto <= since {
                return Ok(since);
            }
            since = changes.upto;
        }
    }

    async fn reconsider(&self, id: JobId, due: &mut Due) -> Result<(), JobError> {
        due.remove(&id);
        match self.stored(id).await {
            Ok(Some(stored)) => self.consider(&stored, due),
            Ok(None) => {}
            Err(error) => {
                self.bear(error).await?;
                // Looked at again when its time has come.
                due.insert(id, millis(self.clock.now()).saturating_add(1000));
            }
        }
        Ok(())
    }

    fn consider(&self, stored: &Stored, due: &mut Due) {
        let record = &stored.record;
        if record.ended.is_some() || !self.works.contains_key(record.kind.as_str()) {
            return;
        }
        let until = match record.lease {
            // An own lease that no task here holds is left from a task that failed.
            Some(lease) if lease.holder != self.holder => lease.until,
            _ => 0,
        };
        due.insert(stored.id, record.not_before.max(until));
    }

    /// How long to sleep: until the next job is due, and no longer than a lease from the last look at all of them.
    fn next_wake(&self, due: &Due, looked: Duration) -> Duration {
        let running = self.running.lock();
        let now = millis(self.clock.now());
        let next_look = (looked + self.lease).saturating_sub(self.clock.elapsed());
        let waiting = due.iter().filter(|(id, _)| !running.contains_key(id));
        let next_due = if running.len() >= self.running_max {
            None
        } else {
            waiting
                .map(|(_, at)| Duration::from_millis(at.saturating_sub(now)))
                .min()
        };
        // Never zero: what could not be started now is not tried in a loop without a pause.
        next_due
            .unwrap_or(next_look)
            .min(next_look)
            .max(Duration::from_millis(10))
    }

    fn start_due(self: &Arc<Self>, due: &Due, stop: &watch::Receiver<bool>, tasks: &mut Tasks) {
        let now = millis(self.clock.now());
        let mut running = self.running.lock();
        for (&id, _) in due.iter().filter(|(_, at)| **at <= now) {
            if running.len() >= self.running_max {
                return;
            }
            if running.contains_key(&id) {
                continue;
            }
            let interrupt = Arc::new(Notify::new());
            running.insert(id, Arc::clone(&interrupt));
            let (jobs, stop) = (Arc::clone(self), stop.clone());
            let task = tasks.set.spawn(async move {
                let _running = Running { jobs: &jobs, id };
                if let Err(error) = jobs.work_on(id, &interrupt, stop).await {
                    tracing::warn!(job = %id, %error, "work on a job stopped");
                }
            });
            tasks.jobs.insert(task.id(), id);
        }
    }

    /// Takes the job's lease and does step after step, until it ends, fails, or is not this process's any more.
    async fn work_on(
        &self,
        id: JobId,
        interrupt: &Notify,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), JobError> {
        let Some(mut stored) = self.stored(id).await? else {
            return Ok(());
        };
        let Some(work) = self.works.get(stored.record.kind.as_str()) else {
            return Ok(());
        };
        let now = millis(self.clock.now());
        let record = &mut stored.record;
        let taken = record
            .lease
            .is_some_and(|lease| lease.holder != self.holder && lease.until > now);
        if record.ended.is_some() || taken || record.not_before > now {
            return Ok(());
        }
        record.lease = Some(self.lease_from(now));
        if self.put(&mut stored).await? == Written::Lost {
            return Ok(());
        }
        self.observer.started(work.kind());
        let outcome = self
            .steps(&mut stored, work.as_ref(), interrupt, &mut stop)
            .await;
        self.observer
            .stopped(work.kind(), stored.record.ended.as_ref());
        outcome
    }

    async fn steps(
        &self,
        stored: &mut Stored,
        work: &dyn Work,
        interrupt: &Notify,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), JobError> {
        let rate = stored.record.rate;
        let bucket = rate.map(|rate| Mutex::new(Bucket::new(rate, self.clock.as_ref())));
        loop {
            let ending = self
                .one_step(stored, work, bucket.as_ref(), interrupt, stop)
                .await?;
            let written = match ending {
                Ending::Lost => return Ok(()),
                Ending::Cancelled => continue,
                Ending::Stopping => {
                    self.write(stored, |record| record.lease = None).await?;
                    return Ok(());
                }
                Ending::Advanced(Advance::More { cursor, progress }) => {
                    if cursor.len() > INPUT_LEN_MAX {
                        let why = format!("a cursor of {} bytes is too long", cursor.len());
                        self.write(stored, |record| {
                            record.undoing.get_or_insert(Outcome::Failed(why.clone()));
                        })
                        .await?
                    } else {
                        let before = stored.record.progress.done;
                        let lease = self.lease_from(millis(self.clock.now()));
                        let written = self
                            .write(stored, |record| {
                                record.cursor.clone_from(&cursor);
                                record.progress = progress;
                                record.lease = Some(lease);
                                record.failures = 0;
                                record.last_failure = None;
                            })
                            .await?;
                        let units = progress.done.saturating_sub(before);
                        self.observer.advanced(work.kind(), units);
                        written
                    }
                }
                Ending::Advanced(Advance::Done { progress }) => {
                    let written = self
                        .write(stored, |record| {
                            record.progress = progress;
                            // Cancelled while its last step ended: what is done is done.
                            record.undoing = None;
                            record.lease = None;
                            record.ended = Some(Outcome::Done);
                        })
                        .await?;
                    return self.ended(stored, written);
                }
                Ending::Undone => {
                    let written = self
                        .write(stored, |record| {
                            record.lease = None;
                            record.ended = record.undoing.clone();
                        })
                        .await?;
                    return self.ended(stored, written);
                }
                Ending::Failed(WorkError::Fail(why)) if stored.record.undoing.is_none() => {
                    self.write(stored, |record| {
                        record.undoing.get_or_insert(Outcome::Failed(why.clone()));
                        record.last_failure = Some(why.clone());
                    })
                    .await?
                }
                // What cannot be cleaned up after is tried again: it may not be left behind.
                Ending::Failed(WorkError::Retry(why) | WorkError::Fail(why)) => {
                    self.observer.retried(work.kind());
                    return self.put_off(stored, why).await;
                }
            };
            if written == Written::Lost {
                return Ok(());
            }
        }
    }

    /// Gives the lease back and notes the failure; the job is due again later, the more failures the later.
    async fn put_off(&self, stored: &mut Stored, why: String) -> Result<(), JobError> {
        let doublings = stored.record.failures.min(RETRY_DOUBLINGS_MAX);
        let wait = self.entropy.jitter(RETRY_FIRST * (1 << doublings));
        let not_before = millis(self.clock.now() + wait);
        self.write(stored, |record| {
            record.failures = record.failures.saturating_add(1);
            record.last_failure = Some(why.clone());
            record.not_before = not_before;
            record.lease = None;
        })
        .await?;
        tracing::info!(job = %stored.id, why, ?wait, "a job's step failed and is tried again");
        Ok(())
    }

    /// A step that panicked is a failed one: without this the job would be taken up again at once, for ever.
    async fn panicked(&self, id: JobId) -> Result<(), JobError> {
        match self.stored(id).await {
            Ok(Some(mut stored))
                if stored.record.lease.is_some_and(|l| l.holder == self.holder) =>
            {
                let put_off = self.put_off(&mut stored, "its step panicked".to_owned());
                match put_off.await {
                    Ok(()) => Ok(()),
                    Err(error) => self.bear(error).await,
                }
            }
            Ok(_) => Ok(()),
            Err(error) => self.bear(error).await,
        }
    }

    fn ended(&self, stored: &Stored, written: Written) -> Result<(), JobError> {
        if written == Written::Yes {
            let record = stored.record.job(stored.id, 0);
            tracing::info!(job = %stored.id, kind = record.kind, subject = record.subject, state = record.state.as_str(), "job ended");
        }
        Ok(())
    }

    /// Does one step, or cleans up, renewing the lease meanwhile.
    async fn one_step(
        &self,
        stored: &mut Stored,
        work: &dyn Work,
        bucket: Option<&Mutex<Bucket>>,
        interrupt: &Notify,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Ending, JobError> {
        // The step reads its own copy: the record is renewed while it runs.
        let record = stored.record.clone();
        let step = Step {
            id: stored.id,
            principal: &record.principal,
            subject: &record.subject,
            input: &record.input,
            cursor: &record.cursor,
            progress: record.progress,
            clock: self.clock.as_ref(),
            bucket,
        };
        let undoing = record.undoing.is_some();
        let mut doing = pin!(async {
            if undoing {
                match work.undo(&step).await {
                    Ok(()) => Ending::Undone,
                    Err(error) => Ending::Failed(error),
                }
            } else {
                match work.step(&step).await {
                    Ok(advance) => Ending::Advanced(advance),
                    Err(error) => Ending::Failed(error),
                }
            }
        });
        let renewal = self.lease / 3;
        loop {
            if *stop.borrow() {
                return Ok(Ending::Stopping);
            }
            tokio::select! {
                biased;
                _ = stop.changed() => return Ok(Ending::Stopping),
                ending = &mut doing => return Ok(ending),
                () = interrupt.notified() => {}
                () = tokio::time::sleep(renewal) => {}
            }
            let lease = self.lease_from(millis(self.clock.now()));
            match self
                .write(stored, |record| record.lease = Some(lease))
                .await
            {
                Ok(Written::Lost) => return Ok(Ending::Lost),
                Ok(Written::Yes) => {}
                // The lease stands for two more renewals.
                Err(JobError::Catalogue(CatalogueError::Unavailable(_) | CatalogueError::Full)) => {
                }
                Err(error) => return Err(error),
            }
            if !undoing && stored.record.undoing.is_some() {
                return Ok(Ending::Cancelled);
            }
        }
    }

    fn lease_from(&self, now: u64) -> Lease {
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        Lease {
            holder: self.holder,
            until: now.saturating_add(lease),
        }
    }
}

/// A job is among the running ones for as long as this lives, also if its task panics.
struct Running<'a> {
    jobs: &'a Jobs,
    id: JobId,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.jobs.running.lock().remove(&self.id);
    }
}
