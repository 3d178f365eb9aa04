//! What the server needs of TLS. The crate brings none of its own.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

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
