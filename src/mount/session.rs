//! The threads that serve: fuser's event loops.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};

use super::serve::adapter::Adapter;
use crate::error::{Error, Result};

/// Longest wait for the event loops to start.
const START: Duration = Duration::from_secs(10);

/// One session starts at a time, so that every event loop that is new meanwhile is of it.
static STARTING: Mutex<()> = Mutex::new(());

/// Answers the kernel's first request, then serves in threads of its own until the connection
/// ends; `ended` is called with how it did. Returns when all event loops run, or have ended again.
///
/// The mount is not looked at: if this process were killed then, the thread that waits for its own
/// answer would keep the connection, and both would stay for ever.
///
/// # Errors
/// When the connection or the system fails, or the loops do not start in time.
pub(super) fn start(
    adapter: Adapter,
    fd: OwnedFd,
    threads: usize,
    ended: impl FnOnce(Result<()>) + Send + 'static,
) -> Result<()> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    // The kernel checks who may use the mount, from the mount options. fuser's own check would
    // refuse processes that the kernel lets in.
    let session = Session::from_fd(adapter, fd, SessionACL::All, config)
        .map_err(Error::io("serve", "the FUSE connection"))?;
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = event_loops();
    let (told, end) = channel();
    thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            let result = how_it_ended(session.run());
            // Whoever starts it may wait no more.
            let _ = told.send(result.clone());
            ended(result);
        })
        .map_err(Error::io("start", "a thread"))?;
    wait_until_it_answers(threads, &before, &end)
}

/// Waits until every event loop runs; the kernel's first request was answered before they started.
fn wait_until_it_answers(
    threads: usize,
    before: &HashSet<OsString>,
    end: &Receiver<Result<()>>,
) -> Result<()> {
    let deadline = Instant::now() + START;
    loop {
        match end.try_recv() {
            // Somebody was quick to unmount it: loops that have ended are waited for in vain.
            Ok(result) => return result,
            // fuser reports a loop that cannot be started only after the others have begun to
            // serve; so they are counted.
            Err(_) if event_loops().difference(before).count() >= threads => return Ok(()),
            Err(TryRecvError::Disconnected) => {
                return Err(Error::environment("event loops", "have ended"));
            }
            Err(_) if Instant::now() > deadline => {
                return Err(Error::environment("event loops", "did not start in time"));
            }
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// A connection that ends while a loop takes the next request out of it (the last file is closed, and
/// with it the mount ends) answers `ECONNABORTED` instead of `ENODEV`: fs/fuse/dev.c,
/// `fuse_dev_do_read`. It is an end like any other.
fn how_it_ended(run: io::Result<()>) -> Result<()> {
    match run {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::environment(
            "event loops",
            "the system allows no more threads; raise the limit of processes, or ask for fewer \
             with -o threads=N",
        )),
        run => run.map_err(Error::io("serve", "the FUSE connection")),
    }
}

/// Those of this process's threads that are event loops.
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
fn event_loops() -> HashSet<OsString> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return HashSet::new();
    };
    let loops = tasks.flatten().filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| is_event_loop(&name))
    });
    loops.map(|task| task.file_name()).collect()
}

/// True for the names of fuser's event loops.
pub fn is_event_loop(thread: &str) -> bool {
    thread.starts_with("fuser-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5_a_connection_that_ends_while_a_request_is_taken_out_of_it_has_ended() {
        let end = |errno| how_it_ended(Err(io::Error::from_raw_os_error(errno)));
        assert!(how_it_ended(Ok(())).is_ok());
        assert!(end(libc::ECONNABORTED).is_ok());
        assert!(end(libc::EAGAIN).is_err());
        assert!(end(libc::EIO).is_err());
    }
}
