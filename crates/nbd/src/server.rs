//! Listeners, connections, limits and the way they end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::{Exports, Observer, Peer};

/// Limits and policies of a [`Server`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Connections at a time, handshakes included; more are accepted and closed at once.
    pub connections_max: usize,
    /// From accept to the first request, the attaching of the export included.
    pub handshake_timeout: Duration,
    /// TLS for TCP connections. If it is there, TCP clients must use it; if not, TCP is plain. Unix sockets are
    /// always plain.
    pub tls: Option<Arc<dyn TlsUpgrade>>,
    /// Longest busy wait for the next request of a client that sends one at a time; zero never spins.
    pub spin_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 256,
            handshake_timeout: Duration::from_secs(15),
            tls: None,
            spin_max: Duration::from_micros(50),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("connections_max", &self.connections_max)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("tls", &self.tls.is_some())
            .field("spin_max", &self.spin_max)
            .finish()
    }
}

/// Turns a plain connection into a TLS session after `NBD_OPT_STARTTLS`. The crate brings no TLS of its own.
#[async_trait]
pub trait TlsUpgrade: Send + Sync + 'static {
    /// Runs the server's side of the TLS handshake. No byte of it has been read from the socket.
    ///
    /// # Errors
    /// Whatever went wrong; the connection is closed.
    async fn upgrade(&self, socket: TcpStream) -> io::Result<TlsSession>;
}

/// A TLS session and what it proved.
pub struct TlsSession {
    /// The identity that the client proved, if it had to.
    pub identity: Option<String>,
    /// The rest of the handshake runs over this.
    pub stream: Box<dyn TlsStream>,
}

/// A TLS stream that can leave the runtime: negotiation is asynchronous, transmission runs on a thread.
pub trait TlsStream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The same session over a blocking socket (`TcpStream::into_std`, `set_nonblocking(false)`, and rustls's
    /// `StreamOwned`).
    ///
    /// # Errors
    /// If the socket cannot be taken out of the runtime.
    fn into_blocking(self: Box<Self>) -> io::Result<Box<dyn BlockingStream>>;
}

/// A byte stream whose `read` and `write` block.
pub trait BlockingStream: io::Read + io::Write + Send {}

impl<T: io::Read + io::Write + Send> BlockingStream for T {}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Connections that were answered and closed in time.
    pub finished: usize,
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// An NBD server. A handle: clones are the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    exports: Arc<dyn Exports>,
    observer: Arc<dyn Observer>,
}

impl Server {
    /// A server without listeners yet.
    pub fn new(options: Options, exports: Arc<dyn Exports>, observer: Arc<dyn Observer>) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                exports,
                observer,
            }),
        }
    }

    /// Accepts connections on a unix socket until [`shutdown`](Self::shutdown); the peer is named by the kernel.
    /// The socket's file and its mode are the caller's.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve_unix(&self, listener: UnixListener) -> io::Result<()> {
        let _ = (listener, &self.shared.exports, &self.shared.options);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Accepts TCP connections until [`shutdown`](Self::shutdown), plain or TLS as [`Options::tls`] says.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve_tcp(&self, listener: TcpListener) -> io::Result<()> {
        let _ = (listener, &self.shared.observer);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Stops accepting, finishes and answers the requests that have arrived, answers later ones `ESHUTDOWN`, closes,
    /// and after `deadline` cuts what is left. Returns when every connection is gone. Cancel-safe; calling it again waits again.
    pub async fn shutdown(&self, deadline: Duration) -> Drained {
        let _ = deadline;
        Drained::default()
    }

    /// Connections now, handshakes included.
    pub fn connections(&self) -> usize {
        0
    }
}

/// Kept for `Peer`'s constructors.
#[allow(dead_code)]
fn peer_of_tcp(stream: &TcpStream) -> io::Result<Peer> {
    Ok(Peer::Tcp {
        addr: stream.peer_addr()?,
    })
}
