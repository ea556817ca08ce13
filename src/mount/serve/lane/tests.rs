use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// Says that it runs, and goes on when it may.
struct Task {
    name: (u64, u64),
    begun: Sender<(u64, u64)>,
    may: Arc<Mutex<Receiver<()>>>,
    over: bool,
}

impl Job for Task {
    fn run(self) {
        self.begun.send(self.name).unwrap();
        let _ = self.may.lock().unwrap().recv();
        assert!(!self.over, "expected by the test");
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

/// A lane, and what the test has of it.
struct Scene {
    lane: Arc<Lane<Task>>,
    sender: Sender<(u64, u64)>,
    begun: Receiver<(u64, u64)>,
    may: Arc<Mutex<Receiver<()>>>,
    allow: Sender<()>,
}

impl Scene {
    fn new(threads: usize, for_one: usize, only_before: bool) -> Scene {
        let limits = Limits {
            threads,
            for_one,
            spare: 0,
            only_before,
        };
        Scene::with(limits)
    }

    fn with(limits: Limits) -> Scene {
        let (sender, begun) = channel();
        let (allow, may) = channel();
        Scene {
            lane: Lane::new("test", limits),
            sender,
            begun,
            may: Arc::new(Mutex::new(may)),
            allow,
        }
    }

    fn push(&self, file: u64, offset: u64, over: bool) {
        let task = Task {
            name: (file, offset),
            begun: self.sender.clone(),
            may: Arc::clone(&self.may),
            over,
        };
        assert!(self.lane.push(file, offset, task).is_ok());
    }

    fn next(&self) -> (u64, u64) {
        self.begun.recv_timeout(LONG).unwrap()
    }

    fn nothing_runs(&self) {
        let soon = self.begun.recv_timeout(Duration::from_millis(50));
        assert!(soon.is_err(), "{soon:?}");
    }

    fn until_empty(&self) {
        let start = Instant::now();
        while !self.lane.is_empty() {
            assert!(start.elapsed() < LONG, "something stays behind");
            thread::yield_now();
        }
    }
}

#[test]
fn r15_files_take_turns_and_their_reads_go_in_the_order_of_offsets() {
    let scene = Scene::new(1, 1, false);
    scene.push(1, 0, false);
    assert_eq!(scene.next(), (1, 0));
    for offset in (1..=50).rev() {
        scene.push(1, offset, false);
    }
    for file in 2..=4 {
        for offset in (1..=2).rev() {
            scene.push(file, offset, false);
        }
    }
    let mut order = Vec::new();
    for _ in 0..56 {
        scene.allow.send(()).unwrap();
        order.push(scene.next());
    }
    scene.allow.send(()).unwrap();
    // Whoever has many reads waits like those who have few.
    assert_eq!(
        order[..7],
        [(2, 1), (3, 1), (4, 1), (1, 1), (2, 2), (3, 2), (4, 2)]
    );
    assert!(
        order[7..]
            .iter()
            .copied()
            .eq((2..=50).map(|offset| (1, offset)))
    );
    scene.until_empty();
}

#[test]
fn there_are_no_more_threads_than_allowed() {
    let scene = Scene::new(3, 2, false);
    for offset in 0..5 {
        scene.push(1, offset, false);
    }
    let mut first = [scene.next(), scene.next()];
    first.sort_unstable();
    assert_eq!(first, [(1, 0), (1, 1)]);
    scene.nothing_runs();
    for file in 2..5 {
        scene.push(file, 0, false);
    }
    assert_eq!(scene.next(), (2, 0));
    scene.nothing_runs();
    for _ in 0..8 {
        scene.allow.send(()).unwrap();
    }
    for _ in 0..5 {
        scene.next();
    }
    scene.until_empty();
}

#[test]
fn r15_some_threads_are_spared_for_what_has_none() {
    let scene = Scene::with(Limits {
        threads: 5,
        for_one: 3,
        spare: 2,
        only_before: false,
    });
    for offset in 0..10 {
        scene.push(1, offset, false);
    }
    let mut first = [scene.next(), scene.next(), scene.next()];
    first.sort_unstable();
    assert_eq!(first, [(1, 0), (1, 1), (1, 2)]);
    for offset in 0..10 {
        scene.push(2, offset, false);
    }
    assert_eq!(scene.next(), (2, 0));
    scene.nothing_runs();
    scene.push(3, 0, false);
    assert_eq!(scene.next(), (3, 0));
    scene.push(4, 0, false);
    scene.nothing_runs();
    // Whichever ends: the other two have a thread.
    scene.allow.send(()).unwrap();
    assert_eq!(scene.next(), (4, 0));
    for _ in 0..21 {
        scene.allow.send(()).unwrap();
    }
    let mut rest: Vec<_> = (0..16).map(|_| scene.next()).collect();
    rest.sort_unstable();
    let all = (3..10).map(|n| (1, n)).chain((1..10).map(|n| (2, n)));
    assert!(rest.into_iter().eq(all));
    scene.until_empty();
}

#[test]
fn only_what_lies_before_gets_another_thread() {
    let scene = Scene::new(8, 3, true);
    scene.push(7, 1_000, false);
    assert_eq!(scene.next(), (7, 1_000));
    scene.push(7, 2_000, false);
    scene.push(7, 1_000, false);
    scene.nothing_runs();
    for offset in [500, 10] {
        scene.push(7, offset, false);
        assert_eq!(scene.next(), (7, offset));
    }
    scene.push(7, 5, false);
    scene.nothing_runs();
    for _ in 0..6 {
        scene.allow.send(()).unwrap();
    }
    assert_eq!(scene.next(), (7, 5));
    assert_eq!([scene.next(), scene.next()], [(7, 1_000), (7, 2_000)]);
    scene.until_empty();
}

#[test]
fn r7_a_panic_ends_no_thread_that_others_wait_for() {
    let scene = Scene::new(1, 1, false);
    for offset in 0..10 {
        scene.push(1, offset, true);
        scene.allow.send(()).unwrap();
        assert_eq!(scene.next(), (1, offset));
    }
    scene.push(1, 11, false);
    scene.allow.send(()).unwrap();
    assert_eq!(scene.next(), (1, 11));
    scene.until_empty();
}

#[test]
fn what_is_over_leaves_nothing_behind() {
    let scene = Scene::new(1, 1, false);
    scene.push(1, 0, false);
    assert_eq!(scene.next(), (1, 0));
    for file in 0..1_000 {
        scene.push(file, 1, file != 500);
    }
    scene.lane.prune();
    scene.allow.send(()).unwrap();
    assert_eq!(scene.next(), (500, 1));
    scene.allow.send(()).unwrap();
    scene.until_empty();
    scene.push(3, 0, false);
    assert_eq!(scene.next(), (3, 0));
    scene.push(3, 1, false);
    scene.lane.close();
    assert!(scene.lane.is_empty());
    scene.allow.send(()).unwrap();
    scene.nothing_runs();
}
