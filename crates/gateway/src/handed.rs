//! Listening sockets that the service manager opened and hands to each process that serves (`sd_listen_fds(3)`).
//!
//! They stay open between one process and the next: who connects meanwhile waits, and is not refused. Each is known by
//! its name (`FileDescriptorName=` of its socket unit): `nbd` for the unix socket, `nbd-tcp`, `aws`, `admin`. One that is
//! handed over takes the place of the address in the configuration, and must be one that the configuration might have.

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;

use crate::config::Config;

/// What was handed over.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// NBD on a unix socket, and its path.
    pub(crate) nbd: Option<(UnixListener, PathBuf)>,
    /// NBD over TCP.
    pub(crate) nbd_tcp: Option<TcpListener>,
    /// The AWS endpoint.
    pub(crate) aws: Option<TcpListener>,
    /// Metrics and health.
    pub(crate) admin: Option<TcpListener>,
}

impl Handed {
    /// Takes what this process was given. To be called once.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut handed = Self::default();
        if sockets.len() == 0 {
            return Ok(handed);
        }
        for (at, name) in named(&names, sockets.len())?.into_iter().enumerate() {
            let tcp = |sockets: &mut ListenFd| {
                let taken = sockets.take_tcp_listener(at);
                let taken = taken.with_context(|| format!("the socket {name} is not of TCP"))?;
                taken.with_context(|| format!("the socket {name} was handed over twice"))
            };
            match name {
                Name::Nbd => {
                    let listener = sockets
                        .take_unix_listener(at)
                        .context("the socket nbd is not a unix socket")?
                        .context("the socket nbd was handed over twice")?;
                    let address = listener.local_addr()?;
                    let path = address
                        .as_pathname()
                        .context("the socket nbd has no path")?;
                    handed.nbd = Some((listener, path.to_owned()));
                }
                Name::NbdTcp => handed.nbd_tcp = Some(tcp(&mut sockets)?),
                Name::Aws => handed.aws = Some(tcp(&mut sockets)?),
                Name::Admin => handed.admin = Some(tcp(&mut sockets)?),
            }
        }
        Ok(handed)
    }

    /// Puts the addresses of the sockets in the place of the configuration's, and checks it again: what must not be
    /// listened on must not be handed over either.
    pub(crate) fn apply(&self, config: &mut Config) -> anyhow::Result<()> {
        let address = |socket: &Option<TcpListener>| -> anyhow::Result<Option<SocketAddr>> {
            Ok(socket.as_ref().map(TcpListener::local_addr).transpose()?)
        };
        if let Some(aws) = address(&self.aws)? {
            config.aws.listen = aws;
        }
        if let Some(admin) = address(&self.admin)? {
            config.admin.listen = admin;
        }
        if let Some(nbd) = address(&self.nbd_tcp)? {
            config.nbd.listen = Some(nbd);
        }
        config.check()?;
        Ok(())
    }
}

/// The name of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Nbd,
    NbdTcp,
    Aws,
    Admin,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nbd => "nbd",
            Self::NbdTcp => "nbd-tcp",
            Self::Aws => "aws",
            Self::Admin => "admin",
        })
    }
}

/// The names of `count` sockets, each another.
fn named(names: &str, count: usize) -> anyhow::Result<Vec<Name>> {
    let mut found = Vec::new();
    for name in names.split(':').filter(|name| !name.is_empty()) {
        let name = match name {
            "nbd" => Name::Nbd,
            "nbd-tcp" => Name::NbdTcp,
            "aws" => Name::Aws,
            "admin" => Name::Admin,
            other => bail!(
                "a socket by the name {other} was handed over: FileDescriptorName= must be nbd, nbd-tcp, aws or admin"
            ),
        };
        anyhow::ensure!(
            !found.contains(&name),
            "two sockets by the name {name} were handed over"
        );
        found.push(name);
    }
    anyhow::ensure!(
        found.len() == count,
        "{count} sockets were handed over with {} names: FileDescriptorName= must be nbd, nbd-tcp, aws or admin",
        found.len()
    );
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_a_name_of_its_own() {
        use Name::{Admin, Aws, Nbd, NbdTcp};
        let all = named("aws:nbd:nbd-tcp:admin", 4).unwrap();
        assert_eq!(all, [Aws, Nbd, NbdTcp, Admin]);
        for (names, count, says) in [
            ("sealgate.socket", 1, "by the name sealgate.socket"),
            ("nbd:nbd", 2, "two sockets"),
            ("nbd", 2, "with 1 names"),
            ("", 1, "with 0 names"),
        ] {
            let error = named(names, count).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_socket_that_could_not_be_configured_cannot_be_handed_over() {
        let overrides = crate::config::Overrides::default();
        let mut config = Config::load(&overrides).unwrap();
        let handed = Handed {
            nbd_tcp: Some(TcpListener::bind("0.0.0.0:0").unwrap()),
            ..Handed::default()
        };
        let error = handed.apply(&mut config).unwrap_err().to_string();
        assert!(error.contains("TLS"), "{error}");
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let handed = Handed {
            nbd_tcp: Some(socket),
            ..Handed::default()
        };
        handed.apply(&mut config).unwrap();
        assert_eq!(config.nbd.listen, Some(address));
    }
}
