//! The life of a mount: started in the background, ready, asked to end, drained, gone.
//!
//! The background process is a fresh execution of this program, not a fork, so that no thread or
//! lock of the starter can be half copied. The starter waits on a pipe for "ready" or the error,
//! and returns it as its own.
//!
//! The program serves in two processes (see [`keeper`](super::keeper)); whoever calls the library to
//! serve in the foreground serves in his own, and keeps all rights that he has.

use std::os::fd::{AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::at::attach::{self, Attached};
use super::at::spot::Detached;
use super::at::{device, place};
use super::notify::Notifier;
use super::options::MountOptions;
use super::prefetch::work as prefetch;
use super::ready::{self, Reporter};
use super::serve::adapter::Adapter;
use super::serve::filesystem::{Process, Shared};
use super::serve::guard;
use super::session::{self, Event};
use super::sys::{self, SignalSet};
use super::{address_space, resident};
use crate::entry_path::printable_path;
use crate::error::{Error, Result};
use crate::model::{Model, OpenOptions};

/// Longest wait for the event loops to start.
const START: Duration = Duration::from_secs(10);
/// How long readers may go on after the mount was asked to end.
const DRAIN: Duration = Duration::from_millis(4500);

/// Where events come from.
pub(super) trait Events {
    /// The next one; `None` when there is none until then, or none will come any more.
    fn next(&mut self, until: Option<Instant>) -> Option<Event>;

    /// Has the counters logged.
    fn log_counters(&mut self);
}

/// Events of this process, which serves by itself.
struct Inbox<'a> {
    /// Came before it was waited for them.
    early: Option<Event>,
    events: Receiver<Event>,
    shared: &'a Shared,
}

impl Events for Inbox<'_> {
    fn next(&mut self, until: Option<Instant>) -> Option<Event> {
        if let Some(event) = self.early.take() {
            return Some(event);
        }
        match until {
            None => self.events.recv().ok(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.events.recv_timeout(left).ok()
            }
        }
    }

    fn log_counters(&mut self) {
        log::info!("status: {}", self.shared.status().summary());
    }
}

/// Mounts a model and returns when it answers; or, in the foreground, when it was unmounted or a
/// SIGINT or SIGTERM has ended it.
///
/// In the foreground this must be called before the process has started threads and opened files,
/// because it takes over signals and `ready_fd`. A [`LogQueue`](super::LogQueue) does no harm.
///
/// # Errors
/// Those of [`Model::open`], and [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the
/// mount point or the system does not allow the mount. Nothing stays mounted then.
pub fn mount(options: &MountOptions) -> Result<()> {
    if options.foreground {
        sys::give_back_freed_memory();
        let mut reporter = Reporter::new(options.ready_fd)?;
        serve(options, &mut reporter).inspect_err(|error| reporter.failed(error))
    } else {
        start_background(options)
    }
}

/// Checks everything that [`mount`] checks, and mounts nothing.
///
/// # Errors
/// Those of [`mount`] that do not come from the mounting itself.
pub fn check(options: &MountOptions) -> Result<()> {
    place::prepare(options)?;
    open_model(options).map(drop)
}

fn open_model(options: &MountOptions) -> Result<Model> {
    Model::open(&options.archive, &open_options(options))
}

pub(super) fn open_options(options: &MountOptions) -> OpenOptions {
    OpenOptions {
        pin: options.digest,
        reference: options.reference.clone(),
        cache_bytes: options.cache_bytes,
        index_dir: options.index_dir.clone(),
        // For root the kernel reads far enough ahead; for others it may not, and we do.
        readahead: !rustix::process::geteuid().is_root(),
        served_by: Some(options.threads),
    }
}

/// A model that is to be served at a mount point.
pub(super) fn share(
    model: Model,
    mountpoint: PathBuf,
    process: Process,
    options: &MountOptions,
) -> Result<Arc<Shared>> {
    // What is not there yet is counted from what was found out while opening.
    sys::trim();
    model.settle(resident::taken_by_the_model())?;
    for note in model.notes() {
        log::warn!("{note}");
    }
    let us = || rustix::process::geteuid().as_raw();
    let our_group = || rustix::process::getegid().as_raw();
    let owner = (
        options.uid.unwrap_or_else(us),
        options.gid.unwrap_or_else(our_group),
    );
    let mut shared = Shared::new(model, mountpoint, options.cache_bytes, owner);
    shared.process = process;
    Ok(Arc::new(shared))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("use", path))
}

/// Tells whoever waits for the mount why there will be none, when that is found out before
/// [`mount`] is called.
pub fn report_failure(options: &MountOptions, error: &Error) {
    if let Ok(mut reporter) = Reporter::new(options.ready_fd) {
        reporter.failed(error);
    }
}

/// Starts a process that serves in its foreground, and waits until it reports.
fn start_background(options: &MountOptions) -> Result<()> {
    let mut options = options.clone();
    options.archive = absolute(&options.archive)?;
    let spot = place::spot(&options.mountpoint)?;
    let path = spot.path();
    options.mountpoint = path.map_err(Error::io("use the mount point", &options.mountpoint))?;
    for path in [&mut options.log_file, &mut options.index_dir]
        .into_iter()
        .flatten()
    {
        *path = absolute(path)?;
    }
    let pipe_error = |e: rustix::io::Errno| Error::io("create", "a pipe")(e.into());
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(pipe_error)?;
    // Both sides mean the same directory by the mount point, whatever its path leads to by now.
    let (report_fd, spot_fd) = (writer.as_raw_fd(), spot.parent().as_raw_fd());
    let mut kept = vec![report_fd, spot_fd];
    kept.extend(named_descriptors(&options));
    let mut command = Command::new("/proc/self/exe");
    command
        .args(options.to_args(report_fd, spot_fd))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::os::unix::process::CommandExt::arg0(&mut command, "modeloci");
    let mut child = sys::on_its_own(&mut command, kept)
        .spawn()
        .map_err(Error::io("start", "the background process"))?;
    drop(writer);
    if let Some(report) = ready::receive(std::fs::File::from(reader)) {
        return report;
    }
    let end = child.wait().map(|status| status.to_string());
    // m10: it may have died at any moment.
    place::clear_after_death(&spot)?;
    Err(Error::environment(
        "the background process",
        format!(
            "ended before the mount answered: {}",
            end.unwrap_or_else(|error| error.to_string())
        ),
    ))
}

/// The inherited descriptors that options name, as in `/dev/fd/7`.
fn named_descriptors(options: &MountOptions) -> impl Iterator<Item = RawFd> {
    let paths = [Some(&options.archive), options.log_file.as_ref()];
    paths.into_iter().flatten().filter_map(|path| {
        let number = path
            .strip_prefix("/dev/fd")
            .or_else(|_| path.strip_prefix("/proc/self/fd"));
        number.ok()?.to_str()?.parse().ok()
    })
}

/// The signals that a mount is asked to do something by.
pub(super) const SIGNALS: [libc::c_int; 4] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1];

/// Serves in this process until the mount ends.
fn serve(options: &MountOptions, reporter: &mut Reporter) -> Result<()> {
    address_space::check(options.cache_bytes, options.threads)?;
    // Before any thread starts, so that every thread inherits the mask.
    let signals = SignalSet::block(&SIGNALS).map_err(Error::io("block", "signals"))?;
    let (events, inbox) = channel();
    watch_signals(signals, events.clone())?;
    report_dead_loops(options.threads, events.clone());

    let notifier = Notifier::from_environment();
    let place = place::prepare(options)?;
    let mountpoint = place.path.clone();
    let model = open_model(options)?;
    let shared = share(model, mountpoint.clone(), Process::default(), options)?;
    let (fd, mountable) = attach::connect(place, options)?;
    let connection = fd.try_clone();
    let connection = connection.map_err(Error::io("use", "the FUSE connection"))?;
    let adapter = Adapter::new(Arc::clone(&shared), options);
    session::start(adapter, fd, options.threads, events)?;
    device::raise_readahead(&mountable.device()?, options.max_readahead);
    let early = wait_until_it_answers(options.threads, &inbox)?;
    let mut attached = mountable.attach(connection)?;
    log_mounted(&shared);
    tell_ready(reporter, &notifier, &mountpoint)?;
    let prefetch = match options.prefetch {
        true => Some(prefetch::start(
            Arc::clone(&shared),
            attached.device_number()?,
        )?),
        false => None,
    };

    let mut inbox = Inbox {
        early,
        events: inbox,
        shared: &shared,
    };
    let result = run(&mut inbox, &mut attached, &notifier, &mountpoint, prefetch);
    log_end(&shared);
    result
}

pub(super) fn log_mounted(shared: &Shared) {
    log::info!(
        "mounted {} on {}",
        crate::entry_path::printable(&shared.model.name()),
        printable_path(&shared.mountpoint)
    );
    #[cfg(debug_assertions)]
    super::escape::try_all();
}

pub(super) fn log_end(shared: &Shared) {
    log::info!(
        "{}: {}",
        printable_path(&shared.mountpoint),
        shared.status().summary()
    );
}

/// Tells everyone who waits for it that the mount answers.
pub(super) fn tell_ready(
    reporter: &mut Reporter,
    notifier: &Notifier,
    mountpoint: &Path,
) -> Result<()> {
    // A starter that is gone did not get what it waited for: leave nothing behind.
    reporter
        .ready()
        .map_err(Error::io("report to", "the process that started the mount"))?;
    notifier.send(&format!(
        "READY=1\nSTATUS=serving {}",
        printable_path(mountpoint)
    ));
    Ok(())
}

/// Waits until every event loop runs; the kernel's first request was answered before they started.
/// Returns what happened meanwhile and is still to be dealt with.
///
/// The mount is not looked at: if this process were killed then, the thread that waits for its own
/// answer would keep the connection, and both would stay for ever.
pub(super) fn wait_until_it_answers(
    threads: usize,
    inbox: &Receiver<Event>,
) -> Result<Option<Event>> {
    let deadline = Instant::now() + START;
    let mut early = None;
    loop {
        match inbox.try_recv() {
            Ok(Event::Ended(Err(error))) => return Err(session_error(error)),
            Ok(Event::LoopsDied) => return Err(loops_died()),
            // Somebody was quick to unmount it: loops that have ended are waited for in vain.
            Ok(event @ Event::Ended(Ok(()))) => return Ok(Some(event)),
            Ok(event) => early = Some(event),
            // fuser reports a loop that cannot be started only after the others have begun to
            // serve; so they are counted.
            Err(_) if session::running_loops() >= threads => break,
            Err(_) if Instant::now() > deadline => {
                return Err(Error::environment("event loops", "did not start in time"));
            }
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
    Ok(early)
}

/// Waits for the end of the mount. `prefetch` is dropped as soon as that comes in sight.
pub(super) fn run<P>(
    events: &mut impl Events,
    attached: &mut Attached,
    notifier: &Notifier,
    mountpoint: &Path,
    prefetch: P,
) -> Result<()> {
    let mut prefetch = Some(prefetch);
    while let Some(event) = events.next(None) {
        if matches!(event, Event::Died(_)) {
            // First of all, so that nobody waits any longer for what it should have answered: neither
            // readers, nor the process that prefetches, nor whoever waits for that to end.
            attached.abandon();
        }
        if !matches!(event, Event::Signal(libc::SIGUSR1)) {
            // It must not keep the mount busy, nor look at what is mounted there next.
            drop(prefetch.take());
        }
        match event {
            Event::Signal(libc::SIGUSR1) => events.log_counters(),
            Event::Signal(_) | Event::Asked => {
                notifier.send("STOPPING=1\nSTATUS=draining");
                let by_us = matches!(event, Event::Signal(_));
                return drain(events, attached, mountpoint, by_us);
            }
            Event::Ended(result) => {
                notifier.send("STOPPING=1");
                // After an abort of the connection the dead mount is still there.
                if attached.detach()? == Detached::Done {
                    log::warn!("the FUSE connection was aborted");
                }
                return result.map_err(session_error);
            }
            Event::LoopsDied => {
                attached.detach()?;
                return Err(loops_died());
            }
            Event::Failed(error) => {
                attached.detach()?;
                return Err(error);
            }
            Event::Died(error) => {
                notifier.send("STOPPING=1");
                attached.detach()?;
                return Err(error);
            }
        }
    }
    Ok(())
}

pub(super) fn session_error(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return Error::environment(
            "event loops",
            "the system allows no more threads; raise the limit of processes, or ask for fewer \
             with -o threads=N",
        );
    }
    Error::io("serve", "the FUSE connection")(error)
}

pub(super) fn loops_died() -> Error {
    // Ends the process, and with it the connection: readers get an error, and do not hang.
    Error::environment("mount", "a bug has ended all event loops; the log names it")
}

/// r5: nobody new gets in, those who read may finish, and it ends within [`DRAIN`]. `asked` when a
/// signal to this process has begun it: another one means at once.
fn drain(
    events: &mut impl Events,
    attached: &mut Attached,
    mountpoint: &Path,
    mut asked: bool,
) -> Result<()> {
    // Out of sight at once; it ends with its last user.
    attached.detach()?;
    let deadline = Instant::now() + DRAIN;
    loop {
        match events.next(Some(deadline)) {
            Some(Event::Ended(result)) => return result.map_err(session_error),
            Some(Event::LoopsDied) => return Err(loops_died()),
            Some(Event::Failed(error)) => return Err(error),
            Some(Event::Died(error)) => {
                attached.abandon();
                return Err(error);
            }
            Some(Event::Signal(libc::SIGUSR1)) => events.log_counters(),
            // A terminal, and a service manager, send one to both processes.
            Some(Event::Asked) => {}
            Some(Event::Signal(_)) if !asked => asked = true,
            Some(Event::Signal(_)) | None => break,
        }
    }
    log::warn!(
        "{}: files are still open; reads of them will fail from now on",
        printable_path(mountpoint)
    );
    Ok(())
}

pub(super) fn watch_signals(signals: SignalSet, events: Sender<Event>) -> Result<()> {
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while let Ok(signal) = signals.wait() {
                if events.send(Event::Signal(signal)).is_err() {
                    break;
                }
            }
        })
        .map_err(Error::io("start", "a thread"))?;
    Ok(())
}

/// fuser 0.18.0 does not notice that an event loop has died: the mount would hang once all have.
pub(super) fn report_dead_loops(threads: usize, events: Sender<Event>) {
    let alive = AtomicUsize::new(threads);
    guard::install_hook(move |thread| {
        if session::is_event_loop(thread) && alive.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = events.send(Event::LoopsDied);
        }
    });
}
