//! The first of the two processes of a mount: it holds the mount, and nothing of the model.
//!
//! Mounting and unmounting take rights that a decoder of other people's bytes should not have:
//! Landlock forbids `umount2` even to root, and `no_new_privs` ends the setuid `fusermount3`. So the
//! program serves in two processes:
//!
//! - The *keeper* mounts, unmounts, hears signals, reports readiness, starts the process that
//!   prefetches, and hands out temporary files. It opens no blob and parses nothing of the archive.
//! - The [*server*](super::server) opens the archive, gives up all rights but to that
//!   ([`sandbox`]), and only then reads the first byte of it.
//!
//! They part by fork(2) before the first thread, and talk over a [`Wire`]. Whichever dies, the other
//! ends: the kernel kills the server with its keeper, and the keeper unmounts when its server is gone.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use modeloci::mount::parts::{self, MadeIndexDir, Target};
use modeloci::{Error, Result};

use super::events::{self, SIGNALS};
use super::log_queue::LogWriter;
use super::notify::Notifier;
use super::opening::Opening;
use super::options::{Inherited, Options};
use super::pair::Pair;
use super::prefetcher::{self, Ends};
use super::process::{self, Forked};
use super::ready::Reporter;
use super::server::Server;
use super::signals::SignalSet;
use super::wire::{Order, Prefetcher, Report, Wire};
use super::{allocator, sandbox};
use crate::cli::Verbosity;

/// How long it may take to remove what was made for a mount that has failed.
const UNDO: Duration = Duration::from_secs(1);

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
        Forked::Parent(pid) => {
            let opening = Opening::new(reporter.starter(), options.ready_progress);
            Side::Keeper(Keeper {
                reporter,
                inherited: Some(inherited),
                pair: Pair::new(ours, waiting, pid, Some(opening)),
            })
        }
        // What is the keeper's is closed here, as all of it is dropped.
        Forked::Child => Side::Server(Server::new(theirs, signals, us, inherited.named)),
    })
}

impl Keeper {
    /// Tells whoever waits for the mount why there will be none.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.reporter.failed(error);
    }

    /// Has something done that may take for ever; `None` when a signal has ended the mount meanwhile.
    ///
    /// # Errors
    /// When the server is gone, or whoever waits for the mount.
    pub(crate) fn aside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>> {
        match self.pair.aside(work) {
            Err(_) if self.pair.interrupted => Ok(None),
            result => result.map(Some),
        }
    }

    /// Shows how far opening the model is, where somebody can see it.
    pub(crate) fn show(&mut self, verbosity: Verbosity) {
        self.pair.show(verbosity);
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
    let asked = options.clone();
    let (target, made) = pair.aside(move || look(&asked, inherited))??;
    let mountpoint = target.path().to_path_buf();
    let opened = pair
        .order(&Order::Begin(mountpoint.clone()))
        .and_then(|()| pair.until_told(|report| matches!(report, Report::Opened)))
        .and_then(|()| parts::connect(target, &options.mount));
    let (fd, mountable) = opened.inspect_err(|_| {
        if let Some(made) = made {
            undo(made);
        }
    })?;
    let connection = fd.try_clone();
    let connection = connection.map_err(Error::io("use", "the FUSE connection"))?;
    pair.order(&Order::Connection(fd))?;
    pair.until_told(|report| matches!(report, Report::Serving))?;
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
    pair.is_over();
    events::tell_ready(reporter, &notifier, &mountpoint)?;
    events::run(pair, &mut attached, &notifier, &mountpoint, prefetch)
}

/// Finds the mount point, and makes where indexes are kept: the server can make no directory. By now the
/// log is open, so what options name is let go. Any of these paths may lead to a storage that is dead.
fn look(options: &Options, inherited: Inherited) -> Result<(Target, Option<MadeIndexDir>)> {
    let (target, named) = options.target(inherited)?;
    drop(named);
    let index_dir = options.mount.index_dir.as_deref();
    Ok((target, index_dir.and_then(parts::make_index_dir)))
}

/// Removes what was made for nothing, unless the storage has died meanwhile.
fn undo(made: MadeIndexDir) {
    let (done, waits) = channel::<()>();
    let remove = move || {
        made.undo();
        drop(done);
    };
    if thread::Builder::new().spawn(remove).is_ok() {
        let _ = waits.recv_timeout(UNDO);
    }
}
