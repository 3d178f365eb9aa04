//! Telling the service manager how far this process is (`sd_notify(3)`, units of `Type=notify`).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Says `state`, such as `READY=1`, to whoever started this process and wants to know. Blocks for no longer than the
/// manager's socket is full. A manager that does not listen is no reason to stop.
pub(crate) fn notify(state: &str) {
    if let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
        && let Err(error) = send(path.as_bytes(), state)
    {
        tracing::warn!(%error, state, "the service manager could not be told");
    }
}

/// A path that begins with `@` names an abstract socket.
fn send(path: &[u8], state: &str) -> io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path)))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 64];
        let len = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    }

    #[test]
    fn a_manager_hears_what_is_said_on_either_kind_of_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_bytes(), "READY=1").unwrap();
        assert_eq!(heard(&socket), "READY=1");

        let name = format!("sealgate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error_of_its_own() {
        send(b"/nonexistent/notify", "READY=1").unwrap_err();
    }
}
