//! The kernel's NBD driver, through generic netlink.
//!
//! Commands go over one socket, each waiting for its acknowledgement; the deaths of connections come over another, read by
//! a thread of its own. The driver has its family in the initial network namespace alone, and wants CAP_SYS_ADMIN.

use std::fs::File;
use std::io;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use neli::consts::nl::NlmF;
use neli::consts::socket::{Msg, NlFamily};
use neli::err::RouterError;
use neli::nl::NlPayload;
use neli::router::synchronous::NlRouter;
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::fs::{Mode, OFlags};

use super::agent::{Event, Kernel, Refused, Taken, Unreleased};
use super::device::{self, Device, Devices};
use super::dial::Link;
use super::identity::Identity;
use super::message::{self, Message, Terms};

/// Room for the events of a few thousand connections that die at once.
const EVENTS_LEN: usize = 1 << 20;
/// The longest datagram; an event has some 30 bytes.
const DATAGRAM_LEN: usize = 16 * 1024;

/// The driver.
pub(crate) struct Driver {
    commands: NlRouter,
    family: u16,
    group: u32,
    devices: Devices,
}

/// Why the driver cannot be had, or refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// The module is not loaded, or this is not the initial network namespace.
    #[error(
        "the kernel's NBD driver is not there: modprobe nbd (containers do not see the host's)"
    )]
    NoDriver,
    /// Not privileged.
    #[error("the kernel's NBD driver wants CAP_SYS_ADMIN: run as root")]
    NotPermitted,
    /// The device is taken.
    #[error("the device is in use")]
    Busy,
    /// There is no such device, it is not connected, or it is another's.
    #[error("{0}: there is no such device, or it is not connected, or not by sealgate")]
    Invalid(&'static str),
    /// Anything else.
    #[error("{doing}: {error}")]
    Other {
        /// What was tried.
        doing: &'static str,
        /// The kernel's words.
        error: String,
    },
}

impl DriverError {
    fn other(doing: &'static str, error: impl ToString) -> Self {
        Self::Other {
            doing,
            error: error.to_string(),
        }
    }
}

impl Driver {
    /// Finds the driver.
    pub(crate) fn open() -> Result<Self, DriverError> {
        let failed =
            |error: &dyn std::fmt::Display| DriverError::other("netlink", error.to_string());
        let (commands, _) = NlRouter::connect(NlFamily::Generic, None, Groups::empty())
            .map_err(|error| failed(&error))?;
        let family = match commands.resolve_genl_family(message::FAMILY) {
            Ok(family) => family,
            Err(RouterError::Nlmsgerr(_)) => return Err(DriverError::NoDriver),
            Err(error) => return Err(failed(&error)),
        };
        let group = commands
            .resolve_nl_mcast_group(message::FAMILY, message::GROUP)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            commands,
            family,
            group,
            devices: Devices::new(),
        })
    }

    /// Joins the group in which the driver tells of dead connections, and sends them on from a thread. Before a device is
    /// connected, so that none is missed.
    pub(crate) fn watch(&self, events: SyncSender<Event>) -> Result<(), DriverError> {
        let failed = |error: io::Error| DriverError::other("netlink", error);
        let socket = NlSocket::connect(NlFamily::Generic, None, Groups::empty()).map_err(failed)?;
        socket.set_recv_buffer_size(EVENTS_LEN).map_err(failed)?;
        socket
            .add_mcast_membership(Groups::new_groups(&[self.group]))
            .map_err(failed)?;
        let family = self.family;
        std::thread::Builder::new()
            .name("link-events".into())
            .spawn(move || {
                let mut datagram = vec![0; DATAGRAM_LEN];
                loop {
                    let dead = match socket.recv(&mut datagram[..], Msg::empty()) {
                        Ok((len, _)) => message::dead_links(&datagram[..len], family).ok(),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        // The buffer ran over (ENOBUFS), or something stranger; not so often that it keeps a processor busy.
                        Err(error) => {
                            tracing::warn!(%error, "events of the NBD driver were lost");
                            std::thread::sleep(Duration::from_millis(100));
                            None
                        }
                    };
                    let told = match dead {
                        None => vec![Event::Overrun],
                        Some(dead) => dead.into_iter().map(Event::LinkDead).collect(),
                    };
                    for event in told {
                        if events.send(event).is_err() {
                            return;
                        }
                    }
                }
            })
            .map_err(failed)?;
        Ok(())
    }

    /// Makes a device of connections.
    pub(crate) fn connect(
        &self,
        device: u32,
        terms: &Terms,
        links: &[Link],
    ) -> Result<(), DriverError> {
        let sockets: Vec<u32> = links.iter().map(Link::number).collect();
        self.ask(
            "connecting the device",
            message::connect(device, terms, &sockets),
        )
    }

    /// Whether a device is connected under an identity. The kernel shows one that was disconnected while it is open as if it
    /// still were; it has to be asked.
    pub(crate) fn is_alive(&self, device: u32, identity: &Identity) -> Result<bool, DriverError> {
        let message = message::probe(device, &identity.to_string());
        match self.ask("looking at the device", message) {
            Ok(()) => Ok(true),
            Err(DriverError::Invalid(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every device, each with the truth about whether it is connected.
    pub(crate) fn devices(&self) -> anyhow::Result<Vec<Device>> {
        let mut all = self.devices.all()?;
        for device in &mut all {
            if let Some(identity) = &device.identity {
                device.connected = device.connected && self.is_alive(device.index, identity)?;
            }
        }
        Ok(all)
    }

    fn ask<E: std::fmt::Display>(
        &self,
        doing: &'static str,
        message: Result<Message, E>,
    ) -> Result<(), DriverError> {
        let message = message.map_err(|error| DriverError::other(doing, error))?;
        let payload = NlPayload::Payload(message);
        let answers = self
            .commands
            .send::<u16, Message, u16, Message>(self.family, NlmF::ACK, payload)
            .map_err(|error| DriverError::other(doing, error))?;
        for answer in answers {
            match answer {
                Ok(_) => {}
                Err(RouterError::Nlmsgerr(error)) => {
                    let error = io::Error::from_raw_os_error(-*error.error());
                    return Err(match rustix::io::Errno::from_io_error(&error) {
                        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                            DriverError::NotPermitted
                        }
                        Some(rustix::io::Errno::BUSY) => DriverError::Busy,
                        Some(rustix::io::Errno::INVAL) => DriverError::Invalid(doing),
                        _ => DriverError::other(doing, error),
                    });
                }
                Err(error) => return Err(DriverError::other(doing, error)),
            }
        }
        Ok(())
    }

    /// Disconnects a device that nobody uses.
    ///
    /// The driver does not ask whether anybody does. So the device is opened for exclusive use, which fails if it or a
    /// partition is mounted, swapped to or under another device, in any mount namespace, and is held open until it is
    /// disconnected, so that nobody comes to use it in between.
    pub(crate) fn release_device(&self, device: u32) -> Result<(), Unreleased> {
        let failed = |error: &dyn std::fmt::Display| Unreleased::Failed(error.to_string());
        let held = self
            .devices
            .held_by(device)
            .map_err(|error| failed(&error))?;
        if !held.is_empty() {
            return Err(Unreleased::InUse(held.join(", ")));
        }
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
        let path = device::path(device);
        let open = match rustix::fs::open(&*path, flags, Mode::empty()) {
            Ok(open) => File::from(open),
            Err(rustix::io::Errno::BUSY) => {
                return Err(Unreleased::InUse(
                    "by something that is not in /proc".into(),
                ));
            }
            Err(error) => return Err(Unreleased::Failed(format!("{path}: {error}"))),
        };
        // What a program wrote to the bare device and did not sync.
        open.sync_all()
            .map_err(|error| Unreleased::Failed(format!("{path}: {error}")))?;
        self.disconnect(device).map_err(|error| failed(&error))
    }

    fn disconnect(&self, device: u32) -> Result<(), DriverError> {
        self.ask("disconnecting the device", message::disconnect(device))
    }
}

impl Kernel for Driver {
    type Link = Link;

    fn hand_over(&self, device: u32, identity: &Identity, link: Link) -> Result<Taken, Refused> {
        let refused = |error: &dyn std::fmt::Display| Refused(error.to_string());
        let inode = link.inode().map_err(|error| refused(&error))?;
        let message = message::reconfigure(device, &identity.to_string(), link.number());
        self.ask("handing over a connection", message)
            .map_err(|error| refused(&error))?;
        // The driver says yes although no connection was dead, and lets go of the socket. So ours is closed, and then it is
        // there only if the driver holds it.
        drop(link);
        match self.devices.has_socket(inode) {
            Ok(true) => Ok(Taken::Used),
            Ok(false) => Ok(Taken::Unneeded),
            Err(error) => Err(refused(&error)),
        }
    }

    fn release(&self, device: u32) -> Result<(), Unreleased> {
        self.release_device(device)
    }

    fn fail(&self, device: u32) -> Result<(), Refused> {
        self.disconnect(device)
            .map_err(|error| Refused(error.to_string()))
    }

    fn is_connected(&self, device: u32, identity: &Identity) -> bool {
        match self.devices.one(device) {
            Ok(Some(found)) if found.identity.as_ref() == Some(identity) => {
                found.connected && self.is_alive(device, identity).unwrap_or(true)
            }
            Ok(Some(_)) => false,
            Ok(None) => false,
            // Not seen is not gone.
            Err(_) => true,
        }
    }
}
