//! How fast a client must be: what it may keep a request waiting for.
//!
//! A client has a window of time in hand. While the server waits for it, time runs out; each byte that moves gives some
//! back, at the least rate, up to the window. So one that stops is given up after the window, and one that drips, a byte
//! now and then, is too; one that pauses and goes on is not. Time in which the server keeps the client waiting does not
//! count.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What is asked of clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long a client may do nothing.
    pub(crate) window: Duration,
    /// Bytes a second that it must move, over a window.
    pub(crate) bytes_per_second_min: u64,
}

/// One direction of one connection.
#[derive(Debug)]
struct Meter {
    /// What was in hand when the wait began.
    left: Duration,
    /// Since when the server waits for the client.
    since: Option<Instant>,
}

impl Meter {
    /// The client keeps the server waiting; until when it may.
    fn waits(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now) + self.left
    }

    fn moved(&mut self, bytes: usize, now: Instant, pace: Pace) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(now.duration_since(since));
        }
        let earned =
            (bytes as u64).saturating_mul(1_000_000_000) / pace.bytes_per_second_min.max(1);
        let earned = Duration::from_nanos(earned);
        self.left = self.left.saturating_add(earned).min(pace.window);
    }

    /// What is missing of the window.
    fn behind(&self, now: Instant, pace: Pace) -> Duration {
        let waited = self.since.map(|since| now.duration_since(since));
        let left = self.left.saturating_sub(waited.unwrap_or_default());
        pace.window.saturating_sub(left)
    }
}

/// How one connection's client keeps up, both ways.
#[derive(Debug)]
pub(crate) struct Progress {
    pace: Pace,
    received: Mutex<Meter>,
    sent: Mutex<Meter>,
}

impl Progress {
    pub(crate) fn new(pace: Pace) -> Self {
        let meter = || {
            Mutex::new(Meter {
                left: pace.window,
                since: None,
            })
        };
        Self {
            pace,
            received: meter(),
            sent: meter(),
        }
    }

    /// A request has come: the client has the whole window again.
    pub(crate) fn begin(&self) {
        self.received.lock().left = self.pace.window;
        self.sent.lock().left = self.pace.window;
    }

    /// How far the client is behind, the direction in which it is more.
    pub(crate) fn behind(&self) -> Duration {
        let now = Instant::now();
        let received = self.received.lock().behind(now, self.pace);
        received.max(self.sent.lock().behind(now, self.pace))
    }

    /// Whether something waits for the client to read it.
    pub(crate) fn is_sending(&self) -> bool {
        self.sent.lock().since.is_some()
    }
}

/// Wakes a task when its client has kept it waiting for too long. It is set anew only when it has gone off.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `deadline` has passed; if not, the task is woken when it has.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let timer = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }
}

/// The body of a request, which fails with `TimedOut` if the client does not keep up.
#[derive(Debug)]
pub(crate) struct PacedBody<B> {
    body: B,
    progress: Arc<Progress>,
    alarm: Alarm,
}

impl<B> PacedBody<B> {
    pub(crate) fn new(body: B, progress: Arc<Progress>) -> Self {
        Self {
            body,
            progress,
            alarm: Alarm::default(),
        }
    }
}

impl<B> Body for PacedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let deadline = this.progress.received.lock().waits(Instant::now());
            return match this.alarm.poll(cx, deadline) {
                true => Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into()))),
                false => Poll::Pending,
            };
        };
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok());
        let len = data.and_then(Frame::data_ref).map_or(0, Bytes::len);
        let pace = this.progress.pace;
        let mut received = this.progress.received.lock();
        received.moved(len, Instant::now(), pace);
        drop(received);
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection, whose writes fail with `TimedOut` if the client does not keep up reading.
#[derive(Debug)]
pub(crate) struct PacedStream<S> {
    stream: S,
    progress: Arc<Progress>,
    alarm: Alarm,
}

impl<S> PacedStream<S> {
    pub(crate) fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            progress,
            alarm: Alarm::default(),
        }
    }

    fn paced(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(wrote) = wrote else {
            let deadline = self.progress.sent.lock().waits(Instant::now());
            return match self.alarm.poll(cx, deadline) {
                true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                false => Poll::Pending,
            };
        };
        let wrote = wrote?;
        let pace = self.progress.pace;
        let mut sent = self.progress.sent.lock();
        sent.moved(wrote, Instant::now(), pace);
        Poll::Ready(Ok(wrote))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.paced(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.paced(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.stream).poll_shutdown(cx)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PACE: Pace = Pace {
        window: Duration::from_secs(30),
        bytes_per_second_min: 1000,
    };

    /// A body that gives `bytes` every `every`, for ever.
    struct Drip {
        bytes: usize,
        every: Duration,
        next: Pin<Box<Sleep>>,
    }

    impl Body for Drip {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            ready!(self.next.as_mut().poll(cx));
            let next = Instant::now() + self.every;
            self.next.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(vec![0; self.bytes].into()))))
        }
    }

    /// After how long a body that drips so is given up; `None` if it was not within an hour.
    async fn given_up_after(bytes: usize, every: u64) -> Option<u64> {
        let every = Duration::from_secs(every);
        let began = Instant::now();
        let drip = Drip {
            bytes,
            every,
            next: Box::pin(tokio::time::sleep(every)),
        };
        let mut body = PacedBody::new(drip, Arc::new(Progress::new(PACE)));
        while began.elapsed() < Duration::from_secs(3600) {
            if let Err(error) = body.frame().await.unwrap() {
                let error = error.downcast::<io::Error>().unwrap();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                return Some(began.elapsed().as_secs());
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_drips_is_given_up_and_a_slow_or_uneven_one_is_not() {
        assert_eq!(given_up_after(1000, 40).await, Some(30));
        assert_eq!(given_up_after(1, 29).await, Some(30));
        assert_eq!(given_up_after(500, 1).await, Some(59));
        assert_eq!(given_up_after(1000, 1).await, None);
        assert_eq!(given_up_after(30_000, 29).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_nobody_asks_for_the_body_does_not_count() {
        let drip = Drip {
            bytes: 1000,
            every: Duration::from_secs(1),
            next: Box::pin(tokio::time::sleep(Duration::ZERO)),
        };
        let mut body = PacedBody::new(drip, Arc::new(Progress::new(PACE)));
        for _ in 0..10 {
            body.frame().await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_fails_and_one_that_is_read_slowly_does_not() {
        let began = Instant::now();
        let (near, _far) = tokio::io::duplex(1000);
        let progress = Arc::new(Progress::new(PACE));
        let mut stream = PacedStream::new(near, Arc::clone(&progress));
        let error = stream.write_all(&[0; 5000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // What went into the buffer at first was moved, but nothing was in hand to be given back.
        assert_eq!(began.elapsed().as_secs(), 30);
        assert!(progress.is_sending());

        let (near, mut far) = tokio::io::duplex(1000);
        let mut stream = PacedStream::new(near, Arc::new(Progress::new(PACE)));
        let reader = tokio::spawn(async move {
            let mut read = [0; 1000];
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                far.read_exact(&mut read).await.unwrap();
            }
        });
        stream.write_all(&[0; 100_000]).await.unwrap();
        reader.await.unwrap();
    }
}
