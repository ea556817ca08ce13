//! The threads that serve: fuser's event loops.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::thread;

use fuser::{Config, Session, SessionACL};

use super::serve::adapter::Adapter;
use crate::error::{Error, Result};

/// What whoever keeps a mount waits for.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal arrived.
    Signal(i32),
    /// The process that serves was asked to end.
    Asked,
    /// The FUSE connection has ended: unmounted, by us or by anyone.
    Ended(io::Result<()>),
    /// All event loops have died of panics.
    LoopsDied,
    /// The process that serves has failed, and says why.
    Failed(Error),
    /// The process that serves is gone, and cannot say why.
    Died(Error),
}

/// Answers the kernel's first request, then serves in threads of its own until the connection
/// ends, which is reported as [`Event::Ended`].
pub(super) fn start(
    adapter: Adapter,
    fd: OwnedFd,
    threads: usize,
    events: Sender<Event>,
) -> Result<()> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    // The kernel checks who may use the mount, from the mount options. fuser's own check would
    // refuse processes that the kernel lets in.
    let session = Session::from_fd(adapter, fd, SessionACL::All, config)
        .map_err(Error::io("serve", "the FUSE connection"))?;
    thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            let _ = events.send(Event::Ended(session.run()));
        })
        .map_err(Error::io("start", "a thread"))?;
    Ok(())
}

/// How many of this process's threads are event loops.
pub(super) fn running_loops() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| is_event_loop(name))
        .count()
}

/// True for the names of fuser's event loops.
pub(super) fn is_event_loop(thread: &str) -> bool {
    thread.starts_with("fuser-")
}
