//! One bound on all memory beyond what the process has at rest.
//!
//! Everything that grows with what is read is granted here before it is taken: buffers of decoders,
//! cached chunks, windows, passes over foreign layers, tables, spools. Guarantees:
//!
//! - What is granted stays within the limit, except for answers: see `Limiter::charge`.
//! - Who finds too little waits, in order of arrival among its like: see below. The first one has
//!   others give back what is kept only for speed (see [`Reclaim`]). Who does not need to wait pays for
//!   one uncontended lock.
//! - The first one that waits always gets on. A *unit* of work asks once, for all that it needs, and
//!   holds nothing else while it waits; so units in flight end, and what they leave behind can be
//!   reclaimed. What can neither be reclaimed nor waited for (it is *kept*) leaves room for the
//!   largest chunk.
//! - A *small* unit (one `Term::Short` piece of work, of no more than the *share*: a chunk, a table, a
//!   span, a small layer) stands behind no large one, neither one that waits nor one that works, which
//!   may be a pass of minutes. So there are two queues, and one rule for each:
//!   - What large units take leaves the small ones their share (see `Promise::share`).
//!   - While a large one waits, small ones in flight have that share in all, and no more. So what the
//!     oldest large one waits for can only become less: large units before it, small ones beyond their
//!     share, what can be reclaimed.
//!
//!   The one exception is a short piece of work so large that it fits only into the whole (the largest
//!   chunks, with a small cache): it may take the share too. Once no other large unit is in flight, no
//!   small one begins before it, and all wait until it ends. Passes must leave the share, or are
//!   refused.
//! - What can never fit is an error that names what would do: of a mount, the cache size.
//!
//! A unit that finds out on the way that it needs more asks without waiting; refused, it gives
//! everything back and begins anew with more: see `windows.rs`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::promise::{self, MIB, Promise};
use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::error::{Error, Result};
use crate::files::write_back::WriteBack;

/// Keeps memory that it can do without.
pub trait Reclaim: Send + Sync {
    /// Lets go of some `bytes`, if it has as many; false when there was nothing to let go of.
    fn reclaim(&self, bytes: u64) -> bool;
}

/// How long a unit is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// As long as it takes to read and decode one piece.
    Short,
    /// It may be minutes: a pass over a layer, the window of a decoder, what waits for a hash.
    Long,
}

/// Whom a unit stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Small,
    Large,
    /// A large one that does not leave the share of the small ones.
    Whole,
}

/// Grants memory.
pub struct Limiter {
    /// How long the first one waits for answers that are on their way out.
    patience: Duration,
    state: Mutex<State>,
    /// Bytes put aside in files that are memory.
    spooled: AtomicU64,
    /// Bytes put aside in others, until they are there.
    write_back: Arc<WriteBack>,
    /// How many wait, for those who must not wait for the lock.
    queued: AtomicUsize,
    /// The first of each queue waits for this: something was given back.
    freed: Condvar,
    /// The others wait for this: there is a new first.
    moved: Condvar,
    /// Who is asked for memory, in this order.
    givers: OnceLock<Vec<Weak<dyn Reclaim>>>,
}

struct State {
    promise: Promise,
    limit: u64,
    /// Of the limit, what large units leave to small ones.
    share: u64,
    taken: u64,
    /// The part of `taken` that stays until its owner goes.
    kept: u64,
    /// Units in flight.
    units: Units,
    /// Small ones that wait, oldest first.
    small: VecDeque<Ticket>,
    /// Large ones.
    large: VecDeque<Ticket>,
    tickets: u64,
    /// Somebody asks for memory back.
    reclaims: bool,
    /// Grows whenever there may be more to reclaim.
    changes: u64,
}

#[derive(Debug, Default)]
struct Units {
    small: usize,
    /// What small ones asked for, also where it outlives them.
    small_bytes: u64,
    large: usize,
    /// Of the large ones, those that have the share of the small ones.
    whole: usize,
}

/// One that waits.
struct Ticket {
    number: u64,
    bytes: u64,
    term: Term,
}

impl Limiter {
    /// A limiter for what `promise` leaves. Who waits for nothing but answers does so for `patience`.
    pub fn new(promise: Promise, patience: Duration) -> Arc<Limiter> {
        Arc::new(Limiter {
            patience,
            state: Mutex::new(State {
                promise,
                limit: promise.limit(),
                share: promise.share(),
                taken: 0,
                kept: 0,
                units: Units::default(),
                small: VecDeque::new(),
                large: VecDeque::new(),
                tickets: 0,
                reclaims: false,
                changes: 0,
            }),
            spooled: AtomicU64::new(0),
            write_back: Arc::default(),
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
    pub(crate) fn take(self: &Arc<Limiter>, bytes: u64, term: Term, subject: &str) -> Result<Unit> {
        let mut state = self.lock();
        let small = state.is_small(bytes, term);
        if state.queue(small).is_empty() && state.may_begin(bytes, term) {
            return Ok(self.begin(&mut state, bytes, term));
        }
        if bytes > state.most(term) {
            return Err(state.too_much(bytes, term, subject));
        }
        let number = state.tickets;
        state.tickets += 1;
        state.queue(small).push_back(Ticket {
            number,
            bytes,
            term,
        });
        self.count(&state);
        while state.queue(small).front().map(|first| first.number) != Some(number) {
            state = wait(&self.moved, state);
        }
        let (mut state, fits) = self.wait_as_first(state, bytes, term);
        state.queue(small).pop_front();
        self.count(&state);
        let unit = match fits {
            true => Ok(self.begin(&mut state, bytes, term)),
            false => Err(state.too_much(bytes, term, subject)),
        };
        let others = state.waiting() > 0;
        drop(state);
        if others {
            self.moved.notify_all();
            // The first of the other queue may have waited for this one.
            self.freed.notify_all();
        }
        unit
    }

    /// True once the unit may begin, false when it never will.
    fn wait_as_first<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
        term: Term,
    ) -> (MutexGuard<'a, State>, bool) {
        let mut since = None;
        // What `changes` was when nothing could be reclaimed: the two that are first must not wake
        // each other to try again.
        let mut tried = None;
        loop {
            if state.may_begin(bytes, term) {
                return (state, true);
            }
            let missing = state.missing(bytes, term);
            let changes = state.changes;
            if missing > 0 && tried != Some(changes) && !state.reclaims {
                state.reclaims = true;
                drop(state);
                let reclaimed = self.reclaim(missing);
                state = self.lock();
                state.reclaims = false;
                if state.waiting() > 1 {
                    self.freed.notify_all();
                }
                if reclaimed || state.changes != changes {
                    continue;
                }
                tried = Some(changes);
            }
            if state.kept.saturating_add(bytes) > state.most(term) {
                return (state, false);
            }
            if state.reclaims || state.must_wait(bytes, term) {
                state = wait(&self.freed, state);
                continue;
            }
            // Only answers are in the way. Who has them may not let go: then it is one at a time.
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            let patience = self.patience.saturating_sub(waited);
            if patience.is_zero() {
                return (state, true);
            }
            let again = self.freed.wait_timeout(state, patience);
            (state, _) = again.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn count(&self, state: &State) {
        self.queued.store(state.waiting(), Ordering::SeqCst);
    }

    /// True when a short piece of work that takes `bytes` stands behind no large one: it may wait, but not
    /// as long as a pass takes.
    pub(crate) fn is_small(&self, bytes: u64) -> bool {
        self.lock().is_small(bytes, Term::Short)
    }

    /// A unit of `bytes` for a short piece of work, when it may begin now.
    pub(crate) fn try_take(self: &Arc<Limiter>, bytes: u64) -> Option<Unit> {
        let mut state = self.lock();
        let term = Term::Short;
        let small = state.is_small(bytes, term);
        let may = state.queue(small).is_empty() && state.may_begin(bytes, term);
        may.then(|| self.begin(&mut state, bytes, term))
    }

    /// More memory for one who has a unit, for as long as that may be: when it fits now and nobody
    /// waits.
    pub(crate) fn more(self: &Arc<Limiter>, bytes: u64) -> Option<Unit> {
        let mut state = self.lock();
        let may = state.waiting() == 0 && state.may_begin(bytes, Term::Long);
        may.then(|| self.begin(&mut state, bytes, Term::Long))
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

    /// For whoever writes to a disk.
    pub(crate) fn write_back(&self) -> &Arc<WriteBack> {
        &self.write_back
    }

    /// Says no to what can never fit.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when a unit of `bytes` does not fit
    /// even if there is nothing else but what is kept, and the share of small ones.
    pub(crate) fn check(&self, bytes: u64, term: Term, subject: &str) -> Result<()> {
        let state = self.lock();
        match state.kept.saturating_add(bytes) > state.most(term) {
            true => Err(state.too_much(bytes, term, subject)),
            false => Ok(()),
        }
    }

    /// What a unit can have when nothing else is in flight.
    pub(crate) fn room(&self, term: Term) -> u64 {
        let state = self.lock();
        state.most(term).saturating_sub(state.kept)
    }

    /// Counts `bytes` that the open model takes before anything is read: at first what is expected,
    /// then what was measured.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when they leave too little.
    pub(crate) fn settle(&self, bytes: u64, subject: &str) -> Result<()> {
        let mut state = self.lock();
        state.promise = state.promise.with(bytes);
        state.limit = state.promise.limit();
        state.share = state.promise.share();
        match state.promise.can_be_kept() {
            true => Ok(()),
            false => Err(state.too_much(promise::LARGEST_CHUNK, Term::Short, subject)),
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

    fn begin(self: &Arc<Limiter>, state: &mut State, bytes: u64, term: Term) -> Unit {
        let class = state.class(bytes, term);
        state.taken += bytes;
        state.units.add(class, bytes);
        Unit {
            limiter: Arc::clone(self),
            bytes,
            asked: bytes,
            class,
        }
    }

    /// Has the first of the givers that can let go of something; false when none can.
    pub(crate) fn reclaim(&self, bytes: u64) -> bool {
        let givers = self.givers.get().map(Vec::as_slice).unwrap_or_default();
        let mut alive = givers.iter().filter_map(Weak::upgrade);
        alive.any(|giver| giver.reclaim(bytes))
    }

    fn give_back(&self, bytes: u64, kept: bool, unit: Option<(Class, u64)>) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(bytes);
        if kept {
            state.kept = state.kept.saturating_sub(bytes);
        }
        if let Some((class, asked)) = unit {
            state.units.remove(class, asked);
        }
        state.changes += 1;
        let waiting = state.waiting();
        drop(state);
        if waiting > 0 {
            self.freed.notify_all();
        }
    }

    /// Units in flight, and those that wait for one.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.units.small + state.units.large, state.waiting())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Units {
    fn add(&mut self, class: Class, bytes: u64) {
        match class {
            Class::Small => {
                self.small += 1;
                self.small_bytes += bytes;
            }
            Class::Large => self.large += 1,
            Class::Whole => {
                self.large += 1;
                self.whole += 1;
            }
        }
    }

    fn remove(&mut self, class: Class, bytes: u64) {
        match class {
            Class::Small => {
                self.small -= 1;
                self.small_bytes -= bytes;
            }
            Class::Large => self.large -= 1,
            Class::Whole => {
                self.large -= 1;
                self.whole -= 1;
            }
        }
    }
}

impl State {
    /// True for what stands behind no large unit.
    fn is_small(&self, bytes: u64, term: Term) -> bool {
        term == Term::Short && bytes <= self.share
    }

    fn queue(&mut self, small: bool) -> &mut VecDeque<Ticket> {
        match small {
            true => &mut self.small,
            false => &mut self.large,
        }
    }

    fn waiting(&self) -> usize {
        self.small.len() + self.large.len()
    }

    /// Most bytes of one unit.
    fn most(&self, term: Term) -> u64 {
        match term {
            Term::Short => self.limit,
            Term::Long => self.limit.saturating_sub(self.share),
        }
    }

    fn class(&self, bytes: u64, term: Term) -> Class {
        if self.is_small(bytes, term) {
            Class::Small
        } else if term == Term::Long || self.leaves_the_share(bytes) {
            Class::Large
        } else {
            Class::Whole
        }
    }

    /// True when the share of small ones fits beside so many bytes.
    fn leaves_the_share(&self, bytes: u64) -> bool {
        let all = self.kept.saturating_add(bytes).saturating_add(self.share);
        all <= self.limit
    }

    /// Bytes that are too few for a unit.
    fn missing(&self, bytes: u64, term: Term) -> u64 {
        let share = match self.class(bytes, term) {
            Class::Large => self.share.saturating_sub(self.units.small_bytes),
            Class::Small | Class::Whole => 0,
        };
        let all = self.taken.saturating_add(bytes).saturating_add(share);
        all.saturating_sub(self.limit)
    }

    /// True when the first of its queue may begin.
    fn may_begin(&self, bytes: u64, term: Term) -> bool {
        self.missing(bytes, term) == 0 && !(self.is_small(bytes, term) && self.must_let_pass(bytes))
    }

    /// True when a small unit would keep the oldest large one waiting.
    fn must_let_pass(&self, bytes: u64) -> bool {
        let Some(oldest) = self.large.front() else {
            return false;
        };
        let beyond = self.units.small_bytes.saturating_add(bytes) > self.share;
        let whole = self.class(oldest.bytes, oldest.term) == Class::Whole;
        beyond || (whole && self.units.large == 0)
    }

    /// True when there is a unit in flight that the first of its queue has to wait for.
    fn must_wait(&self, bytes: u64, term: Term) -> bool {
        let units = &self.units;
        match self.class(bytes, term) {
            Class::Small => self.must_let_pass(bytes) || units.small > 0 || units.whole > 0,
            Class::Large => units.large > 0 || units.small_bytes > self.share,
            Class::Whole => units.large > 0 || units.small > 0,
        }
    }

    fn too_much(&self, bytes: u64, term: Term, subject: &str) -> Error {
        let most = self.most(term);
        let all = bytes.saturating_add(self.kept);
        Error::environment(
            subject,
            format!(
                "needs {} MiB of memory, {} MiB are left beside what is always there; {}",
                bytes.div_ceil(MIB),
                most.saturating_sub(self.kept) / MIB,
                self.promise.advice(all, term == Term::Long)
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
    /// Those that were not split off.
    bytes: u64,
    asked: u64,
    class: Class,
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
        let may = state.waiting() == 0 && state.may_begin(bytes, Term::Long);
        if may {
            state.taken += bytes;
            self.bytes += bytes;
        }
        may
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let unit = Some((self.class, self.asked));
        self.limiter.give_back(self.bytes, false, unit);
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
            self.limiter.give_back(self.bytes, self.kept, None);
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
