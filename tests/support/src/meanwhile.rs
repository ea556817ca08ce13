//! Work while others meddle: races.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// How long a race goes on for an end that it has not come to.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a race [`rounds`] times, and on until it has come to each of these ends; `run` says to which it came.
/// Returns how often it came to each end.
///
/// On a busy machine nobody knows who gets a turn when, and a few runs may all come to the same end. What
/// fails is a race that does not come to one of its ends in minutes.
#[track_caller]
pub fn race(
    few: usize,
    ends: &[&'static str],
    mut run: impl FnMut(usize) -> &'static str,
) -> BTreeMap<&'static str, usize> {
    let began = Instant::now();
    let mut came = BTreeMap::new();
    for round in 0.. {
        let all = ends.iter().all(|end| came.contains_key(end));
        if round >= rounds(few) {
            if all {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "of {ends:?} not all came in {round} runs: {came:?}"
            );
        }
        *came.entry(run(round)).or_default() += 1;
    }
    came
}

/// Tells threads that it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
/// Each race of a process has a sequence of its own: races of one run meet different moments of it.
pub fn while_meddling<T>(
    pauses: usize,
    mut meddle: impl FnMut() + Send,
    work: impl FnOnce() -> T,
) -> T {
    static RACES: AtomicU64 = AtomicU64::new(1);
    let mut random = Random(RACES.fetch_add(1, Ordering::Relaxed));
    let stop = AtomicBool::new(false);
    let meddle_and_pause = || {
        meddle();
        pause(Duration::from_micros(1 << random.below(pauses)), &stop);
    };
    meanwhile([meddle_and_pause], || {
        let _stop = Stop(&stop);
        work()
    })
}

/// Does nothing for so long, or until told to stop. What is too short to sleep is spun away; a long pause
/// leaves the processor to whoever works.
fn pause(length: Duration, stop: &AtomicBool) {
    const STEP: Duration = Duration::from_millis(1);
    let began = Instant::now();
    while began.elapsed() < length && !stop.load(Ordering::Relaxed) {
        match length < STEP {
            true => std::hint::spin_loop(),
            false => thread::sleep(STEP),
        }
    }
}

/// Exchanges pairs of names again and again, while `work` is done in this process.
pub fn while_exchanging<T>(pairs: &[(PathBuf, PathBuf)], work: impl FnOnce() -> T) -> T {
    // Shorter than a step of it, or longer than all of it, and all between: some runs succeed, and each
    // step meets each state.
    while_meddling(17, || exchange_all(pairs), work)
}

/// The same while `work` runs commands, which take longer: with pauses of up to half a second.
pub fn while_exchanging_slowly<T>(pairs: &[(PathBuf, PathBuf)], work: impl FnOnce() -> T) -> T {
    while_meddling(20, || exchange_all(pairs), work)
}

fn exchange_all(pairs: &[(PathBuf, PathBuf)]) {
    for (a, b) in pairs {
        exchange(a, b);
    }
}

/// Exchanges what two names stand for. One of them may be missing in this moment, or may not be renamed
/// because something is mounted on it.
pub fn exchange(a: &Path, b: &Path) {
    let _ = rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
}
