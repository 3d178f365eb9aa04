//! The other crates' observers, reporting into [`Metrics`].

use std::sync::Arc;
use std::time::Duration;

use host::Clock;
use iam::Via;

use crate::door::{Told, Why};
use crate::metrics::{Front, Metrics, Operation, Outcome, Request};
use crate::refusal_reason::Reason;
use crate::refusals::{self, Refusals, Refused};
use crate::throttle::Throttle;

/// Counts the connections that a listener's limits close, and says so once in a while.
pub(crate) fn turned_out(
    listener: &'static str,
    metrics: Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Told {
    let throttles = Why::ALL.map(|_| Throttle::new(Arc::clone(clock)));
    Box::new(move |why, peer| {
        metrics.turned_out(listener, why.name());
        // As many of these as strangers care to make: one line for all of a while.
        let said = throttles[why as usize].say();
        if let Some(unsaid) = said {
            tracing::warn!(listener, %peer, unsaid, "{}", why.sentence());
        }
    })
}

/// Counts uses of keys.
#[derive(Debug)]
pub(crate) struct KeyUses(pub(crate) Arc<Metrics>);

impl keyring::Observer for KeyUses {
    fn request(&self, operation: &'static str, via: Via, outcome: &str, elapsed: Duration) {
        self.0
            .kms_request(operation, via.as_str(), outcome, elapsed);
    }
}

/// Counts object requests and bucket-key look-ups.
#[derive(Debug)]
pub(crate) struct ObjectRequests(pub(crate) Arc<Metrics>);

impl s3::Observer for ObjectRequests {
    fn request(&self, end: &s3::RequestEnd) {
        let status = http::StatusCode::from_u16(end.status)
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        self.0.request(Request {
            front: Front::S3,
            operation: end.operation,
            outcome: Outcome::of_status(status),
            elapsed: end.elapsed,
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
        });
    }

    fn bucket_key(&self, hit: bool) {
        self.0.cache("bucket_key", hit);
    }
}

/// Counts what jobs do.
#[derive(Debug)]
pub(crate) struct JobSteps(pub(crate) Arc<Metrics>);

impl jobs::Observer for JobSteps {
    fn started(&self, kind: &'static str) {
        self.0.job_started(kind);
    }

    fn advanced(&self, kind: &'static str, units: u64) {
        self.0.job_advanced(kind, units);
    }

    fn retried(&self, kind: &'static str) {
        self.0.job_retried(kind);
    }

    fn stopped(&self, kind: &'static str, outcome: Option<&jobs::Outcome>) {
        let outcome = outcome.map(|outcome| match outcome {
            jobs::Outcome::Done => "done",
            jobs::Outcome::Failed(_) => "failed",
            jobs::Outcome::Cancelled => "cancelled",
        });
        self.0.job_stopped(kind, outcome);
    }
}

/// Counts NBD connections and requests. Counters are resolved once: this is the hottest path there is.
pub(crate) struct BlockRequests {
    metrics: Arc<Metrics>,
    operations: [Operation; nbd::Command::ALL.len()],
    crowded: Throttle,
    full: Throttle,
    refusals: Arc<Refusals>,
}

impl BlockRequests {
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        refusals: Arc<Refusals>,
    ) -> Self {
        let operations =
            nbd::Command::ALL.map(|command| metrics.operation(Front::NBD, command.name()));
        Self {
            metrics,
            operations,
            crowded: Throttle::new(Arc::clone(clock)),
            full: Throttle::new(Arc::clone(clock)),
            refusals,
        }
    }
}

impl BlockRequests {
    /// Tells of a client that was hung up on.
    fn refused(&self, peer: &nbd::Peer, reason: Reason, why: nbd::Closed) {
        let (peer, source) = refusals::nbd_peer(peer);
        self.refusals.note(Refused {
            front: Front::NBD,
            operation: "unknown",
            reason,
            code: why.name().into(),
            peer,
            source,
            access_key: None,
            principal: None,
            request_id: String::new(),
            subject: None,
            recorded: false,
        });
    }
}

impl nbd::Observer for BlockRequests {
    fn connection_opened(&self, peer: &nbd::Peer) {
        self.metrics.nbd_connections.inc();
        tracing::debug!(%peer, "NBD connection opened");
    }

    fn connection_closed(&self, peer: &nbd::Peer, why: nbd::Closed) {
        self.metrics.nbd_connections.dec();
        match why {
            // As many of these as strangers care to make: one line for all of a while.
            nbd::Closed::Crowded => {
                self.metrics.rejected_connections.inc();
                if let Some(unsaid) = self.crowded.say() {
                    tracing::warn!(%peer, unsaid, "an NBD client was turned out: too many are in the handshake");
                }
            }
            nbd::Closed::Misbehaved => self.refused(peer, Reason::Protocol, why),
            nbd::Closed::HandshakeTimeout => self.refused(peer, Reason::TooSlow, why),
            _ => tracing::debug!(%peer, why = why.name(), "NBD connection closed"),
        }
    }

    fn connection_refused(&self, peer: &nbd::Peer) {
        self.metrics.rejected_connections.inc();
        if let Some(unsaid) = self.full.say() {
            tracing::warn!(%peer, unsaid, "an NBD client was refused: as many connections are open as may be ([nbd] connections_max)");
        }
    }

    fn request(
        &self,
        command: nbd::Command,
        bytes: u64,
        elapsed: Duration,
        outcome: Result<(), nbd::Errno>,
    ) {
        let outcome = match outcome {
            Ok(()) => Outcome::Ok,
            Err(nbd::Errno::Io | nbd::Errno::NoMem | nbd::Errno::Shutdown) => Outcome::ServerError,
            Err(_) => Outcome::ClientError,
        };
        let (bytes_in, bytes_out) = match (command, outcome) {
            (nbd::Command::Write, Outcome::Ok) => (bytes, 0),
            (nbd::Command::Read, Outcome::Ok) => (0, bytes),
            _ => (0, 0),
        };
        // `ALL` lists the variants in the order of their discriminants; a test holds it to that.
        if let Some(operation) = self.operations.get(command as usize) {
            operation.finished(outcome, elapsed, bytes_in, bytes_out);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_are_numbered_as_they_are_listed() {
        for (i, command) in nbd::Command::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, i);
        }
    }
}
