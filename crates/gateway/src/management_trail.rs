//! The audit records of management calls of Sealgate's own: jobs, the root key, and what a doctor does.
//!
//! A change leaves its intent before it is made, and its outcome after. It runs to its end with its records even if
//! the caller stops waiting. Without the intent's record nothing is changed; without the outcome's the caller is told of
//! a failure, and the next start records that the outcome is unknown.

use audit::{AuditError, AuditLog, Change};
use crypto::random::{Random as _, SystemRandom};
use host::SystemClock;
use iam::{Caller, Region};

/// A change of what is the whole store's that a caller asked for; `resource` is `job/` and an id, or `root-key`.
pub(crate) fn asked(
    operation: &'static str,
    resource: impl Into<String>,
    caller: Caller<'_>,
    region: &Region,
) -> Change {
    let account = caller.principal().account();
    Change::asked(operation, caller, account.as_str(), region.as_str()).about(resource)
}

/// One that whoever has the data directory makes while no server runs.
pub(crate) fn local(operation: &'static str, resource: impl Into<String>) -> Change {
    Change::local(operation, "sealgate", "").about(resource)
}

/// One of `sealgate doctor`, by the operator at the machine, with the root key.
pub(crate) fn by_doctor(operation: &'static str) -> Change {
    let mut id = [0; 8];
    SystemRandom.fill(&mut id);
    Change::local(operation, "sealgate doctor", &hex::encode(id))
}

/// Makes `change` by `work` and records it, to its end even if nobody waits for it any more. `outcome` names what came
/// of it: `Success`, the code of an error, or `Unknown` where it may have been made or not.
pub(crate) async fn recorded<T, E>(
    log: AuditLog,
    change: Change,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
    outcome: fn(&Result<T, E>) -> &'static str,
) -> Result<Result<T, E>, AuditError>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let task = tokio::spawn(recorded_here(log, change, work, outcome));
    // A panic in the work leaves the intent open, so that its outcome is unknown.
    task.await
        .unwrap_or_else(|error| Err(AuditError::Failed(error.to_string().into())))
}

/// As [`recorded`], but dropped half-way it leaves the change as it is and its outcome unknown.
pub(crate) async fn recorded_here<T, E>(
    log: AuditLog,
    change: Change,
    work: impl Future<Output = Result<T, E>>,
    outcome: fn(&Result<T, E>) -> &'static str,
) -> Result<Result<T, E>, AuditError> {
    log.change(&SystemClock::new(), &change, work, outcome)
        .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use audit::AuditOptions;
    use host::Disk as _;
    use host::disk::sim::{Call, Crash, Failure, Fault, SimDisk};

    use super::*;

    fn open(disk: &SimDisk) -> AuditLog {
        let clock = host::SystemClock::new();
        let mut options = AuditOptions::new("/audit", Arc::new(clock));
        options.disk = Arc::new(disk.clone());
        AuditLog::open(options).unwrap()
    }

    /// Of each record: operation, outcome, resource.
    fn told(disk: &SimDisk) -> Vec<[String; 3]> {
        let all = disk.bytes("/audit/audit-00000000000000000001.jsonl");
        let lines = all.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap())
            .map(|record| {
                ["operation", "outcome", "resource"]
                    .map(|name| record[name].as_str().unwrap_or("-").to_owned())
            })
            .collect()
    }

    fn outcome(result: &Result<(), &'static str>) -> &'static str {
        result.as_ref().err().copied().unwrap_or("Success")
    }

    #[tokio::test]
    async fn the_intent_is_durable_before_the_change_and_the_outcome_after() {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        for (at, result) in [Ok(()), Err("ConflictException")].into_iter().enumerate() {
            let before = disk.clone();
            let work = async move {
                let told = told(&before);
                let intended = ["CancelJob", "Intended", "job/1"].map(str::to_owned);
                assert_eq!((told.len(), &told[2 * at]), (2 * at + 1, &intended));
                result
            };
            let change = local("CancelJob", "job/1");
            let made = recorded(log.clone(), change, work, outcome).await.unwrap();
            assert_eq!(made, result);
            assert_eq!(told(&disk)[2 * at + 1][1], outcome(&result));
        }
    }

    #[tokio::test]
    async fn nothing_is_changed_that_cannot_be_recorded() {
        let disk = SimDisk::new(2);
        let log = open(&disk);
        let fault = Fault::new(Failure::Io).on(&[Call::SyncData]);
        disk.fail(fault.at(".journal"));
        let changed = Arc::new(AtomicBool::new(false));
        let work = {
            let changed = Arc::clone(&changed);
            async move {
                changed.store(true, Ordering::SeqCst);
                Ok(())
            }
        };
        let change = local("RotateRootKey", "root-key");
        let refused = recorded(log, change, work, outcome).await;
        assert!(matches!(refused, Err(AuditError::Failed(_))));
        assert!(!changed.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_change_whose_outcome_was_not_recorded_is_not_answered_and_unknown_at_the_next_start()
    {
        let disk = SimDisk::new(3);
        let log = open(&disk);
        let work = {
            let disk = disk.clone();
            async move {
                // Down before the next write, not in the middle of it: part of that could be there.
                disk.stop_after(0);
                assert!(disk.kind(Path::new("/audit")).is_err());
                Ok(())
            }
        };
        let change = local("RotateRootKey", "root-key");
        assert!(recorded(log.clone(), change, work, outcome).await.is_err());
        drop(log);
        disk.restart(Crash::Power);
        drop(open(&disk));
        let told = told(&disk);
        let last = ["RotateRootKey", "Unknown", "root-key"].map(str::to_owned);
        assert_eq!(told.last(), Some(&last), "{told:?}");
        assert_eq!(told[0][1], "Intended");
    }
}
