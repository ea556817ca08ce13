//! A bound on the memory of large chunks that are being decoded at once.
//!
//! Chunks of the default size need no bound: there are as many as threads. An archive may have
//! chunks sixteen times as large, whose threads together would take more than was promised.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Decoded size up to which a chunk is not counted, in bytes.
const FREE_BYTES: u64 = 2 << 20;
/// Most decoded bytes of larger ones at once; their compressed bytes take about as much again. Not
/// less than one chunk.
const MOST_BYTES: u64 = 16 << 20;

/// True for a chunk of so many decoded bytes that it counts.
pub(crate) fn is_large(bytes: usize) -> bool {
    bytes as u64 > FREE_BYTES
}

/// How many chunks of so many decoded bytes may be decoded at once.
pub(crate) fn at_once(bytes: u64) -> usize {
    match bytes {
        0..=FREE_BYTES => usize::MAX,
        _ => usize::try_from(MOST_BYTES / bytes).unwrap_or(1).max(1),
    }
}

/// What large decodes may take together.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    taken: Mutex<u64>,
    returned: Condvar,
}

impl Budget {
    /// Waits until `bytes` more fit, and takes them until the result is dropped. One decode always
    /// fits. A holder must not take twice.
    pub(crate) fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = match bytes {
            0..=FREE_BYTES => 0,
            _ => bytes.min(MOST_BYTES),
        };
        if bytes > 0 {
            let full = |taken: &mut u64| taken.saturating_add(bytes) > MOST_BYTES;
            let taken = self.returned.wait_while(self.lock(), full);
            *taken.unwrap_or_else(PoisonError::into_inner) += bytes;
        }
        Share {
            budget: self,
            bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Share<'_> {
    /// True for a chunk whose memory is not worth keeping for the next.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes > 0
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut taken = self.budget.lock();
            *taken = taken.saturating_sub(self.bytes);
            drop(taken);
            self.budget.returned.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn r9_large_chunks_take_turns_and_small_ones_do_not_wait() {
        let (budget, now) = (Budget::default(), AtomicU64::new(0));
        thread::scope(|scope| {
            for n in 0..64 {
                let bytes = (3 << 20) + (n % 7) * (4 << 20); // also more than fits
                let (budget, now) = (&budget, &now);
                scope.spawn(move || {
                    let share = budget.take(bytes);
                    assert!(share.is_large());
                    let counted = bytes.min(MOST_BYTES);
                    let before = now.fetch_add(counted, Ordering::SeqCst);
                    assert!(before + counted <= MOST_BYTES);
                    let small = budget.take(FREE_BYTES);
                    assert!(!small.is_large());
                    thread::yield_now();
                    now.fetch_sub(counted, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(*budget.lock(), 0);
    }
}
