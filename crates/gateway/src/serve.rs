//! `sealgate serve`: puts the parts together, runs them, takes them apart again.
//!
//! Order matters twice. Ports are bound before the data directory is touched, so that a port in use
//! changes nothing; and whatever can refuse (configuration, lock, root key, stores) comes before the
//! first answer. At the end listeners stop first, then requests in flight end, then the volumes are
//! flushed, and only then is the directory given up.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use host::memory::Memory;
use host::{OsDisk, private};
use keyring::{Keyring, SecretVec};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use volume::Volumes;

use crate::admin::{Admin, Readiness, State};
use crate::allocator;
use crate::assembly::Assembly;
use crate::background;
use crate::commands;
use crate::config::Config;
use crate::data_dir::{DataDir, Paths, Runtime};
use crate::door::{Door, Places};
use crate::handed::Handed;
use crate::harden::{self, LockedMemory};
use crate::known;
use crate::listener::{self, Limits};
use crate::logging;
use crate::metrics::Metrics;
use crate::notify::notify;
use crate::observers;
use crate::pace::Pace;
use crate::refusals::{self, Refusals};
use crate::reserve::{self, Reserve};
use crate::root_key;

/// Metrics are asked for by a few scrapers; more connections than this are a mistake or an attack.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// How often keys past their deletion date are looked for.
const KEY_SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// How often room is made while requests wait for memory.
const RELIEF_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is asked whether what is attached still may be.
const REVIEW_INTERVAL: Duration = Duration::from_secs(10);

/// How long the end waits for volumes to be flushed and released.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(mut config: Config) -> anyhow::Result<()> {
    logging::start(&config.log)?;
    harden::forbid_core_dumps().context("cannot forbid core dumps")?;
    if let Some(files) = harden::raise_file_limit() {
        fit_to(&mut config, files);
    }
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

/// Lets connections have two thirds of the open files that there may be, so that volumes and objects can still be opened when
/// as many clients come as may; and clients whose signature is not known to be right a quarter of the memory for bodies, of
/// which each may hold 256 KiB.
fn fit_to(config: &mut Config, files: u64) {
    let part = |of: u64| usize::try_from(files / of).unwrap_or(usize::MAX).max(1);
    let Config { aws, nbd, .. } = config;
    let open = format!("the process may have {files} files open (ulimit -n)");
    let in_memory = usize::try_from(aws.body_memory_mib).unwrap_or(usize::MAX);
    let (most, why) = if part(16) < in_memory {
        (part(16), open.as_str())
    } else {
        (in_memory.max(1), "aws.body_memory_mib has room for no more")
    };
    // The NBD limits are for the unix socket and for TCP each.
    for (key, limit, most, why) in [
        (
            "aws.connections_max",
            &mut aws.connections_max,
            part(4),
            open.as_str(),
        ),
        (
            "nbd.connections_max",
            &mut nbd.connections_max,
            part(8),
            &open,
        ),
        (
            "nbd.handshakes_max",
            &mut nbd.handshakes_max,
            part(16),
            &open,
        ),
        ("aws.strangers_max", &mut aws.strangers_max, most, why),
    ] {
        if *limit > most {
            tracing::warn!("{key} is {most} and not {limit}: {why}");
            *limit = most;
        }
    }
}

/// The sockets, bound before anything else happens.
struct Listeners {
    aws: TcpListener,
    /// For a runtime of its own.
    admin: std::net::TcpListener,
    nbd: Option<TcpListener>,
}

impl Listeners {
    /// Takes the sockets that were handed over, and binds the others.
    async fn bind(config: &Config, handed: &mut Handed) -> anyhow::Result<Self> {
        let bind = async |what: &str, handed: Option<StdTcpListener>, address: SocketAddr| {
            match handed {
                Some(socket) => {
                    socket.set_nonblocking(true)?;
                    TcpListener::from_std(socket)
                }
                None => TcpListener::bind(address).await,
            }
            .with_context(|| format!("cannot listen on {address} ({what})"))
        };
        let nbd_tcp = handed.nbd_tcp.take();
        Ok(Self {
            aws: bind("aws.listen", handed.aws.take(), config.aws.listen).await?,
            admin: bind("admin.listen", handed.admin.take(), config.admin.listen)
                .await?
                .into_std()?,
            nbd: match config.nbd.listen {
                Some(address) => Some(bind("nbd.listen", nbd_tcp, address).await?),
                None => None,
            },
        })
    }
}

async fn serve(
    mut config: Config,
    passphrase: Option<SecretVec>,
    memory: LockedMemory,
) -> anyhow::Result<()> {
    // Registered first: a signal during the start is acted on as soon as the stores are open, not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut handed = Handed::take()?;
    handed.apply(&mut config)?;
    let listeners = Listeners::bind(&config, &mut handed).await?;
    if handed.nbd.is_none() {
        check_socket_path(&config.data_dir)?;
    }
    let data_dir = DataDir::open(&config.data_dir)?;
    // Before anything is opened, which may need what it holds. If it fails, so does what needs it.
    let _ = Reserve::make_room(&OsDisk, data_dir.path());
    let metrics = Arc::new(Metrics::new().context("metrics")?);
    let readiness = Arc::new(Readiness::default());
    let (stop, stopped) = watch::channel(false);

    let clock: Arc<dyn host::Clock> = Arc::new(host::SystemClock::new());
    let limits = || Limits {
        clock: Arc::clone(&clock),
        header_timeout: Duration::from_secs(config.aws.header_timeout_seconds),
        drain: Duration::from_secs(config.process.drain_seconds),
        open: None,
    };
    let door = |listener, strangers_max, known_max| {
        let pace = Pace {
            window: Duration::from_secs(config.aws.stall_seconds),
            bytes_per_second_min: config.aws.bytes_per_second_min,
        };
        let places = Places {
            strangers_max,
            known_max,
            pace,
        };
        let told = observers::turned_out(listener, Arc::clone(&metrics), &clock);
        Door::new(places, told)
    };
    let runtime = Runtime {
        aws: format!("http://{}", listeners.aws.local_addr()?),
        admin: format!("http://{}", listeners.admin.local_addr()?),
        nbd_unix: match &handed.nbd {
            Some((_, path)) => path.clone(),
            None => data_dir.paths().nbd_socket(),
        },
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
        volumes: OnceLock::new(),
    });
    let admin_parts = Arc::clone(&admin);
    let admin_limits = Limits {
        drain: Duration::from_millis(200),
        ..limits()
    };
    let admin_door = door("admin", ADMIN_CONNECTIONS_MAX, 0);
    let admin = apart("admin", async move {
        let listener = TcpListener::from_std(listeners.admin)?;
        let handle = move |request, _| Arc::clone(&admin).handle(request);
        listener::serve(listener, admin_door, admin_limits, admin_stopped, handle).await;
        Ok(())
    })?;

    let root_key = root_key::provider(&config.root_key, data_dir.paths(), passphrase)?;
    let started = async {
        let store_key = root_key::open(&data_dir, Arc::clone(&root_key)).await?;
        Assembly::open(&config, &data_dir, &store_key, &metrics, Arc::new(OsDisk)).await
    };
    let assembly = reserve::explained(&OsDisk, data_dir.path(), started.await)?;
    let reserve = Reserve::open(Arc::new(OsDisk), data_dir.path());
    let _reserve = match reserve.and_then(Reserve::keep) {
        Ok(kept) => Some(kept),
        Err(error) => {
            let file = data_dir.path().join("reserve");
            tracing::warn!(%error, "{} cannot hold space in reserve", file.display());
            None
        }
    };
    let (nbd_unix, nbd_socket_is_ours) = match handed.nbd.take() {
        Some((socket, _)) => {
            socket.set_nonblocking(true)?;
            (UnixListener::from_std(socket)?, false)
        }
        None => (bind_nbd_socket(&data_dir)?, true),
    };
    let Assembly {
        keyrings,
        volumes,
        aws,
        nbd,
        objects,
        memory: body_memory,
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

    let _ = admin_parts.volumes.set(volumes.clone());
    let aws_limits = Limits {
        open: Some(metrics.aws_connections.clone()),
        ..limits()
    };
    let aws_door = door("aws", config.aws.strangers_max, config.aws.connections_max);
    let giver = tokio::spawn(give_memory_back());
    let relief = tokio::spawn(relieve(body_memory, Arc::clone(&aws_door)));
    let (jobs_stopped, marks_stopped, look_stopped) =
        (stopped.clone(), stopped.clone(), stopped.clone());
    let clock = Arc::clone(&aws.clock);
    let aws = tokio::spawn(listener::serve(
        listeners.aws,
        aws_door,
        aws_limits,
        stopped,
        move |request, guest| Arc::clone(&aws).handle(request, guest),
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
    let reviewer = tokio::spawn(review_attachments(volumes.clone()));
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
    notify("READY=1");

    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = nbd_loops.join_next() => Some(ended),
    };
    readiness.set(State::Draining);
    notify("STOPPING=1");
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
    let patience = tokio::select! {
        () = drain => RELEASE_TIMEOUT,
        _ = terminate.recv() => Duration::ZERO,
        _ = interrupt.recv() => Duration::ZERO,
    };
    if patience.is_zero() {
        tracing::warn!("second signal: not waiting for requests in flight");
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
    giver.abort();
    relief.abort();
    sweeper.abort();
    watcher.abort();
    reviewer.abort();
    looker.abort();
    // Connections that were cut release their volumes as their last request ends.
    let mut unflushed = Vec::new();
    for volumes in &volumes {
        unflushed.extend(volumes.detached(patience).await);
    }
    let _ = keeper.await;
    if let Err(error) = known.keep(&audit, true).await {
        tracing::error!(%error, "the marks between the parts are not up to date");
    }
    drop((known, audit));
    objects.close().await;
    drop(catalogue);
    let _ = admin_stop.send(true);
    let _ = tokio::task::spawn_blocking(move || admin.join()).await;
    if nbd_socket_is_ours {
        let _ = std::fs::remove_file(&runtime.nbd_unix);
    }
    tracing::info!("stopped");
    if let Some(ended) = failure {
        anyhow::bail!("the NBD listener failed: {ended:?}");
    }
    if !unflushed.is_empty() {
        let named: Vec<String> = unflushed
            .iter()
            .map(|(id, why)| format!("{id} ({why})"))
            .collect();
        anyhow::bail!(
            "stopped with volumes that could not be flushed, so that what was written last may be lost: {}",
            named.join(", ")
        );
    }
    Ok(())
}

/// Runs `work` on a thread and a runtime of its own, which nothing else can keep busy: what says whether the rest is well
/// must not wait for it.
fn apart(
    name: &str,
    work: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new().name(name.to_owned());
    let named = name.to_owned();
    Ok(thread.spawn(move || {
        if let Err(error) = runtime.block_on(work) {
            tracing::error!(%error, "the {named} listener failed");
        }
    })?)
}

/// Has the allocator give freed memory back, for as long as the server runs.
async fn give_memory_back() {
    let mut ticks = tokio::time::interval(allocator::GIVE_BACK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // It takes a while after a burst; no worker is to be missed so long.
        let _ = tokio::task::spawn_blocking(allocator::give_back).await;
    }
}

/// Makes room, for as long as the server runs, where requests wait for memory that clients hold and do not use.
pub(crate) async fn relieve(memory: Arc<Memory>, door: Arc<Door>) {
    loop {
        let waiting = memory.scarce().await;
        door.free_memory(waiting);
        tokio::time::sleep(RELIEF_INTERVAL).await;
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
            let swept = keyring.sweep().await;
            if swept != keyring::Swept::default() {
                tracing::info!(%account, %region, ?swept, "keys swept");
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
    let socket = runtime.nbd_unix.display();
    let uri = commands::quote(&format!("nbd+unix:///first?socket={socket}"));
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
  NBD          {socket}{nbd}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_what_they_ask_for() {
        let mut config = Config::default();
        fit_to(&mut config, 1 << 20);
        assert_eq!(config, Config::default());
        fit_to(&mut config, 1024);
        let (aws, nbd) = (&config.aws, &config.nbd);
        let most = aws.connections_max + aws.strangers_max;
        let most = most + 2 * (nbd.connections_max + nbd.handshakes_max);
        assert!((600..=720).contains(&most), "{most}");
        assert!(config.check().is_ok());
    }
}
