use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use crate::error::{Error, ErrorKind};
use crate::memory::flight::Flight;

/// Blocks until `n` callers besides the flying one hold the slot of `key`.
fn await_waiters<V: Clone>(flight: &Flight<u32, V>, key: u32, n: usize) {
    while flight.callers(&key) != Some(n + 1) {
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
                    while flight.callers(&1).is_some() {
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
    assert_eq!((flight.callers(&1), flight.callers(&2)), (None, None));
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
