//! Listeners, connections, limits and the way they end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::connection::{self, Hangup, Socket, Spin};
use crate::door::{Door, Guest};
use crate::negotiation::{Outcome, Terms, Tls, negotiate};
use crate::observer::Closed;
use crate::tls::{TlsSession, TlsUpgrade};
use crate::transmission::{Core, Negotiated};
use crate::{Exports, Observer, Peer};

/// Lets a long read's replies be written while the client still takes the ones before: helps sequential
/// reads a little, and costs nothing else.
const SEND_BUFFER_LEN: usize = 512 * 1024;
/// A silent TCP client is probed after this long,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and given up after this many probes without an answer: two minutes in all.
const KEEPALIVE_PROBES: u32 = 6;
/// Connections that were cut have this long to notice.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Limits and policies of a [`Server`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Connections with an export at a time, on unix sockets and over TCP each; more are refused in the handshake.
    pub connections_max: usize,
    /// Clients in the handshake at a time, on unix sockets and over TCP each. When one more comes, the oldest of those
    /// from where most come is cut.
    pub handshakes_max: usize,
    /// How long a client may take over its part of the handshake. What the server takes does not count: attaching a
    /// volume may be long.
    pub handshake_timeout: Duration,
    /// TLS for TCP connections. If it is there, TCP clients must use it; if not, TCP is plain. Unix sockets are
    /// always plain.
    pub tls: Option<Arc<dyn TlsUpgrade>>,
    /// Longest busy wait for the next request of a client that sends one at a time; zero never spins.
    pub spin_max: Duration,
    /// A connection on which nothing has come for this long gives the room that its buffers have grown by back. Not zero.
    pub rest_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 16 << 10,
            handshakes_max: 512,
            handshake_timeout: Duration::from_secs(15),
            tls: None,
            spin_max: Duration::from_micros(50),
            rest_after: Duration::from_secs(5),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("connections_max", &self.connections_max)
            .field("handshakes_max", &self.handshakes_max)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("tls", &self.tls.is_some())
            .field("spin_max", &self.spin_max)
            .field("rest_after", &self.rest_after)
            .finish()
    }
}

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
    unix: Arc<Door>,
    tcp: Arc<Door>,
    /// Connections, from accept to the end of the thread.
    open: Arc<watch::Sender<usize>>,
    stop: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    /// Connections in transmission, to be ended from outside.
    live: Mutex<HashMap<u64, Hangup>>,
    next_id: AtomicU64,
    /// How many `live` has, without its lock.
    transmitting: AtomicUsize,
}

impl Server {
    /// A server without listeners yet.
    pub fn new(options: Options, exports: Arc<dyn Exports>, observer: Arc<dyn Observer>) -> Self {
        let door = || Door::new(options.handshakes_max, options.connections_max);
        let (unix, tcp) = (door(), door());
        Self {
            shared: Arc::new(Shared {
                options,
                exports,
                observer,
                unix,
                tcp,
                open: Arc::default(),
                stop: watch::Sender::new(false),
                draining: Arc::default(),
                live: Mutex::default(),
                next_id: AtomicU64::new(0),
                transmitting: AtomicUsize::new(0),
            }),
        }
    }

    /// Accepts connections on a unix socket until [`shutdown`](Self::shutdown); the peer is named by the kernel.
    /// The socket's file and its mode are the caller's.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve_unix(&self, listener: UnixListener) -> io::Result<()> {
        self.accept(Listener::Unix(listener)).await
    }

    /// Accepts TCP connections until [`shutdown`](Self::shutdown), plain or TLS as [`Options::tls`] says.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve_tcp(&self, listener: TcpListener) -> io::Result<()> {
        self.accept(Listener::Tcp(listener)).await
    }

    async fn accept(&self, listener: Listener) -> io::Result<()> {
        let mut stop = self.shared.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            match accepted {
                Ok((stream, peer)) => {
                    let guest = self.shared.door(&stream).enter(&peer);
                    let open = Open::new(&self.shared, peer);
                    tokio::spawn(Arc::clone(&self.shared).connection(stream, open, guest));
                }
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => {
                    // Out of descriptors, or a client that went while it waited: others may still come.
                    tracing::warn!(%error, "an NBD connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Stops accepting, finishes and answers the requests that have arrived, closes (later ones stay unanswered),
    /// and after `deadline` cuts what is left. Returns when every connection is gone. Cancel-safe; calling it again waits again.
    pub async fn shutdown(&self, deadline: Duration) -> Drained {
        let shared = &self.shared;
        let before = shared.transmitting.load(Ordering::Relaxed);
        shared.draining.store(true, Ordering::SeqCst);
        shared.stop.send_replace(true);
        for hangup in shared.live().values() {
            hangup.stop_receiving();
        }
        let gone = async || drop(shared.open.subscribe().wait_for(|open| *open == 0).await);
        let mut cut = 0;
        if tokio::time::timeout(deadline, gone()).await.is_err() {
            {
                let live = shared.live();
                cut = live.len();
                live.values().for_each(Hangup::cut);
            }
            if tokio::time::timeout(CUT_GRACE, gone()).await.is_err() {
                tracing::warn!("NBD connections are still in the middle of a request");
            }
        }
        Drained {
            finished: before.saturating_sub(cut),
            cut,
        }
    }

    /// Connections now, handshakes included.
    pub fn connections(&self) -> usize {
        *self.shared.open.borrow()
    }
}

/// A listener that is gone stays gone.
fn is_fatal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
    )
}

/// Where connections come from.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// The next connection and who is at its other end. Cancel-safe.
    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // The client's trouble, not the listener's: never one of the errors that end it.
                let credentials = stream.peer_cred().map_err(io::Error::other)?;
                let peer = Peer::Unix {
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                    pid: credentials.pid().unwrap_or_default(),
                };
                Ok((Accepted::Unix(stream), peer))
            }
            Self::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                // Replies are sent in whole batches; waiting for more only delays them. A client that has gone
                // already makes this fail, and is found out soon enough.
                let _ = stream.set_nodelay(true);
                Ok((Accepted::Tcp(stream), Peer::Tcp { addr }))
            }
        }
    }
}

/// A connection fresh from a listener.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection that was counted and told to the observer. However it ends, by a panic too, dropping this
/// says so, gives its place back and counts it no more.
struct Open {
    observer: Arc<dyn Observer>,
    count: Arc<watch::Sender<usize>>,
    peer: Peer,
    why: Closed,
    /// None in the handshake.
    place: Option<OwnedSemaphorePermit>,
}

impl Open {
    fn new(shared: &Shared, peer: Peer) -> Self {
        shared.observer.connection_opened(&peer);
        shared.open.send_modify(|open| *open += 1);
        Self {
            observer: Arc::clone(&shared.observer),
            count: Arc::clone(&shared.open),
            peer,
            why: Closed::Failed,
            place: None,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.observer.connection_closed(&self.peer, self.why);
        // Whoever sees the count fall finds the place free.
        self.place = None;
        self.count.send_modify(|open| *open -= 1);
    }
}

/// A connection that has left the runtime.
struct Ready {
    socket: Socket,
    hangup: Hangup,
    negotiated: Negotiated,
    place: OwnedSemaphorePermit,
}

impl Shared {
    fn door(&self, stream: &Accepted) -> &Arc<Door> {
        match stream {
            Accepted::Unix(_) => &self.unix,
            Accepted::Tcp(_) => &self.tcp,
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u64, Hangup>> {
        // The map is never left half changed, so a panic elsewhere does not spoil it.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole connection, but for its transmission phase, which goes on in a thread.
    async fn connection(self: Arc<Self>, stream: Accepted, mut open: Open, guest: Guest) {
        let mut stop = self.stop.subscribe();
        let turned_out = guest.turned_out();
        let mut terms = Terms::new(self.options.handshake_timeout, guest, &*self.observer);
        let handshake = self.handshake(stream, &mut terms, &mut open.peer);
        open.why = tokio::select! {
            ended = handshake => match ended {
                Ok(Ok(ready)) => return self.start(ready, open),
                Ok(Err(why)) => why,
                // Hanging up between options is how some clients end a list.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Closed::ByClient,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => Closed::HandshakeTimeout,
                Err(_) => Closed::Transport,
            },
            () = turned_out => Closed::Crowded,
            _ = stop.wait_for(|stop| *stop) => Closed::Shutdown,
        };
    }

    async fn handshake(
        &self,
        stream: Accepted,
        terms: &mut Terms<'_>,
        peer: &mut Peer,
    ) -> io::Result<Result<Ready, Closed>> {
        let exports = &*self.exports;
        match stream {
            Accepted::Unix(mut stream) => {
                match negotiate(&mut stream, exports, peer, terms, Tls::Unavailable).await? {
                    Outcome::Transmission(negotiated, place) => {
                        let stream = stream.into_std()?;
                        stream.set_nonblocking(false)?;
                        let hangup = tune_unix(stream.as_fd())?;
                        let socket = Socket::Unix(stream);
                        Ok(Ok(Ready {
                            socket,
                            hangup,
                            negotiated,
                            place,
                        }))
                    }
                    Outcome::StartTls { .. } => Ok(Err(Closed::Misbehaved)),
                    Outcome::Closed(why) => Ok(Err(why)),
                }
            }
            Accepted::Tcp(mut stream) => {
                let tls = match &self.options.tls {
                    Some(_) => Tls::Required,
                    None => Tls::Unavailable,
                };
                match (
                    negotiate(&mut stream, exports, peer, terms, tls).await?,
                    &self.options.tls,
                ) {
                    (Outcome::Transmission(negotiated, place), _) => {
                        let stream = stream.into_std()?;
                        stream.set_nonblocking(false)?;
                        let hangup = tune_tcp(stream.as_fd())?;
                        let socket = Socket::Tcp(stream);
                        Ok(Ok(Ready {
                            socket,
                            hangup,
                            negotiated,
                            place,
                        }))
                    }
                    (Outcome::StartTls { no_zeroes }, Some(tls)) => {
                        self.handshake_tls(stream, &**tls, no_zeroes, terms, peer)
                            .await
                    }
                    (Outcome::StartTls { .. }, None) => Ok(Err(Closed::Misbehaved)),
                    (Outcome::Closed(why), _) => Ok(Err(why)),
                }
            }
        }
    }

    /// The rest of the handshake, inside TLS; nothing that came before counts any more.
    async fn handshake_tls(
        &self,
        stream: TcpStream,
        tls: &dyn TlsUpgrade,
        no_zeroes: bool,
        terms: &mut Terms<'_>,
        peer: &mut Peer,
    ) -> io::Result<Result<Ready, Closed>> {
        let addr = stream.peer_addr()?;
        let hangup = tune_tcp(stream.as_fd())?;
        let TlsSession {
            identity,
            mut stream,
        } = terms.client(tls.upgrade(stream)).await?;
        *peer = Peer::Tls { addr, identity };
        match negotiate(
            &mut *stream,
            &*self.exports,
            peer,
            terms,
            Tls::Established { no_zeroes },
        )
        .await?
        {
            Outcome::Transmission(negotiated, place) => {
                let socket = Socket::Tls(stream.into_blocking()?);
                Ok(Ok(Ready {
                    socket,
                    hangup,
                    negotiated,
                    place,
                }))
            }
            Outcome::StartTls { .. } => Ok(Err(Closed::Misbehaved)),
            Outcome::Closed(why) => Ok(Err(why)),
        }
    }

    /// Gives a connection its thread.
    fn start(self: Arc<Self>, ready: Ready, mut open: Open) {
        let Ready {
            socket,
            hangup,
            negotiated,
            place,
        } = ready;
        open.place = Some(place);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.live().insert(id, hangup);
        self.transmitting.fetch_add(1, Ordering::Relaxed);
        // A shutdown that looked before the insertion did not see this one.
        if self.draining.load(Ordering::SeqCst)
            && let Some(hangup) = self.live().get(&id)
        {
            hangup.stop_receiving();
        }
        let shared = Arc::clone(&self);
        let work = move || {
            let core = Core::new(
                negotiated,
                Arc::clone(&shared.observer),
                Arc::clone(&shared.draining),
            );
            let counted = Arc::clone(&shared);
            let spin = Spin::new(shared.options.spin_max, move || {
                counted.transmitting.load(Ordering::Relaxed) == 1
            });
            let rest_after = shared.options.rest_after.max(Duration::from_millis(1));
            // An export that panics takes its own connection with it and no other.
            let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
                connection::run(socket, core, spin, rest_after)
            }));
            open.why = match ran {
                Ok(Closed::ByClient | Closed::Misbehaved)
                    if shared.draining.load(Ordering::Relaxed) =>
                {
                    Closed::Shutdown
                }
                Ok(why) => why,
                Err(_) => Closed::Failed,
            };
            shared.forget(id);
            drop(open);
        };
        let spawned = std::thread::Builder::new()
            .name(format!("nbd-{id}"))
            .spawn(work);
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for an NBD connection");
            self.forget(id);
        }
    }

    fn forget(&self, id: u64) {
        if self.live().remove(&id).is_some() {
            self.transmitting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Refusals of socket options leave the defaults, which work.
fn tune_unix(fd: BorrowedFd<'_>) -> io::Result<Hangup> {
    let _ = sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER_LEN);
    Hangup::new(fd)
}

/// A client whose machine lost its power says no goodbye: without probes its connection, and with it the
/// attached export, would stay for good. The kernel sizes TCP's buffers itself, better than a fixed size would.
fn tune_tcp(fd: BorrowedFd<'_>) -> io::Result<Hangup> {
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES);
    Hangup::new(fd)
}
