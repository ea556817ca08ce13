//! The first of the two processes of a mount: it holds the mount, and nothing of the model.
//!
//! Mounting and unmounting take rights that a decoder of other people's bytes should not have:
//! Landlock forbids `umount2` even to root, and `no_new_privs` ends the setuid `fusermount3`. So the
//! program serves in two processes:
//!
//! - The *keeper* mounts, unmounts, hears signals, reports readiness, starts the process that
//!   prefetches, hands out temporary files, and runs [errands](super::errands). It opens no blob and parses nothing of the archive.
//! - The [*server*](super::server) opens the archive, gives up all rights but to that
//!   ([`sandbox`]), and only then reads the first byte of it.
//!
//! They part by fork(2) before the first thread, and talk over a [`Wire`]. Whichever dies, the other
//! ends: the kernel kills the server with its keeper, and the keeper unmounts when its server is gone.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use modeloci::mount::parts;
use modeloci::source::registry::Reference;
use modeloci::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::errands::Errands;
use super::events::{self, Event, Events, SIGNALS};
use super::log_queue::LogWriter;
use super::notify::Notifier;
use super::options::{Inherited, Options};
use super::prefetcher::{self, Ends, Process};
use super::process::{self, Forked};
use super::ready::Reporter;
use super::server::Server;
use super::signals::{SignalSet, Signals};
use super::wire::{Heard, Order, Prefetcher, Report, Wire};
use super::{allocator, sandbox};

/// How long a server may take to end once the mount has: longer than its log takes.
const END: Duration = Duration::from_secs(2);

/// Most events that are kept for later.
const MAX_EARLY: usize = 16;
/// More messages than can wait to be heard; a server could say more meanwhile, without end.
const MAX_WAITING: usize = 1024;

/// Which of the two processes this is.
pub(crate) enum Side {
    /// The first one.
    Keeper(Keeper),
    /// The one that serves.
    Server(Server),
}

/// The process that keeps a mount.
pub(crate) struct Keeper {
    reporter: Reporter,
    /// What options name; taken once.
    inherited: Option<Inherited>,
    pair: Pair,
}

/// What the keeper waits for, and does for its server meanwhile.
struct Pair {
    wire: Wire,
    signals: Signals,
    child: Child,
    log: Option<LogWriter>,
    filler: Option<Process>,
    errands: Errands,
    /// Came before it was waited for them.
    early: Vec<Event>,
    /// A signal has ended the mount before it was there.
    interrupted: bool,
}

/// The server's process; killed when this is dropped.
struct Child {
    pid: Pid,
    ended: bool,
}

/// Parts into keeper and server. Must be called before the process has started threads and opened
/// files, because it forks, and takes over signals and descriptors that the options name.
///
/// # Errors
/// When the options cannot hold, or the system refuses; whoever waits for the mount has been told.
pub(crate) fn part(options: &Options) -> Result<Side> {
    allocator::give_back_freed_memory();
    let mut reporter = Reporter::new(options.ready_fd)?;
    let start = || {
        allocator::fit_into_limits();
        parts::check_address_space(&options.mount)?;
        process::pass_nothing_on();
        let inherited = options.inherited()?;
        let signals = SignalSet::block(&SIGNALS);
        let signals = signals.map_err(Error::io("block", "signals"))?;
        let (ours, theirs) = Wire::pair()?;
        let waiting = signals
            .descriptor()
            .map_err(Error::io("wait for", "signals"))?;
        sandbox::enter_as_keeper();
        let us = rustix::process::getpid();
        let forked = process::fork().map_err(Error::io("start", "the process that serves"))?;
        Ok((inherited, signals, ours, theirs, waiting, us, forked))
    };
    let (inherited, signals, ours, theirs, waiting, us, forked) =
        start().inspect_err(|error| reporter.failed(error))?;
    Ok(match forked {
        Forked::Parent(pid) => Side::Keeper(Keeper {
            reporter,
            inherited: Some(inherited),
            pair: Pair {
                wire: ours,
                signals: waiting,
                child: Child { pid, ended: false },
                log: None,
                filler: None,
                errands: Errands::new(Reference::explicit(&options.mount.archive)),
                early: Vec::new(),
                interrupted: false,
            },
        }),
        // What is the keeper's is closed here, as all of it is dropped.
        Forked::Child => Side::Server(Server::new(theirs, signals, us, inherited.named)),
    })
}

impl Keeper {
    /// Tells whoever waits for the mount why there will be none.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.reporter.failed(error);
    }

    /// Mounts what the server serves; returns when it was unmounted or a signal has ended it. `log`
    /// gets lines of the server.
    ///
    /// # Errors
    /// As [`serve::run`](super::serve::run).
    pub(crate) fn keep(mut self, options: &Options, log: LogWriter) -> Result<()> {
        self.pair.log = Some(log);
        let Keeper {
            reporter,
            inherited,
            pair,
        } = &mut self;
        let inherited = inherited.take().unwrap_or_default();
        let result = keep(options, reporter, inherited, pair);
        let result = result.inspect_err(|error| reporter.failed(error));
        let interrupted = pair.interrupted;
        self.pair.end();
        // Who asked for the end got it, as at any later time.
        if interrupted { Ok(()) } else { result }
    }
}

fn keep(
    options: &Options,
    reporter: &mut Reporter,
    inherited: Inherited,
    pair: &mut Pair,
) -> Result<()> {
    let notifier = Notifier::from_environment();
    // By now the log is open.
    let (target, named) = options.target(inherited)?;
    drop(named);
    let mountpoint = target.path().to_path_buf();
    // The server can make no directory.
    let index_dir = options.mount.index_dir.as_deref();
    let made = index_dir.and_then(parts::make_index_dir);
    let opened = pair
        .order(&Order::Begin(mountpoint.clone()))
        .and_then(|()| pair.until(|report| matches!(report, Report::Opened)))
        .and_then(|()| parts::connect(target, &options.mount));
    let (fd, mountable) = opened.inspect_err(|_| {
        if let Some(made) = made {
            made.undo();
        }
    })?;
    let connection = fd.try_clone();
    let connection = connection.map_err(Error::io("use", "the FUSE connection"))?;
    pair.order(&Order::Connection(fd))?;
    pair.until(|report| matches!(report, Report::Serving))?;
    mountable.raise_readahead(&options.mount)?;
    let mut attached = mountable.attach(connection)?;
    let prefetcher = match options.prefetch {
        true => {
            let (orders, answers, process) = prefetcher::start(&attached, true)?;
            let pid = process.id();
            pair.filler = Some(process);
            Some(Prefetcher {
                pid,
                orders,
                answers,
            })
        }
        false => None,
    };
    let prefetch = Ends(pair.filler.clone());
    pair.order(&Order::Attached(prefetcher))?;
    events::tell_ready(reporter, &notifier, &mountpoint)?;
    events::run(pair, &mut attached, &notifier, &mountpoint, prefetch)
}

impl Pair {
    /// Fails when the server is gone, unless that is because the mount has ended already: somebody
    /// was quick to unmount it.
    fn order(&mut self, order: &Order) -> Result<()> {
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
    fn until(&mut self, step: impl Fn(&Report) -> bool) -> Result<()> {
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
            Report::Ask(number, question) => self.errands.run(number, question, &self.wire),
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
    fn end(mut self) {
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
            let mut pair = Pair {
                wire,
                signals,
                child: Child { pid, ended: false },
                log: None,
                filler: None,
                errands: Errands::new(None),
                early: Vec::new(),
                interrupted: false,
            };
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
