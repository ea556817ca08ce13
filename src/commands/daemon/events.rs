//! What happens to a mount, and what is done then: drained, unmounted, gone.

use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use modeloci::mount::parts::{Attached, Detached, Served};
use modeloci::printable::{printable, printable_path};
use modeloci::{Error, Result};

use super::notify::Notifier;
use super::ready::Reporter;
use super::signals::SignalSet;

/// How long readers may go on after the mount was asked to end.
const DRAIN: Duration = Duration::from_millis(4500);

/// What whoever keeps a mount waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// A signal arrived.
    Signal(i32),
    /// The process that serves was asked to end.
    Asked,
    /// The FUSE connection has ended: unmounted, by us or by anyone.
    Ended(Result<()>),
    /// All event loops have died of panics.
    LoopsDied,
    /// The process that serves has failed, and says why.
    Failed(Error),
    /// The process that serves is gone, and cannot say why.
    Died(Error),
}

/// Where events come from.
pub(crate) trait Events {
    /// The next one; `None` when there is none until then, or none will come any more.
    fn next(&mut self, until: Option<Instant>) -> Option<Event>;

    /// Has the counters logged.
    fn log_counters(&mut self);
}

/// The signals that a mount is asked to do something by.
pub(crate) const SIGNALS: [libc::c_int; 4] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1];

pub(crate) fn log_mounted(served: &Served) {
    log::info!(
        "mounted {} on {}",
        printable(&served.model().name()),
        printable_path(served.mountpoint())
    );
    #[cfg(debug_assertions)]
    super::escape::try_all();
}

pub(crate) fn log_end(served: &Served) {
    log::info!(
        "{}: {}",
        printable_path(served.mountpoint()),
        served.status().summary()
    );
}

/// True for what ends a mount: all but the one that asks for its status.
pub(crate) fn ends(signal: i32) -> bool {
    signal != libc::SIGUSR1
}

/// Tells everyone who waits for it that the mount answers.
pub(crate) fn tell_ready(
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

/// Waits for the end of the mount. `prefetch` is dropped as soon as that comes in sight.
pub(crate) fn run<P>(
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
                if !attached.is_ours() {
                    // Who reads it now gets an error: it cannot be taken out of sight first.
                    notifier.send("STOPPING=1");
                    return Ok(());
                }
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
                return result;
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

pub(crate) fn loops_died() -> Error {
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
    let is_covered = attached.detach()? == Detached::Covered;
    let deadline = Instant::now() + DRAIN;
    loop {
        match events.next(Some(deadline)) {
            Some(Event::Ended(result)) => return result,
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
    let why = match is_covered {
        true => "the model is still mounted below another mount; reads of it will fail from now on",
        false => "files are still open; reads of them will fail from now on",
    };
    log::warn!("{}: {why}", printable_path(mountpoint));
    Ok(())
}

pub(crate) fn watch_signals(signals: SignalSet, events: Sender<Event>) -> Result<()> {
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
