//! Memory is granted in the order of coming, never too much of it, and everybody gets on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::memory::limiter::{Grant, Limiter, Reclaim};
use crate::memory::promise::{self, MIB, Promise};

const NO_WAIT: Duration = Duration::ZERO;

fn limiter() -> Arc<Limiter> {
    Limiter::new(Promise::new(16 * MIB, 2, 0), NO_WAIT)
}

/// Something that others can take: as a cache keeps it.
struct Kept(Mutex<Vec<Grant>>);

impl Reclaim for Kept {
    fn reclaim(&self, _: u64) -> bool {
        let one = self.0.lock().unwrap().pop();
        one.is_some()
    }
}

fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

#[test]
fn r16_many_at_once_never_take_more_than_there_is() {
    let limiter = limiter();
    let kept = Arc::new(Kept(Mutex::default()));
    let giver: Arc<dyn Reclaim> = Arc::<Kept>::clone(&kept);
    limiter.reclaims_from(vec![Arc::downgrade(&giver)]);
    let limit = limiter.limit();
    thread::scope(|scope| {
        for n in 0..32u64 {
            let (limiter, kept) = (&limiter, &kept);
            scope.spawn(move || {
                let mut state = n;
                for round in 0..100 {
                    let bytes = match round % 10 {
                        0 => limit - random(&mut state) % MIB,
                        _ => random(&mut state) % (4 * MIB),
                    };
                    let mut unit = limiter.take(bytes, "a test").unwrap();
                    assert!(limiter.taken() <= limit);
                    thread::yield_now();
                    // What a decode leaves in a cache.
                    let part = unit.part(bytes / 2);
                    kept.0.lock().unwrap().push(part);
                }
            });
        }
    });
    kept.0.lock().unwrap().clear();
    assert_eq!(limiter.taken(), 0);
    assert_eq!(limiter.counts(), (0, 0));
}

#[test]
fn r16_the_oldest_goes_first_whatever_comes_later() {
    let limiter = limiter();
    let limit = limiter.limit();
    let first = limiter.take(limit / 2, "first").unwrap();
    let large_has_begun = AtomicBool::new(false);
    thread::scope(|scope| {
        let large = scope.spawn(|| {
            let unit = limiter.take(limit, "large").unwrap();
            large_has_begun.store(true, Ordering::SeqCst);
            unit
        });
        while !limiter.is_short() {
            thread::yield_now();
        }
        // It would fit, and has to wait all the same.
        assert!(limiter.try_take(1).is_none());
        let small = scope.spawn(|| {
            let _unit = limiter.take(1, "small").unwrap();
            assert!(large_has_begun.load(Ordering::SeqCst));
        });
        while limiter.counts().1 < 2 {
            thread::yield_now();
        }
        drop(first);
        drop(large.join().unwrap());
        small.join().unwrap();
    });
}

#[test]
fn r16_who_keeps_answers_gets_one_at_a_time_and_nobody_waits_for_ever() {
    for patience in [NO_WAIT, Duration::from_millis(1)] {
        let limiter = Limiter::new(Promise::new(16 * MIB, 2, 0), patience);
        let limit = limiter.limit();
        let answers: Vec<_> = (0..5)
            .map(|_| {
                limiter
                    .take(limit / 2, "an answer")
                    .unwrap()
                    .part(limit / 2)
            })
            .collect();
        assert!(limiter.taken() > 2 * limit);
        drop(answers);
        assert_eq!(limiter.taken(), 0);
    }
}

#[test]
fn r16_what_can_never_fit_is_an_error_that_names_what_would_do() {
    let limiter = limiter();
    let limit = limiter.limit();
    let error = limiter.take(limit + 1, "layer").err().unwrap().to_string();
    assert!(error.starts_with("layer: needs"), "{error}");
    assert!(error.contains("--cache-size"), "{error}");
    // Nor with what is kept for good.
    let kept = limiter.keep(MIB).unwrap();
    assert!(limiter.take(limit, "layer").is_err());
    assert!(limiter.take(limit - MIB, "layer").is_ok());
    assert!(limiter.keep(limit - promise::LARGEST_CHUNK).is_none());
    drop(kept);
    assert!(limiter.take(limit, "layer").is_ok());
    limiter.settle(MIB, "tree").unwrap();
    assert_eq!(limiter.limit(), limit - MIB);
    let error = limiter.settle(60 * MIB, "tree").unwrap_err().to_string();
    assert!(error.contains("--cache-size"), "{error}");
}

#[test]
fn r16_bytes_are_granted_as_long_as_anybody_holds_them() {
    let limiter = limiter();
    let bytes = limiter.charge(1000).hold(vec![7; 1000]);
    let slice = bytes.slice(10..20);
    drop(bytes);
    assert_eq!((limiter.taken(), &slice[..]), (1000, &[7; 10][..]));
    drop(slice);
    assert_eq!(limiter.taken(), 0);
}
