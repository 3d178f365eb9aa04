//! Who is at the other end of a connection, as far as the transport can tell.

use std::fmt;
use std::net::SocketAddr;

/// The other end of a connection. What rights it has is for [`Exports`](crate::Exports) to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A process on this machine, named by the kernel (`SO_PEERCRED`), so it cannot be forged.
    Unix {
        /// Effective user at the time of `connect`.
        uid: u32,
        /// Effective group at the time of `connect`.
        gid: u32,
        /// Process at the time of `connect`.
        pid: i32,
    },
    /// A plain TCP connection: an address is no identity.
    Tcp {
        /// Where it comes from.
        addr: SocketAddr,
    },
    /// A TLS connection whose client proved `identity`.
    Tls {
        /// Where it comes from.
        addr: SocketAddr,
        /// What the TLS layer verified (the certificate's subject, the PSK's name), or none if the client
        /// showed nothing.
        identity: Option<String>,
    },
}

impl Peer {
    /// One word for metric labels: `unix`, `tcp` or `tls`.
    pub const fn transport(&self) -> &'static str {
        match self {
            Self::Unix { .. } => "unix",
            Self::Tcp { .. } => "tcp",
            Self::Tls { .. } => "tls",
        }
    }

    /// The address, where there is one.
    pub const fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix { .. } => None,
            Self::Tcp { addr } | Self::Tls { addr, .. } => Some(*addr),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, pid, .. } => write!(f, "unix uid={uid} pid={pid}"),
            Self::Tcp { addr } => write!(f, "tcp {addr}"),
            Self::Tls { addr, identity } => {
                write!(
                    f,
                    "tls {addr} {}",
                    identity.as_deref().unwrap_or("anonymous")
                )
            }
        }
    }
}
