//! The NBD protocol: codec, negotiation, transmission, an engine that runs a server's side of them, and the
//! [`client`]'s side of the handshake.
//!
//! The crate knows the protocol (fixed newstyle, structured replies, `base:allocation`; see `PROTOCOL.md`) and nothing
//! of what is stored: storage is an [`Export`], the choice and authorization of exports is an [`Exports`], metrics are
//! an [`Observer`]. [`Server`] ties them to sockets.
//!
//! It promises that no length from a peer is believed before it is checked, that memory for a connection is bounded whatever the
//! peer sends, that a request which fails never desynchronizes the stream, and that no answer is sent before the export says so.
//! It does not encrypt, authenticate or authorize anything by itself; TLS comes through [`TlsUpgrade`].

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attached;
pub mod client;
mod codec;
mod connection;
mod door;
mod errno;
mod export;
#[cfg(fuzzing)]
pub mod fuzzing;
mod negotiation;
mod observer;
mod peer;
mod protocol;
mod server;
mod stopwatch;
mod tls;
mod transmission;

pub use errno::Errno;
pub use export::{
    BlockSizes, Export, ExportInfo, ExportName, Exports, Extent, ExtentKind, InvalidName,
    OpenError, STRING_LEN_MAX, ZeroOptions,
};
pub use observer::{Closed, Command, Observer, Unobserved};
pub use peer::Peer;
pub use server::{Drained, Options, Server};
pub use tls::{BlockingStream, TlsSession, TlsStream, TlsUpgrade};
