//! Threads that decode ahead of a sequential reader.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use super::threads::DECODERS;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads, started when the first job comes; they end when the pool is dropped.
pub(crate) struct Pool {
    threads: usize,
    queue: OnceLock<SyncSender<Job>>,
}

/// Jobs that wait per thread. A full queue drops jobs: they are hints, not promises.
const QUEUE_PER_THREAD: usize = 8;

impl Pool {
    /// A pool for so many processors.
    pub(crate) fn new(processors: usize) -> Pool {
        Pool {
            threads: processors.clamp(1, DECODERS),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_threads_that_decode_ahead_are_bounded_on_any_machine() {
        for (processors, threads) in [(0, 1), (1, 1), (2, 2), (16, 16), (17, 16), (256, 16)] {
            assert_eq!(Pool::new(processors).threads(), threads);
        }
    }
}
