//! Data events: a record of each access to an object, where the log keeps them.
//!
//! One record a request, when what it did is known and before it is answered; of a GET that is before its body goes out.
//! The answer waits until the record is durable. A log that takes no records fails requests before they do anything.
//! Requests that match no operation leave no record: there is nothing they could have done.

use std::sync::Arc;

use audit::{AuditLog, Event};
use iam::{AccountId, Region, RequestContext};

use crate::error::Error;
use crate::route::Operation;

/// Where accesses to objects are recorded.
pub(crate) struct DataTrail {
    log: AuditLog,
    clock: Arc<dyn host::Clock>,
    account: AccountId,
    region: Region,
}

impl DataTrail {
    pub(crate) fn new(
        log: AuditLog,
        clock: Arc<dyn host::Clock>,
        account: AccountId,
        region: Region,
    ) -> Self {
        Self {
            log,
            clock,
            account,
            region,
        }
    }

    /// Whether what comes of the operation is recorded.
    pub(crate) fn records(&self, operation: Operation) -> bool {
        self.log.records_data_events() && operation.is_data_event()
    }

    /// Fails if the operation would have to be recorded and cannot be.
    pub(crate) fn check(&self, operation: Operation) -> Result<(), Error> {
        if !self.records(operation) {
            return Ok(());
        }
        self.log.check().map_err(refused)
    }

    /// Records what came of a request for `path`, with the bucket in it.
    pub(crate) async fn record(
        &self,
        operation: Option<Operation>,
        path: &str,
        outcome: &str,
        context: &RequestContext,
    ) -> Result<(), Error> {
        let Some(operation) = operation.filter(|operation| self.records(*operation)) else {
            return Ok(());
        };
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, object) = path.split_once('/').unwrap_or((path, ""));
        let (time, principal) = (self.clock.now(), context.principal_arn().as_str());
        let event = Event {
            access_key: context.access_key.as_ref().map(|key| key.as_str()),
            account: Some(self.account.as_str()),
            region: Some(self.region.as_str()),
            bucket: Some(bucket),
            object: Some(object).filter(|object| !object.is_empty()),
            request_id: context.request_id(),
            source: context.source,
            ..Event::new(time, operation.name(), outcome, principal, "s3")
        };
        self.log.data_event(&event).await.map_err(refused)
    }
}

fn refused(error: audit::AuditError) -> Error {
    tracing::error!(%error, "an access to an object could not be recorded");
    Error::Internal("the audit log takes no record")
}
