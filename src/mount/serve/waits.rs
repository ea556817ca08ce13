//! Reads that have to wait: for a span of a foreign layer, for the decoder of one, for the first pass
//! over one, which may take minutes.
//!
//! - A read is tried where it came in. What would have to wait is put aside and holds no event loop;
//!   so reads of other files, and look-ups, are answered at once, however many wait.
//! - What waits is in one of four [`Lane`]s, by what it waits for. Each has a few threads, and what is
//!   read takes turns: what has an end in sight never stands behind a pass, and a slow blob is one,
//!   whatever the number of files, descriptors and links that lead to it.
//! - A wait ends when the bytes are there; when nothing that it waits for has got on for as long as
//!   `stall_timeout` (EIO), never while it gets on; when who asked is gone or was killed (EINTR); or
//!   at once when [`MAX_WAITING`] others wait (EBUSY).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fuser::Errno;

use super::lane::{Job, Lane, Limits};
use super::requester;
use crate::memory::threads;
use crate::stream::{Wait, Within};

/// Most reads that wait. Each takes some 300 bytes.
pub(super) const MAX_WAITING: usize = 3072;
/// How long a read waits before somebody looks whether it is still wanted.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often those that wait are looked after.
const TICK: Duration = Duration::from_secs(1);

/// How long things take.
#[derive(Debug, Clone, Copy)]
struct Times {
    patience: Duration,
    tick: Duration,
    stall: Duration,
}
/// Threads of readers that are looked at each time: some milliseconds of work.
const LOOKS: usize = 512;

/// Threads for each thing to wait for. No more layers are passed over at a time.
const PASS: Limits = Limits {
    threads: threads::PASS_WAITERS,
    for_one: 1,
    spare: 0,
    only_before: false,
};
const DECODER: Limits = Limits {
    threads: threads::DECODER_WAITERS,
    for_one: 3,
    spare: 6,
    only_before: true,
};
/// What wants a lot of memory is granted it in the order of asking: more threads would wait, not work.
const MEMORY: Limits = Limits {
    threads: threads::MEMORY_WAITERS,
    for_one: threads::MEMORY_WAITERS / 2,
    spare: threads::MEMORY_WAITERS / 2,
    only_before: false,
};

/// What reads are made of.
pub(super) trait Files: Send + Sync + 'static {
    /// Makes a read, if that waits for no more than `may`.
    fn attempt(&self, read: &Read, may: Option<Wait>) -> Result<Within, Errno>;

    /// Makes the first pass over a file's layer, or waits until another thread has.
    fn touch(&self, read: &Read) -> Result<(), Errno>;

    /// The same number for all files that are read from one blob.
    fn blob(&self, inode: u64) -> u64;

    /// Changes as long as what reads of a file wait for gets on: the same for all files of a blob.
    fn advance(&self, inode: u64) -> u64;

    /// Says what to answer to a read for which nothing got on for `time`.
    fn stalled(&self, read: &Read, time: Duration) -> Errno;
}

/// A read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) inode: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    /// The thread that asked; 0 when it is of another PID namespace.
    pub(super) thread: u32,
    /// Nobody waits for it.
    pub(super) ahead: bool,
}

type Answer = Box<dyn FnOnce(Result<Bytes, Errno>) + Send>;

/// A read that waits. It is answered once, by whoever is first.
struct Ticket {
    number: u64,
    read: Read,
    since: Instant,
    answer: Mutex<Option<Answer>>,
}

impl Ticket {
    fn answer(&self, result: Result<Bytes, Errno>) {
        let answer = lock(&self.answer).take();
        if let Some(answer) = answer {
            answer(result);
        }
    }

    fn is_answered(&self) -> bool {
        lock(&self.answer).is_none()
    }
}

/// See the head of this file. When it is dropped, what waits is dropped too, and its threads end.
pub(super) struct Waits<F: Files> {
    inner: Arc<Inner<F>>,
}

struct Inner<F: Files> {
    files: Arc<F>,
    times: Times,
    work: Arc<Lane<Step<F>>>,
    decoder: Arc<Lane<Step<F>>>,
    memory: Arc<Lane<Step<F>>>,
    pass: Arc<Lane<Step<F>>>,
    tickets: Mutex<Tickets>,
    /// The thread that looks after those that wait waits for this.
    closed: Condvar,
}

#[derive(Default)]
struct Tickets {
    /// Not answered yet, oldest first.
    all: BTreeMap<u64, Arc<Ticket>>,
    came: u64,
    /// Somebody looks after them.
    watched: bool,
    closed: bool,
    /// It was said that there are too many.
    complained: bool,
}

/// A read in a lane.
struct Step<F: Files> {
    inner: Arc<Inner<F>>,
    ticket: Arc<Ticket>,
    wait: Wait,
}

impl<F: Files> Waits<F> {
    /// For so many event loops.
    pub(super) fn new(files: Arc<F>, loops: usize, stall_timeout: Duration) -> Waits<F> {
        let times = Times {
            patience: PATIENCE,
            tick: TICK,
            stall: stall_timeout,
        };
        Waits::with(files, loops, times)
    }

    fn with(files: Arc<F>, loops: usize, times: Times) -> Waits<F> {
        let for_one = threads::for_one_blob(loops);
        let work = Limits {
            threads: for_one + threads::WORK_SPARE,
            for_one,
            spare: threads::WORK_SPARE,
            only_before: false,
        };
        Waits {
            inner: Arc::new(Inner {
                files,
                times,
                work: Lane::new("span-reader", work),
                decoder: Lane::new("decoder-waiter", DECODER),
                memory: Lane::new("memory-waiter", MEMORY),
                pass: Lane::new("pass-waiter", PASS),
                tickets: Mutex::default(),
                closed: Condvar::new(),
            }),
        }
    }

    /// Answers a read: now, or when what it waits for is there.
    pub(super) fn read(
        &self,
        read: Read,
        answer: impl FnOnce(Result<Bytes, Errno>) + Send + 'static,
    ) {
        match self.inner.files.attempt(&read, None) {
            Ok(Within::Read(bytes)) => answer(Ok(bytes)),
            Ok(Within::Waits(wait)) => self.inner.put_aside(read, wait, Box::new(answer)),
            Err(errno) => answer(Err(errno)),
        }
    }
}

impl<F: Files> Drop for Waits<F> {
    fn drop(&mut self) {
        let inner = &self.inner;
        let mut tickets = lock(&inner.tickets);
        tickets.closed = true;
        let all = std::mem::take(&mut tickets.all);
        drop(tickets);
        inner.closed.notify_all();
        for lane in inner.lanes() {
            lane.close();
        }
        for ticket in all.into_values() {
            ticket.answer(Err(Errno::EIO));
        }
    }
}

impl<F: Files> Inner<F> {
    fn lanes(&self) -> [&Arc<Lane<Step<F>>>; 4] {
        [&self.work, &self.decoder, &self.memory, &self.pass]
    }

    fn put_aside(self: &Arc<Inner<F>>, read: Read, wait: Wait, answer: Answer) {
        let mut tickets = lock(&self.tickets);
        if tickets.closed {
            drop(tickets);
            return answer(Err(Errno::EIO));
        }
        if tickets.all.len() >= MAX_WAITING {
            let first = !std::mem::replace(&mut tickets.complained, true);
            drop(tickets);
            if first {
                log::warn!("{MAX_WAITING} reads wait for slow layers; more of them get EBUSY");
            }
            return answer(Err(Errno::EBUSY));
        }
        let ticket = Arc::new(Ticket {
            number: tickets.came,
            read,
            since: Instant::now(),
            answer: Mutex::new(Some(answer)),
        });
        tickets.came += 1;
        tickets.all.insert(ticket.number, Arc::clone(&ticket));
        if !tickets.watched {
            tickets.watched = self.start_watch();
        }
        drop(tickets);
        self.queue(ticket, wait);
    }

    fn queue(self: &Arc<Inner<F>>, ticket: Arc<Ticket>, wait: Wait) {
        let lane = match wait {
            Wait::Work => &self.work,
            Wait::Decoder => &self.decoder,
            Wait::Memory => &self.memory,
            Wait::Pass => &self.pass,
        };
        let read = ticket.read;
        let step = Step {
            inner: Arc::clone(self),
            ticket,
            wait,
        };
        let blob = self.files.blob(read.inode);
        if let Err(step) = lane.push(blob, read.offset, step) {
            // Without any thread for it, late is better than never.
            step.run();
        }
    }

    fn finish(&self, ticket: &Ticket, result: Result<Bytes, Errno>) {
        let mut tickets = lock(&self.tickets);
        tickets.all.remove(&ticket.number);
        drop(tickets);
        ticket.answer(result);
    }

    /// Starts the thread that looks after those that wait; it ends when there are none.
    fn start_watch(self: &Arc<Inner<F>>) -> bool {
        let inner = Arc::clone(self);
        let watch = move || Watch::new(&inner).run();
        let spawned = thread::Builder::new().name("waits".into()).spawn(watch);
        spawned
            .inspect_err(|error| log::warn!("cannot start a thread for deadlines: {error}"))
            .is_ok()
    }
}

impl<F: Files> Job for Step<F> {
    fn run(self) {
        if self.is_over() {
            return;
        }
        let (inner, ticket) = (&self.inner, &self.ticket);
        let read = &ticket.read;
        let attempt = match self.wait {
            // What is to be decoded then is not for those who make passes.
            Wait::Pass => inner
                .files
                .touch(read)
                .and_then(|()| inner.files.attempt(read, None)),
            wait => inner.files.attempt(read, Some(wait)),
        };
        match attempt {
            Ok(Within::Read(bytes)) => inner.finish(ticket, Ok(bytes)),
            Ok(Within::Waits(wait)) => inner.queue(self.ticket, wait),
            Err(errno) => inner.finish(ticket, Err(errno)),
        }
    }

    fn is_over(&self) -> bool {
        self.ticket.is_answered()
    }
}

/// Looks after those that wait.
struct Watch<'a, F: Files> {
    inner: &'a Arc<Inner<F>>,
    /// How far what a ticket waits for had got, and how long ago it got there.
    seen: HashMap<u64, (u64, Duration)>,
    /// The ticket whose reader was looked at last.
    looked: u64,
}

impl<'a, F: Files> Watch<'a, F> {
    fn new(inner: &'a Arc<Inner<F>>) -> Watch<'a, F> {
        Watch {
            inner,
            seen: HashMap::new(),
            looked: 0,
        }
    }

    fn run(mut self) {
        let inner = self.inner;
        let mut last = Instant::now();
        let mut tickets = lock(&inner.tickets);
        while !tickets.closed && !tickets.all.is_empty() {
            let waited = inner.closed.wait_timeout(tickets, inner.times.tick);
            (tickets, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let all: Vec<_> = tickets.all.values().cloned().collect();
            tickets.complained &= all.len() >= MAX_WAITING / 2;
            drop(tickets);
            // A process that was stopped for an hour has not waited for one.
            let elapsed = last.elapsed().min(2 * inner.times.tick);
            last = Instant::now();
            if self.end_stalled(&all, elapsed) | self.end_unwanted(&all) {
                for lane in inner.lanes() {
                    lane.prune();
                }
            }
            tickets = lock(&inner.tickets);
        }
        tickets.watched = false;
    }

    /// Ends what waits for something that does not get on; true when there was any.
    fn end_stalled(&mut self, all: &[Arc<Ticket>], elapsed: Duration) -> bool {
        let inner = self.inner;
        let mut ended = false;
        let mut advances = HashMap::new();
        let before = std::mem::take(&mut self.seen);
        for ticket in all {
            let inode = ticket.read.inode;
            let advance = *advances
                .entry(inner.files.blob(inode))
                .or_insert_with(|| inner.files.advance(inode));
            let stalled = match before.get(&ticket.number) {
                Some((seen, stalled)) if *seen == advance => *stalled + elapsed,
                _ => Duration::ZERO,
            };
            if stalled >= inner.times.stall {
                let errno = inner.files.stalled(&ticket.read, inner.times.stall);
                inner.finish(ticket, Err(errno));
                ended = true;
            } else {
                self.seen.insert(ticket.number, (advance, stalled));
            }
        }
        ended
    }

    /// Ends what nobody waits for any more; true when there was any.
    fn end_unwanted(&mut self, all: &[Arc<Ticket>]) -> bool {
        let mut gone = HashMap::new();
        let mut ended = false;
        // Where it stopped the last time; tickets are in the order of their numbers.
        let start = all.partition_point(|ticket| ticket.number <= self.looked);
        let (before, after) = all.split_at(start);
        for ticket in after.iter().chain(before) {
            if ticket.since.elapsed() < self.inner.times.patience {
                continue;
            }
            if gone.len() >= LOOKS && !gone.contains_key(&ticket.read.thread) {
                break;
            }
            self.looked = ticket.number;
            let thread = ticket.read.thread;
            if *gone
                .entry(thread)
                .or_insert_with(|| requester::is_gone(thread))
            {
                self.inner.finish(ticket, Err(Errno::EINTR));
                ended = true;
            }
        }
        ended
    }
}

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
