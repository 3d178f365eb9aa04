//! One connection in its transmission phase, on a thread of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::observer::Closed;
use crate::stopwatch::Stopwatch;
use crate::tls::BlockingStream;
use crate::transmission::{Core, Step};

/// A socket in blocking mode.
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<dyn BlockingStream>),
}

impl Socket {
    /// The descriptor, where bytes can be read past any layer above it.
    fn plain_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Unix(stream) => Some(stream.as_fd()),
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Tls(_) => None,
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Unix(stream) => stream.read(buf),
                Self::Tcp(stream) => stream.read(buf),
                Self::Tls(stream) => stream.read(buf),
            };
            match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// From now on a read that waits for `patience` fails; without one it waits for ever. False where the layer above the
    /// socket cannot say that a read failed for that reason alone.
    fn set_patience(&self, patience: Option<Duration>) -> bool {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(patience).is_ok(),
            Self::Tcp(stream) => stream.set_read_timeout(patience).is_ok(),
            Self::Tls(_) => false,
        }
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(buf),
            Self::Tcp(stream) => stream.write_all(buf),
            Self::Tls(stream) => {
                stream.write_all(buf)?;
                stream.flush()
            }
        }
    }
}

/// A second handle on a connection's socket, to end it from outside.
#[derive(Debug)]
pub(crate) struct Hangup(OwnedFd);

impl Hangup {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        fd.try_clone_to_owned().map(Self)
    }

    /// No more requests come in; replies still go out.
    pub(crate) fn stop_receiving(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Read);
    }

    /// Nothing moves any more.
    pub(crate) fn cut(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

/// Serves requests until the connection ends. When nothing has come for `rest_after`, the buffers' room is given back.
pub(crate) fn run(
    mut socket: Socket,
    mut core: Core,
    mut spin: Spin,
    rest_after: Duration,
) -> Closed {
    let mut patient = true;
    loop {
        let step = core.step();
        let replies = core.replies();
        if !replies.is_empty() {
            if socket.write_all(replies).is_err() {
                return Closed::Transport;
            }
            core.sent();
        }
        match step {
            Step::Send => {}
            Step::Close(why) => {
                if let Socket::Tcp(stream) = &socket {
                    let _ = stream.shutdown(Shutdown::Write);
                }
                return why;
            }
            Step::Receive => {
                let batch = core.take_begun();
                let waited = spin.receive(&socket, core.space(), batch);
                if patient && core.is_grown() {
                    patient = !socket.set_patience(Some(rest_after));
                }
                let received = waited.unwrap_or_else(|| socket.read(core.space()));
                match received {
                    // Once: an idle connection does not wake up again to find that it is idle.
                    Err(e) if !patient && e.kind() == io::ErrorKind::WouldBlock => {
                        core.rest();
                        patient = socket.set_patience(None);
                        if !patient {
                            return Closed::Transport;
                        }
                    }
                    Ok(0) if core.is_between_requests() => return Closed::ByClient,
                    Ok(0) => return Closed::Misbehaved,
                    Ok(len) => core.received(len),
                    Err(_) => return Closed::Transport,
                }
            }
        }
    }
}

/// Busy waiting for the next request of a client that sends one at a time.
///
/// On an idle core this halves a round trip's latency, on a busy one it takes time from others: so it is done
/// only while one connection is active and the last batch was of one request, for a bounded time, and less and less
/// often while it does not pay.
pub(crate) struct Spin {
    most: Duration,
    /// Above zero: worth trying. Rises by one when a wait paid, falls by three when it did not.
    score: i32,
    /// Receives since the last try, for trying again now and then.
    idle: u32,
    alone: Box<dyn Fn() -> bool + Send>,
}

impl Spin {
    pub(crate) fn new(most: Duration, alone: impl Fn() -> bool + Send + 'static) -> Self {
        Self {
            most,
            score: 8,
            idle: 0,
            alone: Box::new(alone),
        }
    }

    /// `None` if nothing came while spinning, or it was not tried: then block.
    fn receive(
        &mut self,
        socket: &Socket,
        buf: &mut [u8],
        batch: usize,
    ) -> Option<io::Result<usize>> {
        let fd = socket.plain_fd()?;
        if self.most.is_zero() || batch > 1 || !(self.alone)() {
            return None;
        }
        self.idle += 1;
        if self.score <= 0 && self.idle < 256 {
            return None;
        }
        self.idle = 0;
        let waited = Stopwatch::start();
        loop {
            match rustix::net::recv(fd, &mut *buf, RecvFlags::DONTWAIT) {
                Ok((len, _)) => {
                    self.score = (self.score + 1).min(16);
                    return Some(Ok(len));
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(e) => return Some(Err(e.into())),
            }
            if waited.elapsed() >= self.most {
                self.score = (self.score - 3).max(0);
                return None;
            }
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        }
    }
}
