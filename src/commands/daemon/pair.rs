//! A keeper and its server, as the keeper sees them: what it waits for, and does for the server meanwhile.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use modeloci::mount::parts;
use modeloci::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::events::{self, Event, Events};
use super::log_queue::LogWriter;
use super::prefetcher::Process;
use super::signals::Signals;
use super::wire::{Heard, Order, Report, Wire};

/// How long a server may take to end once the mount has: longer than its log takes.
const END: Duration = Duration::from_secs(2);

/// Most events that are kept for later.
const MAX_EARLY: usize = 16;
/// More messages than can wait to be heard; a server could say more meanwhile, without end.
const MAX_WAITING: usize = 1024;

/// What the keeper waits for, and does for its server meanwhile.
pub(super) struct Pair {
    wire: Wire,
    signals: Signals,
    child: Child,
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
    pub(super) fn new(wire: Wire, signals: Signals, server: Pid) -> Pair {
        Pair {
            wire,
            signals,
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

    /// Waits for a step on the way to the mount. A signal that ends a mount ends this, too; what else
    /// happens is dealt with later.
    pub(super) fn until(&mut self, step: impl Fn(&Report) -> bool) -> Result<()> {
        loop {
            match self.wait(None) {
                Some(Happened::Signal(signal)) if events::ends(signal) => {
                    self.interrupted = true;
                    return Err(Error::environment("mounting", "interrupted"));
                }
                Some(Happened::Signal(signal)) => self.keep_for_later(Some(Event::Signal(signal))),
                Some(Happened::Report(report)) if step(&report) => return Ok(()),
                Some(Happened::Report(Report::Failed(error))) => return Err(error),
                Some(Happened::Report(report)) => self.keep_for_later(event(report)),
                Some(Happened::Odd) => return Err(self.child.taken_over()),
                Some(Happened::Gone) | None => return Err(self.child.died()),
            }
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
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&self.wire, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Ok(0) => return None,
                Ok(_) if fds[1].revents().is_empty() => continue,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
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
            Report::Prefetched => {
                if let Some(filler) = self.filler.take() {
                    filler.end();
                }
            }
            report => return Some(report),
        }
        None
    }

    fn hand_out(&self, place: parts::Scratch) {
        let file: Option<File> = place.create_here().ok();
        // A server that is gone wants none.
        let _ = self.wire.order(&Order::Scratch(file.map(OwnedFd::from)));
    }

    /// Has the server end, and waits until it has.
    pub(super) fn end(mut self) {
        let _ = self.wire.order(&Order::Stop);
        let deadline = Instant::now() + END;
        // Killed in the end, whatever it says.
        while let Some(Happened::Signal(_) | Happened::Report(_)) = self.wait(Some(deadline)) {}
        if let Some(filler) = self.filler.take() {
            filler.end();
        }
    }
}

enum Happened {
    Signal(i32),
    Report(Report),
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
            let mut pair = Pair::new(wire, signals, pid);
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
            let until = with_server(&[odd], |pair| pair.until(|_| true));
            assert!(is_taken_over(&until.unwrap_err()));
        }
    }

    #[test]
    fn e18_a_keeper_waits_no_longer_than_it_wants() {
        for said in [&b"Linfo: a line\n"[..], b"Xtmp", b"P", b"O"] {
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
}
