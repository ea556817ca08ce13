//! Telling a service manager how the mount is doing: sd_notify(3), without libsystemd.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where `$NOTIFY_SOCKET` says that messages go; nowhere when it is not set.
pub(crate) struct Notifier {
    socket: Option<OsString>,
}

impl Notifier {
    /// The service manager of this process.
    pub(crate) fn from_environment() -> Notifier {
        Notifier {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()),
        }
    }

    /// Sends `state`, lines of `NAME=value`. A manager that does not listen is no reason to fail.
    pub(crate) fn send(&self, state: &str) {
        let sent = self.socket.as_deref().map(|socket| send(socket, state));
        if let Some(Err(error)) = sent {
            log::debug!("cannot notify the service manager: {error}");
        }
    }
}

/// A path, or an abstract name after `@`.
#[expect(
    clippy::disallowed_methods,
    reason = "the service manager names its socket; there is no other way to send to one"
)]
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    // A manager with a full queue must not stop the mount.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn received(server: &UnixDatagram, socket: &OsStr) -> Vec<u8> {
        send(socket, "READY=1\nSTATUS=serving").unwrap();
        let mut buf = [0; 64];
        let n = server.recv(&mut buf).unwrap();
        buf[..n].to_vec()
    }

    #[test]
    fn sockets_may_be_paths_or_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let server = UnixDatagram::bind(&path).unwrap();
        assert_eq!(
            received(&server, path.as_os_str()),
            b"READY=1\nSTATUS=serving"
        );

        let name = format!("modeloci-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let server = UnixDatagram::bind_addr(&address).unwrap();
        let socket = OsString::from(format!("@{name}"));
        assert_eq!(received(&server, &socket), b"READY=1\nSTATUS=serving");
    }

    #[test]
    fn a_manager_that_is_gone_is_ignored() {
        let notifier = Notifier {
            socket: Some("/nonexistent/socket".into()),
        };
        notifier.send("READY=1");
        Notifier { socket: None }.send("READY=1");
    }
}
