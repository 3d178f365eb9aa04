//! Accept loops for HTTP/1.1: bounded connections, timeouts on slow heads, graceful ends.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::IntGauge;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Limits of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Open connections; more wait in the kernel's backlog.
    pub(crate) connections_max: usize,
    /// From accept, or the end of the last answer, to a whole request head.
    pub(crate) header_timeout: Duration,
    /// After the stop signal, connections have this long to end.
    pub(crate) drain: Duration,
    /// Counts open connections.
    pub(crate) open: Option<IntGauge>,
}

/// A request head has at most this many bytes; hyper takes no less than 8 KiB. User metadata is at most 2 KiB, a
/// presigned URL some more. It has at most 100 header lines, which is hyper's own bound (AWS SDKs send some twenty): told
/// any bound, hyper fills 8 KiB for each head, and allocates them above that one.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// Accepts until `stop` is true, then lets the open connections end within `limits.drain`.
pub(crate) async fn serve<H, F, B>(
    listener: TcpListener,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    handle: H,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_LEN_MAX);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that was reset while it waited: others may still come.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Answers are written whole; waiting for more to send only delays them.
        let _ = stream.set_nodelay(true);
        let open = limits.open.clone().map(Counted::new);
        let handle = handle.clone();
        let service = service_fn(move |request| {
            let answer = handle(request, peer);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "connection ended early");
            }
            drop(open);
            drop(permit);
        });
    }
    drop(listener);
    let drained = pin!(graceful.shutdown());
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!("connections were still busy at the end of the drain time and are cut");
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
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

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
            connections_max: 2,
            header_timeout: Duration::from_millis(200),
            drain: Duration::from_millis(200),
            open: Some(open.clone()),
        };
        let task = tokio::spawn(serve(listener, limits, stopped, |request, _| async move {
            assert_ne!(request.uri().path(), "/panic");
            Response::new(Full::<Bytes>::default())
        }));
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
