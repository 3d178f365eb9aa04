//! Where TLS is demanded, nothing is said before it, and nothing said before it counts.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

mod support;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nbd::{
    BlockingStream, ExportName, Exports, OpenError, Options, Peer, Server, TlsSession, TlsStream,
    TlsUpgrade, Unobserved,
};
use support::{Client, Memory, One};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Stands for TLS: bytes pass as they are, and the client is whoever this says.
struct Pretended;

struct Passing(TcpStream);

#[async_trait::async_trait]
impl TlsUpgrade for Pretended {
    async fn upgrade(&self, socket: TcpStream) -> std::io::Result<TlsSession> {
        Ok(TlsSession {
            identity: Some("CN=backup".into()),
            stream: Box::new(Passing(socket)),
        })
    }
}

impl TlsStream for Passing {
    fn into_blocking(self: Box<Self>) -> std::io::Result<Box<dyn BlockingStream>> {
        let socket = self.0.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(Box::new(socket))
    }
}

impl AsyncRead for Passing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buf)
    }
}

impl AsyncWrite for Passing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buf)
    }
    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Serves only those whom TLS has named.
struct Known(One);

#[async_trait::async_trait]
impl Exports for Known {
    async fn list(&self, peer: &Peer) -> Result<Vec<ExportName>, OpenError> {
        self.0.list(peer).await
    }
    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<nbd::ExportInfo, OpenError> {
        Ok(self.open(peer, name).await?.info())
    }
    async fn open(
        &self,
        peer: &Peer,
        name: &ExportName,
    ) -> Result<Arc<dyn nbd::Export>, OpenError> {
        match peer {
            Peer::Tls {
                identity: Some(_), ..
            } => self.0.open(peer, name).await,
            _ => Err(OpenError::Denied("who are you?".into())),
        }
    }
}

/// A server that demands TLS, and one client past the greeting.
fn demanding(client_flags: u32) -> (tokio::runtime::Runtime, Server, Client) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut options = Options::default();
    options.tls = Some(Arc::new(Pretended));
    let exports = Arc::new(Known(One(Arc::new(Memory::new(1 << 20)))));
    let server = Server::new(options, exports, Arc::new(Unobserved));
    let listener = runtime
        .block_on(TcpListener::bind(("127.0.0.1", 0)))
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = server.clone();
    runtime.spawn(async move { serving.serve_tcp(listener).await });
    let socket = std::net::TcpStream::connect(addr).unwrap();
    socket.set_nodelay(true).unwrap();
    // The client's type is for unix sockets; reads, writes and time-outs are the same on any.
    let mut client = Client(UnixStream::from(OwnedFd::from(socket)));
    client
        .0
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(client.take(18), *b"NBDMAGICIHAVEOPT\0\x03");
    client.0.write_all(&client_flags.to_be_bytes()).unwrap();
    (runtime, server, client)
}

const TLS_REQD: u32 = 0x8000_0005;
const INVALID: u32 = 0x8000_0003;

#[test]
fn nothing_is_told_before_tls() {
    let (_runtime, _server, mut client) = demanding(3);
    for (option, data) in [
        (3, &b""[..]),
        (7, b"\0\0\0\x03vol\0\0"),
        (8, b""),
        (99, b""),
    ] {
        client.option(option, data);
        assert_eq!(client.reply().1, TLS_REQD, "option {option}");
    }
    client.option(1, b"vol");
    assert!(client.is_closed());
}

#[test]
fn tls_begins_the_options_anew_and_requests_run_inside_it() {
    let (runtime, server, mut client) = demanding(3);
    client.option(5, &[]);
    assert_eq!(client.reply(), (5, 1, vec![]));
    client.option(5, &[]);
    assert_eq!(client.reply().1, INVALID, "TLS begins once");
    // Structured replies were refused before TLS and not asked for since.
    client.option(7, b"\0\0\0\x03vol\0\0");
    assert_eq!(client.reply().1, 3);
    assert_eq!(client.reply().1, 1);
    client.request(0, 1, 1, 10, 5, b"hello");
    assert_eq!(client.simple(), (0, 1));
    client.request(0, 0, 2, 8, 8, &[]);
    assert_eq!(client.simple(), (0, 2));
    assert_eq!(client.take(8), b"\0\0hello\0");
    let drained = runtime.block_on(server.shutdown(Duration::from_secs(5)));
    assert_eq!((drained.finished, drained.cut), (1, 0));
    assert!(client.is_closed());
}

#[test]
fn client_flags_hold_inside_tls() {
    for (flags, padding) in [(1u32, 124), (3, 0)] {
        let (_runtime, _server, mut client) = demanding(flags);
        client.option(5, &[]);
        assert_eq!(client.reply().1, 1);
        client.option(1, b"vol");
        assert_eq!(client.u64(), 1 << 20);
        client.u16();
        assert_eq!(client.take(padding), vec![0; padding]);
        client.request(0, 0, 5, 0, 16, &[]);
        assert_eq!(client.simple(), (0, 5));
    }
}
