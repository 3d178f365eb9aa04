//! What Sealgate's own service works on: the jobs, and the root key.

use std::sync::Arc;

use api::sealgate::{
    Administration, AdministrationError, EveryJob, Job, JobId, JobPage, OneJob, RootKey,
    RootKeyStatus,
};
use async_trait::async_trait;
use audit::AuditLog;
use catalogue::CatalogueError;
use iam::{Authorized, Region, sealgate};
use jobs::{JobError, Jobs, Outcome, State};
use root::StoreKey;

use crate::management_trail::{asked, recorded};
use crate::reseal::{RotateError, RotateStoreKey};

/// The jobs and the store key of a running server.
pub(crate) struct Administered {
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) store_key: StoreKey,
    pub(crate) rotate: Arc<RotateStoreKey>,
    pub(crate) region: Region,
    pub(crate) audit: AuditLog,
}

#[async_trait]
impl Administration for Administered {
    fn region(&self) -> &Region {
        &self.region
    }

    async fn jobs(
        &self,
        _granted: Authorized<sealgate::ListJobs, EveryJob>,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<JobPage, AdministrationError> {
        let after = after.as_ref().map(known).transpose()?;
        let page = self.jobs.list(after, limit).await.map_err(explain)?;
        Ok(JobPage {
            jobs: page
                .jobs
                .into_iter()
                .map(answer)
                .collect::<Result<_, _>>()?,
            next: page.next.map(named).transpose()?,
        })
    }

    async fn job(
        &self,
        granted: Authorized<sealgate::DescribeJob, OneJob>,
    ) -> Result<Job, AdministrationError> {
        let id = known(granted.resource().id())?;
        answer(self.jobs.get(id).await.map_err(explain)?)
    }

    async fn cancel_job(
        &self,
        granted: Authorized<sealgate::CancelJob, OneJob>,
    ) -> Result<(), AdministrationError> {
        let id = known(granted.resource().id())?;
        let change = asked(
            "CancelJob",
            format!("job/{id}"),
            granted.caller(),
            &self.region,
        );
        let jobs = Arc::clone(&self.jobs);
        let work = async move { jobs.cancel(id).await.map_err(explain) };
        recorded(self.audit.clone(), change, work, outcome)
            .await
            .map_err(|error| AdministrationError::Internal(error.into()))??;
        let by = granted.caller().context().principal_arn();
        tracing::info!(job = %id, %by, "a job was cancelled");
        Ok(())
    }

    async fn root_key(
        &self,
        _granted: Authorized<sealgate::DescribeRootKey, RootKey>,
    ) -> Result<RootKeyStatus, AdministrationError> {
        let status = self.store_key.status().await;
        Ok(RootKeyStatus {
            store_id: status.store.to_string(),
            root_key_id: status.root_key.to_string(),
            provider: status.kind.name().to_owned(),
            configured: status.root_key_at,
            store_key_generation: status.generation,
            store_key_rotating: status.previous.is_some(),
            header_sequence: status.sequence,
        })
    }

    async fn rotate_store_key(
        &self,
        granted: Authorized<sealgate::RotateStoreKey, RootKey>,
    ) -> Result<JobId, AdministrationError> {
        let change = asked("RotateStoreKey", "root-key", granted.caller(), &self.region);
        let (jobs, rotate) = (Arc::clone(&self.jobs), Arc::clone(&self.rotate));
        let work = async move {
            rotate.submit(&jobs).await.map_err(|error| match error {
                RotateError::Job(error) => explain(error),
                error @ RotateError::CannotReseal(_) => {
                    AdministrationError::Unsupported(error.to_string())
                }
            })
        };
        let id = recorded(self.audit.clone(), change, work, outcome)
            .await
            .map_err(|error| AdministrationError::Internal(error.into()))??;
        let by = granted.caller().context().principal_arn();
        tracing::info!(job = %id, %by, "a rotation of the store key was asked for");
        named(id)
    }
}

/// What the audit log says of a change.
fn outcome<T>(result: &Result<T, AdministrationError>) -> &'static str {
    match result {
        Ok(_) => "Success",
        Err(AdministrationError::Internal(error)) => match error.downcast_ref::<JobError>() {
            Some(JobError::Catalogue(CatalogueError::Unknown(_))) => "Unknown",
            _ => "InternalServerException",
        },
        Err(AdministrationError::NoSuchJob(_)) => "ResourceNotFoundException",
        Err(AdministrationError::Ended(_)) => "ConflictException",
        Err(_) => "UnsupportedOperationException",
    }
}

/// An id as the jobs know it. Both crates read the same form.
fn known(id: &JobId) -> Result<jobs::JobId, AdministrationError> {
    let known = id.as_str().parse::<jobs::JobId>();
    known.map_err(|error| AdministrationError::Internal(error.into()))
}

fn named(id: jobs::JobId) -> Result<JobId, AdministrationError> {
    let named = id.to_string().parse::<JobId>();
    named.map_err(|error| AdministrationError::Internal(error.into()))
}

fn explain(error: JobError) -> AdministrationError {
    let said = |id, fault: fn(JobId) -> AdministrationError| match named(id) {
        Ok(id) => fault(id),
        Err(error) => error,
    };
    match error {
        JobError::NotFound(id) => said(id, AdministrationError::NoSuchJob),
        JobError::Ended(id) => said(id, AdministrationError::Ended),
        error => AdministrationError::Internal(error.into()),
    }
}

fn answer(job: jobs::Job) -> Result<Job, AdministrationError> {
    let (state, why) = match job.state {
        State::Waiting => ("WAITING", None),
        State::Running => ("RUNNING", None),
        State::Cancelling => ("CANCELLING", None),
        State::Ended(Outcome::Done) => ("DONE", None),
        State::Ended(Outcome::Failed(why)) => ("FAILED", Some(why)),
        State::Ended(Outcome::Cancelled) => ("CANCELLED", None),
    };
    Ok(Job {
        job_id: named(job.id)?,
        kind: job.kind,
        principal: job.principal.as_str().to_owned(),
        subject: job.subject,
        state,
        reason: why.or(job.last_failure),
        failures: job.failures,
        units_done: job.progress.done,
        units_total: job.progress.total,
        creation_date: job.created,
        last_updated_date: job.updated,
    })
}
