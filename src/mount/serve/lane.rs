//! A few threads for many blobs: fair turns.
//!
//! - Blobs take turns, whatever the number of reads that wait for each, and of files that are read
//!   from it.
//! - Of one blob, reads get on in the order of their offsets; and no more than a given number of them
//!   have a thread.
//! - Some threads are spared for blobs that have none: one whose storage stands still, and that has all
//!   the threads it may have, leaves others what they need.
//! - What waits for its turn has no thread, and holds nothing but its entry here.
//! - Threads are started when they are needed, and end when they have been idle for a while.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{panic, thread};

/// How long a thread waits for more.
const IDLE: Duration = Duration::from_secs(5);

/// What a lane does.
pub(super) trait Job: Send + 'static {
    fn run(self);

    /// True when it is of no use any more.
    fn is_over(&self) -> bool;
}

/// How many threads there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) threads: usize,
    /// For one blob.
    pub(super) for_one: usize,
    /// Of all, those that only a blob gets which has none.
    pub(super) spare: usize,
    /// A blob gets another thread only for what lies before all that its threads are at.
    pub(super) only_before: bool,
}

/// See the head of this file.
pub(super) struct Lane<J> {
    name: &'static str,
    limits: Limits,
    queue: Mutex<Queue<J>>,
    /// Idle threads wait for this.
    more: Condvar,
}

struct Queue<J> {
    blobs: HashMap<u64, Blob<J>>,
    /// The blobs that have a job which may run, by turns.
    turns: VecDeque<u64>,
    /// Jobs of all blobs that do not run yet.
    waiting: usize,
    /// Those that run.
    running: usize,
    came: u64,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Jobs of one blob.
struct Blob<J> {
    /// By offset, and in the order in which they came.
    jobs: BTreeMap<(u64, u64), J>,
    /// The offsets of those that run.
    running: Vec<u64>,
    in_turns: bool,
}

impl<J: Job> Lane<J> {
    pub(super) fn new(name: &'static str, limits: Limits) -> Arc<Lane<J>> {
        Arc::new(Lane {
            name,
            limits,
            queue: Mutex::new(Queue {
                blobs: HashMap::new(),
                turns: VecDeque::new(),
                waiting: 0,
                running: 0,
                came: 0,
                threads: 0,
                idle: 0,
                closed: false,
            }),
            more: Condvar::new(),
        })
    }

    /// Queues a job that reads a blob, or gives it back when there is no thread to be had.
    pub(super) fn push(self: &Arc<Lane<J>>, blob: u64, offset: u64, job: J) -> Result<(), J> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(job);
        }
        let key = (offset, queue.came);
        queue.came += 1;
        queue.waiting += 1;
        queue.blobs.entry(blob).or_default().jobs.insert(key, job);
        if queue.offer(blob, &self.limits) && queue.waiting > queue.idle {
            self.start(&mut queue);
        }
        if queue.threads == 0
            && let Some(job) = queue.take_back(blob, key)
        {
            return Err(job);
        }
        drop(queue);
        self.more.notify_one();
        Ok(())
    }

    /// Starts another thread, if there may be one.
    fn start(self: &Arc<Lane<J>>, queue: &mut Queue<J>) {
        if queue.threads >= self.limits.threads {
            return;
        }
        let lane = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name(self.name.into())
            .spawn(move || lane.work());
        match spawned {
            Ok(_) => queue.threads += 1,
            Err(error) => log::warn!("cannot start a thread for reads that wait: {error}"),
        }
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some((blob, offset, job)) = queue.next(&self.limits) {
                drop(queue);
                // A panic is reported by the hook.
                let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| job.run()));
                queue = self.lock();
                queue.done(blob, offset, &self.limits);
                continue;
            }
            if queue.closed {
                break;
            }
            queue.idle += 1;
            let (again, waited) = self
                .more
                .wait_timeout(queue, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            queue = again;
            queue.idle -= 1;
            if waited.timed_out() && queue.turns.is_empty() {
                break;
            }
        }
        queue.threads -= 1;
    }

    /// Forgets the jobs that are of no use any more.
    pub(super) fn prune(&self) {
        let mut queue = self.lock();
        let mut waiting = 0;
        // What stays in `turns` without a job is skipped there.
        queue.blobs.retain(|_, blob| {
            blob.jobs.retain(|_, job| !job.is_over());
            waiting += blob.jobs.len();
            !(blob.jobs.is_empty() && blob.running.is_empty())
        });
        queue.waiting = waiting;
    }

    /// Forgets all jobs; the threads end when they have done what they are at.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.waiting = 0;
        let blobs = std::mem::take(&mut queue.blobs);
        queue.turns.clear();
        drop(queue);
        self.more.notify_all();
        drop(blobs);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().blobs.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Queue<J> {
    /// Gives a blob a turn, if one of its jobs may run; true when it has one now.
    fn offer(&mut self, number: u64, limits: &Limits) -> bool {
        let Some(blob) = self.blobs.get_mut(&number) else {
            return false;
        };
        let may = blob.may_run(limits);
        if may && !blob.in_turns {
            blob.in_turns = true;
            self.turns.push_back(number);
        }
        may
    }

    /// The next job, with its blob and its offset.
    fn next(&mut self, limits: &Limits) -> Option<(u64, u64, J)> {
        let all_but_spare = self.running >= limits.threads.saturating_sub(limits.spare);
        // Those that are passed over have a thread, so they are few.
        for _ in 0..self.turns.len() {
            let number = self.turns.pop_front()?;
            let Some(blob) = self.blobs.get_mut(&number) else {
                continue;
            };
            if all_but_spare && !blob.running.is_empty() {
                self.turns.push_back(number);
                continue;
            }
            blob.in_turns = false;
            if !blob.may_run(limits) {
                continue;
            }
            let Some(((offset, _), job)) = blob.jobs.pop_first() else {
                continue;
            };
            self.waiting -= 1;
            self.running += 1;
            blob.running.push(offset);
            self.offer(number, limits);
            return Some((number, offset, job));
        }
        None
    }

    /// A job of a blob has run.
    fn done(&mut self, number: u64, offset: u64, limits: &Limits) {
        self.running -= 1;
        let Some(blob) = self.blobs.get_mut(&number) else {
            return;
        };
        if let Some(place) = blob.running.iter().position(|other| *other == offset) {
            blob.running.swap_remove(place);
        }
        if blob.jobs.is_empty() && blob.running.is_empty() {
            self.blobs.remove(&number);
        } else {
            self.offer(number, limits);
        }
    }

    /// Takes back what nobody would run.
    fn take_back(&mut self, number: u64, key: (u64, u64)) -> Option<J> {
        let job = self.blobs.get_mut(&number)?.jobs.remove(&key)?;
        self.waiting -= 1;
        Some(job)
    }
}

impl<J> Blob<J> {
    fn may_run(&self, limits: &Limits) -> bool {
        let Some(((first, _), _)) = self.jobs.first_key_value() else {
            return false;
        };
        self.running.len() < limits.for_one
            && (!limits.only_before || self.running.iter().all(|other| first < other))
    }
}

impl<J> Default for Blob<J> {
    fn default() -> Blob<J> {
        Blob {
            jobs: BTreeMap::new(),
            running: Vec::new(),
            in_turns: false,
        }
    }
}

#[cfg(test)]
mod tests;
