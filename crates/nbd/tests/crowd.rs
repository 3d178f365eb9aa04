//! Crowds of silent clients, and exports that take long to open.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nbd::{Export, ExportInfo, ExportName, Exports, OpenError, Options, Peer, Server, Unobserved};
use support::{Client, Memory, One, Running};

/// `running`'s server on TCP too.
fn on_tcp(running: &Running) -> SocketAddr {
    let listener = running
        .runtime
        .block_on(tokio::net::TcpListener::bind("0.0.0.0:0"))
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = running.server.clone();
    running
        .runtime
        .spawn(async move { serving.serve_tcp(listener).await });
    addr
}

/// Connects to a port from an address of this machine's own.
fn connect_from(running: &Running, from: &str, port: u16) -> TcpStream {
    let _guard = running.runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let to = format!("127.0.0.1:{port}").parse().unwrap();
    let stream = running.runtime.block_on(socket.connect(to)).unwrap();
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

#[test]
fn a_crowd_of_silent_tcp_clients_shuts_out_neither_the_unix_socket_nor_another_host() {
    let mut options = Options::default();
    options.handshakes_max = 8;
    let running = Running::new(Memory::new(1 << 20), options);
    let port = on_tcp(&running).port();
    let mut other = connect_from(&running, "127.0.0.2", port);
    let mut crowd: Vec<_> = (0..64)
        .map(|_| connect_from(&running, "127.0.0.1", port))
        .collect();
    // All but the last few were turned out,
    let mut turned_out = 0;
    for silent in &mut crowd[..48] {
        let mut greeting = Vec::new();
        turned_out += usize::from(silent.read_to_end(&mut greeting).is_ok());
    }
    assert_eq!(turned_out, 48);
    // the one from elsewhere was not,
    let mut greeting = [0; 18];
    other.read_exact(&mut greeting).unwrap();
    other.write_all(&3u32.to_be_bytes()).unwrap();
    other
        .write_all(b"IHAVEOPT\0\0\0\x07\0\0\0\x09\0\0\0\x03vol\0\0")
        .unwrap();
    let mut reply = [0; 20];
    other.read_exact(&mut reply).unwrap();
    assert_eq!(reply[12..16], [0, 0, 0, 3]);
    // and the unix socket knows nothing of them.
    running.connect(false);
}

/// Takes its time.
struct Slow(One, Duration);

#[async_trait::async_trait]
impl Exports for Slow {
    async fn list(&self, peer: &Peer) -> Result<Vec<ExportName>, OpenError> {
        self.0.list(peer).await
    }
    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError> {
        self.0.describe(peer, name).await
    }
    async fn open(&self, peer: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError> {
        tokio::time::sleep(self.1).await;
        self.0.open(peer, name).await
    }
}

#[test]
fn an_export_that_opens_longer_than_a_client_may_take_is_had_all_the_same() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut options = Options::default();
    options.handshake_timeout = Duration::from_millis(100);
    let exports = Slow(
        One(Arc::new(Memory::new(1 << 20))),
        Duration::from_millis(400),
    );
    let server = Server::new(options, Arc::new(exports), Arc::new(Unobserved));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = {
        let _guard = runtime.enter();
        tokio::net::UnixListener::bind(&path).unwrap()
    };
    let serving = server.clone();
    runtime.spawn(async move { serving.serve_unix(listener).await });
    let mut client = Client(std::os::unix::net::UnixStream::connect(&path).unwrap());
    client.take(18);
    client.0.write_all(&3u32.to_be_bytes()).unwrap();
    client.option(7, b"\0\0\0\x03vol\0\0");
    assert_eq!(client.reply().1, 3);
    assert_eq!(client.reply().1, 1);
    client.request(0, 0, 9, 0, 512, &[]);
    assert_eq!(client.simple(), (0, 9));
}
