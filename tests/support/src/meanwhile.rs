//! Work while others meddle: races.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};

use crate::random::Random;

/// How often a race is run: `few` times every day, and a thousand times where `MODELOCI_TEST_LONG` is set.
pub fn rounds(few: usize) -> usize {
    match std::env::var_os("MODELOCI_TEST_LONG") {
        Some(_) => 1_000,
        None => few,
    }
}

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

/// Meddles while `work` is done, with pauses of 1 µs, or twice as long, and so on, `pauses` lengths in all.
pub fn while_meddling<T>(
    pauses: usize,
    mut meddle: impl FnMut() + Send,
    work: impl FnOnce() -> T,
) -> T {
    let mut random = Random(1);
    let meddle_and_pause = || {
        meddle();
        let pause = Duration::from_micros(1 << random.below(pauses));
        let began = Instant::now();
        while began.elapsed() < pause {
            std::hint::spin_loop();
        }
    };
    meanwhile([meddle_and_pause], work)
}

/// Exchanges pairs of names without a rest, while `work` is done.
pub fn while_exchanging<T>(pairs: &[(PathBuf, PathBuf)], work: impl FnOnce() -> T) -> T {
    let exchange_all = || {
        for (a, b) in pairs {
            exchange(a, b);
        }
    };
    // Shorter than a step of a run, or longer than all of it, and all between: some runs succeed,
    // and each step meets each state.
    while_meddling(17, exchange_all, work)
}

/// Exchanges what two names stand for. One of them may be missing in this moment, or may not be renamed
/// because something is mounted on it.
pub fn exchange(a: &Path, b: &Path) {
    let _ = rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
}
