//! A model that takes long to open: whoever waits for the mount is told how far it is.
//!
//! A service manager gives up on a start that takes longer than it expects. It is asked for more time
//! whenever the server has got on, and only then: a start that stands still is still its to end. Where
//! stderr is a terminal it shows the same; the starter of a mount in the background shows it on its own.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use modeloci::byte_size::format_size;

use super::notify::Notifier;
use crate::cli::Verbosity;
use crate::commands::progress::Progress;

/// How often the server looks whether it has got on.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Most often that it is passed on: a server could say it without end.
const PASSED_ON: Duration = Duration::from_millis(100);
/// Time that a service manager is asked for at a time: more than a slow storage takes for what is
/// read between two looks.
const MORE: Duration = Duration::from_secs(30);
/// How long the last of a bar may take to go.
const CLEARING: Duration = Duration::from_millis(100);

/// Who waits for a mount, until it answers or never will.
pub(super) struct Opening {
    notifier: Notifier,
    /// The process that has started this one, and waits.
    starter: Option<File>,
    /// It has asked how far opening is.
    asked: bool,
    bar: Option<Bar>,
    /// What was passed on last, and when.
    last: Option<(u64, Instant)>,
}

impl Opening {
    /// Nobody sees a bar yet. `starter` is a descriptor of its own to whoever waits.
    pub(super) fn new(starter: Option<OwnedFd>, asked: bool) -> Opening {
        Opening {
            notifier: Notifier::from_environment(),
            starter: starter.map(File::from),
            asked,
            bar: None,
            last: None,
        }
    }

    /// Shows how far it is, where somebody can see it.
    pub(super) fn show(&mut self, verbosity: Verbosity) {
        self.bar = Bar::start(verbosity);
    }

    /// To see whether it waits no more.
    pub(super) fn starter(&self) -> Option<BorrowedFd<'_>> {
        self.starter.as_ref().map(AsFd::as_fd)
    }

    /// The server has read and decoded so many bytes.
    pub(super) fn got_to(&mut self, bytes: u64) {
        if let Some((before, when)) = self.last
            && (bytes <= before || when.elapsed() < PASSED_ON)
        {
            return;
        }
        self.last = Some((bytes, Instant::now()));
        self.notifier.send(&format!(
            "EXTEND_TIMEOUT_USEC={}\nSTATUS=opening, {} read",
            MORE.as_micros(),
            format_size(bytes)
        ));
        if let Some(starter) = &mut self.starter
            && self.asked
            // One that reads nothing, because it was stopped, would fill its pipe, and hold us up.
            && rustix::io::ioctl_fionread(&*starter).is_ok_and(|unread| unread == 0)
        {
            // That it is gone is seen elsewhere.
            let _ = writeln!(starter, "{}{bytes}", super::ready::PROGRESS);
        }
        if let Some(bar) = &self.bar {
            bar.update(bytes);
        }
    }
}

/// A bar that another thread draws: a terminal can stand still, and must not hold up the mount.
struct Bar {
    updates: Option<SyncSender<u64>>,
    cleared: Receiver<()>,
}

impl Bar {
    fn start(verbosity: Verbosity) -> Option<Bar> {
        if !Progress::is_seen(verbosity) {
            return None;
        }
        let (updates, latest) = sync_channel(1);
        let (over, cleared) = channel();
        let draw = move || {
            let bar = Progress::without_end("opening", verbosity);
            for bytes in latest {
                bar.update(bytes, 0);
            }
            drop((bar, over));
        };
        let thread = thread::Builder::new().name("progress".into());
        thread.spawn(draw).ok()?;
        Some(Bar {
            updates: Some(updates),
            cleared,
        })
    }

    fn update(&self, bytes: u64) {
        if let Some(updates) = &self.updates {
            // What comes while it draws is not missed.
            let _ = updates.try_send(bytes);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        drop(self.updates.take());
        let _ = self.cleared.recv_timeout(CLEARING);
    }
}
