use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::memory::shared_work::{Help, Helpers, together};

/// A number of things to do, one at a time.
struct Things {
    left: AtomicUsize,
    done_by: Mutex<HashSet<ThreadId>>,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

impl Things {
    fn new(number: usize) -> Arc<Things> {
        Arc::new(Things {
            left: AtomicUsize::new(number),
            done_by: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }
}

impl Help for Things {
    fn help(&self) {
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(at_once, Ordering::SeqCst);
        let take = |left: usize| left.checked_sub(1);
        while self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
        {
            let id = thread::current().id();
            self.done_by.lock().unwrap().insert(id);
            thread::sleep(Duration::from_millis(1));
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

fn in_hand(helpers: &Helpers, things: &Arc<Things>, most: usize) {
    let offered: Arc<dyn Help> = Arc::<Things>::clone(things);
    let _offered = helpers.offer(offered, most);
    things.help();
}

#[test]
fn r19_who_has_done_his_own_helps_and_no_more_than_may() {
    let (large, small) = (Things::new(200), Things::new(5));
    let turn = AtomicUsize::new(0);
    let work = |helpers: &Helpers| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => in_hand(helpers, &large, 2),
        1 => in_hand(helpers, &small, 2),
        _ => {}
    };
    together(6, work, work);
    assert_eq!(large.left.load(Ordering::SeqCst), 0);
    assert_eq!(small.left.load(Ordering::SeqCst), 0);
    assert!(large.done_by.lock().unwrap().len() > 1, "nobody helped");
    assert!(large.most.load(Ordering::SeqCst) <= 3);
}

#[test]
fn r19_one_alone_needs_nobody() {
    let things = Things::new(10);
    let own = |helpers: &Helpers| {
        in_hand(helpers, &things, 5);
        helpers.others()
    };
    assert_eq!(together(1, own, |_| {}), 0);
    assert_eq!(things.done_by.lock().unwrap().len(), 1);
    in_hand(&Helpers::default(), &Things::new(3), 5);
}

#[test]
fn r7_one_that_panics_is_waited_for_by_nobody() {
    let panics = |_: &Helpers| panic!("expected by the test");
    let all = std::panic::AssertUnwindSafe(|| together(3, |_| 1, panics));
    assert!(std::panic::catch_unwind(all).is_err());
}
