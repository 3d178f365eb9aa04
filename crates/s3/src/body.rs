//! Response bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use host::Clock;
use http_body::{Body, Frame, SizeHint};

use crate::observer::{Observer, RequestEnd};
use crate::opening::PlainStream;

/// A body that could not be sent to its end. Given to hyper it aborts the
/// connection, so that a client never takes it for a whole one.
#[derive(Debug, thiserror::Error)]
#[error("the response could not be completed")]
pub struct BodyError;

/// The body of an answer of the front.
pub struct ResponseBody {
    kind: Kind,
    left: u64,
    report: Option<Report>,
}

enum Kind {
    Whole(Bytes),
    Stream(PlainStream),
}

/// Tells the observer when the body ends or is dropped.
pub(crate) struct Report {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) operation: &'static str,
    pub(crate) status: u16,
    pub(crate) bytes_in: Arc<AtomicU64>,
    pub(crate) bytes_out: u64,
    pub(crate) clock: Arc<dyn Clock>,
    /// When the request came, as the clock counts [`Clock::elapsed`].
    pub(crate) started: Duration,
}

impl Drop for Report {
    fn drop(&mut self) {
        self.observer.request(&RequestEnd {
            operation: self.operation,
            status: self.status,
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out,
            elapsed: self.clock.elapsed().saturating_sub(self.started),
        });
    }
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// A body in memory.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self {
            kind: Kind::Whole(bytes),
            left,
            report: None,
        }
    }

    /// A stream of exactly `len` bytes.
    pub(crate) fn stream(stream: PlainStream, len: u64) -> Self {
        Self {
            kind: Kind::Stream(stream),
            left: len,
            report: None,
        }
    }

    pub(crate) fn reporting(mut self, report: Report) -> Self {
        self.report = Some(report);
        self
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ResponseBody({} bytes left)", self.left)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let bytes = match &mut this.kind {
            Kind::Whole(bytes) if bytes.is_empty() => None,
            Kind::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Kind::Stream(_) if this.left == 0 => None,
            Kind::Stream(stream) => ready!(stream.as_mut().poll_next(cx)),
        };
        match bytes {
            Some(Ok(bytes)) if bytes.len() as u64 <= this.left => {
                this.left -= bytes.len() as u64;
                if let Some(report) = &mut this.report {
                    report.bytes_out += bytes.len() as u64;
                }
                if this.left == 0 {
                    this.report = None;
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            None if this.left == 0 => {
                this.report = None;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                tracing::error!(%error, left = this.left, "an answer was cut off");
                this.report = None;
                Poll::Ready(Some(Err(BodyError)))
            }
            Some(Ok(_)) | None => {
                tracing::error!(
                    left = this.left,
                    "an answer had another length than announced"
                );
                this.report = None;
                Poll::Ready(Some(Err(BodyError)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
