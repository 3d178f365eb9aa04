//! Sealgate's own service, JSON 1.1, target prefix `Sealgate`: jobs and the root key.
//!
//! It is asked as every other service is: `POST /`, signed for the service `sealgate`, the operation in
//! `X-Amz-Target: Sealgate.<Operation>`, the parameters a JSON object. Each operation needs its IAM action,
//! `sealgate:<Operation>`.
//!
//! | operation | parameters | answer | resource |
//! |---|---|---|---|
//! | ListJobs | `Limit` (1 to 1000, 100), `Marker` | `Jobs`, `Truncated`, `NextMarker` | `*` |
//! | DescribeJob | `JobId` | `Job` | `job/ID` |
//! | CancelJob | `JobId` | - | `job/ID` |
//! | DescribeRootKey | - | `RootKey` | `root-key` |
//! | RotateStoreKey | - | `JobId` | `root-key` |
//!
//! What they work on is behind [`Administration`], which whoever puts the parts together implements.
mod fault;
mod job_id;

use std::{fmt, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use iam::{
    Action, Arn, Authorized, Authorizer, Caller, Region, RequestContext, Resource, Via,
    sealgate as actions,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::fault::AdministrationError;
use self::fault::Fault;
pub use self::job_id::{JobId, NotAJobId};
use crate::{
    Answer, Protocol,
    error::{JSON, refuse, respond},
    protocol::is_media_type,
};

pub(crate) const TARGET_PREFIX: &str = "Sealgate";
/// The operations there are.
pub(crate) const OPERATIONS: [&str; 5] = [
    "ListJobs",
    "DescribeJob",
    "CancelJob",
    "DescribeRootKey",
    "RotateStoreKey",
];
const SERVICE: &str = "sealgate";
/// Jobs on a page, unless the request says otherwise.
const LIMIT: usize = 100;
/// Jobs on a page at most.
const LIMIT_MAX: usize = 1000;

/// One job, there or not.
#[derive(Debug)]
pub struct OneJob {
    id: JobId,
    arn: Arn,
}

impl OneJob {
    /// Which.
    pub fn id(&self) -> &JobId {
        &self.id
    }
}

/// `*`: what is about all jobs.
#[derive(Debug)]
pub struct EveryJob(Arn);

/// The root key and the store key that it wraps.
#[derive(Debug)]
pub struct RootKey(Arn);

impl Resource for OneJob {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}

impl Resource for EveryJob {
    fn arn(&self) -> &Arn {
        &self.0
    }
}

impl Resource for RootKey {
    fn arn(&self) -> &Arn {
        &self.0
    }
}

/// A job, as it is answered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Job {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub job_id: JobId,
    /// What it does, such as `reseal`.
    pub kind: String,
    /// The service that it acts as.
    pub principal: String,
    /// What it works on.
    pub subject: String,
    /// `WAITING`, `RUNNING`, `CANCELLING`, `DONE`, `FAILED` or `CANCELLED`.
    pub state: &'static str,
    /// Why it failed, or what its last failed step said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Steps that failed in a row.
    pub failures: u32,
    /// Units done: the kind's own, such as records.
    pub units_done: u64,
    /// Units in all, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units_total: Option<u64>,
    /// When it was submitted.
    #[serde(serialize_with = "as_seconds")]
    pub creation_date: SystemTime,
    /// When its record was last written.
    #[serde(serialize_with = "as_seconds")]
    pub last_updated_date: SystemTime,
}

fn as_text<S: serde::Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Seconds since 1970 with milliseconds, as the JSON services write times.
fn as_seconds<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    #[allow(clippy::cast_precision_loss)] // a date in milliseconds has 42 bits
    to.serialize_f64(millis as f64 / 1000.0)
}

/// Some jobs, in the order of submission.
#[derive(Debug)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// What to ask for after, if there may be more.
    pub next: Option<JobId>,
}

/// The root key, as it is answered. Nothing in it is secret.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootKeyStatus {
    /// The store.
    pub store_id: String,
    /// The root key's public id.
    pub root_key_id: String,
    /// The kind of provider that wraps the store key.
    pub provider: String,
    /// Where the root key is.
    pub configured: String,
    /// The generation of the store key that seals.
    pub store_key_generation: u32,
    /// Whether records under the one before it may be left.
    pub store_key_rotating: bool,
    /// How often the header was written.
    pub header_sequence: u64,
}

/// What Sealgate's own service works on. Each call spends the permission for it.
#[async_trait]
pub trait Administration: Send + Sync + 'static {
    /// The region that jobs and root key are named in.
    fn region(&self) -> &Region;

    /// Jobs that were submitted after `after`, at most `limit`.
    async fn jobs(
        &self,
        granted: Authorized<actions::ListJobs, EveryJob>,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<JobPage, AdministrationError>;

    /// One job.
    async fn job(
        &self,
        granted: Authorized<actions::DescribeJob, OneJob>,
    ) -> Result<Job, AdministrationError>;

    /// Cancels a job; durable when it returns, while the cleaning up goes on.
    async fn cancel_job(
        &self,
        granted: Authorized<actions::CancelJob, OneJob>,
    ) -> Result<(), AdministrationError>;

    /// What is known of the root key.
    async fn root_key(
        &self,
        granted: Authorized<actions::DescribeRootKey, RootKey>,
    ) -> Result<RootKeyStatus, AdministrationError>;

    /// Begins to re-seal everything under a new store key; names the job that does it, also if it was under way.
    async fn rotate_store_key(
        &self,
        granted: Authorized<actions::RotateStoreKey, RootKey>,
    ) -> Result<JobId, AdministrationError>;
}

/// One request on its way.
struct Request<'a> {
    administration: &'a dyn Administration,
    authorizer: &'a Authorizer,
    caller: Caller<'a>,
    body: &'a [u8],
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ListJobs {
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct NamesAJob {
    job_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Answers one request.
pub async fn handle(
    administration: &dyn Administration,
    authorizer: &Authorizer,
    context: &Arc<RequestContext>,
    head: &Parts,
    body: Bytes,
) -> Answer {
    let caller = Caller::new(context, Via::Api);
    let request = Request {
        administration,
        authorizer,
        caller,
        body: &body,
    };
    let (operation, result) = match target(head) {
        Ok("ListJobs") => ("ListJobs", request.list_jobs().await),
        Ok("DescribeJob") => ("DescribeJob", request.describe_job().await),
        Ok("CancelJob") => ("CancelJob", request.cancel_job().await),
        Ok("DescribeRootKey") => ("DescribeRootKey", request.describe_root_key().await),
        Ok("RotateStoreKey") => ("RotateStoreKey", request.rotate_store_key().await),
        Ok(_) => ("unknown", Err(Fault::UnknownOperation)),
        Err(fault) => ("unknown", Err(fault)),
    };
    let id = caller.request_id();
    let code = result.as_ref().err().map(Fault::code);
    let response = match result {
        Ok(answer) => respond(
            Protocol::Json,
            StatusCode::OK,
            id,
            answer.to_string().into(),
        ),
        Err(fault) => {
            if fault.status().is_server_error() {
                tracing::error!(operation, request_id = id, error = %fault, "a request to Sealgate failed");
            }
            let message = fault.message();
            refuse(Protocol::Json, fault.status(), fault.code(), &message, id)
        }
    };
    Answer {
        operation,
        code,
        response,
    }
}

/// The operation that a request's head asks for.
fn target(head: &Parts) -> Result<&str, Fault> {
    let of_protocol =
        head.method == Method::POST && head.uri.path() == "/" && is_media_type(&head.headers, JSON);
    if !of_protocol {
        return Err(Fault::NotOfProtocol);
    }
    let mut targets = head.headers.get_all("x-amz-target").iter();
    let (Some(target), None) = (targets.next(), targets.next()) else {
        return Err(Fault::UnknownOperation);
    };
    let target = target.to_str().map_err(|_| Fault::UnknownOperation)?;
    match target.split_once('.') {
        Some((TARGET_PREFIX, operation)) => Ok(operation),
        _ => Err(Fault::UnknownOperation),
    }
}

impl Request<'_> {
    async fn list_jobs(self) -> Result<serde_json::Value, Fault> {
        let ListJobs { limit, marker } = self.parse()?;
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Fault::Validation(format!(
                "Limit is from 1 to {LIMIT_MAX}."
            )));
        }
        let after = marker.map(|marker| parse_id(&marker)).transpose()?;
        let granted = self.authorize(EveryJob(self.arn("*")))?;
        let page = self.administration.jobs(granted, after, limit).await?;
        let mut answer = serde_json::json!({ "Jobs": page.jobs, "Truncated": page.next.is_some() });
        if let Some(next) = page.next {
            answer["NextMarker"] = next.as_str().into();
        }
        Ok(answer)
    }

    async fn describe_job(self) -> Result<serde_json::Value, Fault> {
        let granted = self.authorize(self.one_job()?)?;
        let job = self.administration.job(granted).await?;
        Ok(serde_json::json!({ "Job": job }))
    }

    async fn cancel_job(self) -> Result<serde_json::Value, Fault> {
        let granted = self.authorize(self.one_job()?)?;
        self.administration.cancel_job(granted).await?;
        Ok(serde_json::json!({}))
    }

    async fn describe_root_key(self) -> Result<serde_json::Value, Fault> {
        let Nothing {} = self.parse()?;
        let granted = self.authorize(RootKey(self.arn("root-key")))?;
        let status = self.administration.root_key(granted).await?;
        Ok(serde_json::json!({ "RootKey": status }))
    }

    async fn rotate_store_key(self) -> Result<serde_json::Value, Fault> {
        let Nothing {} = self.parse()?;
        let granted = self.authorize(RootKey(self.arn("root-key")))?;
        let id = self.administration.rotate_store_key(granted).await?;
        Ok(serde_json::json!({ "JobId": id.as_str() }))
    }

    fn one_job(&self) -> Result<OneJob, Fault> {
        let NamesAJob { job_id } = self.parse()?;
        let id = parse_id(&job_id)?;
        Ok(OneJob {
            arn: self.arn(&format!("job/{id}")),
            id,
        })
    }

    fn arn(&self, resource: &str) -> Arn {
        let region = self.administration.region();
        Arn::regional(SERVICE, region, self.authorizer.account(), resource)
    }

    fn authorize<A: Action, R: Resource>(&self, resource: R) -> Result<Authorized<A, R>, Fault> {
        Ok(self.authorizer.authorize(self.caller, resource)?)
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        // An empty body is how some clients write "no parameters".
        let text = match self.body.trim_ascii() {
            b"" => b"{}",
            text => text,
        };
        serde_json::from_slice(text).map_err(|error| Fault::Malformed(error.to_string()))
    }
}

fn parse_id(text: &str) -> Result<JobId, Fault> {
    text.parse()
        .map_err(|error: NotAJobId| Fault::Validation(error.to_string()))
}

/// Reads a body as each kind of request.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let _ = serde_json::from_slice::<ListJobs>(data);
    let _ = serde_json::from_slice::<Nothing>(data);
    if let Ok(NamesAJob { job_id }) = serde_json::from_slice(data)
        && let Ok(id) = parse_id(&job_id)
    {
        assert_eq!(id.as_str(), job_id);
    }
}

#[cfg(test)]
mod tests;
