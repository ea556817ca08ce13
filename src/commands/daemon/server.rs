//! The second of the two processes of a mount: it serves, and can do nothing else.
//!
//! Before it reads the first byte of the archive it gives up what it does not need (see
//! [`sandbox`]); what it cannot do any more it asks its [keeper](super::keeper) for.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use modeloci::mount::parts::{self, Filler, Process, Served};
use modeloci::source::Unread;
use modeloci::{Error, Model, Result};
use rustix::process::{Pid, Signal};

use super::allocator::{self, AT_START};
use super::errands::AskKeeper;
use super::events::{self, Event};
use super::log_queue::LogQueue;
use super::options::Options;
use super::panics;
use super::process;
use super::sandbox::{self, Entered, Needs};
use super::signals::SignalSet;
use super::wire::{Order, Report, Wire};

/// How long the last lines of the log may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The process that serves a mount which another one keeps.
pub(crate) struct Server {
    wire: Arc<Wire>,
    signals: SignalSet,
    keeper: Pid,
    /// What options name, until it is open.
    named: Vec<OwnedFd>,
}

/// What the server waits for.
#[derive(Debug)]
enum Next {
    Event(Event),
    Order(Order),
}

/// A log that the keeper writes.
struct ToKeeper(Arc<Wire>);

impl Write for ToKeeper {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.report(&Report::Log(line.to_vec()))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Server {
    pub(crate) fn new(wire: Wire, signals: SignalSet, keeper: Pid, named: Vec<OwnedFd>) -> Server {
        Server {
            wire: Arc::new(wire),
            signals,
            keeper,
            named,
        }
    }

    /// Where to log: the keeper has the log, and sees to it that what stands there is lines.
    pub(crate) fn log_to_keeper(&self) -> Box<dyn Write + Send> {
        Box::new(ToKeeper(Arc::clone(&self.wire)))
    }

    /// Tells the keeper why there will be no mount.
    pub(crate) fn failed(&self, error: &Error) {
        // A keeper that is gone needs no report.
        let _ = self.wire.report(&Report::Failed(error.clone()));
    }

    /// Serves until the mount ends, or its keeper does. Errors are the keeper's to tell. `start_log`
    /// is called once the process has given up what it does not need.
    pub(crate) fn serve(mut self, options: &Options, start_log: impl FnOnce() -> Result<LogQueue>) {
        let mut log = None;
        if let Err(error) = self.begin(options, start_log, &mut log) {
            self.failed(&error);
        }
        if let Some(log) = log {
            log.flush(LAST_WORDS);
        }
    }

    fn begin(
        &mut self,
        options: &Options,
        start_log: impl FnOnce() -> Result<LogQueue>,
        log: &mut Option<LogQueue>,
    ) -> Result<()> {
        let die = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        die.map_err(|e| Error::io("follow", "the process that keeps the mount")(e.into()))?;
        if rustix::process::getppid() != Some(self.keeper) {
            return Ok(());
        }
        let _ = rustix::thread::set_name(c"modeloci-server");
        let Ok(Some(Order::Begin(mountpoint))) = self.wire.next_order() else {
            return Ok(());
        };
        let archive = Unread::open(&options.mount.archive, &options.mount.registry)?;
        self.named.clear();
        // What the starter has left open leads out, and is not for whoever reads an archive.
        let kept: Vec<_> = archive
            .descriptor()
            .into_iter()
            .chain([self.wire.as_fd()])
            .collect();
        process::keep_only(&kept).map_err(Error::io("close", "what was inherited"))?;
        let Entered {
            protections,
            missing,
        } = confine(&archive, options);
        *log = Some(start_log()?);
        for what in missing {
            log::warn!("a protection is missing: {what}");
        }
        let (sender, inbox) = channel();
        events::watch_signals(self.signals, sender.clone())?;
        panics::report_dead_loops(options.mount.threads, sender.clone());
        let (next, orders) = self.listen()?;
        let model = Model::from_source(archive.read()?, &options.mount.open_options())?;
        // What is not there yet is counted from what was found out while opening.
        allocator::trim();
        let process = Process {
            keeper: u32::try_from(self.keeper.as_raw_nonzero().get()).ok(),
            sandbox: Some(protections),
        };
        let served = Served::new(model, mountpoint, process, Some(AT_START), &options.mount)?;
        self.tell(&Report::Opened)?;
        let Ok(Next::Order(Order::Connection(connection))) = orders.recv() else {
            return Ok(());
        };
        served.start(connection, &options.mount, move |result| {
            // Who waits no more knows already.
            let _ = sender.send(Event::Ended(result));
        })?;
        // The last thread that it needs: who says that it serves does not fail for want of one.
        thread::Builder::new()
            .name("events".into())
            .spawn(move || {
                for event in inbox {
                    if next.send(Next::Event(event)).is_err() {
                        break;
                    }
                }
            })
            .map_err(Error::io("start", "a thread"))?;
        self.tell(&Report::Serving)?;
        let result = self.run(&served, &orders);
        events::log_end(&served);
        result
    }

    fn tell(&self, report: &Report) -> Result<()> {
        let told = self.wire.report(report);
        told.map_err(Error::io("report to", "the process that keeps the mount"))
    }

    /// Starts to listen to the keeper, and has it asked for temporary files. The channel ends when the
    /// keeper does.
    fn listen(&self) -> Result<(Sender<Next>, Receiver<Next>)> {
        let (next, orders) = channel();
        let (files, received) = channel();
        let (answers, told) = channel();
        parts::ask_outside(AskKeeper::new(Arc::clone(&self.wire), told));
        let (wire, heard) = (Arc::clone(&self.wire), next.clone());
        thread::Builder::new()
            .name("orders".into())
            .spawn(move || {
                while let Ok(Some(order)) = wire.next_order() {
                    let sent = match order {
                        Order::Scratch(fd) => files.send(fd).is_ok(),
                        Order::Told(number, answer) => answers.send((number, answer)).is_ok(),
                        order => heard.send(Next::Order(order)).is_ok(),
                    };
                    if !sent {
                        return;
                    }
                }
                // The mount is gone with the keeper, or will be.
                let _ = heard.send(Next::Order(Order::Stop));
            })
            .map_err(Error::io("start", "a thread"))?;
        let wire = Arc::clone(&self.wire);
        // One at a time: answers come in the order of the questions.
        let received = Mutex::new(received);
        parts::ask_for_scratch(move |place| {
            let received = received.lock().unwrap_or_else(PoisonError::into_inner);
            wire.report(&Report::Scratch(place))?;
            let answer = received.recv().map_err(io::Error::other)?;
            answer
                .map(File::from)
                .ok_or_else(|| io::Error::other("there is no temporary file"))
        });
        Ok((next, orders))
    }

    /// Does what the keeper says, and tells what happens, until the end.
    fn run(&self, served: &Served, orders: &Receiver<Next>) -> Result<()> {
        let mut prefetch = None;
        while let Ok(next) = orders.recv() {
            match next {
                Next::Order(Order::Attached(prefetcher)) => {
                    events::log_mounted(served);
                    if let Some(process) = prefetcher {
                        let filler = Filler::over(process.orders, process.answers);
                        let wire = Arc::clone(&self.wire);
                        let over = move || drop(wire.report(&Report::Prefetched));
                        let started = served.prefetch(filler, process.pid, over);
                        prefetch = started
                            .inspect_err(|error| log::warn!("nothing is prefetched: {error}"))
                            .ok();
                    }
                }
                Next::Order(Order::Counters) => {
                    log::info!("status: {}", served.status().summary());
                }
                Next::Order(Order::Stop) => break,
                Next::Order(_) => {}
                Next::Event(Event::Signal(libc::SIGUSR1)) => {
                    log::info!("status: {}", served.status().summary());
                }
                // The keeper unmounts, and then the connection ends.
                Next::Event(Event::Signal(_) | Event::Asked) => {
                    drop(prefetch.take());
                    let _ = self.wire.report(&Report::Asked);
                }
                Next::Event(Event::Ended(result)) => {
                    result?;
                    let _ = self.wire.report(&Report::Ended);
                    break;
                }
                Next::Event(Event::LoopsDied) => return Err(events::loops_died()),
                Next::Event(Event::Failed(error) | Event::Died(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Gives up all rights but to read the archive, and to keep indexes.
fn confine(archive: &Unread, options: &Options) -> Entered {
    let index_dir = options.mount.index_dir.as_deref();
    let [named, ours] = index_dir.map(parts::index_dirs).unwrap_or_default();
    sandbox::enter(&Needs {
        read: archive.descriptor().into_iter().collect(),
        list: named.iter().map(AsFd::as_fd).collect(),
        write: ours.iter().map(AsFd::as_fd).collect(),
        read_all: archive.is_closed_to_root(),
        network: matches!(archive, Unread::Registry(_)),
    })
}
