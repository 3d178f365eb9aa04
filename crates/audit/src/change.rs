//! The records of a management call that changes something: its intent before the change, its outcome after.

use std::net::IpAddr;

use host::Clock;
use iam::Caller;

use crate::{error::AuditError, event::Event, log::AuditLog};

/// A change that is to be recorded.
#[derive(Debug, Clone)]
pub struct Change {
    operation: &'static str,
    principal: String,
    access_key: Option<String>,
    via: &'static str,
    request_id: String,
    source: Option<IpAddr>,
    account: Option<String>,
    region: Option<String>,
    bucket: Option<String>,
    resource: Option<String>,
}

impl Change {
    /// One that a caller asked for, in an account and a region. `operation` is the API's name.
    pub fn asked(operation: &'static str, caller: Caller<'_>, account: &str, region: &str) -> Self {
        let context = caller.context();
        Self {
            operation,
            principal: context.principal_arn().to_string(),
            access_key: context.access_key.as_ref().map(ToString::to_string),
            via: caller.via().as_str(),
            request_id: context.request_id().to_owned(),
            source: context.source,
            account: Some(account.to_owned()),
            region: Some(region.to_owned()),
            bucket: None,
            resource: None,
        }
    }

    /// One that whoever has the machine makes: of the whole store.
    pub fn local(operation: &'static str, principal: &str, request_id: &str) -> Self {
        Self {
            operation,
            principal: principal.to_owned(),
            access_key: None,
            via: "internal",
            request_id: request_id.to_owned(),
            source: None,
            account: None,
            region: None,
            bucket: None,
            resource: None,
        }
    }

    /// Names what it is about, where the operation does not say it.
    #[must_use]
    pub fn about(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Names the bucket it is about.
    #[must_use]
    pub fn about_bucket(mut self, bucket: impl Into<String>) -> Self {
        self.bucket = Some(bucket.into());
        self
    }

    fn event<'a>(&'a self, clock: &dyn Clock, outcome: &'a str) -> Event<'a> {
        Event {
            access_key: self.access_key.as_deref(),
            account: self.account.as_deref(),
            region: self.region.as_deref(),
            bucket: self.bucket.as_deref(),
            resource: self.resource.as_deref(),
            request_id: &self.request_id,
            source: self.source,
            ..Event::new(
                clock.now(),
                self.operation,
                outcome,
                &self.principal,
                self.via,
            )
        }
    }
}

impl AuditLog {
    /// Makes a change by `work` and records it. Its intent is durable before `work` is polled; the answer is there once
    /// the outcome is durable. `outcome` names what came of it: `Success`, the code of an error, or `Unknown` where the
    /// change may have been made or not.
    ///
    /// Not cancel-safe: dropped half-way it leaves the change as it is and its outcome unknown, as the next start
    /// records. Whoever may go away lets a task do it.
    ///
    /// # Errors
    /// Without the intent's record nothing was done. Without the outcome's it was, and the caller is told of a failure all
    /// the same.
    pub async fn change<T, E>(
        &self,
        clock: &dyn Clock,
        change: &Change,
        work: impl Future<Output = Result<T, E>>,
        outcome: impl FnOnce(&Result<T, E>) -> &'static str,
    ) -> Result<Result<T, E>, AuditError> {
        let intent = self.intent(&change.event(clock, "Intended")).await?;
        let result = work.await;
        let outcome = outcome(&result);
        intent.outcome(&change.event(clock, outcome)).await?;
        Ok(result)
    }

    /// Records at once what became of a change: refused before anything was done, or of the kind that keeps nothing
    /// behind, as an attachment.
    pub async fn record_change(
        &self,
        clock: &dyn Clock,
        change: &Change,
        outcome: &str,
    ) -> Result<(), AuditError> {
        self.record(&change.event(clock, outcome)).await.map(drop)
    }
}
