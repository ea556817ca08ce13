//! When to decode ahead: while reads follow each other, and not when they jump.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Follows the reads of one file.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the reads of a sequential reader have got to; `None` before the first.
    reached: Option<u64>,
    /// Reads in a row that have got further.
    streak: u32,
    /// Chunks before this one were asked for already.
    asked: u64,
    /// Chunks that were asked for, and that nobody has begun to decode yet.
    pending: Vec<u64>,
}

impl Readahead {
    /// Notes a read of bytes `start..end`; the chunks that are worth decoding now, at most `depth`
    /// of them, and each to be [claimed](Readahead::claim) by whoever comes to do it. Empty while
    /// reads are few or jump about. Those of one reader may come in any order within `under_way` bytes.
    pub(super) fn note(
        &self,
        Range { start, end }: Range<u64>,
        under_way: u64,
        chunk_size: u64,
        depth: u64,
    ) -> Range<u64> {
        let mut state = self.lock();
        let read = start / chunk_size..end.div_ceil(chunk_size);
        state.pending.retain(|chunk| !read.contains(chunk));
        let near = |reached: &u64| {
            start <= reached.saturating_add(under_way) && end.saturating_add(under_way) >= *reached
        };
        match state.reached.filter(near) {
            None => (state.streak, state.asked) = (0, 0),
            Some(reached) if end > reached => state.streak = state.streak.saturating_add(1),
            // Others have overtaken it.
            Some(_) => return 0..0,
        }
        state.reached = Some(end);
        // Two prove nothing: loaders look at headers and jump away, and so much is read around a fault.
        if state.streak < 2 {
            return 0..0;
        }
        let next = end.div_ceil(chunk_size);
        let from = next.max(state.asked);
        // Grows with the streak, so that a short one costs little.
        let until = next + depth.min(1 << state.streak.min(16));
        state.asked = until.max(state.asked);
        state.pending.extend(from..until);
        from..until
    }

    /// True when `chunk` was asked for and is still to be decoded: then it is the caller's. Not when
    /// a reader came to it meanwhile. It may be done with it by now, and have no use for it again.
    pub(super) fn claim(&self, chunk: u64) -> bool {
        let pending = &mut self.lock().pending;
        let at = pending.iter().position(|other| *other == chunk);
        at.map(|at| pending.swap_remove(at)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNDER_WAY: u64 = 20;

    #[test]
    fn asks_ahead_of_sequential_reads_once_per_chunk() {
        let readahead = Readahead::default();
        let mut asked = Vec::new();
        for n in 0..20 {
            asked.extend(readahead.note(n * 10..n * 10 + 10, UNDER_WAY, 10, 8));
        }
        assert_eq!(
            asked,
            (3..28).collect::<Vec<_>>(),
            "each once, in order, 8 ahead"
        );
    }

    #[test]
    fn stays_still_for_random_reads() {
        let readahead = Readahead::default();
        for start in [50, 10, 90, 30, 70, 0] {
            assert_eq!(readahead.note(start..start + 10, UNDER_WAY, 10, 8), 0..0);
        }
    }

    /// As several threads take them.
    #[test]
    fn requests_that_overtake_each_other_are_one_stream() {
        let readahead = Readahead::default();
        let mut asked = Vec::new();
        for n in [1, 0, 3, 2, 5, 4, 7, 6, 9, 8] {
            asked.extend(readahead.note(n * 10..n * 10 + 10, UNDER_WAY, 10, 8));
        }
        assert_eq!(asked, (6..18).collect::<Vec<_>>(), "each once, in order");
    }

    /// A fault of a mapping makes the kernel ask for what is around it, in two requests.
    #[test]
    fn lone_faults_are_no_stream() {
        let readahead = Readahead::default();
        for start in [5000, 100, 3000, 900, 9000] {
            for start in [start, start + 10] {
                assert_eq!(readahead.note(start..start + 10, UNDER_WAY, 10, 8), 0..0);
            }
        }
    }

    #[test]
    fn a_jump_ends_it_and_small_reads_share_a_chunk() {
        let readahead = Readahead::default();
        for n in 0..5 {
            readahead.note(n..n + 1, UNDER_WAY, 100, 8);
        }
        assert!(readahead.note(900..901, UNDER_WAY, 100, 8).is_empty());
        assert!(readahead.note(901..902, UNDER_WAY, 100, 8).is_empty());
        assert_eq!(readahead.note(902..903, UNDER_WAY, 100, 8), 10..14);
        assert_eq!(readahead.note(903..904, UNDER_WAY, 100, 8), 14..18);
        assert!(readahead.note(904..905, UNDER_WAY, 100, 8).is_empty());
    }

    #[test]
    fn a_chunk_is_claimed_once_and_not_after_a_reader_came_to_it() {
        let readahead = Readahead::default();
        for n in 0..3 {
            readahead.note(n * 10..n * 10 + 10, UNDER_WAY, 10, 8);
        }
        assert!(readahead.claim(4) && !readahead.claim(4));
        assert!(!readahead.claim(2) && !readahead.claim(50));
        // Readers of the middle of chunk 3, and of parts of 5 and 6.
        readahead.note(33..34, UNDER_WAY, 10, 8);
        readahead.note(59..61, UNDER_WAY, 10, 8);
        assert!(!readahead.claim(3) && !readahead.claim(5) && !readahead.claim(6));
        assert!(readahead.claim(7));
        assert!(readahead.claim(8) && !readahead.claim(12));
    }
}
