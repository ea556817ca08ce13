//! A keeper and its server, as the keeper sees them: what it waits for, and does for the server meanwhile.

use std::io::{PipeReader, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use modeloci::mount::parts;
use modeloci::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::events::{self, Event, Events};
use super::log_queue::LogWriter;
use super::opening::Opening;
use super::prefetcher::Process;
use super::signals::Signals;
use super::wire::{Heard, Order, Report, Wire};
use crate::cli::Verbosity;

/// How long a server may take to end once the mount has: longer than its log takes.
const END: Duration = Duration::from_secs(2);

/// Most events that are kept for later.
const MAX_EARLY: usize = 16;
/// More messages than can wait to be heard; a server could say more meanwhile, without end.
const MAX_WAITING: usize = 1024;

/// What the keeper waits for, and does for its server meanwhile.
pub(super) struct Pair {
    wire: Arc<Wire>,
    signals: Signals,
    child: Child,
    /// Who waits for the mount.
    opening: Option<Opening>,
    /// Ends when what is done aside is done.
    aside: Option<PipeReader>,
    /// A temporary file is being made.
    making: Arc<AtomicBool>,
    pub(super) log: Option<LogWriter>,
    pub(super) filler: Option<Process>,
    /// Came before it was waited for them.
    early: Vec<Event>,
    /// A signal has ended the mount before it was there.
    pub(super) interrupted: bool,
}

/// The server's process; killed when this is dropped.
struct Child {
    pid: Pid,
    ended: bool,
}

impl Pair {
    /// A keeper of this process.
    pub(super) fn new(wire: Wire, signals: Signals, server: Pid, opening: Option<Opening>) -> Pair {
        Pair {
            wire: Arc::new(wire),
            signals,
            opening,
            aside: None,
            making: Arc::default(),
            child: Child {
                pid: server,
                ended: false,
            },
            log: None,
            filler: None,
            early: Vec::new(),
            interrupted: false,
        }
    }

    /// Fails when the server is gone, unless that is because the mount has ended already: somebody
    /// was quick to unmount it.
    pub(super) fn order(&mut self, order: &Order) -> Result<()> {
        if self.wire.order(order).is_ok() {
            return Ok(());
        }
        // It may have had something to say before it went.
        for _ in 0..MAX_WAITING {
            match self.wire.hear() {
                Heard::Said(report) => match self.deal_with(report) {
                    Some(Report::Failed(error)) => return Err(error),
                    Some(report) => self.keep_for_later(event(report)),
                    None => {}
                },
                Heard::Odd => return Err(self.child.taken_over()),
                Heard::Nothing | Heard::Gone => break,
            }
        }
        let ended = |event: &Event| matches!(event, Event::Ended(_));
        match self.early.iter().any(ended) {
            true => Ok(()),
            false => Err(self.child.died()),
        }
    }

    /// The first few events, that is: a server could send them without end.
    fn keep_for_later(&mut self, event: Option<Event>) {
        if self.early.len() < MAX_EARLY {
            self.early.extend(event);
        }
    }

    /// Waits for a step of the server on the way to the mount.
    ///
    /// # Errors
    /// As [`until`](Pair::until).
    pub(super) fn until_told(&mut self, step: impl Fn(&Report) -> bool) -> Result<()> {
        self.until(|happened| matches!(happened, Happened::Report(report) if step(report)))
    }

    /// Has something done that may take for ever, such as to look where a path leads to on a storage
    /// that is dead, and waits for it as for everything else: on a thread of its own, which ends with
    /// the process.
    ///
    /// # Errors
    /// As [`until`](Pair::until).
    pub(super) fn aside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (ends, held) = std::io::pipe().map_err(Error::io("create", "a pipe"))?;
        let (done, result) = channel();
        let work = move || {
            let _ = done.send(work());
            drop(held);
        };
        let thread = thread::Builder::new().name("aside".into());
        thread.spawn(work).map_err(Error::io("start", "a thread"))?;
        self.aside = Some(ends);
        self.until(|happened| matches!(happened, Happened::Aside))?;
        let panicked = |_| Error::environment("mounting", "a bug has ended a thread");
        result.recv().map_err(panicked)
    }

    /// Waits for a step on the way to the mount. A signal that ends a mount ends this, too, and so does
    /// the end of whoever waits for it; what else happens is dealt with later.
    fn until(&mut self, step: impl Fn(&Happened) -> bool) -> Result<()> {
        loop {
            let Some(happened) = self.wait(None) else {
                return Err(self.child.died());
            };
            if step(&happened) {
                return Ok(());
            }
            match happened {
                Happened::Signal(signal) if events::ends(signal) => {
                    self.interrupted = true;
                    return Err(Error::environment("mounting", "interrupted"));
                }
                Happened::Signal(signal) => self.keep_for_later(Some(Event::Signal(signal))),
                Happened::Report(Report::Failed(error)) => return Err(error),
                Happened::Report(report) => self.keep_for_later(event(report)),
                Happened::Aside => {}
                Happened::Deserted => {
                    let starter = "the process that started the mount";
                    return Err(Error::environment(starter, "waits for it no more"));
                }
                Happened::Odd => return Err(self.child.taken_over()),
                Happened::Gone => return Err(self.child.died()),
            }
        }
    }

    /// Nobody waits for the mount any more: it answers, or never will.
    pub(super) fn is_over(&mut self) {
        self.opening = None;
        self.aside = None;
    }

    /// Shows how far opening is, where somebody can see it.
    pub(super) fn show(&mut self, verbosity: Verbosity) {
        if let Some(opening) = &mut self.opening {
            opening.show(verbosity);
        }
    }

    /// Waits for a signal or for a report; does what the server asks for in between. It is the one
    /// place where the keeper waits, for both at once: what a server says, or does not, keeps no signal
    /// from being heard.
    fn wait(&mut self, until: Option<Instant>) -> Option<Happened> {
        loop {
            if let Some(signal) = self.signals.next() {
                return Some(Happened::Signal(signal));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                // Also when the server never stops talking.
                return None;
            }
            match self.look(left) {
                Ok(Ready::Nothing) => return None,
                Ok(Ready::Aside) => {
                    self.aside = None;
                    return Some(Happened::Aside);
                }
                Ok(Ready::Starter) => return Some(Happened::Deserted),
                Ok(Ready::Wire) => {}
                Ok(Ready::Signal) | Err(Errno::INTR) => continue,
                Err(_) => return Some(Happened::Gone),
            }
            match self.wire.hear() {
                Heard::Said(report) => {
                    if let Some(report) = self.deal_with(report) {
                        return Some(Happened::Report(report));
                    }
                }
                Heard::Nothing => {}
                Heard::Odd => return Some(Happened::Odd),
                Heard::Gone => return Some(Happened::Gone),
            }
        }
    }

    /// Waits until there is something to look at; what a server could say without end comes last.
    fn look(&self, left: Option<Duration>) -> rustix::io::Result<Ready> {
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.wire, PollFlags::IN),
        ];
        let mut ready = vec![Ready::Signal, Ready::Wire];
        if let Some(aside) = &self.aside {
            fds.push(PollFd::new(aside, PollFlags::IN));
            ready.push(Ready::Aside);
        }
        if let Some(starter) = self.opening.as_ref().and_then(Opening::starter) {
            // Nothing but its end: that is told in any case.
            fds.push(PollFd::from_borrowed_fd(starter, PollFlags::empty()));
            ready.push(Ready::Starter);
        }
        rustix::event::poll(&mut fds, left.as_ref())?;
        let mut looked_at = fds.iter().zip(ready).rev();
        let found = looked_at.find(|(fd, _)| !fd.revents().is_empty());
        Ok(found.map_or(Ready::Nothing, |(_, ready)| ready))
    }

    /// Does what the server asks for; returns what is for whoever waits.
    fn deal_with(&mut self, report: Report) -> Option<Report> {
        match report {
            Report::Log(line) => {
                if let Some(log) = &mut self.log {
                    // Never fails.
                    let _ = log.write_all(&line);
                }
            }
            Report::Scratch(place) => self.hand_out(place),
            Report::Progress(bytes) => {
                if let Some(opening) = &mut self.opening {
                    opening.got_to(bytes);
                }
            }
            Report::Prefetched => {
                if let Some(filler) = self.filler.take() {
                    filler.end();
                }
            }
            report => return Some(report),
        }
        None
    }

    /// Makes a temporary file on a thread of its own: the storage may be dead. A server asks for one at
    /// a time; who asks for more gets none.
    fn hand_out(&self, place: parts::Scratch) {
        let (wire, making) = (Arc::clone(&self.wire), Arc::clone(&self.making));
        let make = move || {
            let file = place.create_here().ok();
            // Before the server can ask again.
            making.store(false, Ordering::Release);
            // One that is gone wants none.
            let _ = wire.order(&Order::Scratch(file.map(OwnedFd::from)));
        };
        let is_free = !self.making.swap(true, Ordering::Acquire);
        let thread = || thread::Builder::new().name("scratch".into()).spawn(make);
        if !is_free || thread().is_err() {
            if is_free {
                self.making.store(false, Ordering::Release);
            }
            let _ = self.wire.order(&Order::Scratch(None));
        }
    }

    /// Has the server end, and waits until it has. One that still opens the model listens to nobody:
    /// whoever has ended that waits for no more than its death.
    pub(super) fn end(mut self) {
        self.is_over();
        let _ = self.wire.order(&Order::Stop);
        let patience = match self.interrupted {
            true => Duration::ZERO,
            false => END,
        };
        let deadline = Instant::now() + patience;
        // Killed in the end, whatever it says.
        while let Some(Happened::Signal(_) | Happened::Report(_)) = self.wait(Some(deadline)) {}
        if let Some(filler) = self.filler.take() {
            filler.end();
        }
    }
}

/// What the keeper waits for and can go on with.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Nothing,
    Signal,
    Wire,
    Aside,
    Starter,
}

enum Happened {
    Signal(i32),
    Report(Report),
    /// What was done aside is done.
    Aside,
    /// Whoever waits for the mount does so no more.
    Deserted,
    /// The server said what no server says.
    Odd,
    /// The server.
    Gone,
}

/// What a report means to whoever keeps the mount.
fn event(report: Report) -> Option<Event> {
    match report {
        Report::Asked => Some(Event::Asked),
        Report::Ended => Some(Event::Ended(Ok(()))),
        Report::Failed(error) => Some(Event::Failed(error)),
        // Steps that are not waited for any more.
        _ => None,
    }
}

impl Events for Pair {
    fn next(&mut self, until: Option<Instant>) -> Option<Event> {
        if !self.early.is_empty() {
            return Some(self.early.remove(0));
        }
        loop {
            match self.wait(until)? {
                Happened::Signal(signal) => return Some(Event::Signal(signal)),
                // Nobody waits for a mount that answers.
                Happened::Aside | Happened::Deserted => {}
                Happened::Odd => return Some(Event::Died(self.child.taken_over())),
                Happened::Gone => return Some(Event::Died(self.child.died())),
                Happened::Report(report) => {
                    if let Some(event) = event(report) {
                        return Some(event);
                    }
                }
            }
        }
    }

    fn log_counters(&mut self) {
        let _ = self.wire.order(&Order::Counters);
    }
}

impl Child {
    /// Ends a server that somebody else speaks through.
    fn taken_over(&mut self) -> Error {
        if !self.ended {
            let _ = kill_process(self.pid, Signal::KILL);
        }
        let why = "said what it never says, and was ended";
        Error::environment("the process that serves the mount", why)
    }

    /// Why there is no server any more; kills one that does not talk.
    fn died(&mut self) -> Error {
        let how = match self.reap() {
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (_, Some(signal)) => format!("was killed by signal {signal}"),
                (Some(code), None) => format!("ended with exit code {code}"),
                (None, None) => "ended".to_string(),
            },
            None => "ended".to_string(),
        };
        Error::environment("the process that serves the mount", how)
    }

    fn reap(&mut self) -> Option<WaitStatus> {
        if self.ended {
            return None;
        }
        // One that has closed its end is about to end; it is not waited for if it is not.
        let deadline = Instant::now() + END;
        loop {
            match waitpid(Some(self.pid), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => {
                    self.ended = true;
                    return Some(status);
                }
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill_process(self.pid, Signal::KILL);
            self.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsFd;
    use std::sync::mpsc::channel;

    use rustix::net::{SendAncillaryBuffer, SendFlags};
    use std::io::IoSlice;

    use super::super::signals::SignalSet;
    use super::*;

    /// Has `act` done with a keeper whose server has said this, and says nothing after it; with a
    /// process that only an end by force ends.
    fn with_server<T: Send + 'static>(
        said: &[&[u8]],
        act: impl FnOnce(&mut Pair) -> T + Send + 'static,
    ) -> T {
        let (wire, server) = Wire::pair().unwrap();
        for message in said {
            let mut none = SendAncillaryBuffer::default();
            let parts = [IoSlice::new(message)];
            rustix::net::sendmsg(server.as_fd(), &parts, &mut none, SendFlags::empty()).unwrap();
        }
        let process = std::process::Command::new("sleep").arg("600").spawn();
        let pid = Pid::from_child(&process.unwrap());
        let (done, result) = channel();
        std::thread::spawn(move || {
            let signals = SignalSet::block(&[]).unwrap().descriptor().unwrap();
            let mut pair = Pair::new(wire, signals, pid, None);
            done.send(act(&mut pair)).unwrap();
        });
        let result = result.recv_timeout(Duration::from_secs(20));
        drop(server);
        result.expect("waits for a server")
    }

    const ODD: [&[u8]; 4] = [b"Z", b"Fodd kind", b"Xnowhere", b"Vmore"];

    fn is_taken_over(error: &Error) -> bool {
        error.to_string().contains("said what it never says")
    }

    #[test]
    fn e18_an_odd_message_ends_a_server_and_not_its_keeper() {
        for odd in ODD {
            let event = with_server(&[odd], |pair| pair.next(None));
            assert!(matches!(event, Some(Event::Died(error)) if is_taken_over(&error)));
            let until = with_server(&[odd], |pair| pair.until_told(|_| true));
            assert!(is_taken_over(&until.unwrap_err()));
        }
    }

    #[test]
    fn e18_a_keeper_waits_no_longer_than_it_wants() {
        for said in [&b"Linfo: a line\n"[..], b"Xtmp", b"P", b"O", b"G7"] {
            let soon = || Some(Instant::now() + Duration::from_millis(100));
            let event = with_server(&[said], move |pair| pair.next(soon()));
            assert!(event.is_none(), "{event:?}");
        }
    }

    /// It listens to nothing, and has said something before.
    #[test]
    fn e18_an_order_that_cannot_be_given_waits_for_nothing() {
        let order = |pair: &mut Pair| {
            while pair.wire.order(&Order::Counters).is_ok() {}
            pair.order(&Order::Counters)
        };
        for odd in ODD {
            let result = with_server(&[b"Linfo: a line\n", odd], order);
            assert!(is_taken_over(&result.unwrap_err()));
        }
        for said in [&b"Linfo: a line\n"[..], b"O", b"V"] {
            assert!(with_server(&[said], order).is_err());
        }
        assert!(with_server(&[b"E"], order).is_ok(), "it has ended");
    }

    #[test]
    fn m14_what_is_done_aside_holds_up_nobody() {
        let done = with_server(&[b"Linfo: a line\n"], |pair| pair.aside(|| 7));
        assert_eq!(done.unwrap(), 7);
        let failed = with_server(&[b"Fmalformed no model"], |pair| {
            pair.aside(|| thread::sleep(Duration::from_secs(600)))
        });
        assert!(failed.unwrap_err().to_string().contains("no model"));
        let panicked = with_server(&[], |pair| pair.aside(|| panic!("of the test")));
        let panicked: Result<()> = panicked;
        assert!(panicked.unwrap_err().to_string().contains("a bug"));
    }

    #[test]
    fn m13_a_starter_that_is_gone_ends_the_wait() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let waited = with_server(&[b"Linfo: a line\n"], |pair| {
            pair.opening = Some(Opening::new(Some(writer.into()), true));
            pair.until_told(|report| matches!(report, Report::Opened))
        });
        assert!(waited.unwrap_err().to_string().contains("no more"));
    }
}
