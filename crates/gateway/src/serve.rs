//! `sealgate serve`: puts the parts together, runs them, takes them apart again.
//!
//! Order matters twice. Ports are bound before the data directory is touched, so that a port in use
//! changes nothing; and whatever can refuse (configuration, lock, root key, stores) comes before the
//! first answer. At the end listeners stop first, then requests in flight end, then the volumes are
//! flushed, and only then is the directory given up.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use host::{OsDisk, private};
use keyring::{Keyring, SecretVec};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use volume::Volumes;

use crate::admin::{Admin, Readiness, State};
use crate::assembly::Assembly;
use crate::background;
use crate::commands;
use crate::config::Config;
use crate::data_dir::{DataDir, Paths, Runtime};
use crate::harden::{self, LockedMemory};
use crate::known;
use crate::listener::{self, Limits};
use crate::logging;
use crate::metrics::Metrics;
use crate::refusals::{self, Refusals};
use crate::root_key;

/// Metrics are asked for by a few scrapers; more connections than this are a mistake or an attack.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// How often keys past their deletion date are looked for.
const KEY_SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// How often it is asked whether what is attached still may be.
const REVIEW_INTERVAL: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    logging::start(&config.log)?;
    harden::forbid_core_dumps().context("cannot forbid core dumps")?;
    harden::raise_file_limit();
    let memory = harden::lock_memory();
    if memory == LockedMemory::Unlocked && config.process.require_locked_memory {
        anyhow::bail!(
            "memory cannot be locked (ulimit -l), and process.require_locked_memory is set"
        )
    }
    // Asked for before signals are caught, so that the prompt can be left with Ctrl-C.
    let passphrase = root_key::passphrase(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(config, passphrase, memory));
    // Blocking work that is still stuck in the kernel must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// The sockets, bound before anything else happens.
struct Listeners {
    aws: TcpListener,
    admin: TcpListener,
    nbd: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = async |what: &str, address: SocketAddr| {
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} ({what})"))
        };
        Ok(Self {
            aws: bind("aws.listen", config.aws.listen).await?,
            admin: bind("admin.listen", config.admin.listen).await?,
            nbd: match config.nbd.listen {
                Some(address) => Some(bind("nbd.listen", address).await?),
                None => None,
            },
        })
    }
}

async fn serve(
    config: Config,
    passphrase: Option<SecretVec>,
    memory: LockedMemory,
) -> anyhow::Result<()> {
    // Registered first: a signal during the start is acted on as soon as the stores are open, not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listeners = Listeners::bind(&config).await?;
    check_socket_path(&config.data_dir)?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let metrics = Arc::new(Metrics::new().context("metrics")?);
    let readiness = Arc::new(Readiness::default());
    let (stop, stopped) = watch::channel(false);

    let limits = |connections_max| Limits {
        connections_max,
        header_timeout: Duration::from_secs(config.aws.header_timeout_seconds),
        drain: Duration::from_secs(config.process.drain_seconds),
        open: None,
    };
    let runtime = Runtime {
        aws: format!("http://{}", listeners.aws.local_addr()?),
        admin: format!("http://{}", listeners.admin.local_addr()?),
        nbd_unix: data_dir.paths().nbd_socket(),
        nbd_tcp: listeners
            .nbd
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()?,
        region: config.regions.first().cloned().unwrap_or_default(),
        pid: std::process::id(),
    };
    // The admin port answers while the stores are opened, so that `/readyz` can say so; it outlives the drain.
    let (admin_stop, admin_stopped) = watch::channel(false);
    let admin = Arc::new(Admin {
        metrics: Arc::clone(&metrics),
        readiness: Arc::clone(&readiness),
        keyrings: OnceLock::new(),
    });
    let admin_parts = Arc::clone(&admin);
    let admin_limits = Limits {
        drain: Duration::from_millis(200),
        ..limits(ADMIN_CONNECTIONS_MAX)
    };
    let admin = tokio::spawn(listener::serve(
        listeners.admin,
        admin_limits,
        admin_stopped,
        move |request, _| Arc::clone(&admin).handle(request),
    ));

    let root_key = root_key::provider(&config.root_key, data_dir.paths(), passphrase)?;
    let store_key = root_key::open(&data_dir, Arc::clone(&root_key)).await?;
    let assembly =
        Assembly::open(&config, &data_dir, &store_key, &metrics, Arc::new(OsDisk)).await?;
    let nbd_unix = bind_nbd_socket(&data_dir)?;
    let Assembly {
        keyrings,
        volumes,
        aws,
        nbd,
        objects,
        catalogue,
        jobs,
        known,
        audit,
        refusals: (refusals, refused),
    } = assembly;
    let recorder = tokio::spawn(refusals::record(
        refused,
        audit.clone(),
        Arc::clone(&metrics),
    ));
    let teller = tokio::spawn(tell_of_refusals(Arc::clone(&refusals)));
    let _ = admin_parts.keyrings.set(keyrings.clone());
    private::replace(
        &OsDisk,
        &data_dir.paths().runtime(),
        &serde_json::to_vec_pretty(&runtime)?,
    )
    .context("cannot write runtime.json")?;

    let aws_limits = Limits {
        open: Some(metrics.aws_connections.clone()),
        ..limits(config.aws.connections_max)
    };
    let (jobs_stopped, marks_stopped, look_stopped) =
        (stopped.clone(), stopped.clone(), stopped.clone());
    let clock = Arc::clone(&aws.clock);
    let aws = tokio::spawn(listener::serve(
        listeners.aws,
        aws_limits,
        stopped,
        move |request, peer| Arc::clone(&aws).handle(request, peer),
    ));
    let mut nbd_loops = tokio::task::JoinSet::new();
    let server = nbd.clone();
    nbd_loops.spawn(async move { server.serve_unix(nbd_unix).await });
    if let Some(listener) = listeners.nbd {
        let server = nbd.clone();
        nbd_loops.spawn(async move { server.serve_tcp(listener).await });
    }
    let objects_stopped = objects.stopped();
    let objects_readiness = Arc::clone(&readiness);
    let watcher = tokio::spawn(async move {
        objects_stopped.await;
        objects_readiness.part_stopped("objects");
    });
    let sweeper = tokio::spawn(sweep_keys(keyrings));
    let reviewer = tokio::spawn(review_attachments(volumes));
    let worker = tokio::spawn(background::work(
        jobs,
        jobs_stopped,
        Arc::clone(&metrics),
        Arc::clone(&readiness),
    ));
    let keeper = tokio::spawn(known::keep(
        Arc::clone(&known),
        audit.clone(),
        Arc::clone(&metrics),
        Arc::clone(&readiness),
        clock,
        marks_stopped,
    ));
    let looker = tokio::spawn(known::look_through(Arc::clone(&objects), look_stopped));
    // Said only now: a start that is refused says why, and nothing else.
    if memory == LockedMemory::Unlocked {
        tracing::warn!(
            "memory is not locked (ulimit -l is not unlimited): keys may reach the swap, if there is one"
        );
    }
    root_key::warn_if_beside_data(&config.root_key, &data_dir);
    readiness.set(State::Ready);
    tracing::info!(aws = runtime.aws, admin = runtime.admin, data_dir = %data_dir.path().display(), "ready");
    greet(&data_dir, &runtime, &root_key.describe());

    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = nbd_loops.join_next() => Some(ended),
    };
    readiness.set(State::Draining);
    tracing::info!(
        "draining: requests in flight have {} s",
        config.process.drain_seconds
    );
    let _ = stop.send(true);
    let drain = async {
        // Jobs end with the step they are in given up, and their leases given back.
        let (_, _, drained) = tokio::join!(
            aws,
            worker,
            nbd.shutdown(Duration::from_secs(config.process.drain_seconds))
        );
        if drained.cut > 0 {
            tracing::warn!(
                connections = drained.cut,
                "NBD connections were cut at the end of the drain time"
            );
        }
    };
    tokio::select! {
        () = drain => {}
        _ = terminate.recv() => tracing::warn!("second signal: not waiting for requests in flight"),
        _ = interrupt.recv() => tracing::warn!("second signal: not waiting for requests in flight"),
    }
    teller.abort();
    let told = async {
        refusals.finish().await;
        recorder.await
    };
    if tokio::time::timeout(Duration::from_secs(1), told)
        .await
        .is_err()
    {
        tracing::warn!("refusals may be missing in the audit log");
    }
    sweeper.abort();
    watcher.abort();
    reviewer.abort();
    looker.abort();
    let _ = keeper.await;
    if let Err(error) = known.keep(&audit, true).await {
        tracing::error!(%error, "the marks between the parts are not up to date");
    }
    drop((known, audit));
    objects.close().await;
    drop(catalogue);
    let _ = admin_stop.send(true);
    let _ = admin.await;
    let _ = std::fs::remove_file(data_dir.paths().nbd_socket());
    tracing::info!("stopped");
    match failure {
        None => Ok(()),
        Some(ended) => anyhow::bail!("the NBD listener failed: {ended:?}"),
    }
}

/// `sun_path` has 108 bytes, the last one NUL (unix(7)): better said before anything is made.
const SOCKET_PATH_LEN_MAX: usize = 107;

fn check_socket_path(data_dir: &Path) -> anyhow::Result<()> {
    let path = Paths(&std::path::absolute(data_dir)?).nbd_socket();
    anyhow::ensure!(
        path.as_os_str().len() <= SOCKET_PATH_LEN_MAX,
        "{} is too long for a unix socket ({SOCKET_PATH_LEN_MAX} bytes at most): choose a shorter data directory",
        path.display()
    );
    Ok(())
}

/// The NBD socket, private from the moment it exists: the process's umask sees to that, and leaves only the
/// owner's right to execute, which means nothing on a socket, to be taken off.
fn bind_nbd_socket(data_dir: &DataDir) -> anyhow::Result<UnixListener> {
    let path = data_dir.paths().nbd_socket();
    // The directory is ours alone, so a socket that is there is one that an earlier run left behind.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))
        .with_context(|| format!("cannot make {} private", path.display()))?;
    Ok(listener)
}

/// Destroys keys past their deletion date, and rotates those that are due, for as long as the server runs.
async fn sweep_keys(keyrings: Vec<Arc<Keyring>>) {
    let mut ticks = tokio::time::interval(KEY_SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        for keyring in &keyrings {
            let (account, region) = (keyring.account(), keyring.region());
            match keyring.sweep().await {
                Ok(swept) if swept == keyring::Swept::default() => {}
                Ok(swept) => tracing::info!(%account, %region, ?swept, "keys swept"),
                Err(error) => {
                    tracing::error!(%account, %region, %error, "keys could not be swept");
                }
            }
        }
    }
}

/// Tells of refusals that were too many to be told one by one, for as long as the server runs.
async fn tell_of_refusals(refusals: Arc<Refusals>) {
    let mut ticks = tokio::time::interval(refusals::INTERVAL);
    loop {
        ticks.tick().await;
        refusals.catch_up(false);
    }
}

/// Reports attached volumes that would be refused today, once each, for as long as the server runs.
async fn review_attachments(volumes: Vec<Arc<Volumes>>) {
    let mut reported = BTreeSet::new();
    let mut ticks = tokio::time::interval(REVIEW_INTERVAL);
    loop {
        ticks.tick().await;
        let volumes = volumes.clone();
        // It may be the last to hold a volume, and then it detaches it.
        let review = move || -> Vec<_> { volumes.iter().flat_map(|v| v.review()).collect() };
        let Ok(refused) = tokio::task::spawn_blocking(review).await else {
            return;
        };
        for (volume, error) in &refused {
            if !reported.contains(volume) {
                tracing::warn!(%volume, %error, "a volume is attached that would be refused today");
            }
        }
        reported = refused.into_iter().map(|(volume, _)| volume).collect();
    }
}

/// Says on standard output where everything is, with commands to paste.
fn greet(data_dir: &DataDir, runtime: &Runtime, root_key: &str) {
    let dir = data_dir.path().display();
    let quoted = commands::quote(&dir.to_string());
    let uri = commands::quote(&format!("nbd+unix:///first?socket={dir}/nbd.sock"));
    let name = std::env::args().next().unwrap_or_else(|| "sealgate".into());
    let nbd = runtime
        .nbd_tcp
        .map(|a| format!(" and {a}"))
        .unwrap_or_default();
    let text = format!(
        "\
Sealgate is ready.

  data         {dir}
  root key     {root_key}        back it up apart from the data
  credentials  {dir}/credentials     the account's root user
  AWS          {}   S3, KMS, STS, EC2 volumes
  NBD          {dir}/nbd.sock{nbd}
  metrics      {}/metrics

In another shell:

  eval \"$({name} env --data-dir {quoted})\"
  aws s3 mb s3://first && echo hello | aws s3 cp - s3://first/hello
  {name} volume create --size 1 --name first --data-dir {quoted}
  nbdinfo {uri}

",
        runtime.aws, runtime.admin,
    );
    // Whoever started us may have closed standard output; that is no reason not to serve.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
