//! How many layers of a model are decoded at their frontier at once, and with it what that takes.
//!
//! A decoder that stands still keeps some megabytes. Whoever wants to start one more than allowed
//! sends home one that stands still; that layer goes on from its last seek point when it is wanted
//! again. Decoders that work are waited for: they all come to a stop, or to their end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::frontier::Known;

/// Most of them at a time; each takes some 5 MiB.
const MOST: usize = 3;

/// The layers whose frontier is live, oldest first.
#[derive(Default)]
pub(in crate::layer) struct Live {
    layers: Mutex<Vec<Arc<Known>>>,
    /// Decoders that wait to be let in.
    waiting: AtomicUsize,
    changed: Condvar,
}

impl Live {
    /// Waits until one more is allowed; `None` when `known` is closed meanwhile.
    pub(super) fn admit(&self, known: &Arc<Known>) -> Option<Admission<'_>> {
        // Counted before looking for one that stands still: whoever stops later sees the count.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut layers = self.lock();
        let admitted = loop {
            if known.frontier.is_closed() {
                break false;
            }
            if layers.len() < MOST {
                layers.push(Arc::clone(known));
                break true;
            }
            let _ = layers.iter().any(|layer| layer.frontier.send_home());
            layers = self
                .changed
                .wait(layers)
                .unwrap_or_else(PoisonError::into_inner);
        };
        drop(layers);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        admitted.then(|| Admission {
            live: self,
            known: Arc::clone(known),
        })
    }

    /// True when one that stands still had better go.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Lets those that wait see that they were closed.
    pub(super) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Known>>> {
        // Nothing panics while it is held.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the live ones, given back when it is dropped.
pub(super) struct Admission<'a> {
    live: &'a Live,
    known: Arc<Known>,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let mut layers = self.live.lock();
        layers.retain(|layer| !Arc::ptr_eq(layer, &self.known));
        drop(layers);
        self.live.changed.notify_all();
    }
}
