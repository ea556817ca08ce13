//! The threads that serve: fuser's event loops, and a reserve so that reads never use all of them.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use fuser::{Config, Notifier, Session, SessionACL};

use super::adapter::Adapter;
use super::lifecycle::Event;
use crate::error::{Error, Result};

/// Answers the kernel's first request, then serves in threads of its own until the connection
/// ends, which is reported as [`Event::Ended`]. Returns what fills the kernel's caches unasked.
pub(super) fn start(
    adapter: Adapter,
    fd: OwnedFd,
    threads: usize,
    events: Sender<Event>,
) -> Result<Notifier> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    // The kernel checks who may use the mount, from the mount options. fuser's own check would
    // refuse processes that the kernel lets in.
    let session = Session::from_fd(adapter, fd, SessionACL::All, config)
        .map_err(Error::io("serve", "the FUSE connection"))?;
    let notifier = session.notifier();
    thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            let _ = events.send(Event::Ended(session.run()));
        })
        .map_err(Error::io("start", "a thread"))?;
    Ok(notifier)
}

type Job = Box<dyn FnOnce() + Send>;

/// Where reads run: on the event loop that received them, as long as another loop is free.
///
/// A read may wait for long: for the first pass over a foreign layer, or a slow disk. If all loops
/// waited, look-ups would stand still too, and with a chain of page faults (a loader that maps one
/// file while it reads another) nothing would ever move again. So the last free loop never reads:
/// it hands the read to threads that are started the first time this happens.
pub(super) struct ReadLoops {
    threads: usize,
    overflow: OnceLock<Option<Sender<Job>>>,
}

impl ReadLoops {
    pub(super) fn new(threads: usize) -> ReadLoops {
        ReadLoops {
            threads,
            overflow: OnceLock::new(),
        }
    }

    /// Runs a read, while `others` reads are running.
    pub(super) fn run(&self, others: usize, read: impl FnOnce() + Send + 'static) {
        if others + 1 < self.threads {
            return read();
        }
        match self.overflow.get_or_init(|| overflow(self.threads)) {
            Some(queue) => {
                if let Err(unsent) = queue.send(Box::new(read)) {
                    (unsent.0)();
                }
            }
            None => read(),
        }
    }
}

/// Starts the overflow threads; `None` when the system gives us none. They end with the adapter.
fn overflow(threads: usize) -> Option<Sender<Job>> {
    let (sender, receiver) = channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    let mut started = 0;
    for n in 0..threads {
        let jobs = Arc::clone(&receiver);
        let spawned = thread::Builder::new()
            .name(format!("reader-{n}"))
            .spawn(move || {
                while let Some(job) = next(&jobs) {
                    job()
                }
            });
        started += usize::from(spawned.is_ok());
    }
    log::debug!("all event loops but one are reading: started {started} more readers");
    (started > 0).then_some(sender)
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.recv().ok()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn thread_of(loops: &ReadLoops, others: usize) -> Option<String> {
        let (sender, receiver) = channel();
        loops.run(others, move || {
            let _ = sender.send(thread::current().name().map(str::to_string));
        });
        receiver.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn the_last_free_event_loop_does_not_read() {
        let here = thread::current().name().map(str::to_string);
        let loops = ReadLoops::new(3);
        assert_eq!(thread_of(&loops, 0), here);
        assert_eq!(thread_of(&loops, 1), here);
        for others in [2, 3, 100] {
            assert!(thread_of(&loops, others).unwrap().starts_with("reader-"));
        }
        assert!(
            thread_of(&ReadLoops::new(1), 0)
                .unwrap()
                .starts_with("reader-")
        );
    }
}
