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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
    Error::Io {
        action: "share",
        subject: "the work of another reader".into(),
        source: Arc::new(io::Error::other("it panicked")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};
    use std::thread;

    use super::*;
    use crate::error::ErrorKind;

    /// Blocks until `n` callers besides the flying one hold the slot of `key`.
    fn await_waiters<V>(flight: &Flight<u32, V>, key: u32, n: usize) {
        loop {
            // The map, the flying caller and each waiter hold one reference.
            let held = lock(&flight.slots).get(&key).map(Arc::strong_count);
            if held == Some(n + 2) {
                return;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn r10_a_thousand_callers_share_one_run() {
        let flight = Flight::new();
        let runs = AtomicUsize::new(0);
        let start = Barrier::new(1_000);
        let shared: usize = thread::scope(|scope| {
            let callers: Vec<_> = (0..1_000)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let (result, shared) = flight.run(7, || {
                            await_waiters(&flight, 7, 999);
                            runs.fetch_add(1, Ordering::SeqCst);
                            Ok(42)
                        });
                        assert_eq!(result.unwrap(), 42);
                        usize::from(shared)
                    })
                })
                .collect();
            callers.into_iter().map(|c| c.join().unwrap()).sum()
        });
        assert_eq!((runs.into_inner(), shared), (1, 999));
    }

    #[test]
    fn r10_who_does_something_else_meanwhile_gets_the_same_result() {
        let flight: Flight<u32, u32> = Flight::new();
        thread::scope(|scope| {
            let (begun, wait) = mpsc::channel();
            let (land, landing) = mpsc::channel();
            let flight = &flight;
            scope.spawn(move || {
                flight.run(1, || {
                    begun.send(()).unwrap();
                    landing.recv().unwrap();
                    Ok(7)
                })
            });
            wait.recv().unwrap();
            let mut rounds = 0;
            let (result, shared) = flight.run_or(
                1,
                || panic!("must not run"),
                || {
                    rounds += 1;
                    if rounds == 3 {
                        land.send(()).unwrap();
                        // By then it is off the map: only who held on to it gets it.
                        while lock(&flight.slots).contains_key(&1) {
                            thread::yield_now();
                        }
                    }
                    true
                },
            );
            assert_eq!((result.unwrap(), shared), (7, true));
            assert!(rounds >= 3);
        });
    }

    #[test]
    fn other_keys_do_not_wait_and_results_are_forgotten() {
        let flight = Flight::new();
        let (outer, shared) = flight.run(1, || Ok(flight.run(2, || Ok(5)).0.unwrap() + 1));
        assert_eq!((outer.unwrap(), shared), (6, false));
        assert_eq!(flight.run(1, || Ok(9)).0.unwrap(), 9);
        assert!(lock(&flight.slots).is_empty());
    }

    #[test]
    fn there_is_room_for_what_nobody_works_on() {
        let flight: Flight<u32, ()> = Flight::new();
        let room = |key, most| flight.has_room_for(&key, most);
        assert!(room(1, 1) && !room(1, 0));
        let (result, _) = flight.run(1, || {
            assert!(!room(1, 9) && !room(2, 1) && room(2, 2));
            Ok(())
        });
        assert!(result.is_ok() && room(1, 1));
    }

    #[test]
    fn errors_are_shared_too() {
        let flight: Flight<u32, ()> = Flight::new();
        let waiter = thread::scope(|scope| {
            let (begun, wait) = mpsc::channel();
            let flight = &flight;
            let flying = scope.spawn(move || {
                flight.run(1, || {
                    begun.send(()).unwrap();
                    await_waiters(flight, 1, 1);
                    Err(Error::corrupt("layer", "is damaged"))
                })
            });
            wait.recv().unwrap();
            let waiter = flight.run(1, || panic!("must not run"));
            assert!(!flying.join().unwrap().1);
            waiter
        });
        assert!(waiter.1);
        assert_eq!(waiter.0.unwrap_err().to_string(), "layer: is damaged");
    }

    #[test]
    fn r7_a_panic_wakes_the_waiters_and_goes_on() {
        let flight: Flight<u32, ()> = Flight::new();
        let (waiter, flying) = thread::scope(|scope| {
            let (begun, wait) = mpsc::channel();
            let flight = &flight;
            let flying = scope.spawn(move || {
                flight
                    .run(1, || {
                        begun.send(()).unwrap();
                        await_waiters(flight, 1, 1);
                        panic!("expected by the test")
                    })
                    .1
            });
            wait.recv().unwrap();
            (flight.run(1, || Ok(())), flying.join())
        });
        assert!(flying.is_err(), "the panic reaches its own caller");
        assert!(waiter.1);
        assert_eq!(waiter.0.unwrap_err().kind(), ErrorKind::Environment);
        assert!(flight.run(1, || Ok(())).0.is_ok(), "the key is free again");
    }
}
