//! Work while others meddle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Does `work` while each of `others` is done again and again by a thread of its own.
///
/// When the work panics, the others end too: a scope waits for its threads, and a failed test
/// would hang instead of failing.
pub fn meanwhile<T, F: FnMut() + Send>(
    others: impl IntoIterator<Item = F>,
    work: impl FnOnce() -> T,
) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for mut other in others {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    other();
                }
            });
        }
        work()
    })
}
