//! `sealgate attach`, `detach` and `attached`: volumes as devices of the Linux kernel that outlive their server.
//!
//! The kernel's NBD client does not come back by itself when its connection dies. `attach` does the handshake, gives the
//! kernel the connection, and stays: when a connection dies it makes another and hands it over, so that a
//! restart, a crash or an upgrade of the server is a pause to whoever uses the device, and no error. It may be
//! killed itself: the device goes on, and the next `attach` of the volume takes it over ([`identity`]).
//!
//! The kernel never sends again what was answered. So the agent reconnects only while nothing that was answered can have been lost
//! (`volume::CacheEpoch`); past that it makes the device fail ([`agent`]).

mod agent;
mod device;
mod dial;
mod identity;
mod message;
mod netlink;
mod plan;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use host::{Clock as _, Entropy as _, Lock, OsDisk, SystemClock, SystemEntropy, private};
use nbd::ExportName;
use nbd::client::Offer;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::agent::{Agent, End, Event, Loss, Next, Server as _};
use self::device::{Device, Devices};
use self::dial::{Address, Dialer, Link};
use self::identity::{Compared, Identity, LINKS_MAX};
use self::message::Terms;
use self::netlink::{Driver, DriverError};
use self::plan::{Plan, plan};
use crate::config::Config;
use crate::data_dir::Paths;
use crate::notify::notify;
use crate::output::{self, Format};
use crate::{harden, logging};

/// Where agents hold their locks; gone with a reboot, as the devices are.
const RUN_DIR: &str = "/run/sealgate-attach";
/// How often a lock is tried for that another has.
const LOCK_RETRY: Duration = Duration::from_millis(50);
/// How long an agent waits for the lock of a device: `attached` looks at it for a moment.
const LOCK_WAIT: Duration = Duration::from_millis(450);
/// How long an agent waits for others that are taking a device.
const ATTACHING_WAIT: Duration = Duration::from_secs(60);
/// More events than this wait for nothing: connections are 16 at most.
const EVENTS_MAX: usize = 256;
/// How often a server is tried that was not there at the beginning.
const RETRY: Duration = Duration::from_millis(500);

/// `sealgate attach`
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The volume: its id, or its tag Name
    volume: String,
    /// The device [default: the first that is free]
    #[arg(value_parser = parse_device)]
    device: Option<u32>,
    /// Connections to the server, one for each processor that does I/O at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(LINKS_MAX)))]
    connections: u32,
    /// The server's unix socket [default: nbd.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The server over TCP
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "socket")]
    tcp: Option<String>,
    /// Let TCP leave this machine although it is in plaintext
    #[arg(long, requires = "tcp")]
    allow_plaintext: bool,
    /// What the device claims as its logical block
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = parse_block_size)]
    block_size: u32,
    /// After so long without an answer the kernel sends a request again
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..=3600))]
    request_timeout: u32,
    /// So long requests wait for a server that is away, before they fail
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    patience: u32,
    /// So long the server is waited for at the beginning
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u32,
}

/// `sealgate detach`
#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// The device, or the volume that it has
    target: String,
}

fn parse_device(text: &str) -> Result<u32, String> {
    device::index(text).ok_or_else(|| "a device is /dev/nbd0, /dev/nbd1 and so on".into())
}

fn parse_block_size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size) if matches!(size, 512 | 1024 | 2048 | 4096) => Ok(size),
        _ => Err("512, 1024, 2048 or 4096".into()),
    }
}

/// A device was made to fail, because going on would have hidden a loss. The process's exit status is
/// [`STATUS`](Self::STATUS): nothing is mended by starting it again.
#[derive(Debug, thiserror::Error)]
#[error("{device} now fails: {loss}. Unmount it, check what is on it, and attach it again")]
pub(crate) struct Lost {
    device: String,
    loss: Loss,
}

impl Lost {
    /// The exit status.
    pub(crate) const STATUS: u8 = 3;
}

/// Attaches a volume, or takes over a device that has it, and keeps it attached until a signal.
pub(crate) fn attach(config: &Config, command: &Attach) -> anyhow::Result<()> {
    logging::start(&config.log)?;
    let export = ExportName::new(command.volume.as_str())?;
    anyhow::ensure!(!export.as_str().is_empty(), "name a volume");
    let dialer = Dialer {
        address: match (&command.socket, &command.tcp) {
            (_, Some(host)) => Address::Tcp(host.clone()),
            (Some(path), _) => Address::Unix(path.clone()),
            _ => Address::Unix(Paths(&config.data_dir).nbd_socket()),
        },
        export,
        allow_plaintext: command.allow_plaintext,
    };
    // First: it is a thread's, and its later threads have it from there. The driver has one of its own.
    keep_off_the_device();
    let driver = Driver::open()?;
    let (events, told) = mpsc::sync_channel(EVENTS_MAX);
    // Both before a device is: no death of a connection is missed, and no signal leaves one without an agent by surprise.
    driver.watch(events.clone())?;
    heed_signals(events)?;

    let clock = SystemClock::new();
    let attached = attach_device(&driver, &dialer, command)?;
    let path = device::path(attached.device);
    let volume = attached.identity.volume().to_owned();
    tracing::info!(device = path, volume, server = %dialer.address, connections = attached.identity.links(),
        taken_over = attached.taken_over, "attached");
    // By the volume's own name from now on: a tag may be given to another volume.
    let dialer = Dialer {
        export: ExportName::new(volume.as_str())?,
        ..dialer
    };
    let mut agent = Agent::new(
        (&driver, &dialer),
        (&clock, &SystemEntropy),
        attached.device,
        attached.size,
        attached.identity,
    );
    if attached.taken_over {
        agent = agent.doubting();
    }
    notify("READY=1");
    output::text(&format!("{path}\n"))?;

    let mut event = Event::Tick;
    let end = loop {
        match agent.step(event) {
            Next::End(end) => break end,
            Next::Wait(time) => {
                event = match told.recv_timeout(time) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout) => Event::Tick,
                    Err(RecvTimeoutError::Disconnected) => Event::Leave,
                };
            }
        }
    };
    notify("STOPPING=1");
    drop(attached.lock);
    match end {
        End::Detached => tracing::info!(device = path, "detached"),
        End::Gone => tracing::info!(device = path, "somebody else has detached it"),
        End::Left(why) => {
            tracing::warn!(
                device = path,
                why,
                "left attached, without an agent: `sealgate attach {volume}` takes it over"
            );
        }
        End::Lost(loss) => bail!(Lost { device: path, loss }),
    }
    Ok(())
}

/// Nothing of this process may have to be read or written through the device that it keeps alive.
fn keep_off_the_device() {
    if harden::lock_memory() == harden::LockedMemory::Unlocked {
        tracing::warn!("memory is not locked (ulimit -l): do not swap to this device");
    }
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::warn!(%error, "PR_SET_IO_FLUSHER is refused (CAP_SYS_RESOURCE): memory is not reclaimed with care");
    }
}

/// SIGTERM and SIGINT detach the device if nobody uses it; SIGHUP leaves it.
fn heed_signals(events: SyncSender<Event>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let work = move || {
        runtime.block_on(async {
            loop {
                let event = tokio::select! {
                    _ = terminate.recv() => Event::Stop,
                    _ = interrupt.recv() => Event::Stop,
                    _ = hang_up.recv() => Event::Leave,
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        });
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(work)?;
    Ok(())
}

/// A device, and the right to be its agent.
struct Attached {
    device: u32,
    size: u64,
    identity: Identity,
    taken_over: bool,
    lock: Lock,
}

fn attach_device(driver: &Driver, dialer: &Dialer, command: &Attach) -> anyhow::Result<Attached> {
    let name = dialer.export.as_str();
    // Before the server is asked: a device can be taken over while there is none.
    let planned = plan(&driver.devices()?, &[name], command.device)?;
    if let Plan::Adopt(device) = planned {
        return adopt(device);
    }
    let first = dial_first(dialer, command.wait)?;
    let identity = Identity::of(&first.1, &dialer.export, command.connections)?;
    anyhow::ensure!(
        command.connections == 1 || first.1.may_have_several_connections(),
        "the server allows one connection to this export"
    );
    // Until a device has it no other agent may look whether one has: two devices of one volume are two caches of it.
    let _attaching = attaching()?;
    // Now the volume's own name is known, by which it may be attached.
    let candidates = match plan(
        &driver.devices()?,
        &[name, identity.volume()],
        command.device,
    )? {
        Plan::Adopt(device) => return adopt(device),
        Plan::Fresh(candidates) => candidates,
    };
    let size = first.1.size;
    let mut links = vec![first.0];
    while links.len() < command.connections as usize {
        let (link, offer) = dialer.dial()?;
        anyhow::ensure!(
            identity.compare(size, &offer) == Compared::Same,
            "the server restarted while it was asked: try again"
        );
        links.push(link);
    }
    let terms = Terms {
        size,
        block_size: command.block_size,
        flags: first.1.flags,
        request_timeout: command.request_timeout,
        patience: command.patience,
        identity: identity.to_string(),
    };
    for device in candidates {
        // Another agent may be about to use it.
        let Some(lock) = lock(device)? else { continue };
        match driver.connect(device, &terms, &links) {
            Ok(()) => {
                return Ok(Attached {
                    device,
                    size,
                    identity,
                    taken_over: false,
                    lock,
                });
            }
            Err(DriverError::Busy) if command.device.is_none() => {}
            Err(error) => return Err(error).context(device::path(device)),
        }
    }
    bail!("no free NBD device")
}

fn adopt(device: Device) -> anyhow::Result<Attached> {
    let path = device::path(device.index);
    let Some(lock) = lock(device.index)? else {
        bail!("it is attached as {path} already, and another agent keeps it so");
    };
    let identity = device
        .identity
        .context("a device to take over has an identity")?;
    Ok(Attached {
        device: device.index,
        size: device.size,
        identity,
        taken_over: true,
        lock,
    })
}

/// The first connection, for which a server that is just starting is waited.
fn dial_first(dialer: &Dialer, wait_seconds: u32) -> anyhow::Result<(Link, Offer)> {
    let clock = SystemClock::new();
    loop {
        match dialer.dial() {
            Ok(dialed) => return Ok(dialed),
            Err(error) => {
                let is_away = error.downcast_ref::<std::io::Error>().is_some()
                    || matches!(
                        error.downcast_ref(),
                        Some(
                            nbd::client::ClientError::Io(_)
                                | nbd::client::ClientError::ShuttingDown
                        )
                    );
                if !is_away || clock.elapsed() >= Duration::from_secs(wait_seconds.into()) {
                    return Err(error);
                }
                tracing::debug!(error = format!("{error:#}"), "waiting for the server");
                std::thread::sleep(SystemEntropy.jitter(RETRY));
            }
        }
    }
}

fn lock_path(device: u32) -> PathBuf {
    Path::new(RUN_DIR).join(format!("nbd{device}.lock"))
}

/// The right to look for a device and take it, for which the others wait.
fn attaching() -> anyhow::Result<Lock> {
    let lock = take_lock(&Path::new(RUN_DIR).join("attaching.lock"), ATTACHING_WAIT)?;
    lock.context("another `sealgate attach` is taking a device, and does not come to an end")
}

/// The right to be a device's agent; `None` if another process has it.
fn lock(device: u32) -> anyhow::Result<Option<Lock>> {
    take_lock(&lock_path(device), LOCK_WAIT)
}

/// Takes a lock, for which others are waited so long; `None` if one still has it.
fn take_lock(path: &Path, wait: Duration) -> anyhow::Result<Option<Lock>> {
    private::create_dirs(&OsDisk, Path::new(RUN_DIR))
        .with_context(|| format!("cannot make {RUN_DIR}"))?;
    let clock = SystemClock::new();
    loop {
        match Lock::take(&OsDisk, path) {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if clock.elapsed() >= wait {
                    return Ok(None);
                }
                std::thread::sleep(LOCK_RETRY);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Detaches a device that nobody uses. Its agent notices, and ends.
pub(crate) fn detach(command: &Detach, format: Format) -> anyhow::Result<()> {
    let target = command.target.as_str();
    let is_meant = |found: &Device| match device::index(target) {
        Some(index) => found.index == index,
        None => found
            .identity
            .as_ref()
            .is_some_and(|identity| identity.is_called(target)),
    };
    let driver = Driver::open()?;
    let Some(found) = driver
        .devices()?
        .into_iter()
        .find(|found| is_meant(found) && found.connected)
    else {
        bail!("{target} is not attached");
    };
    let path = device::path(found.index);
    anyhow::ensure!(
        found.identity.is_some(),
        "{path} was not attached by sealgate: nbd-client -d {path} detaches it"
    );
    driver
        .release_device(found.index)
        .with_context(|| format!("{path} stays attached"))?;
    output::print(
        format,
        &["DETACHED"],
        &[vec![path.clone()]],
        &json!({ "Device": path }),
    )
}

/// Lists the devices that have volumes.
pub(crate) fn attached(format: Format) -> anyhow::Result<()> {
    let devices = Devices::new();
    let (mut rows, mut document) = (Vec::new(), Vec::new());
    // Without the driver, which is for root alone, a device that fails looks like one that does not.
    let all = match Driver::open().map(|driver| driver.devices()) {
        Ok(Ok(all)) => all,
        _ => devices.all()?,
    };
    for device in all {
        let Some(identity) = &device.identity else {
            continue;
        };
        let held = devices.held_by(device.index)?;
        let watched = is_locked(device.index);
        let state = match (device.connected, watched) {
            (true, Some(true)) => "attached",
            (true, Some(false)) => "without an agent",
            (true, None) => "attached, agent unknown",
            (false, _) => "failed",
        };
        rows.push(vec![
            device::path(device.index),
            identity.volume().to_owned(),
            identity.name().to_owned(),
            device.size.to_string(),
            identity.links().to_string(),
            state.to_owned(),
            if held.is_empty() {
                "-".into()
            } else {
                held.join(", ")
            },
        ]);
        document.push(json!({
            "Device": device::path(device.index),
            "VolumeId": identity.volume(),
            "Name": identity.name(),
            "SizeBytes": device.size,
            "Connections": identity.links(),
            "Epoch": identity.epoch(),
            "Connected": device.connected,
            "HasAgent": watched,
            "HeldBy": held,
        }));
    }
    output::print(
        format,
        &[
            "DEVICE",
            "VOLUME",
            "NAME",
            "BYTES",
            "CONNECTIONS",
            "STATE",
            "HELD BY",
        ],
        &rows,
        &document,
    )
}

/// Whether a device has an agent; `None` if this user may not know.
fn is_locked(device: u32) -> Option<bool> {
    let path = lock_path(device);
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Some(false),
        Err(_) => return None,
    }
    match Lock::take(&OsDisk, &path) {
        Ok(_) => Some(false),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(true),
        Err(_) => None,
    }
}
