//! Where reads run, so that none of them keeps another file, or a look-up, waiting.
//!
//! On the event loop that received them, as long as another loop is free. If all loops waited,
//! look-ups would stand still too, and with a chain of page faults (a loader that maps one file while
//! it reads another) nothing would ever move again. So the last free loop never reads: it hands the
//! read to threads that are started the first time this happens.
//!
//! Reads that turn out to have to wait for something slow go elsewhere from there: see
//! [`waits`](super::waits).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{panic, thread};

use crate::memory::threads;

type Job = Box<dyn FnOnce() + Send>;

/// Runs reads.
pub(super) struct ReadLoops {
    threads: usize,
    /// Event loops that are reading.
    reading: AtomicUsize,
    overflow: OnceLock<Option<Sender<Job>>>,
}

impl ReadLoops {
    /// For so many event loops.
    pub(super) fn new(threads: usize) -> ReadLoops {
        ReadLoops {
            threads,
            reading: AtomicUsize::new(0),
            overflow: OnceLock::new(),
        }
    }

    /// Runs a read here, or on another thread when this is the last free event loop.
    pub(super) fn run(&self, read: impl FnOnce() + Send + 'static) {
        let here = Here::enter(&self.reading);
        if here.others + 1 < self.threads {
            return read();
        }
        drop(here);
        match self
            .overflow
            .get_or_init(|| overflow(threads::stand_ins(self.threads)))
        {
            Some(queue) => {
                if let Err(unsent) = queue.send(Box::new(read)) {
                    (unsent.0)();
                }
            }
            None => read(),
        }
    }
}

/// An event loop that reads.
struct Here<'a> {
    reading: &'a AtomicUsize,
    others: usize,
}

impl Here<'_> {
    fn enter(reading: &AtomicUsize) -> Here<'_> {
        let others = reading.fetch_add(1, Ordering::Relaxed);
        Here { reading, others }
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the overflow threads; `None` when the system gives us none. They end with the adapter.
fn overflow(stand_ins: usize) -> Option<Sender<Job>> {
    let (sender, receiver) = channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    let mut started = 0;
    for n in 0..stand_ins {
        let jobs = Arc::clone(&receiver);
        let spawned = thread::Builder::new()
            .name(format!("reader-{n}"))
            .spawn(move || {
                while let Some(job) = next(&jobs) {
                    contained(job);
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

/// Runs a read on a thread that must outlive it. A panic is reported by the hook.
fn contained(read: Job) {
    let _ = panic::catch_unwind(panic::AssertUnwindSafe(read));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn name() -> Option<String> {
        thread::current().name().map(str::to_string)
    }

    fn thread_of(loops: &ReadLoops) -> Option<String> {
        let (sender, receiver) = channel();
        loops.run(move || drop(sender.send(name())));
        receiver.recv_timeout(PATIENCE).unwrap()
    }

    #[test]
    fn the_last_free_event_loop_does_not_read() {
        let loops = Arc::new(ReadLoops::new(3));
        assert_eq!(thread_of(&loops), name());
        let (inner, here) = (Arc::clone(&loops), name());
        loops.run(move || {
            assert_eq!(thread_of(&inner), here, "one other reads");
            let last = Arc::clone(&inner);
            inner.run(move || assert!(thread_of(&last).unwrap().starts_with("reader-")));
        });
        assert_eq!(thread_of(&loops), name(), "all are free again");
        let single = thread_of(&ReadLoops::new(1));
        assert!(single.unwrap().starts_with("reader-"));
    }

    #[test]
    fn r7_a_panic_ends_no_thread_that_others_wait_for() {
        let loops = ReadLoops::new(1);
        let (sender, done) = channel();
        for _ in 0..10 {
            let overflow = sender.clone();
            loops.run(move || {
                overflow.send(()).unwrap();
                panic!("expected by the test");
            });
        }
        for _ in 0..10 {
            done.recv_timeout(PATIENCE).unwrap();
        }
    }
}
