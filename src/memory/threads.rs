//! Threads that a mount may have, of every kind.
//!
//! Whoever starts some asks here how many there may be. So what is started is what is counted: in memory
//! by `promise.rs`, in addresses by `mount/address_space.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::admission;

/// Threads that decode ahead, at most: few readers are faster than so many, and all count, however many
/// processors there are.
pub(crate) const DECODERS: usize = 16;

/// Passes over large layers at a time, and over small ones, which must not wait for those.
pub(crate) const PASSES: usize = 4;
pub(crate) const SMALL_PASSES: usize = 2;

/// Threads of decoders of gzip layers: those that are admitted, and a few that wait to be. Beyond those
/// a reader waits and decodes itself.
pub(crate) const FRONTIERS: usize = admission::MOST + 3;
/// Each that is admitted has another one read for it.
const FETCHERS: usize = admission::MOST;

/// Threads on which reads wait for work whose end is in sight, beyond those that one blob may have: work
/// may take long all the same, where storage does.
pub(crate) const WORK_SPARE: usize = 4;
/// For a decoder to get to what is read. Fewer decoders are at work; some threads more, since those of one
/// blob may be waited for at several places.
pub(crate) const DECODER_WAITERS: usize = 12;
/// For memory that long work holds.
pub(crate) const MEMORY_WAITERS: usize = 8;
/// For the first pass over a layer.
pub(crate) const PASS_WAITERS: usize = PASSES;
/// Looks after reads that wait.
const WATCH: usize = 1;

/// Of the process: its first, the session of fuser, those for orders, events, signals and the log, and the one
/// that prefetches.
const PROCESS: usize = 7;

/// Readers that stand in for event loops, and threads for the work on one blob whose end is in sight: as many
/// as there are event loops, up to this. What an event loop reads itself takes no longer than a chunk.
const MOST_READERS: usize = 16;

/// All that do not depend on the number of event loops.
const OTHERS: usize = DECODERS
    + PASSES
    + SMALL_PASSES
    + FRONTIERS
    + FETCHERS
    + WORK_SPARE
    + DECODER_WAITERS
    + MEMORY_WAITERS
    + PASS_WAITERS
    + WATCH
    + PROCESS;

/// Readers that stand in for so many event loops.
pub(crate) fn stand_ins(loops: usize) -> usize {
    loops.min(MOST_READERS)
}

/// Threads for the work on one blob whose end is in sight, with so many event loops.
pub(crate) fn for_one_blob(loops: usize) -> usize {
    loops.min(MOST_READERS)
}

/// All threads of a mount with so many event loops.
pub(crate) fn all(loops: usize) -> usize {
    loops
        .saturating_add(stand_ins(loops) + for_one_blob(loops))
        .saturating_add(OTHERS)
}

/// Places for threads of one kind.
pub(crate) struct Places {
    most: usize,
    taken: Arc<AtomicUsize>,
}

impl Places {
    pub(crate) fn new(most: usize) -> Places {
        Places {
            most,
            taken: Arc::default(),
        }
    }

    /// A place for one more thread, if there is any left.
    pub(crate) fn take(&self) -> Option<Place> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Place(Arc::clone(&self.taken)))
    }
}

/// The place of a thread, given back when it is dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_there_are_no_more_threads_than_places() {
        let places = Places::new(2);
        let (one, two) = (places.take(), places.take());
        assert!(one.is_some() && two.is_some() && places.take().is_none());
        drop(one);
        let again = places.take();
        assert!(again.is_some() && places.take().is_none());
    }

    /// More loops are more threads, but not three for each.
    #[test]
    fn r16_all_threads_are_counted() {
        for loops in [1, 2, 8, 16] {
            assert_eq!(all(loops), 3 * loops + OTHERS);
        }
        assert_eq!(all(64), 64 + 32 + OTHERS);
        assert_eq!(all(usize::MAX), usize::MAX);
    }
}
