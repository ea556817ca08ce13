//! A mount that one process keeps and serves, with all rights that it has: for debugging.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use modeloci::mount::parts::{self, Attached, Prefetch, Process, Served, Target};
use modeloci::{Error, Model, Result};

use super::allocator::{self, AT_START};
use super::events::{self, Event, Events, SIGNALS};
use super::notify::Notifier;
use super::options::{Inherited, Options};
use super::panics;
use super::prefetcher::{self, Ends};
use super::process;
use super::ready::Reporter;
use super::signals::SignalSet;

/// How often it is looked whether a signal has come while the model is opened.
const LOOK: Duration = Duration::from_millis(50);

/// Events of this process, which serves by itself.
struct Inbox<'a> {
    events: Receiver<Event>,
    served: &'a Served,
}

impl Events for Inbox<'_> {
    fn next(&mut self, until: Option<Instant>) -> Option<Event> {
        match until {
            None => self.events.recv().ok(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.events.recv_timeout(left).ok()
            }
        }
    }

    fn log_counters(&mut self) {
        log::info!("status: {}", self.served.status().summary());
    }
}

/// Mounts a model and serves it until it was unmounted or a SIGINT or SIGTERM has ended it.
///
/// Must be called before the process has started threads and opened files, because it takes over
/// signals and descriptors. A [`LogQueue`](super::log_queue::LogQueue) does no harm.
///
/// # Errors
/// When the model cannot be opened, or the mount point or the system does not allow the mount. Nothing
/// stays mounted then.
pub(crate) fn run(options: &Options) -> Result<()> {
    allocator::give_back_freed_memory();
    let mut reporter = Reporter::new(options.ready_fd)?;
    serve(options, &mut reporter).inspect_err(|error| reporter.failed(error))
}

fn serve(options: &Options, reporter: &mut Reporter) -> Result<()> {
    allocator::fit_into_limits();
    parts::check_address_space(&options.mount)?;
    process::pass_nothing_on();
    let inherited = options.inherited()?;
    // Before any thread starts, so that every thread inherits the mask.
    let signals = SignalSet::block(&SIGNALS).map_err(Error::io("block", "signals"))?;
    let (sender, inbox) = channel();
    events::watch_signals(signals, sender.clone())?;
    panics::report_dead_loops(options.mount.threads, sender.clone());

    let notifier = Notifier::from_environment();
    let Some((target, model)) = open(options, inherited, &inbox)? else {
        return Ok(());
    };
    let mountpoint = target.path().to_path_buf();
    // What is not there yet is counted from what was found out while opening.
    allocator::trim();
    let process = Process::default();
    let served = Served::new(
        model,
        mountpoint.clone(),
        process,
        Some(AT_START),
        &options.mount,
    )?;
    let (fd, mountable) = parts::connect(target, &options.mount)?;
    let connection = fd.try_clone();
    let connection = connection.map_err(Error::io("use", "the FUSE connection"))?;
    served.start(fd, &options.mount, move |result| {
        // Who waits no more knows already.
        let _ = sender.send(Event::Ended(result));
    })?;
    mountable.raise_readahead(&options.mount)?;
    let mut attached = mountable.attach(connection)?;
    events::log_mounted(&served);
    events::tell_ready(reporter, &notifier, &mountpoint)?;
    let prefetch = match options.prefetch {
        true => prefetch(&served, &attached)
            .inspect_err(|error| log::warn!("nothing is prefetched: {error}"))
            .ok(),
        false => None,
    };

    let mut inbox = Inbox {
        events: inbox,
        served: &served,
    };
    let result = events::run(&mut inbox, &mut attached, &notifier, &mountpoint, prefetch);
    events::log_end(&served);
    result
}

/// Opens the model on a thread of its own, whatever storage it is on, and hears signals meanwhile; `None`
/// when one has ended the mount.
fn open(
    options: &Options,
    inherited: Inherited,
    inbox: &Receiver<Event>,
) -> Result<Option<(Target, Model)>> {
    let (done, opened) = channel();
    let asked = options.clone();
    let open = move || {
        let (target, named) = asked.target(inherited)?;
        let model = Model::open(&asked.mount.archive, &asked.mount.open_options())?;
        drop(named);
        Ok((target, model))
    };
    let opening = thread::Builder::new().name("opening".into());
    let opening = opening.spawn(move || drop(done.send(open())));
    opening.map_err(Error::io("start", "a thread"))?;
    loop {
        match opened.recv_timeout(LOOK) {
            Ok(result) => return result.map(Some),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::environment("mounting", "a bug has ended a thread"));
            }
        }
        if matches!(inbox.try_recv(), Ok(Event::Signal(signal)) if events::ends(signal)) {
            return Ok(None);
        }
    }
}

/// Checks everything that can be checked of a mount, and mounts nothing.
///
/// # Errors
/// Those of [`run`] that do not come from the mounting itself.
pub(crate) fn check(options: &Options) -> Result<()> {
    let (_target, _named) = options.target(options.inherited()?)?;
    Model::open(&options.mount.archive, &options.mount.open_options()).map(drop)
}

/// Starts prefetching, with a process of ours. Dropped, it leaves nothing of that on the mount.
fn prefetch(served: &Served, attached: &Attached) -> Result<(Prefetch, Ends)> {
    let (orders, answers, process) = prefetcher::start(attached, false)?;
    let ends = Ends(Some(process.clone()));
    let filler = parts::Filler::over(orders, answers);
    let prefetch = served.prefetch(filler, process.id(), move || process.end())?;
    Ok((prefetch, ends))
}

/// Tells whoever waits for the mount why there will be none, when that is found out before [`run`] is
/// called.
pub(crate) fn report_failure(options: &Options, error: &Error) {
    if let Ok(mut reporter) = Reporter::new(options.ready_fd) {
        reporter.failed(error);
    }
}
