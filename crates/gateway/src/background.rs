//! Background work: the job machinery, as the server runs it.

use std::sync::Arc;

use catalogue::{Catalogue, Scope};
use crypto::random::SystemRandom;
use host::{Clock, SystemEntropy};
use jobs::{Jobs, Work};
use root::StoreKey;
use tokio::sync::watch;

use crate::admin::Readiness;
use crate::metrics::Metrics;
use crate::observers::JobSteps;

/// The jobs of `scope`; the kinds that this process works on are among `works`.
pub(crate) fn jobs(
    catalogue: Arc<dyn Catalogue>,
    store_key: StoreKey,
    scope: Scope,
    clock: Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    works: Vec<Arc<dyn Work>>,
) -> Arc<Jobs> {
    let options = jobs::Options {
        catalogue,
        store_key,
        scope,
        clock,
        entropy: Arc::new(SystemEntropy),
        random: Arc::new(SystemRandom),
        observer: Arc::new(JobSteps(Arc::clone(metrics))),
        running_max: jobs::Options::RUNNING_MAX,
        lease: jobs::Options::LEASE,
        kept: jobs::Options::KEPT,
    };
    Arc::new(Jobs::new(options, works))
}

/// Works on jobs until `stop`. If it cannot go on, it says so in the log, in the metrics and in readiness: what is
/// served stays served, but long work stands still until a restart.
pub(crate) async fn work(
    jobs: Arc<Jobs>,
    stop: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
) {
    metrics.jobs_up(true);
    let ended = jobs.run(stop).await;
    metrics.jobs_up(false);
    if let Err(error) = ended {
        tracing::error!(%error, "jobs have stopped: no background work until a restart");
        readiness.part_stopped("jobs");
    }
}
