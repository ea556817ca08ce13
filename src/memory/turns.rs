//! Bounds how many threads do the same expensive thing at once, and with it the memory it takes.

use std::sync::{Condvar, Mutex, PoisonError};

/// A number of turns; who finds none left waits for one.
pub(crate) struct Turns {
    left: Mutex<usize>,
    given_back: Condvar,
}

/// One turn, given back when it is dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) const fn new(turns: usize) -> Turns {
        Turns {
            left: Mutex::new(turns),
            given_back: Condvar::new(),
        }
    }

    /// Takes a turn. Whoever holds one must not take another: it could wait for itself.
    pub(crate) fn take(&self) -> Turn<'_> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self
            .given_back
            .wait_while(left, |left| *left == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}
