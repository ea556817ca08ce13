//! The system log: where a mount in the background says what it has to say, unless it was given a
//! file.
//!
//! One datagram for each message, in the form of RFC 3164 as local senders use it (without time and
//! host, which the receiver adds). A receiver that is gone or slow costs messages, and never holds up
//! more than the thread that writes them. Where none is there at the start, messages go to a
//! [file](super::local_log) until there is one.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modeloci::Result;
use modeloci::printable::printable_bytes;

use super::local_log::LocalLog;

/// Where the system's logger listens: syslog(3), and systemd's journal where `/dev` has no link to it.
const SOCKETS: [&str; 2] = ["/dev/log", "/run/systemd/journal/dev-log"];
/// RFC 3164, section 4.1.1: system daemons.
const FACILITY_DAEMON: u8 = 3;
/// Longest message, in bytes: room for two long paths, and what common loggers keep.
const MAX_MESSAGE_BYTES: usize = 4096;
/// How often and after how long a full receiver is tried again.
const FULL_RETRIES: u32 = 5;
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Sends each line that is written to it. Expects whole lines, `warning: …`, one for each call;
/// never fails.
pub(crate) struct SystemLog {
    paths: Vec<PathBuf>,
    socket: Option<UnixDatagram>,
    /// For what nobody receives.
    local: Option<LocalLog>,
}

impl SystemLog {
    /// The log of this system, or a file until there is one.
    pub(crate) fn new() -> SystemLog {
        let mut log = SystemLog::at(SOCKETS.map(Path::new).as_slice());
        log.socket = log.connect().ok();
        if log.socket.is_none() {
            log.local = LocalLog::open().ok();
        }
        log
    }

    /// Checks that messages will reach somebody.
    ///
    /// # Errors
    /// Why there is no file where there is no system log.
    pub(crate) fn check() -> Result<()> {
        match SystemLog::at(SOCKETS.map(Path::new).as_slice()).connect() {
            Ok(_) => Ok(()),
            Err(_) => LocalLog::open().map(drop),
        }
    }

    fn at(paths: &[&Path]) -> SystemLog {
        SystemLog {
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
            socket: None,
            local: None,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the sockets of the system's loggers, below directories of root"
    )]
    fn connect(&self) -> io::Result<UnixDatagram> {
        let mut failed = io::ErrorKind::NotFound.into();
        for path in &self.paths {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            match socket.connect(path) {
                Ok(()) => return Ok(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Sends over the socket of the message before, or over a new one: a logger that was started
    /// again listens on another socket of the same name.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket
            && send_soon(socket, datagram).is_ok()
        {
            return Ok(());
        }
        self.socket = None;
        let socket = self.connect()?;
        send_soon(&socket, datagram)?;
        self.socket = Some(socket);
        Ok(())
    }
}

impl Default for SystemLog {
    fn default() -> SystemLog {
        SystemLog::new()
    }
}

impl Write for SystemLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // There is no place to report that neither can be reached.
        if self.send(&datagram(line.trim_ascii())).is_err()
            && let Some(local) = &self.local
        {
            let _ = local.append(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends without waiting for long.
fn send_soon(socket: &UnixDatagram, datagram: &[u8]) -> io::Result<()> {
    let mut retries = 0;
    loop {
        match socket.send(datagram) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && retries < FULL_RETRIES => {
                retries += 1;
                std::thread::sleep(FULL_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// `<PRI>modeloci[PID]: message`, cut at the end where it is too long.
fn datagram(line: &[u8]) -> Vec<u8> {
    let mut message = printable_bytes(line);
    if message.len() > MAX_MESSAGE_BYTES {
        let mut end = MAX_MESSAGE_BYTES;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    let priority = FACILITY_DAEMON << 3 | severity(line);
    format!("<{priority}>modeloci[{}]: {message}", std::process::id()).into_bytes()
}

/// RFC 3164, section 4.1.1, of the label that a line begins with.
fn severity(line: &[u8]) -> u8 {
    let label = line.split(|&b| b == b':').next().unwrap_or_default();
    match label {
        b"error" => 3,
        b"warning" => 4,
        b"debug" | b"trace" => 7,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn receive(server: &UnixDatagram) -> String {
        server
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut buf = [0; 2 * MAX_MESSAGE_BYTES];
        let n = server.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    }

    #[test]
    fn a_message_carries_its_severity_and_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let mut log = SystemLog::at(&[&path]);
        for (line, priority) in [
            ("error: layer a is corrupt", 27),
            ("warning: w", 28),
            ("info: mounted", 30),
            ("debug: d", 31),
            ("no label", 30),
        ] {
            log.write_all(format!("{line}\n").as_bytes()).unwrap();
            let pid = std::process::id();
            assert_eq!(
                receive(&server),
                format!("<{priority}>modeloci[{pid}]: {line}")
            );
        }
    }

    #[test]
    fn a_message_is_printable_and_bounded() {
        let text = String::from_utf8(datagram(b"info: a\x1b[2Jb\nc")).unwrap();
        assert!(!text.contains(['\x1b', '\n']), "{text:?}");
        let long = datagram(format!("error: {}", "ü".repeat(9000)).as_bytes());
        assert!(long.len() < MAX_MESSAGE_BYTES + 40);
        assert!(String::from_utf8(long).unwrap().ends_with("ü…"));
    }

    #[test]
    fn a_logger_that_comes_late_or_again_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = SystemLog::at(&[&path]);
        log.write_all(b"info: to nobody\n").unwrap();
        for round in ["first", "second"] {
            let server = UnixDatagram::bind(&path).unwrap();
            log.write_all(format!("info: {round}\n").as_bytes())
                .unwrap();
            assert!(receive(&server).ends_with(&format!(": info: {round}")));
            drop(server);
            std::fs::remove_file(&path).unwrap();
        }
        log.write_all(b"info: to nobody\n").unwrap();
    }

    #[test]
    fn r13_a_logger_that_hangs_costs_messages_and_little_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let mut log = SystemLog::at(&[&path]);
        let mut sent = 0;
        // The queue of a socket is some ten to some hundred messages long.
        while send_soon_once(&mut log, sent) {
            sent += 1;
            assert!(sent < 100_000);
        }
        let start = std::time::Instant::now();
        log.write_all(b"info: one too many\n").unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(receive(&server).ends_with("info: 0"));
    }

    /// False once the receiver is full.
    fn send_soon_once(log: &mut SystemLog, n: u32) -> bool {
        log.send(&datagram(format!("info: {n}").as_bytes())).is_ok()
    }
}
