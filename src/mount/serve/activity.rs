//! What readers do, and what a prefetch does: counted, and looked at by who must not be in their way.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Inode;

/// Counts of a mount, from its start on.
#[derive(Debug)]
pub(in crate::mount) struct Activity {
    /// Requests of any kind that reached this process.
    pub(super) requests: AtomicU64,
    /// Of these, reads of file content.
    pub(super) reads: AtomicU64,
    /// Requests that panicked.
    pub(super) panics: AtomicU64,
    /// Reads that are being answered now.
    reading: AtomicUsize,
    /// Those of a prefetch.
    reading_ahead: AtomicUsize,
    started: Instant,
    /// When the last read ended, in milliseconds after the start.
    last_read: AtomicU64,
    /// The process that prefetches; 0 for none.
    prefetcher: AtomicU32,
    /// The last file of which it could not read something.
    failed_ahead: Mutex<Option<Inode>>,
}

impl Activity {
    pub(super) fn new() -> Activity {
        Activity {
            requests: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            reading: AtomicUsize::new(0),
            reading_ahead: AtomicUsize::new(0),
            started: Instant::now(),
            last_read: AtomicU64::new(0),
            prefetcher: AtomicU32::new(0),
            failed_ahead: Mutex::new(None),
        }
    }

    /// How long the mount is there.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reads that are being answered now, for readers and for a prefetch.
    pub(super) fn in_flight(&self) -> usize {
        self.reading.load(Ordering::Relaxed) + self.reads_ahead()
    }

    /// True while readers wait, and for `pause` after the last.
    pub(in crate::mount) fn in_use(&self, pause: Duration) -> bool {
        let last = self.last_read.load(Ordering::Relaxed);
        self.reading.load(Ordering::Relaxed) > 0
            || (last > 0 && self.started.elapsed() < Duration::from_millis(last) + pause)
    }

    /// From now on, reads of this process are prefetching.
    pub(in crate::mount) fn set_prefetcher(&self, process: u32) {
        self.prefetcher.store(process, Ordering::Relaxed);
    }

    /// True for the process that prefetches.
    pub(super) fn is_prefetcher(&self, process: u32) -> bool {
        process != 0 && process == self.prefetcher.load(Ordering::Relaxed)
    }

    /// Reads of the process that prefetches which are being answered now.
    pub(in crate::mount) fn reads_ahead(&self) -> usize {
        self.reading_ahead.load(Ordering::Relaxed)
    }

    /// The process that prefetches could not read something of this file.
    pub(super) fn failed_ahead(&self, inode: Inode) {
        *lock(&self.failed_ahead) = Some(inode);
    }

    /// The file of which something could not be prefetched since the last call.
    pub(in crate::mount) fn take_failed_ahead(&self) -> Option<Inode> {
        lock(&self.failed_ahead).take()
    }
}

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A read, or an opening that waits for what a read would wait for, until it is dropped.
pub(super) struct Reading {
    activity: Arc<Activity>,
    ahead: bool,
}

impl Reading {
    pub(super) fn begin(activity: &Arc<Activity>, ahead: bool) -> Reading {
        let reading = Reading {
            activity: Arc::clone(activity),
            ahead,
        };
        reading.counter().fetch_add(1, Ordering::Relaxed);
        reading
    }

    fn counter(&self) -> &AtomicUsize {
        match self.ahead {
            true => &self.activity.reading_ahead,
            false => &self.activity.reading,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let activity = &self.activity;
        if !self.ahead {
            let now = u64::try_from(activity.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            activity.last_read.store(now, Ordering::Relaxed);
        }
        self.counter().fetch_sub(1, Ordering::Relaxed);
    }
}
