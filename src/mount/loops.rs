//! Where reads run, so that none of them keeps another file, or a look-up, waiting.
//!
//! - On the event loop that received them, as long as another loop is free. If all loops waited,
//!   look-ups would stand still too, and with a chain of page faults (a loader that maps one file
//!   while it reads another) nothing would ever move again. So the last free loop never reads: it
//!   hands the read to threads that are started the first time this happens.
//! - Apart from all others, when they have to wait for something slow: for the first pass over a
//!   foreign layer, say, which may take a minute. The kernel asks for dozens of pieces of such a file
//!   at once; they wait for each other without a thread, and share one in the order of their offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{panic, thread};

/// Threads that wait, for all files and for one.
const MAX_APART: usize = 64;
const MAX_APART_FOR_ONE: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// Runs reads.
pub(super) struct ReadLoops {
    threads: usize,
    /// Event loops that are reading.
    reading: AtomicUsize,
    overflow: OnceLock<Option<Sender<Job>>>,
    apart: Arc<Apart>,
}

impl ReadLoops {
    /// For so many event loops.
    pub(super) fn new(threads: usize) -> ReadLoops {
        ReadLoops {
            threads,
            reading: AtomicUsize::new(0),
            overflow: OnceLock::new(),
            apart: Arc::default(),
        }
    }

    /// Runs a read here, or on another thread when this is the last free event loop.
    pub(super) fn run(&self, read: impl FnOnce() + Send + 'static) {
        let here = Here::enter(&self.reading);
        if here.others + 1 < self.threads {
            return read();
        }
        drop(here);
        match self.overflow.get_or_init(|| overflow(self.threads)) {
            Some(queue) => {
                if let Err(unsent) = queue.send(Box::new(read)) {
                    (unsent.0)();
                }
            }
            None => read(),
        }
    }

    /// Runs a read that will have to wait for something slow, after those of the same file that wait
    /// for what lies before it.
    pub(super) fn run_apart(&self, file: u64, offset: u64, read: impl FnOnce() + Send + 'static) {
        if let Some(read) = self.apart.take(file, offset, Box::new(read)) {
            self.run(read);
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

/// Reads that wait, by file.
#[derive(Default)]
struct Apart(Mutex<HashMap<u64, Waiting>>);

/// Reads of one file that wait.
#[derive(Default)]
struct Waiting {
    /// By offset, and in the order in which they came.
    reads: BTreeMap<(u64, u64), Job>,
    came: u64,
    /// For each of its threads, the offset that it waits for.
    threads: Vec<u64>,
}

impl Apart {
    /// Takes a read, or gives it back when there is no thread for it. One thread waits for the first
    /// of the reads of a file; only a read of what lies before that gets another.
    fn take(self: &Arc<Apart>, file: u64, offset: u64, read: Job) -> Option<Job> {
        let mut files = self.lock();
        let all: usize = files.values().map(|waiting| waiting.threads.len()).sum();
        let waiting = files.entry(file).or_default();
        let key = (offset, waiting.came);
        waiting.came += 1;
        waiting.reads.insert(key, read);
        let threads = &mut waiting.threads;
        if threads.len() < MAX_APART_FOR_ONE
            && all < MAX_APART
            && threads.iter().all(|other| offset < *other)
        {
            let apart = Arc::clone(self);
            let name = thread::Builder::new().name("waiting".into());
            if name.spawn(move || apart.run(file, offset)).is_ok() {
                threads.push(offset);
            }
        }
        if !threads.is_empty() {
            return None;
        }
        files.remove(&file)?.reads.remove(&key)
    }

    /// Runs reads of a file until there are none; `offset` is the place in `threads`.
    fn run(&self, file: u64, mut offset: u64) {
        while let Some((next, read)) = self.next(file, offset) {
            offset = next;
            contained(read);
        }
    }

    /// The first read of a file that waits, for the thread that waited for `done`. After `None` the
    /// thread is gone.
    fn next(&self, file: u64, done: u64) -> Option<(u64, Job)> {
        let mut files = self.lock();
        let waiting = files.get_mut(&file)?;
        let place = waiting.threads.iter().position(|other| *other == done);
        place.map(|place| waiting.threads.swap_remove(place));
        match waiting.reads.first_entry() {
            Some(first) if waiting.threads.iter().all(|other| first.key().0 < *other) => {
                let ((offset, _), read) = first.remove_entry();
                waiting.threads.push(offset);
                Some((offset, read))
            }
            // Its turn comes after what another thread waits for.
            Some(_) => None,
            None => {
                if waiting.threads.is_empty() {
                    files.remove(&file);
                }
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    fn reads_that_wait_share_a_thread_in_the_order_of_offsets() {
        let loops = ReadLoops::new(2);
        let (open, gate) = channel::<()>();
        let (sender, done) = channel();
        let first = sender.clone();
        loops.run_apart(7, 1_000, move || {
            gate.recv().unwrap();
            first.send((1_000, thread::current().id())).unwrap();
        });
        for n in (1_001..1_100).rev() {
            let sender = sender.clone();
            loops.run_apart(7, n, move || {
                sender.send((n, thread::current().id())).unwrap();
            });
        }
        // What lies before that, another file that waits, and one that does not.
        let (other, others) = channel();
        for _ in 0..3 {
            let before = other.clone();
            loops.run_apart(7, 5, move || before.send(()).unwrap());
            others.recv_timeout(PATIENCE).unwrap();
        }
        let also = other.clone();
        loops.run_apart(8, 2_000, move || also.send(()).unwrap());
        loops.run(move || other.send(()).unwrap());
        for _ in 0..2 {
            others.recv_timeout(PATIENCE).unwrap();
        }
        open.send(()).unwrap();
        let all: Vec<_> = (0..100)
            .map(|_| done.recv_timeout(PATIENCE).unwrap())
            .collect();
        assert!(all.iter().map(|(n, _)| *n).eq(1_000..1_100));
        assert!(all.iter().all(|(_, thread)| *thread == all[0].1));
        until_empty(&loops);
    }

    #[test]
    fn r7_a_panic_ends_no_thread_that_others_wait_for() {
        let loops = ReadLoops::new(1);
        let (sender, done) = channel();
        for n in 0..10 {
            let (apart, overflow) = (sender.clone(), sender.clone());
            loops.run_apart(7, n, move || {
                apart.send(()).unwrap();
                panic!("expected by the test");
            });
            loops.run(move || {
                overflow.send(()).unwrap();
                panic!("expected by the test");
            });
        }
        for _ in 0..20 {
            done.recv_timeout(PATIENCE).unwrap();
        }
        until_empty(&loops);
    }

    fn until_empty(loops: &ReadLoops) {
        for _ in 0..1_000 {
            if loops.apart.lock().is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("threads stay behind");
    }

    #[test]
    fn what_finds_no_thread_to_wait_on_is_run_as_others_are() {
        let loops = ReadLoops::new(2);
        let (open, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (sender, done) = channel();
        for file in 0..=MAX_APART as u64 {
            let (gate, sender) = (Arc::clone(&gate), sender.clone());
            loops.run_apart(file, 0, move || {
                if file < MAX_APART as u64 {
                    gate.lock().unwrap().recv().unwrap();
                }
                sender.send(file).unwrap();
            });
        }
        assert_eq!(done.recv_timeout(PATIENCE).unwrap(), MAX_APART as u64);
        for _ in 0..MAX_APART {
            open.send(()).unwrap();
            done.recv_timeout(PATIENCE).unwrap();
        }
        until_empty(&loops);
    }
}
