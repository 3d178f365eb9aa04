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

/// A request head has at most this many header lines; AWS SDKs send some twenty.
const HEADERS_MAX: usize = 128;
/// And this many bytes; hyper takes no less than 8 KiB. User metadata is at most 2 KiB, a presigned URL some more.
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
        .max_headers(HEADERS_MAX)
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
        let open = limits.open.clone();
        if let Some(open) = &open {
            open.inc();
        }
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
            if let Some(open) = open {
                open.dec();
            }
            drop(permit);
        });
    }
    drop(listener);
    let drained = pin!(graceful.shutdown());
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!("connections were still busy at the end of the drain time and are cut");
    }
}
