//! Threads that help with work which others have in hand: how many there may be in all.
//!
//! Nobody waits for one. Who gets none does all by itself, and so does who cannot start a thread: the
//! system may allow fewer (`ulimit -u`, `pids.max` of a control group).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many helpers are left, for several who work side by side.
#[derive(Debug)]
pub struct Helpers {
    left: AtomicUsize,
    /// Who works, and may want some.
    working: AtomicUsize,
}

/// Helpers of one who works; others may have them when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    helpers: &'a Helpers,
    number: usize,
}

/// One who works, until this is dropped: then others may have a helper in its place.
pub(crate) struct Working<'a>(&'a Helpers);

impl Default for Helpers {
    /// For one who works alone: so many that each processor has something to do.
    fn default() -> Helpers {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Helpers::beside(1, cores)
    }
}

impl Helpers {
    /// For so many who work, and so many threads in all.
    pub(crate) fn beside(working: usize, threads: usize) -> Helpers {
        Helpers {
            left: AtomicUsize::new(threads.saturating_sub(working)),
            working: AtomicUsize::new(working),
        }
    }

    /// Up to `wanted` helpers, and no more than a fair share of those that are left.
    pub(crate) fn take(&self, wanted: usize) -> Taken<'_> {
        let working = self.working.load(Ordering::Relaxed).max(1);
        let share = |left: usize| wanted.min(left.div_ceil(working));
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left - share(left))
            });
        let (Ok(left) | Err(left)) = left;
        Taken {
            helpers: self,
            number: share(left),
        }
    }

    /// What each of those who work holds while it does.
    pub(crate) fn work(&self) -> Working<'_> {
        Working(self)
    }
}

impl Taken<'_> {
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.helpers.left.fetch_add(self.number, Ordering::Relaxed);
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
        self.0.left.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r19_helpers_are_shared_and_never_more_than_there_are() {
        let helpers = Helpers::beside(3, 8);
        let (a, b) = (helpers.take(100), helpers.take(1));
        assert_eq!((a.number(), b.number()), (2, 1));
        let c = helpers.take(100);
        assert_eq!(c.number(), 1);
        drop((a, b));
        // Who has no more work leaves what it had to the others.
        drop(helpers.work());
        drop(helpers.work());
        assert_eq!(helpers.take(100).number(), 6);
        drop(c);
        assert_eq!(helpers.take(4).number(), 4);
        assert_eq!(Helpers::beside(40, 40).take(100).number(), 0);
        assert_eq!(Helpers::beside(1, 0).take(100).number(), 0);
    }
}
