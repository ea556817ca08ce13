//! One bound on all memory beyond what the process has at rest.
//!
//! Everything that grows with what is read is granted here before it is taken: buffers of decoders,
//! cached chunks, windows, passes over foreign layers, tables, spools. Guarantees:
//!
//! - What is granted stays within the limit, except for answers: see `Limiter::charge`.
//! - Who finds too little waits, in order of arrival; the first one has others give back what is kept
//!   only for speed (see [`Reclaim`]). Who does not need to wait pays for one uncontended lock.
//! - The first one that waits always gets on. A *unit* of work asks once, for all that it needs, and
//!   holds nothing else while it waits; so units in flight end, and what they leave behind can be
//!   reclaimed. What can neither be reclaimed nor waited for (it is *kept*) leaves room for the
//!   largest chunk.
//! - What can never fit is an error that names the cache size that would do.
//!
//! A unit that finds out on the way that it needs more asks without waiting; refused, it gives
//! everything back and begins anew with more: see `windows.rs`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::promise::{self, MIB, Promise};
use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::error::{Error, Result};

/// Keeps memory that it can do without.
pub trait Reclaim: Send + Sync {
    /// Lets go of some `bytes`, if it has as many; false when there was nothing to let go of.
    fn reclaim(&self, bytes: u64) -> bool;
}

/// Grants memory.
pub struct Limiter {
    /// How long the first one waits for answers that are on their way out.
    patience: Duration,
    state: Mutex<State>,
    /// Bytes put aside in files that are memory.
    spooled: AtomicU64,
    /// The length of the queue, for those who must not wait for the lock.
    queued: AtomicUsize,
    /// The first of the queue waits for this: something was given back.
    freed: Condvar,
    /// The others wait for this: there is a new first.
    moved: Condvar,
    /// Who is asked for memory, in this order.
    givers: OnceLock<Vec<Weak<dyn Reclaim>>>,
}

struct State {
    promise: Promise,
    limit: u64,
    taken: u64,
    /// The part of `taken` that stays until its owner goes.
    kept: u64,
    /// Units in flight.
    units: usize,
    /// Tickets of those that wait, oldest first.
    queue: VecDeque<u64>,
    tickets: u64,
    /// Grows whenever there may be more to reclaim.
    changes: u64,
}

impl Limiter {
    /// A limiter for what `promise` leaves. Who waits for nothing but answers does so for `patience`.
    pub fn new(promise: Promise, patience: Duration) -> Arc<Limiter> {
        Arc::new(Limiter {
            patience,
            state: Mutex::new(State {
                promise,
                limit: promise.limit(),
                taken: 0,
                kept: 0,
                units: 0,
                queue: VecDeque::new(),
                tickets: 0,
                changes: 0,
            }),
            spooled: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            freed: Condvar::new(),
            moved: Condvar::new(),
            givers: OnceLock::new(),
        })
    }

    /// Says once who can give memory back, those first that miss it least.
    pub(crate) fn reclaims_from(&self, givers: Vec<Weak<dyn Reclaim>>) {
        let _ = self.givers.set(givers);
    }

    /// Waits until a unit of `bytes` fits. The caller must hold no other grant that somebody could
    /// wait for. `subject` names what the memory is for.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when it can never fit.
    pub(crate) fn take(self: &Arc<Limiter>, bytes: u64, subject: &str) -> Result<Unit> {
        let mut state = self.lock();
        if state.queue.is_empty() && self.fits(&state, bytes) {
            return Ok(self.begin(&mut state, bytes));
        }
        if bytes > state.limit {
            return Err(state.too_much(bytes, subject));
        }
        let ticket = state.tickets;
        state.tickets += 1;
        state.queue.push_back(ticket);
        self.queued.store(state.queue.len(), Ordering::SeqCst);
        while state.queue.front() != Some(&ticket) {
            state = wait(&self.moved, state);
        }
        let (mut state, fits) = self.wait_as_first(state, bytes);
        state.queue.pop_front();
        self.queued.store(state.queue.len(), Ordering::SeqCst);
        let unit = match fits {
            true => Ok(self.begin(&mut state, bytes)),
            false => Err(state.too_much(bytes, subject)),
        };
        drop(state);
        self.moved.notify_all();
        unit
    }

    /// True once the unit may begin, false when it never will.
    fn wait_as_first<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
    ) -> (MutexGuard<'a, State>, bool) {
        let mut patient = !self.patience.is_zero();
        loop {
            if self.fits(&state, bytes) {
                return (state, true);
            }
            let changes = state.changes;
            let missing = state
                .taken
                .saturating_add(bytes)
                .saturating_sub(state.limit);
            drop(state);
            let reclaimed = self.reclaim(missing);
            state = self.lock();
            if reclaimed || state.changes != changes {
                continue;
            }
            if state.kept.saturating_add(bytes) > state.limit {
                return (state, false);
            }
            if state.units > 0 {
                state = wait(&self.freed, state);
            } else if patient {
                let waited = self.freed.wait_timeout(state, self.patience);
                let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = again;
                patient = !timeout.timed_out();
            } else {
                // Only answers are in the way, and who has them does not let go: one at a time.
                return (state, true);
            }
        }
    }

    /// A unit of `bytes`, when it fits now and nobody waits.
    pub(crate) fn try_take(self: &Arc<Limiter>, bytes: u64) -> Option<Unit> {
        let mut state = self.lock();
        let fits = state.queue.is_empty() && self.fits(&state, bytes);
        fits.then(|| self.begin(&mut state, bytes))
    }

    /// Counts memory that cannot wait: an answer that is put together while its parts are still to be
    /// decoded. Others wait until it fits again.
    pub(crate) fn charge(self: &Arc<Limiter>, bytes: u64) -> Grant {
        self.lock().taken += bytes;
        Grant {
            limiter: Arc::clone(self),
            bytes,
            kept: false,
        }
    }

    /// Memory that stays until its owner goes; `None` when it would not leave enough for everything
    /// else.
    pub(crate) fn keep(self: &Arc<Limiter>, bytes: u64) -> Option<Grant> {
        let mut state = self.lock();
        if state.kept.saturating_add(bytes) > state.limit.saturating_sub(promise::LARGEST_CHUNK) {
            return None;
        }
        state.taken += bytes;
        state.kept += bytes;
        Some(Grant {
            limiter: Arc::clone(self),
            bytes,
            kept: true,
        })
    }

    /// Room for `bytes` in a file that is memory, of which there is [little](promise::SPOOL) for all
    /// layers together; `None` when it is used up.
    pub(crate) fn spool(self: &Arc<Limiter>, bytes: u64) -> Option<Spooled> {
        let more = |now: u64| {
            let sum = now.checked_add(bytes)?;
            (sum <= promise::SPOOL).then_some(sum)
        };
        let counter = &self.spooled;
        let counted = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.ok().map(|_| Spooled {
            limiter: Arc::clone(self),
            bytes,
        })
    }

    /// Says no to what can never fit.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when a unit of `bytes` does not fit
    /// even if there is nothing else but what is kept.
    pub(crate) fn check(&self, bytes: u64, subject: &str) -> Result<()> {
        let state = self.lock();
        match bytes > state.limit.saturating_sub(state.kept) {
            true => Err(state.too_much(bytes, subject)),
            false => Ok(()),
        }
    }

    /// What a unit can have when nothing else is in flight.
    pub(crate) fn room(&self) -> u64 {
        let state = self.lock();
        state.limit.saturating_sub(state.kept)
    }

    /// Counts `bytes` that are there before anything is read: the tree.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when they leave too little.
    pub(crate) fn settle(&self, bytes: u64, subject: &str) -> Result<()> {
        let mut state = self.lock();
        state.promise = state.promise.with(bytes);
        state.limit = state.promise.limit();
        match state.promise.can_be_kept() {
            true => Ok(()),
            false => Err(state.too_much(promise::LARGEST_CHUNK, subject)),
        }
    }

    /// True when somebody waits: what is given back now must not be put aside.
    pub(crate) fn is_short(&self) -> bool {
        self.queued.load(Ordering::SeqCst) > 0
    }

    /// Bytes granted now.
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Most bytes that are granted at once.
    pub fn limit(&self) -> u64 {
        self.lock().limit
    }

    fn fits(&self, state: &State, bytes: u64) -> bool {
        state.taken.saturating_add(bytes) <= state.limit
    }

    fn begin(self: &Arc<Limiter>, state: &mut State, bytes: u64) -> Unit {
        state.taken += bytes;
        state.units += 1;
        Unit {
            limiter: Arc::clone(self),
            bytes,
        }
    }

    /// Has the first of the givers that can let go of something; false when none can.
    pub(crate) fn reclaim(&self, bytes: u64) -> bool {
        let givers = self.givers.get().map(Vec::as_slice).unwrap_or_default();
        let mut alive = givers.iter().filter_map(Weak::upgrade);
        alive.any(|giver| giver.reclaim(bytes))
    }

    fn give_back(&self, bytes: u64, kept: bool, unit: bool) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(bytes);
        if kept {
            state.kept = state.kept.saturating_sub(bytes);
        }
        state.units -= usize::from(unit);
        state.changes += 1;
        let waiting = !state.queue.is_empty();
        drop(state);
        if waiting {
            self.freed.notify_all();
        }
    }

    /// Units in flight, and those that wait for one.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.units, state.queue.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn too_much(&self, bytes: u64, subject: &str) -> Error {
        let cache = self.promise.cache_for(bytes.saturating_add(self.kept));
        Error::environment(
            subject,
            format!(
                "needs {} MiB of memory, {} MiB are left beside what is always there; \
                 --cache-size {}MiB would do",
                bytes.div_ceil(MIB),
                self.limit.saturating_sub(self.kept) / MIB,
                cache.div_ceil(MIB)
            ),
        )
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

/// The memory of one piece of work that ends by itself. What outlives it is split off.
pub(crate) struct Unit {
    limiter: Arc<Limiter>,
    bytes: u64,
}

impl Unit {
    /// Takes `bytes` out, for what outlives the unit; more than it has are [charged](Limiter::charge).
    pub(crate) fn part(&mut self, bytes: u64) -> Grant {
        let own = bytes.min(self.bytes);
        self.bytes -= own;
        if own < bytes {
            self.limiter.lock().taken += bytes - own;
        }
        Grant {
            limiter: Arc::clone(&self.limiter),
            bytes,
            kept: false,
        }
    }

    /// Takes `bytes` more if that needs no wait.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let mut state = self.limiter.lock();
        let fits = state.queue.is_empty() && self.limiter.fits(&state, bytes);
        if fits {
            state.taken += bytes;
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.limiter.give_back(self.bytes, false, true);
    }
}

/// Memory that was granted, given back when it is dropped.
pub(crate) struct Grant {
    limiter: Arc<Limiter>,
    bytes: u64,
    kept: bool,
}

impl Grant {
    /// Takes `bytes` out of it, or all there are.
    pub(crate) fn split(&mut self, bytes: u64) -> Grant {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Grant {
            limiter: Arc::clone(&self.limiter),
            bytes,
            kept: self.kept,
        }
    }

    /// `owner`'s bytes, granted as long as anybody holds them.
    pub(crate) fn hold(self, owner: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held {
            owner,
            _grant: self,
        })
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.limiter.give_back(self.bytes, self.kept, false);
        }
    }
}

/// Bytes in a file that is memory, until it is dropped.
pub(crate) struct Spooled {
    limiter: Arc<Limiter>,
    bytes: u64,
}

impl Spooled {
    /// Adds what `other` counts.
    pub(crate) fn join(&mut self, mut other: Spooled) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.limiter
            .spooled
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Held<T> {
    // Dropped before the grant.
    owner: T,
    _grant: Grant,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.owner.as_ref()
    }
}
