//! Connections to the server that the kernel can be given.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use nbd::ExportName;
use nbd::client::{self, Offer};
use rustix::net::sockopt;

use super::agent::Server;

/// How long a connection, and each step of its handshake, may take. A server that opens a volume after a crash may take
/// longer: then it is tried again, and finds it open.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port, looked up at each connection.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host) => f.write_str(host),
        }
    }
}

/// The server of one export.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) export: ExportName,
    /// Whether TCP may go beyond this machine. It is plain.
    pub(crate) allow_plaintext: bool,
}

/// A connection whose handshake is done, without time-outs, with no byte read beyond it.
#[derive(Debug)]
pub(crate) enum Link {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Link {
    /// The descriptor's number, as the kernel's driver is told it.
    pub(crate) fn number(&self) -> u32 {
        let raw = self.as_fd().as_raw_fd();
        u32::try_from(raw).expect("an open descriptor is not negative")
    }

    /// The socket's inode, by which `/proc/net` names it.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(self)?.st_ino)
    }
}

impl Server for Dialer {
    type Link = Link;

    fn dial(&self) -> anyhow::Result<(Link, Offer)> {
        let shown = || format!("cannot attach {} at {}", self.export, self.address);
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).with_context(shown)?;
                let patience = |time| {
                    stream.set_read_timeout(time)?;
                    stream.set_write_timeout(time)
                };
                patience(Some(STEP_TIMEOUT))?;
                let offer = client::attach(&mut &stream, &self.export).with_context(shown)?;
                // The kernel takes a time-out of the socket for a dead link.
                patience(None)?;
                Ok((Link::Unix(stream), offer))
            }
            Address::Tcp(host) => {
                let stream = self.connect(host).with_context(shown)?;
                let _ = stream.set_nodelay(true);
                // An idle link's server may vanish without a word.
                let _ = sockopt::set_socket_keepalive(&stream, true);
                let _ = sockopt::set_tcp_keepidle(&stream, Duration::from_secs(15));
                let _ = sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(5));
                let _ = sockopt::set_tcp_keepcnt(&stream, 3);
                let patience = |time| {
                    stream.set_read_timeout(time)?;
                    stream.set_write_timeout(time)
                };
                patience(Some(STEP_TIMEOUT))?;
                let offer = client::attach(&mut &stream, &self.export).with_context(shown)?;
                patience(None)?;
                Ok((Link::Tcp(stream), offer))
            }
        }
    }
}

impl Dialer {
    fn connect(&self, host: &str) -> anyhow::Result<TcpStream> {
        let mut last = None;
        for address in host.to_socket_addrs()? {
            self.check(address)?;
            match TcpStream::connect_timeout(&address, STEP_TIMEOUT) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error.into()),
            None => anyhow::bail!("{host} has no address"),
        }
    }

    fn check(&self, address: SocketAddr) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.allow_plaintext || address.ip().is_loopback(),
            "{address} is another machine, and this connection would be in plaintext: --allow-plaintext if the network is trusted"
        );
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The server's side of a handshake, with a byte of what comes after it.
    fn serve(mut stream: impl io::Read + io::Write) {
        stream.write_all(b"NBDMAGICIHAVEOPT\0\x03").unwrap();
        // Client flags, then the option: magic, number, length, data.
        let mut head = [0; 20];
        stream.read_exact(&mut head).unwrap();
        let mut data = vec![0; usize::from(head[19])];
        stream.read_exact(&mut data).unwrap();
        let magic = [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9];
        let mut says = Vec::new();
        for (kind, data) in [
            (3_u8, &[0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 1, 0x6d][..]),
            (1, &[]),
        ] {
            says.extend(magic);
            says.extend([0, 0, 0, 7, 0, 0, 0, kind, 0, 0, 0]);
            says.push(u8::try_from(data.len()).unwrap());
            says.extend(data);
        }
        says.push(0x67);
        stream.write_all(&says).unwrap();
    }

    fn dialer(address: Address) -> Dialer {
        Dialer {
            address,
            export: ExportName::new("db").unwrap(),
            allow_plaintext: false,
        }
    }

    /// Nothing is read beyond the handshake, and no time-out is left.
    fn check(dialer: &Dialer) {
        let (link, offer) = dialer.dial().unwrap();
        assert_eq!((offer.size, offer.flags), (4096, 0x16d));
        let mut next = [0];
        match &link {
            Link::Unix(stream) => {
                assert_eq!(stream.read_timeout().unwrap(), None);
                assert_eq!(stream.write_timeout().unwrap(), None);
                (&mut &*stream).read_exact(&mut next).unwrap();
            }
            Link::Tcp(stream) => {
                assert_eq!(stream.read_timeout().unwrap(), None);
                assert_eq!(stream.write_timeout().unwrap(), None);
                (&mut &*stream).read_exact(&mut next).unwrap();
            }
        }
        assert_eq!(next, [0x67]);
        let devices = super::super::device::Devices::new();
        let inode = link.inode().unwrap();
        assert!(devices.has_socket(inode).unwrap());
        drop(link);
        assert!(!devices.has_socket(inode).unwrap());
    }

    #[test]
    fn a_link_over_a_unix_socket_is_ready_for_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        check(&dialer(Address::Unix(path)));
        server.join().unwrap();
    }

    #[test]
    fn a_link_over_tcp_is_ready_for_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        check(&dialer(address));
        server.join().unwrap();
    }

    #[test]
    fn plaintext_beyond_this_machine_must_be_asked_for_by_name() {
        let mut dialer = dialer(Address::Tcp("192.0.2.1:10809".into()));
        let error = format!("{:#}", dialer.dial().unwrap_err());
        assert!(error.contains("--allow-plaintext"), "{error}");
        dialer.allow_plaintext = true;
        dialer.check("192.0.2.1:10809".parse().unwrap()).unwrap();
    }
}
