//! What the two processes of a mount say to each other: whole messages over a socket pair, and
//! descriptors with them.
//!
//! ```text
//! keeper                                   server
//!   Begin mountpoint            ->
//!                               <-         Opened, or Failed kind text
//!   Connection (descriptor)     ->
//!                               <-         Serving
//!   Attached pid (descriptors)  ->
//!   Counters, Stop              ->
//!                               <-         Asked, Prefetched, Ended, Failed kind text
//!                               <-         Log line, Scratch place
//!   Scratch (descriptor)        ->
//! ```
//!
//! The keeper expects nothing good of what it reads: the server may be in the hands of whoever wrote
//! the archive. A message is one byte and a text, of bounded length; one that is not understood is
//! the same as none.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use modeloci::mount::parts::Scratch;
use modeloci::printable::printable_bytes;
use modeloci::{Error, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::ready;

/// Longest message, in bytes: more than a path, and a line of a log.
const MAX_BYTES: usize = 16 << 10;
/// Most descriptors of one message.
const MAX_FDS: usize = 2;

/// What the keeper says.
#[derive(Debug)]
pub(crate) enum Order {
    /// Open the model, for this mount point.
    Begin(PathBuf),
    /// Serve this connection.
    Connection(OwnedFd),
    /// The mount has its place; with the process that prefetches, where there is to be one.
    Attached(Option<Prefetcher>),
    /// Log what was done so far.
    Counters,
    /// A temporary file, or none.
    Scratch(Option<OwnedFd>),
    /// End now.
    Stop,
}

/// The process that prefetches, as the server knows it.
#[derive(Debug)]
pub(crate) struct Prefetcher {
    pub(crate) pid: u32,
    pub(crate) orders: OwnedFd,
    pub(crate) answers: OwnedFd,
}

/// What the server says.
#[derive(Debug)]
pub(crate) enum Report {
    /// The model is open.
    Opened,
    /// All event loops run.
    Serving,
    /// It was asked to end, by a signal.
    Asked,
    /// There is nothing left to prefetch.
    Prefetched,
    /// The connection has ended.
    Ended,
    /// There is no mount, or none any more, and why.
    Failed(Error),
    /// A line for the log.
    Log(Vec<u8>),
    /// Wants a temporary file.
    Scratch(Scratch),
}

/// A message as it is sent: its kind, its text, and descriptors.
type Message = (u8, Vec<u8>, Vec<OwnedFd>);

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct Wire(OwnedFd);

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wire {
    /// Both ends.
    pub(crate) fn pair() -> Result<(Wire, Wire)> {
        let pair = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (a, b) = pair.map_err(|e| Error::io("create", "a socket pair")(e.into()))?;
        Ok((Wire(a), Wire(b)))
    }

    fn send(
        &self,
        kind: u8,
        text: &[u8],
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        let flags = flags | SendFlags::NOSIGNAL;
        let text = text.get(..MAX_BYTES - 1).unwrap_or(text);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let parts = [
            IoSlice::new(std::slice::from_ref(&kind)),
            IoSlice::new(text),
        ];
        loop {
            match rustix::net::sendmsg(&self.0, &parts, &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message; `None` at the end.
    fn receive(&self) -> io::Result<Option<Message>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; MAX_BYTES];
        let length = loop {
            let mut parts = [IoSliceMut::new(&mut text)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message.bytes,
                Err(Errno::INTR) => {}
                // The other process was killed with something unread.
                Err(Errno::CONNRESET) => break 0,
                Err(error) => return Err(error.into()),
            }
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        text.truncate(length);
        Ok(match text.is_empty() {
            true => None,
            false => Some((text.remove(0), text, fds)),
        })
    }

    /// Says something to the server. Fails when it is gone, or does not listen: a keeper never waits
    /// for it.
    pub(crate) fn order(&self, order: &Order) -> io::Result<()> {
        match order {
            Order::Begin(path) => self.say(b'B', path.as_os_str().as_bytes(), &[]),
            Order::Connection(fd) => self.say(b'C', b"", &[fd.as_fd()]),
            Order::Attached(None) => self.say(b'A', b"", &[]),
            Order::Attached(Some(process)) => self.say(
                b'A',
                process.pid.to_string().as_bytes(),
                &[process.orders.as_fd(), process.answers.as_fd()],
            ),
            Order::Counters => self.say(b'N', b"", &[]),
            Order::Scratch(None) => self.say(b'T', b"", &[]),
            Order::Scratch(Some(fd)) => self.say(b'T', b"", &[fd.as_fd()]),
            Order::Stop => self.say(b'S', b"", &[]),
        }
    }

    fn say(&self, kind: u8, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(kind, text, fds, SendFlags::DONTWAIT)
    }

    /// What the keeper says next; `None` when it is gone.
    pub(crate) fn next_order(&self) -> io::Result<Option<Order>> {
        while let Some((kind, text, fds)) = self.receive()? {
            let mut fds = fds.into_iter();
            let order = match kind {
                b'B' => Some(Order::Begin(std::ffi::OsString::from_vec(text).into())),
                b'C' => fds.next().map(Order::Connection),
                b'A' => Some(Order::Attached(prefetcher(&text, fds))),
                b'N' => Some(Order::Counters),
                b'T' => Some(Order::Scratch(fds.next())),
                b'S' => Some(Order::Stop),
                _ => None,
            };
            if order.is_some() {
                return Ok(order);
            }
        }
        Ok(None)
    }

    /// Says something to the keeper. Fails when it is gone.
    pub(crate) fn report(&self, report: &Report) -> io::Result<()> {
        match report {
            Report::Opened => self.tell(b'O', b""),
            Report::Serving => self.tell(b'V', b""),
            Report::Asked => self.tell(b'Q', b""),
            Report::Prefetched => self.tell(b'P', b""),
            Report::Ended => self.tell(b'E', b""),
            Report::Failed(error) => self.tell(b'F', ready::spelt(error).as_bytes()),
            Report::Log(line) => self.tell(b'L', line),
            Report::Scratch(Scratch::Temporary) => self.tell(b'X', b"tmp"),
            Report::Scratch(Scratch::Lasting) => self.tell(b'X', b"lasting"),
        }
    }

    fn tell(&self, kind: u8, text: &[u8]) -> io::Result<()> {
        self.send(kind, text, &[], SendFlags::empty())
    }

    /// What the server says next; `None` when it is gone. Descriptors that it may send are closed.
    pub(crate) fn next_report(&self) -> io::Result<Option<Report>> {
        while let Some((kind, text, _)) = self.receive()? {
            let report = match kind {
                b'O' => Some(Report::Opened),
                b'V' => Some(Report::Serving),
                b'Q' => Some(Report::Asked),
                b'P' => Some(Report::Prefetched),
                b'E' => Some(Report::Ended),
                b'F' => ready::read(&printable_bytes(&text)).map(Report::Failed),
                b'L' => Some(Report::Log(text)),
                b'X' if text == b"tmp" => Some(Report::Scratch(Scratch::Temporary)),
                b'X' => Some(Report::Scratch(Scratch::Lasting)),
                _ => None,
            };
            if report.is_some() {
                return Ok(report);
            }
        }
        Ok(None)
    }
}

fn prefetcher(text: &[u8], mut fds: impl Iterator<Item = OwnedFd>) -> Option<Prefetcher> {
    Some(Prefetcher {
        pid: std::str::from_utf8(text).ok()?.parse().ok()?,
        orders: fds.next()?,
        answers: fds.next()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use modeloci::ErrorKind;

    use super::*;

    #[test]
    fn orders_arrive_with_their_descriptors() {
        let (keeper, server) = Wire::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let path = PathBuf::from("/a b/\n");
        keeper.order(&Order::Begin(path.clone())).unwrap();
        keeper.order(&Order::Connection(writer.into())).unwrap();
        keeper.order(&Order::Attached(None)).unwrap();
        keeper.order(&Order::Scratch(None)).unwrap();
        keeper.order(&Order::Stop).unwrap();
        let next = || server.next_order().unwrap();
        assert!(matches!(next(), Some(Order::Begin(found)) if found == path));
        let Some(Order::Connection(fd)) = next() else {
            panic!("no descriptor");
        };
        File::from(fd).write_all(b"through").unwrap();
        assert!(matches!(next(), Some(Order::Attached(None))));
        assert!(matches!(next(), Some(Order::Scratch(None))));
        assert!(matches!(next(), Some(Order::Stop)));
        drop(keeper);
        assert!(next().is_none());
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through", "and no copy of it stays open");
    }

    #[test]
    fn e18_what_a_server_says_is_bounded_printable_and_understood_or_nothing() {
        let (keeper, server) = Wire::pair().unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        server.say(b'?', b"noise", &[writer.as_fd()]).unwrap();
        server.tell(b'F', b"odd kind").unwrap();
        let bad = Error::reported(ErrorKind::Corrupt, "layer \u{1b}[2J");
        server.report(&Report::Failed(bad)).unwrap();
        server.report(&Report::Log(vec![b'x'; 1 << 20])).unwrap();
        drop(server);
        let Some(Report::Failed(error)) = keeper.next_report().unwrap() else {
            panic!("no error");
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.to_string(), "layer \\u{1b}[2J");
        let Some(Report::Log(line)) = keeper.next_report().unwrap() else {
            panic!("no line");
        };
        assert_eq!(line.len(), MAX_BYTES - 1);
        assert!(keeper.next_report().unwrap().is_none());
    }

    #[test]
    fn e18_a_server_that_does_not_listen_holds_up_no_keeper() {
        let (keeper, _server) = Wire::pair().unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let sent = (0..100_000)
            .take_while(|_| {
                let copy = writer.try_clone().unwrap();
                keeper.order(&Order::Scratch(Some(copy))).is_ok()
            })
            .count();
        assert!((1..100_000).contains(&sent), "{sent}");
    }
}
