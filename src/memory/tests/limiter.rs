//! Memory is granted in the order of coming, to small units beside large ones, never too much of it,
//! and everybody gets on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use modeloci_test_support::random::Random;

use crate::memory::limiter::{Grant, Limiter, Reclaim, Term, Unit};
use crate::memory::promise::{self, MIB, Promise, SHARE};

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
                let mut random = Random(n + 1);
                for round in 0..100 {
                    let bytes = match round % 10 {
                        0 => limit - random.next() % MIB,
                        _ => random.next() % (4 * MIB),
                    };
                    let (bytes, term) = match n % 4 {
                        0 => (bytes.min(limiter.room(Term::Long)), Term::Long),
                        _ => (bytes, Term::Short),
                    };
                    let mut unit = limiter.take(bytes, term, "a test").unwrap();
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
fn r16_of_large_ones_the_oldest_goes_first() {
    let limiter = limiter();
    let limit = limiter.limit();
    let first = limiter.take(limit / 2, Term::Long, "first").unwrap();
    let large_has_begun = AtomicBool::new(false);
    thread::scope(|scope| {
        let large = scope.spawn(|| {
            let bytes = limiter.room(Term::Long);
            let unit = limiter.take(bytes, Term::Long, "large").unwrap();
            large_has_begun.store(true, Ordering::SeqCst);
            unit
        });
        until_waiting(&limiter, 1);
        // They would fit, and have to wait all the same.
        assert!(limiter.try_take(SHARE + 1).is_none());
        assert!(limiter.more(1).is_none());
        let next = scope.spawn(|| {
            let _unit = limiter.take(SHARE + 1, Term::Short, "next").unwrap();
            assert!(large_has_begun.load(Ordering::SeqCst));
        });
        until_waiting(&limiter, 2);
        drop(first);
        drop(large.join().unwrap());
        next.join().unwrap();
    });
}

fn until_waiting(limiter: &Limiter, count: usize) {
    while limiter.counts().1 < count {
        thread::yield_now();
    }
}

/// A unit that is taken on another thread, and sent here.
fn take(limiter: &Arc<Limiter>, bytes: u64, term: Term) -> Receiver<Unit> {
    let (limiter, (sender, unit)) = (Arc::clone(limiter), channel());
    thread::spawn(move || drop(sender.send(limiter.take(bytes, term, "a test").unwrap())));
    unit
}

const LONG: Duration = Duration::from_secs(20);
/// Enough for what is wrong to show, most of the time.
const SOON: Duration = Duration::from_millis(50);

#[test]
fn r16_a_small_one_stands_behind_no_pass_that_works_or_waits() {
    let limiter = limiter();
    let room = limiter.room(Term::Long);
    let pass = limiter.take(room, Term::Long, "a pass").unwrap();
    let waiting = take(&limiter, room, Term::Long);
    until_waiting(&limiter, 1);
    // A file's table, its chunks, a span: some at a time, for as long as the pass takes.
    for bytes in [SHARE, MIB, 1, 0, 2 * MIB] {
        let small = take(&limiter, bytes, Term::Short);
        let one = small.recv_timeout(LONG).expect("it waits");
        let other = limiter
            .try_take(SHARE - bytes)
            .expect("there is room for it");
        drop((one, other));
    }
    assert!(waiting.try_recv().is_err());
    drop(pass);
    drop(waiting.recv_timeout(LONG).unwrap());
    assert_eq!((limiter.taken(), limiter.counts()), (0, (0, 0)));
}

#[test]
fn r16_small_ones_that_never_end_do_not_keep_a_large_one_waiting() {
    let limiter = limiter();
    let mut small: VecDeque<_> = std::iter::from_fn(|| limiter.try_take(MIB)).collect();
    assert!(
        small.len() as u64 * MIB > limiter.limit() - MIB,
        "all of it"
    );
    let large = take(&limiter, limiter.room(Term::Long), Term::Long);
    until_waiting(&limiter, 1);
    // For each that ends another one wants to begin, and there would be room for it.
    while small.len() as u64 * MIB > SHARE {
        drop(small.pop_front());
        assert!(limiter.try_take(MIB).is_none(), "it has passed");
    }
    let large = large.recv_timeout(LONG).unwrap();
    // And they go on beside it.
    for _ in 0..10 {
        let next = take(&limiter, MIB, Term::Short);
        drop(small.pop_front());
        small.push_back(next.recv_timeout(LONG).unwrap());
    }
    assert!(limiter.taken() <= limiter.limit());
    drop((large, small));
    assert_eq!((limiter.taken(), limiter.counts()), (0, (0, 0)));
}

#[test]
fn r16_what_needs_the_share_too_waits_for_passes_and_not_for_all_that_is_small() {
    let limiter = limiter();
    let pass = limiter.take(10 * MIB, Term::Long, "a pass").unwrap();
    let whole = take(&limiter, limiter.limit(), Term::Short);
    until_waiting(&limiter, 1);
    // As long as it has to wait for a pass, what is small has not.
    let small = take(&limiter, SHARE, Term::Short);
    let small = small.recv_timeout(LONG).expect("it waits for a pass");
    drop(pass);
    let late = take(&limiter, MIB, Term::Short);
    assert!(
        late.recv_timeout(SOON).is_err(),
        "it keeps the whole waiting"
    );
    drop(small);
    let whole = whole.recv_timeout(LONG).unwrap();
    assert!(late.recv_timeout(SOON).is_err(), "there is nothing for it");
    drop(whole);
    drop(late.recv_timeout(LONG).unwrap());
    assert_eq!((limiter.taken(), limiter.counts()), (0, (0, 0)));
}

#[test]
fn r16_small_ones_have_the_cache_let_go_while_a_large_one_waits() {
    let limiter = limiter();
    let kept = Arc::new(Kept(Mutex::default()));
    let giver: Arc<dyn Reclaim> = Arc::<Kept>::clone(&kept);
    limiter.reclaims_from(vec![Arc::downgrade(&giver)]);
    let room = limiter.room(Term::Long);
    let pass = limiter.take(room - 8 * MIB, Term::Long, "a pass").unwrap();
    let waiting = take(&limiter, room, Term::Long);
    until_waiting(&limiter, 1);
    for _ in 0..100 {
        let small = take(&limiter, MIB, Term::Short);
        let mut unit = small.recv_timeout(LONG).expect("the cache is in its way");
        kept.0.lock().unwrap().push(unit.part(MIB));
        assert!(limiter.taken() <= limiter.limit());
    }
    drop(pass);
    drop(waiting.recv_timeout(LONG).unwrap());
}

#[test]
fn r16_small_ones_get_on_beside_a_pass_also_when_answers_are_kept() {
    let limiter = Limiter::new(Promise::new(16 * MIB, 2, 0), Duration::from_millis(1));
    let answers = limiter.charge(2 * limiter.limit());
    let pass = take(&limiter, limiter.room(Term::Long), Term::Long);
    let pass = pass.recv_timeout(LONG).unwrap();
    for _ in 0..10 {
        let small = take(&limiter, SHARE, Term::Short);
        drop(small.recv_timeout(LONG).unwrap());
    }
    drop((pass, answers));
    assert_eq!(limiter.taken(), 0);
}

#[test]
fn r16_who_keeps_answers_gets_one_at_a_time_and_nobody_waits_for_ever() {
    for patience in [NO_WAIT, Duration::from_millis(1)] {
        let limiter = Limiter::new(Promise::new(16 * MIB, 2, 0), patience);
        let limit = limiter.limit();
        let answers: Vec<_> = (0..5)
            .map(|_| {
                limiter
                    .take(limit / 2, Term::Short, "an answer")
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
    let take = |bytes, term| limiter.take(bytes, term, "layer").map(drop);
    let error = take(limit + 1, Term::Short).unwrap_err().to_string();
    assert!(error.starts_with("layer: needs"), "{error}");
    assert!(error.contains("--cache-size"), "{error}");
    // A pass leaves the share, and names the cache with which it could.
    let error = take(limit - SHARE + 1, Term::Long).unwrap_err().to_string();
    let (_, size) = error.split_once("--cache-size ").expect(&error);
    let size: u64 = size.split_once("MiB").unwrap().0.parse().unwrap();
    let larger = Limiter::new(Promise::new(size * MIB, 2, 0), NO_WAIT);
    assert!(larger.check(limit - SHARE + 1, Term::Long, "").is_ok());
    assert!(take(limit - SHARE, Term::Long).is_ok());
    // Nor with what is kept for good.
    let kept = limiter.keep(MIB).unwrap();
    assert!(take(limit, Term::Short).is_err());
    assert!(take(limit - MIB, Term::Short).is_ok());
    assert!(take(limit - SHARE, Term::Long).is_err());
    assert!(limiter.check(limit - SHARE, Term::Long, "").is_err());
    assert!(take(limit - SHARE - MIB, Term::Long).is_ok());
    assert!(limiter.keep(limit - promise::LARGEST_CHUNK).is_none());
    drop(kept);
    assert!(take(limit, Term::Short).is_ok());
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
