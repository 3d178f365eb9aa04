//! What a server tells about its work, for metrics and logs.

use std::time::Duration;

use crate::{Errno, Peer};

/// A request of the transmission phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// `NBD_CMD_READ`
    Read,
    /// `NBD_CMD_WRITE`
    Write,
    /// `NBD_CMD_DISC`; has no answer.
    Disconnect,
    /// `NBD_CMD_FLUSH`
    Flush,
    /// `NBD_CMD_TRIM`
    Trim,
    /// `NBD_CMD_CACHE`
    Cache,
    /// `NBD_CMD_WRITE_ZEROES`
    WriteZeroes,
    /// `NBD_CMD_BLOCK_STATUS`
    BlockStatus,
    /// A number this server does not know.
    Unknown,
}

impl Command {
    /// Every value, for labels made in advance.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Disconnect,
        Self::Flush,
        Self::Trim,
        Self::Cache,
        Self::WriteZeroes,
        Self::BlockStatus,
        Self::Unknown,
    ];

    /// One word for metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Disconnect => "disconnect",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::Cache => "cache",
            Self::WriteZeroes => "write_zeroes",
            Self::BlockStatus => "block_status",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The client said so (`NBD_CMD_DISC`, `NBD_OPT_ABORT`), or hung up between requests.
    ByClient,
    /// The client broke the protocol, or hung up inside a message.
    Misbehaved,
    /// The client took too long over its part of the handshake.
    HandshakeTimeout,
    /// The client had not finished its handshake when others came, and it was of the largest crowd.
    Crowded,
    /// The client could not have the export it asked for.
    Refused,
    /// The socket failed.
    Transport,
    /// The server is shutting down.
    Shutdown,
    /// A read failed after part of its data was sent, or an export panicked: nothing better than hanging up was left.
    Failed,
}

impl Closed {
    /// One word for metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ByClient => "client",
            Self::Misbehaved => "misbehaved",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Crowded => "crowded",
            Self::Refused => "refused",
            Self::Transport => "transport",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
        }
    }
}

/// Hears of connections and requests. Called on the data path, so be quick and do not block. Every method has an
/// empty default.
pub trait Observer: Send + Sync + 'static {
    /// A connection was accepted, before its handshake.
    fn connection_opened(&self, peer: &Peer) {
        let _ = peer;
    }

    /// A connection is gone. Follows each `connection_opened`. `peer` may by now be the one that TLS proved.
    fn connection_closed(&self, peer: &Peer, why: Closed) {
        let _ = (peer, why);
    }

    /// A client was told that it cannot have its export because the server has as many connections as it may. Its
    /// handshake goes on.
    fn connection_refused(&self, peer: &Peer) {
        let _ = peer;
    }

    /// A request was answered: `bytes` is its length field (of a query too), `elapsed` runs from its header to its
    /// answer in the send buffer.
    fn request(&self, command: Command, bytes: u64, elapsed: Duration, outcome: Result<(), Errno>) {
        let _ = (command, bytes, elapsed, outcome);
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
