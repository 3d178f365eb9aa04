//! The audit records of volumes: what happens to one that is no use of a key, which the keyring records itself.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use audit::{AuditLog, Event};
use host::Clock;
use iam::Caller;

use crate::VolumeError;

/// What is recorded of one call.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    operation: &'static str,
    resource: String,
    principal: String,
    access_key: Option<String>,
    via: &'static str,
    request_id: String,
    source: Option<IpAddr>,
}

impl Trail {
    /// Of `operation`, which `caller` asked for, on `resource`.
    pub(crate) fn new(
        operation: &'static str,
        resource: impl Into<String>,
        caller: Caller<'_>,
    ) -> Self {
        let context = caller.context();
        Self {
            operation,
            resource: resource.into(),
            principal: context.principal_arn().to_string(),
            access_key: context
                .access_key
                .as_ref()
                .map(|key| key.as_str().to_owned()),
            via: caller.via().as_str(),
            request_id: context.request_id().to_owned(),
            source: context.source,
        }
    }

    /// The record, with `outcome`: `Success`, the code of an error, or `Unknown`.
    pub(crate) fn event<'a>(&'a self, time: SystemTime, outcome: &'a str) -> Event<'a> {
        Event {
            time,
            operation: self.operation,
            outcome,
            principal: &self.principal,
            access_key: self.access_key.as_deref(),
            via: self.via,
            key: None,
            destination_key: None,
            alias: None,
            material: None,
            encryption_context: None,
            destination_encryption_context: None,
            bucket: None,
            object: None,
            resource: Some(&self.resource),
            request_id: &self.request_id,
            source: self.source,
            count: None,
        }
    }

    /// Makes a change between the records of its intent and of its outcome. Without the first nothing is changed;
    /// without the second the answer is that, and the next start records that the outcome is unknown.
    pub(crate) async fn around<T>(
        self,
        audit: AuditLog,
        clock: Arc<dyn Clock>,
        change: impl Future<Output = Result<T, VolumeError>>,
    ) -> Result<T, VolumeError> {
        let intent = audit.intent(&self.event(clock.now(), "")).await?;
        let result = change.await;
        let outcome = outcome(&result);
        intent.outcome(&self.event(clock.now(), outcome)).await?;
        result
    }
}

/// What an audit record says of a result.
pub(crate) fn outcome<T>(result: &Result<T, VolumeError>) -> &'static str {
    match result {
        Ok(_) => "Success",
        Err(error) if error.may_have_changed() => "Unknown",
        Err(error) => error.code(),
    }
}
