//! The records of changes of buckets: the intent before, the outcome after. A log that takes no records lets no bucket
//! be changed.

use std::sync::Arc;

use audit::{AuditError, AuditLog, Change};
use catalogue::{CatalogueError, Scope};
use iam::Caller;

use crate::error::Error;
use crate::settle::to_the_end;

/// Where changes of buckets are recorded.
pub(crate) struct BucketTrail {
    log: AuditLog,
    clock: Arc<dyn host::Clock>,
}

impl BucketTrail {
    pub(crate) fn new(log: AuditLog, clock: Arc<dyn host::Clock>) -> Self {
        Self { log, clock }
    }

    /// Makes a change of a bucket of `scope` and records it, to its end, also if the caller goes away. `done` names what
    /// came of a change that did not fail.
    pub(crate) async fn recorded<T: Send + 'static>(
        &self,
        operation: &'static str,
        caller: Caller<'_>,
        scope: &Scope,
        bucket: &str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
        done: fn(&T) -> &'static str,
    ) -> Result<T, Error> {
        let change = Change::asked(operation, caller, &scope.account, &scope.region);
        let change = change.about_bucket(bucket);
        let (log, clock) = (self.log.clone(), Arc::clone(&self.clock));
        to_the_end(async move {
            let made = log
                .change(&*clock, &change, work, |made| match made {
                    Ok(made) => done(made),
                    Err(error) => code(error),
                })
                .await;
            made.map_err(refused)?
        })
        .await
    }
}

/// What the record says of a change that failed.
fn code(error: &Error) -> &'static str {
    match error {
        Error::Catalogue(CatalogueError::Unknown(_)) => "Unknown",
        error => match error.code() {
            std::borrow::Cow::Borrowed(code) => code,
            std::borrow::Cow::Owned(_) => "InternalError",
        },
    }
}

fn refused(error: AuditError) -> Error {
    tracing::error!(%error, "a change of a bucket could not be recorded");
    Error::Internal("the audit log takes no record")
}
