//! Threads that decode ahead of a sequential reader.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads, started when the first job comes; they end when the pool is dropped.
pub(crate) struct Pool {
    threads: usize,
    queue: OnceLock<SyncSender<Job>>,
}

/// Jobs that wait per thread. A full queue drops jobs: they are hints, not promises.
const QUEUE_PER_THREAD: usize = 8;

impl Pool {
    /// A pool of so many threads.
    pub(crate) fn new(threads: usize) -> Pool {
        Pool {
            threads,
            queue: OnceLock::new(),
        }
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `job` on one of the threads, soon; false when it was dropped, because the queue is full
    /// or there is no thread.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let queue = self.queue.get_or_init(|| self.start());
        queue.try_send(Box::new(job)).is_ok()
    }

    fn start(&self) -> SyncSender<Job> {
        let (sender, receiver) = sync_channel(self.threads * QUEUE_PER_THREAD);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..self.threads {
            let receiver = Arc::clone(&receiver);
            // Without a thread, readers decode for themselves: slower, and as right.
            let spawned = thread::Builder::new()
                .name(format!("decode-{number}"))
                .spawn(move || work(&receiver));
            if let Err(error) = spawned {
                log::warn!("cannot start a decoding thread: {error}");
                break;
            }
        }
        sender
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic is reported by the hook; the reader meets the same one, and the pool lives on.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}
