//! Accept loops for HTTP/1.1: bounded connections, time limits on clients that say or take nothing, graceful ends.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use host::Clock;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::IntGauge;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::door::{Busy, Door, Guest};
use crate::pace::{PacedBody, PacedStream};
use crate::throttle::Throttle;

/// A request's body, which fails if it does not keep coming.
pub(crate) type RequestBody = PacedBody<Incoming>;

/// What one listener grants its clients, but for how many there may be: that is the [`Door`]'s.
#[derive(Clone)]
pub(crate) struct Limits {
    /// From accept, or the end of the last answer, to a whole request head.
    pub(crate) header_timeout: Duration,
    /// After the stop signal, connections have this long to end.
    pub(crate) drain: Duration,
    /// Counts open connections.
    pub(crate) open: Option<IntGauge>,
    /// For log lines.
    pub(crate) clock: Arc<dyn Clock>,
}

/// A client that has gone without a word is probed after this long,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and given up after this many probes without an answer: two minutes in all, as on the NBD side.
const KEEPALIVE_PROBES: u32 = 6;

/// A request head has at most this many bytes; hyper takes no less than 8 KiB. User metadata is at most 2 KiB, a
/// presigned URL some more. It has at most 100 header lines, which is hyper's own bound (AWS SDKs send some twenty): told
/// any bound, hyper fills 8 KiB for each head, and allocates them above that one.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// Accepts until `stop` is true, then lets the open connections end within `limits.drain`.
pub(crate) async fn serve<H, F, B>(
    listener: TcpListener,
    door: Arc<Door>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    handle: H,
) where
    H: Fn(Request<RequestBody>, Arc<Guest>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let failures = Throttle::new(Arc::clone(&limits.clock));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that was reset while it waited, or no descriptors: others may still come, and without
                // room none ever would.
                if let Some(unsaid) = failures.say() {
                    tracing::warn!(%error, unsaid, "a connection could not be accepted");
                }
                door.make_room();
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        tune(&stream);
        let guest = door.enter(peer);
        tokio::spawn(connection(
            stream,
            guest,
            &limits,
            &graceful,
            handle.clone(),
        ));
    }
    drop(listener);
    let drained = pin!(graceful.shutdown());
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!("connections were still busy at the end of the drain time and are cut");
    }
}

/// Refusals leave the defaults, which work.
fn tune(stream: &TcpStream) {
    // Answers are written whole; waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let fd = stream.as_fd();
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES);
}

/// A whole connection.
pub(crate) fn connection<S, H, F, B>(
    stream: S,
    guest: Arc<Guest>,
    limits: &Limits,
    graceful: &GracefulShutdown,
    handle: H,
) -> impl Future<Output = ()> + Send + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<RequestBody>, Arc<Guest>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let open = limits.open.clone().map(Counted::new);
    let progress = Arc::clone(&guest.client.progress);
    let served = Arc::clone(&guest);
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = served.request();
        let progress = Arc::clone(&served.client.progress);
        let request = request.map(|body| PacedBody::new(body, progress));
        let answer = handle(request, Arc::clone(&served));
        async move {
            let answer = answer.await;
            Ok::<_, Infallible>(answer.map(|body| Answering { body, _busy: busy }))
        }
    });
    let stream = TokioIo::new(PacedStream::new(stream, progress));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_LEN_MAX);
    let connection = graceful.watch(builder.serve_connection(stream, service));
    async move {
        let peer = guest.client.address;
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                if is_stalled(&error) {
                    guest.stalled();
                }
                tracing::debug!(%peer, %error, "connection ended early");
            },
            () = guest.turned_out() => tracing::debug!(%peer, "connection made room for another one"),
        }
        drop(open);
    }
}

/// Whether an answer was not read, or a body that the answer does not wait for did not come.
fn is_stalled(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::TimedOut;
        }
        cause = error.source();
    }
    false
}

/// The body of an answer; the request is being answered until this is dropped.
struct Answering<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counted in a gauge for as long as it lives, even if its task panics.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::door::Places;
    use crate::pace::Pace;

    struct Running {
        address: SocketAddr,
        open: IntGauge,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start() -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = IntGauge::new("open", "open").unwrap();
        let (stop, stopped) = watch::channel(false);
        let limits = Limits {
            header_timeout: Duration::from_millis(200),
            drain: Duration::from_millis(200),
            open: Some(open.clone()),
            clock: Arc::new(host::SystemClock::new()),
        };
        let places = Places {
            strangers_max: 2,
            known_max: 2,
            pace: Pace {
                window: Duration::from_secs(30),
                bytes_per_second_min: 1000,
            },
        };
        let door = Door::new(places, Box::new(|_, _| {}));
        let serving = serve(listener, door, limits, stopped, |request, _| async move {
            assert_ne!(request.uri().path(), "/panic");
            Response::new(Full::<Bytes>::default())
        });
        let task = tokio::spawn(serving);
        Running {
            address,
            open,
            stop,
            task,
        }
    }

    async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may have had enough before all of it is sent, and a reset is an end as good as another.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_that_panics_leaves_no_connection_counted_and_no_permit_taken() {
        let running = start().await;
        for _ in 0..5 {
            let answer = exchange(running.address, b"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert_eq!(answer, "");
        }
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answer = exchange(running.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        while running.open.get() != 0 {
            tokio::task::yield_now().await;
        }
        running.stop.send_replace(true);
        running.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_whose_machine_has_gone_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        tune(&stream);
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), KEEPALIVE_PROBES);
    }

    #[tokio::test]
    async fn a_client_that_dawdles_over_its_head_is_closed() {
        let running = start().await;
        let answer = exchange(running.address, b"GET / HTTP/1.1\r\nHost:").await;
        assert!(!answer.contains("200"), "{answer}");
        let long = format!(
            "GET / HTTP/1.1\r\nA: {}\r\n\r\n",
            "x".repeat(8 * HEAD_LEN_MAX)
        );
        let answer = exchange(running.address, long.as_bytes()).await;
        assert!(!answer.contains("200"), "{answer}");
    }

    #[tokio::test]
    async fn a_busy_connection_does_not_outlast_the_drain() {
        let running = start().await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        while running.open.get() == 0 {
            tokio::task::yield_now().await;
        }
        running.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(5), running.task)
            .await
            .unwrap()
            .unwrap();
    }
}
