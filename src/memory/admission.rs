//! How many layers of a model are decoded at their frontier at once, and with it what that takes.
//!
//! A decoder that stands still keeps some megabytes. Whoever wants to start one more than allowed
//! sends home one that stands still; that layer goes on from its last seek point when it is wanted
//! again. Decoders that work are waited for: they all come to a stop, or to their end. Who waits is let
//! in in the order of coming: a layer that is read again and again takes its place behind the others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most of them at a time.
pub(crate) const MOST: usize = 3;

/// A decoder that may stand still.
pub(crate) trait Frontier: Send + Sync {
    /// True when nobody reads any more.
    fn is_closed(&self) -> bool;
    /// Tells a decoder that stands still to end; false when it does not, or was told before.
    fn send_home(&self) -> bool;
}

/// The layers whose frontier is live, and those that wait.
#[derive(Default)]
pub(crate) struct Live {
    state: Mutex<State>,
    /// Decoders that wait to be let in.
    waiting: AtomicUsize,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    layers: Vec<Arc<dyn Frontier>>,
    /// Numbers of those that wait, oldest first.
    line: VecDeque<u64>,
    came: u64,
}

impl Live {
    /// Waits until one more is allowed; `None` when it is closed meanwhile.
    pub(crate) fn admit(&self, one: &Arc<dyn Frontier>) -> Option<Admission<'_>> {
        // Counted before looking for one that stands still: whoever stops later sees the count.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut state = self.lock();
        let number = state.came;
        state.came += 1;
        state.line.push_back(number);
        let admitted = loop {
            if one.is_closed() {
                break false;
            }
            if state.line.front() == Some(&number) {
                if state.layers.len() < MOST {
                    state.layers.push(Arc::clone(one));
                    break true;
                }
                let _ = state.layers.iter().any(|layer| layer.send_home());
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        state.line.retain(|other| *other != number);
        let others = !state.line.is_empty();
        drop(state);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if others {
            // One of them comes next.
            self.changed.notify_all();
        }
        admitted.then(|| Admission {
            live: self,
            admitted: Arc::clone(one),
        })
    }

    /// True when one that stands still had better go.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Lets those that wait see that they were closed.
    pub(crate) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.lock().layers.len()
    }

    /// How many stand in line.
    #[cfg(test)]
    #[allow(
        dead_code,
        reason = "asked where this file is compiled under a scheduler"
    )]
    pub(super) fn line(&self) -> usize {
        self.lock().line.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the live ones, given back when it is dropped.
pub(crate) struct Admission<'a> {
    live: &'a Live,
    admitted: Arc<dyn Frontier>,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let mut state = self.live.lock();
        let own = Arc::as_ptr(&self.admitted);
        state
            .layers
            .retain(|layer| !std::ptr::addr_eq(Arc::as_ptr(layer), own));
        drop(state);
        self.live.changed.notify_all();
    }
}
