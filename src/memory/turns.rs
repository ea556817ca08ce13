//! Bounds how many threads do the same expensive thing at once, and with it the memory it takes.
//!
//! Turns come in the order in which they were asked for: nobody waits behind one who came later.

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A number of turns; who finds none left waits for one.
pub(crate) struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
}

/// Who waits, as numbers that are given out in the order of coming.
struct Line {
    /// Turns that nobody has.
    left: usize,
    /// The number of who comes next.
    next: u64,
    /// The number of who gets the next turn.
    served: u64,
}

/// One turn, given back when it is dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) const fn new(turns: usize) -> Turns {
        Turns {
            line: Mutex::new(Line {
                left: turns,
                next: 0,
                served: 0,
            }),
            moved: Condvar::new(),
        }
    }

    /// Takes a turn. Whoever holds one must not take another: it could wait for itself.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut line = self.lock();
        let number = line.next;
        line.next += 1;
        while line.left == 0 || line.served != number {
            line = self
                .moved
                .wait(line)
                .unwrap_or_else(PoisonError::into_inner);
        }
        line.served += 1;
        line.left -= 1;
        // Two may have been given back at once, and the next in line have looked too early.
        if line.left > 0 && line.served != line.next {
            self.moved.notify_all();
        }
        Turn(self)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> u64 {
        let line = self.lock();
        line.next - line.served
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing panics while it is held.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().left += 1;
        // All, since only they know which of them is next.
        self.0.moved.notify_all();
    }
}
