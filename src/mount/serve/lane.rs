//! A few threads for many files: fair turns.
//!
//! - Files take turns, whatever the number of reads that wait for each.
//! - Of one file, reads get on in the order of their offsets; and no more than a given number of them
//!   have a thread.
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
    /// For one file.
    pub(super) for_one: usize,
    /// A file gets another thread only for what lies before all that its threads are at.
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
    files: HashMap<u64, File<J>>,
    /// The files that have a job which may run, by turns.
    turns: VecDeque<u64>,
    /// Jobs in all files that do not run yet.
    waiting: usize,
    came: u64,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Jobs of one file.
struct File<J> {
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
                files: HashMap::new(),
                turns: VecDeque::new(),
                waiting: 0,
                came: 0,
                threads: 0,
                idle: 0,
                closed: false,
            }),
            more: Condvar::new(),
        })
    }

    /// Queues a job, or gives it back when there is no thread to be had.
    pub(super) fn push(self: &Arc<Lane<J>>, file: u64, offset: u64, job: J) -> Result<(), J> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(job);
        }
        let key = (offset, queue.came);
        queue.came += 1;
        queue.waiting += 1;
        queue.files.entry(file).or_default().jobs.insert(key, job);
        if queue.offer(file, &self.limits) && queue.waiting > queue.idle {
            self.start(&mut queue);
        }
        if queue.threads == 0
            && let Some(job) = queue.take_back(file, key)
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
            if let Some((file, offset, job)) = queue.next(&self.limits) {
                drop(queue);
                // A panic is reported by the hook.
                let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| job.run()));
                queue = self.lock();
                queue.done(file, offset, &self.limits);
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
        queue.files.retain(|_, file| {
            file.jobs.retain(|_, job| !job.is_over());
            waiting += file.jobs.len();
            !(file.jobs.is_empty() && file.running.is_empty())
        });
        queue.waiting = waiting;
    }

    /// Forgets all jobs; the threads end when they have done what they are at.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.waiting = 0;
        let files = std::mem::take(&mut queue.files);
        queue.turns.clear();
        drop(queue);
        self.more.notify_all();
        drop(files);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().files.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Queue<J> {
    /// Gives a file a turn, if one of its jobs may run; true when it has one now.
    fn offer(&mut self, number: u64, limits: &Limits) -> bool {
        let Some(file) = self.files.get_mut(&number) else {
            return false;
        };
        let may = file.may_run(limits);
        if may && !file.in_turns {
            file.in_turns = true;
            self.turns.push_back(number);
        }
        may
    }

    /// The next job, with its file and its offset.
    fn next(&mut self, limits: &Limits) -> Option<(u64, u64, J)> {
        while let Some(number) = self.turns.pop_front() {
            let Some(file) = self.files.get_mut(&number) else {
                continue;
            };
            file.in_turns = false;
            if !file.may_run(limits) {
                continue;
            }
            let Some(((offset, _), job)) = file.jobs.pop_first() else {
                continue;
            };
            self.waiting -= 1;
            file.running.push(offset);
            self.offer(number, limits);
            return Some((number, offset, job));
        }
        None
    }

    /// A job of a file has run.
    fn done(&mut self, number: u64, offset: u64, limits: &Limits) {
        let Some(file) = self.files.get_mut(&number) else {
            return;
        };
        if let Some(place) = file.running.iter().position(|other| *other == offset) {
            file.running.swap_remove(place);
        }
        if file.jobs.is_empty() && file.running.is_empty() {
            self.files.remove(&number);
        } else {
            self.offer(number, limits);
        }
    }

    /// Takes back what nobody would run.
    fn take_back(&mut self, number: u64, key: (u64, u64)) -> Option<J> {
        let job = self.files.get_mut(&number)?.jobs.remove(&key)?;
        self.waiting -= 1;
        Some(job)
    }
}

impl<J> File<J> {
    fn may_run(&self, limits: &Limits) -> bool {
        let Some(((first, _), _)) = self.jobs.first_key_value() else {
            return false;
        };
        self.running.len() < limits.for_one
            && (!limits.only_before || self.running.iter().all(|other| first < other))
    }
}

impl<J> Default for File<J> {
    fn default() -> File<J> {
        File {
            jobs: BTreeMap::new(),
            running: Vec::new(),
            in_turns: false,
        }
    }
}

#[cfg(test)]
mod tests;
