//! How many layers of a model are decoded at their frontier at once, and with it what that takes.
//!
//! A decoder that stands still keeps some megabytes. Whoever wants to start one more than allowed
//! sends home one that stands still; that layer goes on from its last seek point when it is wanted
//! again. Decoders that work are waited for: they all come to a stop, or to their end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most of them at a time.
pub(crate) const MOST: usize = 3;

/// A decoder that may stand still.
pub(crate) trait Frontier: Send + Sync {
    /// True when nobody reads any more.
    fn is_closed(&self) -> bool;
    /// Tells a decoder that stands still to end; false when it does not, or was told before.
    fn send_home(&self) -> bool;
}

/// The layers whose frontier is live, oldest first.
#[derive(Default)]
pub(crate) struct Live {
    layers: Mutex<Vec<Arc<dyn Frontier>>>,
    /// Decoders that wait to be let in.
    waiting: AtomicUsize,
    changed: Condvar,
}

impl Live {
    /// Waits until one more is allowed; `None` when it is closed meanwhile.
    pub(crate) fn admit(&self, one: &Arc<dyn Frontier>) -> Option<Admission<'_>> {
        // Counted before looking for one that stands still: whoever stops later sees the count.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut layers = self.lock();
        let admitted = loop {
            if one.is_closed() {
                break false;
            }
            if layers.len() < MOST {
                layers.push(Arc::clone(one));
                break true;
            }
            let _ = layers.iter().any(|layer| layer.send_home());
            layers = self
                .changed
                .wait(layers)
                .unwrap_or_else(PoisonError::into_inner);
        };
        drop(layers);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
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
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<dyn Frontier>>> {
        // Nothing panics while it is held.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the live ones, given back when it is dropped.
pub(crate) struct Admission<'a> {
    live: &'a Live,
    admitted: Arc<dyn Frontier>,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let mut layers = self.live.lock();
        layers.retain(|layer| !std::ptr::addr_eq(Arc::as_ptr(layer), Arc::as_ptr(&self.admitted)));
        drop(layers);
        self.live.changed.notify_all();
    }
}
