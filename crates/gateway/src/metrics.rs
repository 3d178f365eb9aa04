//! Prometheus metrics: one registry, the families, and what the other crates' observers report into it.
//!
//! Labels come from fixed sets (fronts, operations, outcomes); nothing that a client chooses, such as
//! a key, a bucket or a principal, becomes a label.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use volume::VolumeState;

/// Upper bounds in seconds: from a cached read to a slow disk.
const LATENCY_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// Which protocol a request came by: the value of the label `front`, from a fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Front(&'static str);

impl Front {
    /// Objects.
    pub(crate) const S3: Self = Self("s3");
    /// Volumes, data side.
    pub(crate) const NBD: Self = Self("nbd");
    /// A request whose service is unknown or that failed authentication.
    pub(crate) const OTHER: Self = Self("other");

    /// A service of the AWS endpoint.
    pub(crate) fn of_service(service: &api::Service) -> Self {
        Self(service.front())
    }

    /// Through which side of the gateway, as the audit log says.
    pub(crate) fn via(self) -> &'static str {
        match self.0 {
            "s3" => "s3",
            "nbd" => "volume",
            _ => "api",
        }
    }

    /// The label value.
    pub(crate) fn label(self) -> &'static str {
        self.0
    }
}

/// One finished request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) front: Front,
    /// A name of the protocol, from a fixed set.
    pub(crate) operation: &'static str,
    /// Neither the client's nor our fault, the client's, or ours.
    pub(crate) outcome: Outcome,
    pub(crate) elapsed: Duration,
    /// Payload bytes from the client.
    pub(crate) bytes_in: u64,
    /// Payload bytes to the client.
    pub(crate) bytes_out: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Ok,
    /// Refused for what the client sent or may not do.
    ClientError,
    /// Failed on our side.
    ServerError,
}

impl Outcome {
    /// From an HTTP status.
    pub(crate) fn of_status(status: http::StatusCode) -> Self {
        match status.as_u16() {
            500.. => Self::ServerError,
            400.. => Self::ClientError,
            _ => Self::Ok,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
        }
    }
}

/// What is counted of jobs. Kinds are the program's own, outcomes a fixed set.
#[derive(Debug)]
struct JobFamilies {
    running: IntGaugeVec,
    steps: IntCounterVec,
    units: IntCounterVec,
    retries: IntCounterVec,
    ended: IntCounterVec,
    up: IntGauge,
}

impl JobFamilies {
    fn new() -> prometheus::Result<Self> {
        let counter = |name, help| IntCounterVec::new(Opts::new(name, help), &["kind"]);
        Ok(Self {
            running: IntGaugeVec::new(
                Opts::new("sealgate_jobs_running", "Jobs that this process works on."),
                &["kind"],
            )?,
            steps: counter("sealgate_job_steps_total", "Steps of jobs that ended well.")?,
            units: counter(
                "sealgate_job_units_total",
                "Units (the kind's own, such as records) that jobs advanced by.",
            )?,
            retries: counter(
                "sealgate_job_retries_total",
                "Steps of jobs that failed and are tried again.",
            )?,
            ended: IntCounterVec::new(
                Opts::new(
                    "sealgate_jobs_ended_total",
                    "Jobs that ended, by outcome (done, failed, cancelled).",
                ),
                &["kind", "outcome"],
            )?,
            up: IntGauge::new(
                "sealgate_jobs_up",
                "1 while jobs are worked on; 0 before the start, and for good after an error that ended it.",
            )?,
        })
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let families: [Box<dyn Collector>; 6] = [
            Box::new(self.running.clone()),
            Box::new(self.steps.clone()),
            Box::new(self.units.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.ended.clone()),
            Box::new(self.up.clone()),
        ];
        families
            .into_iter()
            .try_for_each(|family| registry.register(family))
    }
}

/// All families. Cheap to share behind an `Arc`; every method is wait-free but for a short map look-up.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    errors: IntCounterVec,
    bytes: IntCounterVec,
    latency: HistogramVec,
    refusals: IntCounterVec,
    refusals_unrecorded: IntCounter,
    kms_requests: IntCounterVec,
    kms_latency: HistogramVec,
    cache: IntCounterVec,
    pub(crate) nbd_connections: IntGauge,
    pub(crate) aws_connections: IntGauge,
    pub(crate) objects_quarantined: IntGauge,
    pub(crate) rejected_connections: IntCounter,
    turned_out: IntCounterVec,
    pub(crate) quarantined_volumes: IntGauge,
    volumes: IntGaugeVec,
    jobs: JobFamilies,
    marks_up: IntGauge,
    state: IntGaugeVec,
    /// By front and operation, resolved when the first request of it ends.
    operations: Resolved<Operation>,
    /// By operation and caller, likewise.
    key_operations: Resolved<KeyOperation>,
}

/// Handles on counters by two labels, looked up without a lock. Labels are of fixed sets, so there are few.
type Resolved<T> = ArcSwap<BTreeMap<[&'static str; 2], T>>;

/// Gives `act` the handle with these labels, which `resolve` makes the first time.
fn with_resolved<T: Clone>(
    resolved: &Resolved<T>,
    labels: [&'static str; 2],
    resolve: impl FnOnce() -> T,
    act: impl FnOnce(&T),
) {
    if let Some(found) = resolved.load().get(&labels) {
        return act(found);
    }
    let made = resolve();
    resolved.rcu(|known| {
        let mut next = BTreeMap::clone(known);
        next.insert(labels, made.clone());
        next
    });
    act(&made);
}

impl Metrics {
    /// Registers every family; fails only on a programming error in a name.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("sealgate_requests_total", "Requests by front, operation and outcome."),
                &["front", "operation", "outcome"],
            )?,
            errors: IntCounterVec::new(
                Opts::new("sealgate_errors_total", "Requests that did not end as asked, by whose fault it was."),
                &["front", "operation", "fault"],
            )?,
            bytes: IntCounterVec::new(
                Opts::new("sealgate_bytes_total", "Payload bytes by front, operation and direction (in: from clients)."),
                &["front", "operation", "direction"],
            )?,
            latency: HistogramVec::new(
                HistogramOpts::new("sealgate_request_duration_seconds", "Time from request head to the last byte of the answer handed to the socket layer.")
                    .buckets(LATENCY_BUCKETS.to_vec()),
                &["front", "operation"],
            )?,
            refusals: IntCounterVec::new(
                Opts::new("sealgate_refusals_total", "Requests and clients that were refused, by front, operation (unknown where it is) and reason."),
                &["front", "operation", "reason"],
            )?,
            refusals_unrecorded: IntCounter::new("sealgate_refusals_unrecorded_total", "Refusals that should be in the audit log and are not, because it took no record or was behind.")?,
            kms_requests: IntCounterVec::new(
                Opts::new("sealgate_kms_requests_total", "Key requests by operation, by who asked (api, s3, volume) and outcome."),
                &["operation", "caller", "outcome"],
            )?,
            kms_latency: HistogramVec::new(
                HistogramOpts::new("sealgate_kms_request_duration_seconds", "Time of key requests, durable audit record included.")
                    .buckets(LATENCY_BUCKETS.to_vec()),
                &["operation"],
            )?,
            cache: IntCounterVec::new(
                Opts::new("sealgate_cache_requests_total", "Cache look-ups by cache and result (hit, miss)."),
                &["cache", "result"],
            )?,
            nbd_connections: IntGauge::new("sealgate_nbd_connections", "Open NBD connections.")?,
            aws_connections: IntGauge::new("sealgate_aws_connections", "Open connections to the AWS endpoint.")?,
            objects_quarantined: IntGauge::new("sealgate_objects_quarantined", "Data files in objects/quarantine that nothing names, as of the last start.")?,
            turned_out: IntCounterVec::new(Opts::new("sealgate_connections_turned_out_total", "HTTP connections that were closed or refused by a limit, by listener (aws, admin) and reason (crowded, unused, full, memory, stalled)."), &["listener", "reason"])?,
            rejected_connections: IntCounter::new("sealgate_nbd_connections_refused_total", "NBD connections that were refused an export, or closed in the handshake, because there were as many as may be.")?,
            quarantined_volumes: IntGauge::new("sealgate_volumes_quarantined", "Folders in volumes/quarantine, which no record names.")?,
            volumes: IntGaugeVec::new(Opts::new("sealgate_volumes", "Volumes by state; one in error cannot be attached: see the log."), &["state"])?,
            jobs: JobFamilies::new()?,
            marks_up: IntGauge::new("sealgate_marks_up", "1 while the marks between the parts of the data directory are kept up to date; 0 before the start and after a failure to.")?,
            state: IntGaugeVec::new(Opts::new("sealgate_build_info", "Always 1; the version is in the label."), &["version"])?,
            operations: Resolved::default(),
            key_operations: Resolved::default(),
            registry,
        };
        let families: [Box<dyn Collector>; 18] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.errors.clone()),
            Box::new(metrics.bytes.clone()),
            Box::new(metrics.latency.clone()),
            Box::new(metrics.refusals.clone()),
            Box::new(metrics.refusals_unrecorded.clone()),
            Box::new(metrics.kms_requests.clone()),
            Box::new(metrics.kms_latency.clone()),
            Box::new(metrics.cache.clone()),
            Box::new(metrics.nbd_connections.clone()),
            Box::new(metrics.aws_connections.clone()),
            Box::new(metrics.objects_quarantined.clone()),
            Box::new(metrics.rejected_connections.clone()),
            Box::new(metrics.turned_out.clone()),
            Box::new(metrics.quarantined_volumes.clone()),
            Box::new(metrics.volumes.clone()),
            Box::new(metrics.marks_up.clone()),
            Box::new(metrics.state.clone()),
        ];
        for family in families {
            metrics.registry.register(family)?;
        }
        metrics.jobs.register(&metrics.registry)?;
        metrics.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        metrics
            .state
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        // Present from the start, so that a rate over them is 0 and not absent.
        for result in ["hit", "miss"] {
            metrics.cache.with_label_values(&["bucket_key", result]);
        }
        Ok(metrics)
    }

    /// How many volumes there are in each state.
    pub(crate) fn volumes(&self, by_state: &BTreeMap<VolumeState, usize>) {
        for state in VolumeState::ALL {
            let count = by_state.get(&state).copied().unwrap_or_default();
            self.volumes
                .with_label_values(&[state.as_str()])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts one finished request.
    pub(crate) fn request(&self, r: Request) {
        with_resolved(
            &self.operations,
            [r.front.label(), r.operation],
            || self.counted(r.front, r.operation),
            |operation| operation.finished(r.outcome, r.elapsed, r.bytes_in, r.bytes_out),
        );
    }

    /// Counts one refusal. All three are of fixed sets.
    pub(crate) fn refused(&self, front: Front, operation: &'static str, reason: &'static str) {
        self.refusals
            .with_label_values(&[front.label(), operation, reason])
            .inc();
    }

    /// Counts refusals that are not in the audit log.
    pub(crate) fn refusals_unrecorded(&self, count: u64) {
        self.refusals_unrecorded.inc_by(count);
    }

    /// Counts one key request; `outcome` is `Success` or the code of an exception.
    pub(crate) fn kms_request(
        &self,
        operation: &'static str,
        caller: &'static str,
        outcome: &str,
        elapsed: Duration,
    ) {
        let requests = |outcome: &str| {
            self.kms_requests
                .with_label_values(&[operation, caller, outcome])
        };
        with_resolved(
            &self.key_operations,
            [operation, caller],
            || KeyOperation {
                succeeded: requests(SUCCESS),
                latency: self.kms_latency.with_label_values(&[operation]),
            },
            |handles| {
                if outcome == SUCCESS {
                    handles.succeeded.inc();
                } else {
                    requests(outcome).inc();
                }
                handles.latency.observe(elapsed.as_secs_f64());
            },
        );
    }

    /// Counts one connection that a limit of `listener` closed.
    pub(crate) fn turned_out(&self, listener: &str, reason: &str) {
        self.turned_out.with_label_values(&[listener, reason]).inc();
    }

    /// Counts one cache look-up.
    pub(crate) fn cache(&self, cache: &str, hit: bool) {
        self.cache
            .with_label_values(&[cache, if hit { "hit" } else { "miss" }])
            .inc();
    }

    /// Work on a job of `kind` began.
    pub(crate) fn job_started(&self, kind: &str) {
        self.jobs.running.with_label_values(&[kind]).inc();
    }

    /// A job's step ended and advanced it by so many units.
    pub(crate) fn job_advanced(&self, kind: &str, units: u64) {
        self.jobs.steps.with_label_values(&[kind]).inc();
        self.jobs.units.with_label_values(&[kind]).inc_by(units);
    }

    /// A job's step failed and will be tried again.
    pub(crate) fn job_retried(&self, kind: &str) {
        self.jobs.retries.with_label_values(&[kind]).inc();
    }

    /// Work on a job stopped: for good with `outcome`, else for now.
    pub(crate) fn job_stopped(&self, kind: &str, outcome: Option<&str>) {
        self.jobs.running.with_label_values(&[kind]).dec();
        if let Some(outcome) = outcome {
            self.jobs.ended.with_label_values(&[kind, outcome]).inc();
        }
    }

    /// Whether jobs are worked on. Those that were when it ended are not any more.
    pub(crate) fn jobs_up(&self, up: bool) {
        self.jobs.up.set(i64::from(up));
        if !up {
            self.jobs.running.reset();
        }
    }

    /// Whether the marks between the parts of the data directory could be brought up to date.
    pub(crate) fn marks_up(&self, up: bool) {
        self.marks_up.set(i64::from(up));
    }

    /// Handles on one operation's counters, for a path too hot for look-ups by label.
    pub(crate) fn operation(&self, front: Front, operation: &'static str) -> Operation {
        let operation = self.counted(front, operation);
        for counter in operation.counters() {
            counter.get();
        }
        operation
    }

    /// The same, with no series before it has something to count: what strangers ask for is to make as few as it can.
    fn counted(&self, front: Front, operation: &'static str) -> Operation {
        let front = front.label();
        let counter = |family: &IntCounterVec, label| Counter {
            family: family.clone(),
            labels: [front, operation, label],
            counter: OnceLock::new(),
        };
        Operation {
            ok: counter(&self.requests, Outcome::Ok.label()),
            client_error: counter(&self.requests, Outcome::ClientError.label()),
            server_error: counter(&self.requests, Outcome::ServerError.label()),
            errors_client: counter(&self.errors, "client"),
            errors_server: counter(&self.errors, "server"),
            bytes_in: counter(&self.bytes, "in"),
            bytes_out: counter(&self.bytes, "out"),
            latency: self.latency.with_label_values(&[front, operation]),
        }
    }

    /// The exposition text of everything, and its content type.
    pub(crate) fn render(&self) -> prometheus::Result<(Vec<u8>, String)> {
        let encoder = TextEncoder::new();
        let mut text = Vec::with_capacity(16 * 1024);
        encoder.encode(&self.registry.gather(), &mut text)?;
        Ok((text, encoder.format_type().to_owned()))
    }
}

/// How the keyring calls the outcome of a request that was done.
const SUCCESS: &str = "Success";

/// Pre-resolved counters of one operation on keys, by one kind of caller.
#[derive(Debug, Clone)]
struct KeyOperation {
    succeeded: IntCounter,
    latency: prometheus::Histogram,
}

/// Pre-resolved counters of one operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    ok: Counter,
    client_error: Counter,
    server_error: Counter,
    errors_client: Counter,
    errors_server: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    latency: prometheus::Histogram,
}

/// A counter of a family, looked up when it first counts.
#[derive(Debug, Clone)]
struct Counter {
    family: IntCounterVec,
    labels: [&'static str; 3],
    counter: OnceLock<IntCounter>,
}

impl Counter {
    fn get(&self) -> &IntCounter {
        self.counter
            .get_or_init(|| self.family.with_label_values(&self.labels))
    }

    fn inc(&self) {
        self.get().inc();
    }

    fn inc_by(&self, by: u64) {
        self.get().inc_by(by);
    }
}

impl Operation {
    fn counters(&self) -> [&Counter; 7] {
        [
            &self.ok,
            &self.client_error,
            &self.server_error,
            &self.errors_client,
            &self.errors_server,
            &self.bytes_in,
            &self.bytes_out,
        ]
    }

    /// Counts one finished request.
    pub(crate) fn finished(
        &self,
        outcome: Outcome,
        elapsed: Duration,
        bytes_in: u64,
        bytes_out: u64,
    ) {
        match outcome {
            Outcome::Ok => self.ok.inc(),
            Outcome::ClientError => {
                self.client_error.inc();
                self.errors_client.inc();
            }
            Outcome::ServerError => {
                self.server_error.inc();
                self.errors_server.inc();
            }
        }
        if bytes_in > 0 {
            self.bytes_in.inc_by(bytes_in);
        }
        if bytes_out > 0 {
            self.bytes_out.inc_by(bytes_out);
        }
        self.latency.observe(elapsed.as_secs_f64());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_family_the_manual_names_is_there_after_one_request_each() {
        let metrics = Metrics::new().unwrap();
        metrics.request(Request {
            front: Front::S3,
            operation: "PutObject",
            outcome: Outcome::ClientError,
            elapsed: Duration::from_millis(3),
            bytes_in: 7,
            bytes_out: 9,
        });
        metrics.operation(Front::NBD, "READ").finished(
            Outcome::Ok,
            Duration::from_micros(40),
            0,
            4096,
        );
        for outcome in ["Success", "Success", "DisabledException"] {
            metrics.kms_request("Decrypt", "s3", outcome, Duration::from_millis(1));
        }
        metrics.cache("bucket_key", true);
        metrics.turned_out("aws", "stalled");
        metrics.jobs_up(true);
        metrics.marks_up(true);
        metrics.job_started("reseal");
        metrics.job_started("reseal");
        metrics.job_advanced("reseal", 9);
        metrics.job_retried("reseal");
        metrics.job_stopped("reseal", Some("done"));
        let text = String::from_utf8(metrics.render().unwrap().0).unwrap();
        for line in [
            r#"sealgate_requests_total{front="s3",operation="PutObject",outcome="client_error"} 1"#,
            r#"sealgate_errors_total{fault="client",front="s3",operation="PutObject"} 1"#,
            r#"sealgate_bytes_total{direction="in",front="s3",operation="PutObject"} 7"#,
            r#"sealgate_bytes_total{direction="out",front="nbd",operation="READ"} 4096"#,
            r#"sealgate_request_duration_seconds_bucket{front="nbd",operation="READ",le="0.00005"} 1"#,
            r#"sealgate_kms_requests_total{caller="s3",operation="Decrypt",outcome="Success"} 2"#,
            r#"sealgate_kms_requests_total{caller="s3",operation="Decrypt",outcome="DisabledException"} 1"#,
            r#"sealgate_kms_request_duration_seconds_count{operation="Decrypt"} 3"#,
            r#"sealgate_cache_requests_total{cache="bucket_key",result="hit"} 1"#,
            "sealgate_nbd_connections 0",
            r#"sealgate_connections_turned_out_total{listener="aws",reason="stalled"} 1"#,
            "sealgate_jobs_up 1",
            "sealgate_marks_up 1",
            r#"sealgate_jobs_running{kind="reseal"} 1"#,
            r#"sealgate_job_steps_total{kind="reseal"} 1"#,
            r#"sealgate_job_units_total{kind="reseal"} 9"#,
            r#"sealgate_job_retries_total{kind="reseal"} 1"#,
            r#"sealgate_jobs_ended_total{kind="reseal",outcome="done"} 1"#,
            "process_open_fds",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
