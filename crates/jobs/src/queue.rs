//! The jobs there are: submitting, looking, cancelling.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use catalogue::{Batch, Catalogue, CatalogueError, Expect, Key, Scope};
use crypto::random::Random;
use host::{Clock, Entropy};
use parking_lot::Mutex;
use root::StoreKey;
use tokio::sync::Notify;

use crate::{
    error::JobError,
    job::{Job, JobId, NewJob, Outcome, State},
    observer::Observer,
    record::{JobRecord, SUBJECTS, Stored, TABLE, Vault, millis},
    work::Work,
};

/// Longest input and longest cursor, in bytes.
pub(crate) const INPUT_LEN_MAX: usize = 64 << 10;
/// Longest subject, in bytes.
const SUBJECT_LEN_MAX: usize = 512;
/// How often a write that lost a race is tried again.
const RACES_MAX: u32 = 16;

/// What the machinery is made of.
pub struct Options {
    /// Where jobs are kept.
    pub catalogue: Arc<dyn Catalogue>,
    /// What their records are sealed under.
    pub store_key: StoreKey,
    /// Whose jobs these are.
    pub scope: Scope,
    /// Leases, retries and rates go by it.
    pub clock: Arc<dyn Clock>,
    /// Ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Nonces.
    pub random: Arc<dyn Random>,
    /// Told of what happens.
    pub observer: Arc<dyn Observer>,
    /// Jobs that this process works on at a time.
    pub running_max: usize,
    /// How long a process that does not answer keeps a job.
    pub lease: Duration,
    /// How long an ended job is shown.
    pub kept: Duration,
}

impl Options {
    /// Four jobs at a time, leases of 30 s, ended jobs shown for a week.
    pub const RUNNING_MAX: usize = 4;
    /// See [`Options::lease`].
    pub const LEASE: Duration = Duration::from_secs(30);
    /// See [`Options::kept`].
    pub const KEPT: Duration = Duration::from_secs(7 * 86_400);
}

/// Some jobs.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// In the order of submission.
    pub jobs: Vec<Job>,
    /// What to ask for after, if there may be more.
    pub next: Option<JobId>,
}

/// The jobs of one store. [`Jobs::run`] works on them; the other calls need no worker in this process.
pub struct Jobs {
    pub(crate) catalogue: Arc<dyn Catalogue>,
    pub(crate) vault: Vault,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) running_max: usize,
    pub(crate) lease: Duration,
    pub(crate) kept: Duration,
    /// What this process's leases are known by.
    pub(crate) holder: u64,
    pub(crate) works: BTreeMap<&'static str, Arc<dyn Work>>,
    /// Jobs that this process works on, and how to interrupt each.
    pub(crate) running: Mutex<BTreeMap<JobId, Arc<Notify>>>,
}

/// How a write to a record that others may write to ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The record says it now.
    Yes,
    /// The record is not this process's any more.
    Lost,
}

impl Jobs {
    /// The jobs in `options.catalogue`; this process can work on those whose kinds are among `works`.
    pub fn new(options: Options, works: Vec<Arc<dyn Work>>) -> Self {
        let works = works.into_iter().map(|work| (work.kind(), work)).collect();
        Self {
            vault: Vault {
                scope: options.scope,
                records: options.store_key.table(TABLE.name()),
                subjects: options.store_key.table(SUBJECTS.name()),
                random: options.random,
            },
            catalogue: options.catalogue,
            clock: options.clock,
            holder: options.entropy.number(),
            entropy: options.entropy,
            observer: options.observer,
            running_max: options.running_max.max(1),
            lease: options.lease,
            kept: options.kept,
            works,
            running: Mutex::default(),
        }
    }

    /// Submits a job; durable when it returns. [`JobError::Exists`] names the job of the same kind that works on the
    /// same subject. Cancelled, the job is submitted or not.
    pub async fn submit(&self, new: NewJob) -> Result<JobId, JobError> {
        check_len(new.input.len(), INPUT_LEN_MAX)?;
        check_len(new.subject.len(), SUBJECT_LEN_MAX)?;
        let now = millis(self.clock.now());
        let id = JobId::new(now, self.entropy.number());
        let subject = self.subject(new.kind, &new.subject);
        let record = JobRecord {
            kind: new.kind.to_owned(),
            principal: new.principal,
            subject: new.subject,
            input: new.input,
            cursor: Vec::new(),
            progress: crate::Progress::default(),
            rate: new.rate,
            created: now,
            updated: now,
            not_before: 0,
            lease: None,
            undoing: None,
            failures: 0,
            last_failure: None,
            ended: None,
        };
        // Held until the commit has ended: a rotation of the store key waits for it.
        let sealing = (self.vault.records.sealing(), self.vault.subjects.sealing());
        let first = Expect::Absent.next_version();
        let job = self.vault.seal(&sealing.0, id, first, &record);
        let taken = self.vault.seal_subject(&sealing.1, &subject, id);
        let batch = Batch::new()
            .put(TABLE, self.vault.key(id), Expect::Absent, job)
            .put(SUBJECTS, subject.clone(), Expect::Absent, taken);
        let committed = self.catalogue.commit(batch).await;
        drop(sealing);
        match committed {
            Ok(_) => Ok(id),
            Err(CatalogueError::Conflict { table, .. }) if table == SUBJECTS => {
                match self.catalogue.get(SUBJECTS, &subject).await? {
                    Some(stored) => Err(JobError::Exists(self.vault.open_subject(&stored)?)),
                    // It ended between the two: the caller may try again.
                    None => Err(CatalogueError::Conflict {
                        table,
                        key: subject,
                    }
                    .into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A job as it is now.
    pub async fn get(&self, id: JobId) -> Result<Job, JobError> {
        let stored = self.stored(id).await?.ok_or(JobError::NotFound(id))?;
        Ok(stored.record.job(id, millis(self.clock.now())))
    }

    /// Jobs that were submitted after `after`, at most `limit`.
    pub async fn list(&self, after: Option<JobId>, limit: usize) -> Result<JobPage, JobError> {
        let now = millis(self.clock.now());
        let after = after.map(|id| self.vault.key(id));
        let page = self
            .catalogue
            .page(TABLE, Some(&self.vault.scope), after.as_ref(), limit)
            .await?;
        let jobs = page
            .records
            .iter()
            .map(|record| {
                let stored = self.vault.open(record)?;
                Ok(stored.record.job(stored.id, now))
            })
            .collect::<Result<_, JobError>>()?;
        let next = page.next.and_then(|key| JobId::from_bytes(&key.id));
        Ok(JobPage { jobs, next })
    }

    /// Cancels a job: from now on it is cleaned up after, and then counts as cancelled. Durable when it returns; the
    /// step that is under way, here or in another process, is dropped within a third of the lease.
    pub async fn cancel(&self, id: JobId) -> Result<(), JobError> {
        for _ in 0..RACES_MAX {
            let mut stored = self.stored(id).await?.ok_or(JobError::NotFound(id))?;
            if stored.record.ended.is_some() {
                return Err(JobError::Ended(id));
            }
            if stored.record.undoing.is_some() {
                return Ok(());
            }
            stored.record.undoing = Some(Outcome::Cancelled);
            // Whoever waits for a retry need not wait to clean up.
            stored.record.not_before = 0;
            if self.put(&mut stored).await? == Written::Yes {
                if let Some(interrupt) = self.running.lock().get(&id) {
                    interrupt.notify_one();
                }
                return Ok(());
            }
        }
        Err(CatalogueError::Unavailable("a job's record changes all the time".to_owned()).into())
    }

    /// Waits until a job has ended, in whichever process. Cancel-safe.
    pub async fn wait(&self, id: JobId) -> Result<Outcome, JobError> {
        loop {
            let sequence = self.catalogue.sequence().await?;
            if let State::Ended(outcome) = self.get(id).await?.state {
                return Ok(outcome);
            }
            self.catalogue.wait(sequence).await?;
        }
    }

    pub(crate) async fn stored(&self, id: JobId) -> Result<Option<Stored>, JobError> {
        match self.catalogue.get(TABLE, &self.vault.key(id)).await? {
            Some(record) => Ok(Some(self.vault.open(&record)?)),
            None => Ok(None),
        }
    }

    /// Writes `stored` over the version that it was read at. A job that has ended gives its subject up in the same
    /// batch.
    pub(crate) async fn put(&self, stored: &mut Stored) -> Result<Written, JobError> {
        stored.record.updated = millis(self.clock.now());
        let expect = Expect::Version(stored.version);
        for _ in 0..RACES_MAX {
            let mut erased = None;
            if stored.record.ended.is_some() {
                let subject = self.subject(&stored.record.kind, &stored.record.subject);
                // Looked up each time: a rotation of the store key may write it again at any moment.
                erased = self.catalogue.get(SUBJECTS, &subject).await?;
            }
            // Held until the commit has ended, as in `submit`.
            let sealing = self.vault.records.sealing();
            let next = expect.next_version();
            let sealed = self.vault.seal(&sealing, stored.id, next, &stored.record);
            let mut batch = Batch::new().put(TABLE, self.vault.key(stored.id), expect, sealed);
            if let Some(subject) = erased {
                batch = batch.erase(SUBJECTS, subject.key, subject.version);
            }
            match self.catalogue.commit(batch).await {
                Ok(_) => {
                    stored.version = next;
                    return Ok(Written::Yes);
                }
                Err(CatalogueError::Conflict { table, .. }) if table == SUBJECTS => {}
                Err(CatalogueError::Conflict { .. }) => return Ok(Written::Lost),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Written::Lost)
    }

    /// Writes a change of a job that this process has leased, also if somebody cancelled the job meanwhile.
    pub(crate) async fn write(
        &self,
        stored: &mut Stored,
        change: impl Fn(&mut JobRecord),
    ) -> Result<Written, JobError> {
        for _ in 0..RACES_MAX {
            let mut next = stored.clone();
            change(&mut next.record);
            if self.put(&mut next).await? == Written::Yes {
                *stored = next;
                return Ok(Written::Yes);
            }
            match self.stored(stored.id).await? {
                Some(now) if now.record.lease.is_some_and(|l| l.holder == self.holder) => {
                    *stored = now;
                }
                _ => return Ok(Written::Lost),
            }
        }
        Ok(Written::Lost)
    }

    /// Erases an ended job.
    pub(crate) async fn forget(&self, stored: &Stored) -> Result<(), JobError> {
        let batch = Batch::new().erase(TABLE, self.vault.key(stored.id), stored.version);
        match self.catalogue.commit(batch).await {
            // Another process was first.
            Ok(_) | Err(CatalogueError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The kind, a zero byte, the subject: a kind has no zero byte.
    fn subject(&self, kind: &str, subject: &str) -> Key {
        let id = [kind.as_bytes(), &[0], subject.as_bytes()].concat();
        Key::new(self.vault.scope.clone(), id)
    }
}

fn check_len(len: usize, max: usize) -> Result<(), JobError> {
    if len > max {
        return Err(JobError::TooLong { len, max });
    }
    Ok(())
}
