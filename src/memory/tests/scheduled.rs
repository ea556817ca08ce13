//! The same files once more, with the locks of `shuttle`: it runs a test again and again, and decides
//! at every lock and every wait which thread goes on. A schedule in which a thread waits for ever, or
//! two do what one alone may do, is found by trying, and printed so that it can be run again.
//!
//! Each test tries [`SCHEDULES`] of them; `MODELOCI_TEST_SCHEDULES=100000 cargo test --lib scheduled`
//! tries more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;
use shuttle::{Config, Runner};

use crate::error::ErrorKind;
// What the limiter imports as `super::promise`.
use crate::memory::promise::{self, Promise};

/// What the files import as `super::sync`.
mod sync {
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard, PoisonError};
    pub(super) use shuttle::thread::{Scope, scope};

    pub(super) fn start<'scope, F: FnOnce() + Send + 'scope>(
        scope: &'scope Scope<'scope, '_>,
        work: F,
    ) -> bool {
        scope.spawn(work);
        true
    }
}

#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
#[path = "../admission.rs"]
mod admission;
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
#[path = "../flight.rs"]
mod flight;
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
#[path = "../limiter.rs"]
mod limiter;
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
#[path = "../shared_work.rs"]
mod shared_work;
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
#[path = "../turns.rs"]
mod turns;

use admission::{Frontier, Live, MOST};
use flight::Flight;
use limiter::{Grant, Limiter, Reclaim, Term};
use shared_work::{Help, Helpers, together};
use turns::Turns;

/// Schedules of each test: half of them at random, half with few changes of thread at the worst
/// moments (probabilistic concurrency testing).
const SCHEDULES: usize = 2_000;

/// Runs a test under many schedules.
fn in_any_order(test: impl Fn() + Send + Sync + 'static) {
    let asked = std::env::var("MODELOCI_TEST_SCHEDULES").ok();
    let schedules = asked.map_or(SCHEDULES, |n| n.parse().unwrap());
    let (test, half) = (Arc::new(test), schedules.div_ceil(2));
    let again = Arc::clone(&test);
    Runner::new(RandomScheduler::new(half), Config::new()).run(move || test());
    Runner::new(PctScheduler::new(3, half), Config::new()).run(move || again());
}

/// How many are in a place at once, and the most there were.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
    came: AtomicUsize,
}

impl Crowd {
    /// Stays for a while.
    fn stay(&self) {
        self.came.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        thread::yield_now();
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

#[test]
fn r10_one_works_per_key_and_all_get_its_result() {
    in_any_order(|| {
        let flight: Arc<Flight<u32, usize>> = Arc::default();
        let crowds: [Arc<Crowd>; 2] = Default::default();
        let callers = (0..5).map(|caller| {
            let (flight, crowds) = (Arc::clone(&flight), crowds.clone());
            thread::spawn(move || {
                let key = caller % 2;
                let mut idle = 2;
                let work = || {
                    crowds[key as usize].stay();
                    Ok(crowds[key as usize].came())
                };
                let (result, shared) = flight.run_or(key, work, || {
                    thread::yield_now();
                    idle -= 1;
                    idle > 0
                });
                (key, result.unwrap(), shared)
            })
        });
        let callers: Vec<_> = callers.collect();
        let mut own = [0; 2];
        for caller in callers {
            let (key, result, shared) = caller.join().unwrap();
            let runs = crowds[key as usize].came();
            assert!((1..=runs).contains(&result), "a result of the key's own");
            own[key as usize] += usize::from(!shared);
        }
        for (crowd, own) in crowds.iter().zip(own) {
            assert_eq!((crowd.most(), crowd.came()), (1, own));
        }
        assert_eq!((flight.callers(&0), flight.callers(&1)), (None, None));
    });
}

#[test]
fn r7_a_panic_leaves_nobody_waiting() {
    in_any_order(|| {
        let flight: Arc<Flight<u32, u32>> = Arc::default();
        let callers = (0..4).map(|caller| {
            let flight = Arc::clone(&flight);
            thread::spawn(move || {
                let work = || match caller {
                    0 => panic!("expected by the test"),
                    _ => Ok(caller),
                };
                catch_unwind(AssertUnwindSafe(|| flight.run(7, work)))
            })
        });
        let callers: Vec<_> = callers.collect();
        for caller in callers {
            match caller.join().unwrap() {
                Err(_) => {}
                Ok((Ok(result), _)) => assert_ne!(result, 0),
                Ok((Err(error), shared)) => {
                    assert!(shared && error.kind() == ErrorKind::Environment);
                }
            }
        }
        assert_eq!(flight.callers(&7), None, "the key is free again");
    });
}

#[test]
fn turns_are_never_more_than_there_are_and_none_is_lost() {
    in_any_order(|| {
        let turns = Arc::new(Turns::new(2));
        let crowd = Arc::new(Crowd::default());
        let all = (0..5).map(|_| {
            let (turns, crowd) = (Arc::clone(&turns), Arc::clone(&crowd));
            thread::spawn(move || {
                let turn = turns.take();
                crowd.stay();
                drop(turn);
                drop(turns.take());
            })
        });
        let all: Vec<_> = all.collect();
        for one in all {
            one.join().unwrap();
        }
        assert!(crowd.most() <= 2 && crowd.came() == 5);
        assert_eq!(turns.waiting(), 0);
    });
}

/// Parts of units that are kept until somebody wants them: a cache.
#[derive(Default)]
struct Cache(sync::Mutex<Vec<Grant>>);

impl Reclaim for Cache {
    fn reclaim(&self, _: u64) -> bool {
        let one = self.0.lock().unwrap().pop();
        one.is_some()
    }
}

#[test]
fn r16_memory_is_never_more_than_there_is_and_nobody_waits_for_ever() {
    in_any_order(|| {
        let promise = Promise::new(16 << 20, 2, 0);
        let limiter = Limiter::new(promise, Duration::ZERO);
        let cache = Arc::<Cache>::default();
        let giver: Arc<dyn Reclaim> = Arc::<Cache>::clone(&cache);
        limiter.reclaims_from(vec![Arc::downgrade(&giver)]);
        let limit = limiter.limit();
        let workers = (0..4u64).map(|n| {
            let (limiter, cache) = (Arc::clone(&limiter), Arc::clone(&cache));
            thread::spawn(move || {
                for round in 0..2 {
                    // All of it, most, some, or what is small.
                    let all = [limit, limit / 8 * 5, limit / 8 * 3, 4 << 20];
                    let bytes = all[((n + round) % 4) as usize];
                    let mut unit = limiter.take(bytes, Term::Short, "a test").unwrap();
                    assert!(limiter.taken() <= limit);
                    if n == 1 {
                        // A decoder that finds out that it needs more.
                        unit.grow(limit / 4);
                    }
                    let part = unit.part(bytes / 2);
                    cache.0.lock().unwrap().push(part);
                    assert!(limiter.taken() <= limit);
                }
            })
        });
        let workers: Vec<_> = workers.collect();
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(limiter.counts(), (0, 0));
        while limiter.reclaim(1) {}
        assert_eq!(limiter.taken(), 0);
    });
}

#[test]
fn r16_a_small_one_gets_on_beside_passes_that_work_and_wait_and_all_of_them_do() {
    in_any_order(|| {
        let promise = Promise::new(16 << 20, 2, 0);
        let limiter = Limiter::new(promise, Duration::ZERO);
        let cache = Arc::<Cache>::default();
        let giver: Arc<dyn Reclaim> = Arc::<Cache>::clone(&cache);
        limiter.reclaims_from(vec![Arc::downgrade(&giver)]);
        let (limit, room) = (limiter.limit(), limiter.room(Term::Long));
        let small = Arc::new(AtomicUsize::new(2));
        let ended = Arc::new((sync::Mutex::new(()), sync::Condvar::new()));
        // It works for as long as there is anything small to be done.
        let pass = limiter.take(room - (8 << 20), Term::Long, "a pass");
        let passes = (0..2).map(|n| {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || {
                // The second is a large chunk, that needs the share too.
                let (bytes, term) = [(room, Term::Long), (limit, Term::Short)][n];
                let _unit = limiter.take(bytes, term, "another").unwrap();
                assert!(limiter.taken() <= limit);
            })
        });
        let passes: Vec<_> = passes.collect();
        let readers = (0..2).map(|_| {
            let (limiter, cache) = (Arc::clone(&limiter), Arc::clone(&cache));
            let (small, ended) = (Arc::clone(&small), Arc::clone(&ended));
            thread::spawn(move || {
                for mib in [2, 5, 1] {
                    let bytes = mib << 20;
                    let mut unit = limiter.take(bytes, Term::Short, "a chunk").unwrap();
                    let part = unit.part(bytes / 2);
                    cache.0.lock().unwrap().push(part);
                    assert!(limiter.taken() <= limit);
                }
                let _lock = ended.0.lock().unwrap();
                small.fetch_sub(1, Ordering::SeqCst);
                ended.1.notify_all();
            })
        });
        let readers: Vec<_> = readers.collect();
        let mut lock = ended.0.lock().unwrap();
        while small.load(Ordering::SeqCst) > 0 {
            lock = ended.1.wait(lock).unwrap();
        }
        drop((lock, pass));
        for one in passes.into_iter().chain(readers) {
            one.join().unwrap();
        }
        assert_eq!(limiter.counts(), (0, 0));
        while limiter.reclaim(1) {}
        assert_eq!(limiter.taken(), 0);
    });
}

/// A decoder that works, and does not stand still.
#[derive(Default)]
struct Busy {
    closed: AtomicBool,
}

impl Frontier for Busy {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn send_home(&self) -> bool {
        false
    }
}

#[test]
fn r15_layers_are_let_in_in_the_order_of_coming() {
    in_any_order(|| {
        let live = Arc::<Live>::default();
        let busy = |layer: &Arc<Busy>| Arc::<Busy>::clone(layer) as Arc<dyn Frontier>;
        let mut places: Vec<_> = (0..MOST)
            .map(|_| live.admit(&busy(&Arc::default())).unwrap())
            .collect();
        let let_in = Arc::<sync::Mutex<Vec<usize>>>::default();
        let mut layers = Vec::new();
        let threads = (0..4).map(|number| {
            let layer = Arc::<Busy>::default();
            let frontier = busy(&layer);
            layers.push(layer);
            let (live, inside) = (Arc::clone(&live), Arc::clone(&let_in));
            let before = live.line();
            let other = Arc::clone(&live);
            let one = thread::spawn(move || {
                let place = live.admit(&frontier);
                if place.is_some() {
                    inside.lock().unwrap().push(number);
                }
                // Who is in stays, so that a place is free only when the test gives one back.
                std::mem::forget(place);
            });
            while other.line() == before {
                thread::yield_now();
            }
            one
        });
        let threads: Vec<_> = threads.collect();
        // One that nobody reads any more keeps nobody waiting.
        layers[1].closed.store(true, Ordering::SeqCst);
        live.wake();
        for order in [&[0][..], &[0, 2], &[0, 2, 3]] {
            drop(places.pop());
            while let_in.lock().unwrap().len() < order.len() {
                thread::yield_now();
            }
            assert_eq!(*let_in.lock().unwrap(), order);
        }
        for one in threads {
            one.join().unwrap();
        }
        assert!(!live.is_wanted());
    });
}

/// A number of pieces, of which everybody who helps takes one after the other.
struct Pieces {
    left: AtomicUsize,
    crowd: Crowd,
}

impl Help for Pieces {
    fn help(&self) {
        let take = |left: usize| left.checked_sub(1);
        let left = &self.left;
        while left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
        {
            self.crowd.stay();
        }
    }
}

#[test]
fn r19_what_is_offered_is_done_once_by_no_more_than_may_and_everybody_ends() {
    in_any_order(|| {
        let all: [_; 3] = [4, 1, 0].map(|pieces| {
            Arc::new(Pieces {
                left: AtomicUsize::new(pieces),
                crowd: Crowd::default(),
            })
        });
        let turn = AtomicUsize::new(0);
        // Each thread has one thing in hand, of which all is done when it takes its offer back; the last
        // one finds nothing to be done in its own.
        let work = |helpers: &Helpers| {
            let own = &all[turn.fetch_add(1, Ordering::SeqCst)];
            let what: Arc<dyn Help> = Arc::<Pieces>::clone(own);
            let _offered = helpers.offer(what, 1);
            own.help();
        };
        together(3, work, work);
        for (one, pieces) in all.iter().zip([4, 1, 0]) {
            assert_eq!(one.left.load(Ordering::SeqCst), 0);
            assert_eq!(one.crowd.came(), pieces);
            assert!(one.crowd.most() <= 2, "who has it in hand, and one more");
        }
    });
}

#[test]
fn r19_who_is_done_waits_for_whoever_may_still_ask_for_help() {
    in_any_order(|| {
        let pieces = Arc::new(Pieces {
            left: AtomicUsize::new(2),
            crowd: Crowd::default(),
        });
        let turn = AtomicUsize::new(0);
        let work = |helpers: &Helpers| {
            if turn.fetch_add(1, Ordering::SeqCst) == 0 {
                // It asks when the other one may have ended; the helper is heard of for as long as it
                // has work of its own.
                thread::yield_now();
                let what: Arc<dyn Help> = Arc::<Pieces>::clone(&pieces);
                let _offered = helpers.offer(what, 1);
                while pieces.left.load(Ordering::SeqCst) > 0 {
                    thread::yield_now();
                }
            }
        };
        together(2, work, work);
        assert_eq!(pieces.crowd.came(), 2, "the other one alone did it");
    });
}
