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
//!                               <-         Log line, Scratch place, Ask number question
//!   Scratch (descriptor)        ->
//!   Told number answer          ->
//! ```
//!
//! The keeper expects nothing good of what it reads: the server may be in the hands of whoever wrote
//! the archive. A message is one byte and a text, of bounded length. The keeper takes what is there and
//! never waits for more ([`Wire::hear`]); one message that no server sends ends the conversation, since
//! somebody else speaks then. Text for a log is printable before anybody has it.

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
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::ready;

/// Longest message, in bytes: more than a path, and a line of a log.
const MAX_BYTES: usize = 16 << 10;
/// Longest answer.
pub(crate) const MAX_ANSWER_BYTES: usize = MAX_BYTES - 8;
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
    /// The answer to a question of that number.
    Told(u32, Told),
    /// End now.
    Stop,
}

/// What the keeper has found out; there may be a secret in it.
pub(crate) struct Told(pub(crate) Vec<u8>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
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
    /// A line for the log; as the keeper hears it, printable and with the one line break at its end.
    Log(Vec<u8>),
    /// Wants a temporary file.
    Scratch(Scratch),
    /// Wants to know something, and gives the question a number.
    Ask(u32, Question),
}

/// What the server cannot find out for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// The credential for the model's registry.
    Credential,
    /// The addresses of a host and a port.
    Addresses(String, u16),
}

/// What the keeper hears when it looks.
#[derive(Debug)]
pub(crate) enum Heard {
    Said(Report),
    /// Nothing now.
    Nothing,
    /// What no server says.
    Odd,
    /// There is no server any more.
    Gone,
}

/// A message as it is sent: its kind and its text.
struct Message {
    kind: u8,
    text: Vec<u8>,
    /// That is all of it: nothing, and no descriptor, was left out for want of room.
    whole: bool,
}

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

    /// The same end once more.
    pub(crate) fn try_clone(&self) -> io::Result<Wire> {
        self.0.try_clone().map(Wire)
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
    fn receive(
        &self,
        control: &mut RecvAncillaryBuffer<'_>,
        flags: RecvFlags,
    ) -> rustix::io::Result<Option<Message>> {
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let mut text = vec![0; MAX_BYTES];
        let (length, cut) = loop {
            let mut parts = [IoSliceMut::new(&mut text)];
            match rustix::net::recvmsg(&self.0, &mut parts, control, flags) {
                Ok(message) => break (message.bytes, message.flags),
                Err(Errno::INTR) => {}
                // The other process was killed with something unread.
                Err(Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        text.truncate(length);
        Ok(match text.is_empty() {
            true => None,
            false => Some(Message {
                kind: text.remove(0),
                text,
                whole: !cut.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC),
            }),
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
            Order::Told(number, Told(answer)) => {
                if answer.len() > MAX_ANSWER_BYTES {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let text = [&number.to_be_bytes(), answer.as_slice()].concat();
                self.say(b'R', &text, &[])
            }
            Order::Stop => self.say(b'S', b"", &[]),
        }
    }

    fn say(&self, kind: u8, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(kind, text, fds, SendFlags::DONTWAIT)
    }

    /// What the keeper says next; `None` when it is gone.
    pub(crate) fn next_order(&self) -> io::Result<Option<Order>> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let message = self.receive(&mut control, RecvFlags::empty())?;
            let Some(Message { kind, text, .. }) = message else {
                return Ok(None);
            };
            let mut fds = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            let mut fds = fds.into_iter();
            let order = match kind {
                b'B' => Some(Order::Begin(std::ffi::OsString::from_vec(text).into())),
                b'C' => fds.next().map(Order::Connection),
                b'A' => Some(Order::Attached(prefetcher(&text, fds))),
                b'N' => Some(Order::Counters),
                b'T' => Some(Order::Scratch(fds.next())),
                b'R' => told(&text),
                b'S' => Some(Order::Stop),
                _ => None,
            };
            if order.is_some() {
                return Ok(order);
            }
        }
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
            Report::Ask(number, Question::Credential) => {
                self.tell(b'K', number.to_string().as_bytes())
            }
            Report::Ask(number, Question::Addresses(host, port)) => {
                self.tell(b'D', format!("{number} {port} {host}").as_bytes())
            }
        }
    }

    fn tell(&self, kind: u8, text: &[u8]) -> io::Result<()> {
        self.send(kind, text, &[], SendFlags::empty())
    }

    /// Takes what the server has said, without waiting for it. There is no room for descriptors, which
    /// a server never sends: to close a strange one could take as long as a stranger likes.
    pub(crate) fn hear(&self) -> Heard {
        let mut no_room = RecvAncillaryBuffer::default();
        match self.receive(&mut no_room, RecvFlags::DONTWAIT) {
            Ok(Some(message)) if message.whole => {
                report(message.kind, &message.text).map_or(Heard::Odd, Heard::Said)
            }
            Ok(Some(_)) => Heard::Odd,
            Err(Errno::AGAIN) => Heard::Nothing,
            Ok(None) | Err(_) => Heard::Gone,
        }
    }
}

/// What a server means; `None` for what none says.
fn report(kind: u8, text: &[u8]) -> Option<Report> {
    Some(match (kind, text) {
        (b'O', b"") => Report::Opened,
        (b'V', b"") => Report::Serving,
        (b'Q', b"") => Report::Asked,
        (b'P', b"") => Report::Prefetched,
        (b'E', b"") => Report::Ended,
        (b'F', text) => Report::Failed(ready::read(&printable_bytes(text))?),
        (b'L', text) => Report::Log(log_line(text)),
        (b'X', b"tmp") => Report::Scratch(Scratch::Temporary),
        (b'X', b"lasting") => Report::Scratch(Scratch::Lasting),
        (b'K', text) => Report::Ask(number(text)?, Question::Credential),
        (b'D', text) => addresses(text)?,
        _ => return None,
    })
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A question for the addresses of what can be the name of a host.
fn addresses(text: &[u8]) -> Option<Report> {
    let mut words = text.splitn(3, |&b| b == b' ');
    let (which, port) = (number(words.next()?)?, number(words.next()?)?);
    let host = std::str::from_utf8(words.next()?).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let is_host = (1..=255).contains(&host.len()) && host.chars().all(plain);
    is_host.then(|| Report::Ask(which, Question::Addresses(host.to_string(), port)))
}

fn told(text: &[u8]) -> Option<Order> {
    let (number, answer) = text.split_first_chunk()?;
    let number = u32::from_be_bytes(*number);
    Some(Order::Told(number, Told(answer.to_vec())))
}

/// One line, whatever it was.
fn log_line(text: &[u8]) -> Vec<u8> {
    let mut line = printable_bytes(text.strip_suffix(b"\n").unwrap_or(text));
    let mut end = line.len().min(MAX_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push('\n');
    line.into_bytes()
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
    fn e18_what_a_server_says_is_bounded_and_printable() {
        let (keeper, server) = Wire::pair().unwrap();
        let bad = Error::reported(ErrorKind::Corrupt, "layer \u{1b}[2J");
        server.report(&Report::Failed(bad)).unwrap();
        server.report(&Report::Log(vec![b'x'; 1 << 20])).unwrap();
        server.report(&Report::Log(vec![0; 1 << 20])).unwrap();
        let forged = b"info: a\nerror: b\x1b[2J\n".to_vec();
        server.report(&Report::Log(forged)).unwrap();
        drop(server);
        let Heard::Said(Report::Failed(error)) = keeper.hear() else {
            panic!("no error");
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.to_string(), "layer \\u{1b}[2J");
        let line = || match keeper.hear() {
            Heard::Said(Report::Log(line)) => String::from_utf8(line).unwrap(),
            heard => panic!("no line: {heard:?}"),
        };
        assert_eq!(line().len(), MAX_BYTES);
        assert!(line().len() <= MAX_BYTES + 1);
        assert_eq!(line(), "info: a\\u{a}error: b\\u{1b}[2J\n");
        assert!(matches!(keeper.hear(), Heard::Gone));
    }

    /// Nothing follows, and the server goes on: who waited for more would wait for ever.
    #[test]
    fn e18_nobody_waits_for_what_a_server_says_next() {
        let (keeper, server) = Wire::pair().unwrap();
        assert!(matches!(keeper.hear(), Heard::Nothing));
        let odd: [(u8, &[u8]); 10] = [
            (b'K', b"x"),
            (b'D', b"1 443"),
            (b'D', b"1 443 h/x"),
            (b'D', b"1 99999 h"),
            (b'?', b"noise"),
            (b'Z', b""),
            (b'F', b"odd kind"),
            (b'F', b""),
            (b'X', b"elsewhere"),
            (b'O', b"more"),
        ];
        for (kind, text) in odd {
            server.tell(kind, text).unwrap();
            assert!(matches!(keeper.hear(), Heard::Odd), "{kind} {text:?}");
            assert!(matches!(keeper.hear(), Heard::Nothing));
        }
        let (mut reader, writer) = io::pipe().unwrap();
        server.say(b'V', b"", &[writer.as_fd()]).unwrap();
        drop(writer);
        assert!(matches!(keeper.hear(), Heard::Odd));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "no descriptor is kept");
        let long = vec![0; MAX_BYTES + 1];
        let parts = [IoSlice::new(&long)];
        let mut none = SendAncillaryBuffer::default();
        rustix::net::sendmsg(&server.0, &parts, &mut none, SendFlags::empty()).unwrap();
        assert!(matches!(keeper.hear(), Heard::Odd));
        assert!(matches!(keeper.hear(), Heard::Nothing));
    }

    #[test]
    fn questions_and_answers_arrive() {
        let (keeper, server) = Wire::pair().unwrap();
        for question in [
            Question::Credential,
            Question::Addresses("registry.example".into(), 443),
        ] {
            server.report(&Report::Ask(7, question.clone())).unwrap();
            let Heard::Said(Report::Ask(7, heard)) = keeper.hear() else {
                panic!("no question");
            };
            assert_eq!(heard, question);
        }
        let answer = vec![b'x'; MAX_ANSWER_BYTES];
        keeper.order(&Order::Told(7, Told(answer.clone()))).unwrap();
        let Some(Order::Told(7, told)) = server.next_order().unwrap() else {
            panic!("no answer");
        };
        assert_eq!(told.0, answer);
        assert_eq!(format!("{told:?}"), "Told", "and nothing of it is shown");
        let long = Told(vec![0; MAX_ANSWER_BYTES + 1]);
        assert!(keeper.order(&Order::Told(7, long)).is_err());
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
