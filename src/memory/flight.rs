//! Single flight: one piece of work per key at a time, however many callers want its result.
//!
//! Guarantees: at most one closure runs per key at any moment; callers that arrive meanwhile wait
//! and get a clone of its result, error or not; no lock is held while a closure runs; a closure that
//! panics wakes its waiters with an error and goes on panicking in its own caller. A result is
//! forgotten as soon as its flight has landed: keeping it is the business of a cache, which a
//! closure should look into first (the flight before it may have filled it).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::io;
use std::sync::Arc;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::error::{Error, Result};

/// Work under way, by key. A closure must not run the same key again: it would wait for itself.
pub struct Flight<K, V> {
    slots: Mutex<HashMap<K, Arc<Slot<V>>>>,
}

/// One flight: the result once it has landed.
struct Slot<V> {
    result: Mutex<Option<Result<V>>>,
    landed: Condvar,
}

impl<K: Eq + Hash + Clone, V: Clone> Flight<K, V> {
    /// Nothing under way.
    pub fn new() -> Flight<K, V> {
        Flight {
            slots: Mutex::new(HashMap::new()),
        }
    }

    /// Runs `work`, or waits for the caller that is already running it for this key. The second
    /// value is true when the result is another caller's.
    ///
    /// # Errors
    /// The first value is what `work` returned; an
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) error when another caller's panicked.
    pub fn run(&self, key: K, work: impl FnOnce() -> Result<V>) -> (Result<V>, bool) {
        self.run_or(key, work, || false)
    }

    /// True when nobody works on `key`, and fewer than `most` pieces of work are under way.
    pub fn has_room_for(&self, key: &K, most: usize) -> bool {
        let slots = lock(&self.slots);
        slots.len() < most && !slots.contains_key(key)
    }

    /// How many callers there are for `key`, the one that works included; `None` for no work.
    #[cfg(test)]
    pub(super) fn callers(&self, key: &K) -> Option<usize> {
        // The map holds one reference, too.
        let slots = lock(&self.slots);
        slots.get(key).map(|slot| Arc::strong_count(slot) - 1)
    }

    /// As [`run`](Flight::run), but instead of waiting calls `meanwhile` until it has nothing to do
    /// and returns false, or the result is there.
    pub fn run_or(
        &self,
        key: K,
        work: impl FnOnce() -> Result<V>,
        mut meanwhile: impl FnMut() -> bool,
    ) -> (Result<V>, bool) {
        let slot = match lock(&self.slots).entry(key.clone()) {
            Entry::Occupied(entry) => Err(Arc::clone(entry.get())),
            Entry::Vacant(entry) => Ok(Arc::clone(entry.insert(Arc::new(Slot {
                result: Mutex::new(None),
                landed: Condvar::new(),
            })))),
        };
        match slot {
            Err(flying) => {
                while lock(&flying.result).is_none() && meanwhile() {}
                (flying.wait(), true)
            }
            Ok(slot) => {
                let landing = Landing {
                    flight: self,
                    key,
                    slot,
                    result: None,
                };
                (landing.land(work()), false)
            }
        }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Default for Flight<K, V> {
    fn default() -> Flight<K, V> {
        Flight::new()
    }
}

impl<V: Clone> Slot<V> {
    fn wait(&self) -> Result<V> {
        let mut result = lock(&self.result);
        loop {
            match &*result {
                Some(result) => return result.clone(),
                None => {
                    result = self
                        .landed
                        .wait(result)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Publishes the result when it goes out of scope, by return or by panic.
struct Landing<'a, K: Eq + Hash + Clone, V: Clone> {
    flight: &'a Flight<K, V>,
    key: K,
    slot: Arc<Slot<V>>,
    result: Option<Result<V>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Landing<'_, K, V> {
    fn land(mut self, result: Result<V>) -> Result<V> {
        self.result = Some(result.clone());
        result
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(panicked()));
        // Off the map first: who comes now starts anew instead of finding a flight that has landed.
        lock(&self.flight.slots).remove(&self.key);
        *lock(&self.slot.result) = Some(result);
        self.slot.landed.notify_all();
    }
}

/// Nothing panics while one of these locks is held, so a poisoned one still guards a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panicked() -> Error {
    let cause = io::Error::other("it panicked");
    Error::failed("share", "the work of another reader", cause)
}
