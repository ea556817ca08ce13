//! Warming a model in the background: what loaders want first, first.
//!
//! Headers of safetensors and GGUF files and small files come first, then the weights in the order
//! of their paths. Everything is read through the model, verified, and put where the kernel keeps
//! what it was answered: in its page cache. A loader that comes later finds it there, and needs this
//! process no more. Readers come first: while one waits, nothing is prefetched; and what the kernel
//! has asked for meanwhile is left out. It ends where it would take more than half of the memory that
//! is available, by then.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::{INodeNo, Notifier};

use super::adapter::MAX_REQUEST_BYTES;
use super::memory;
use super::requests::Shared;
use crate::error::{Error, Result};
use crate::model::{Inode, Model};

/// Bytes at a time: what the kernel asks for at most, and all that a reader who comes meanwhile may
/// wait for.
const STEP_BYTES: u64 = MAX_REQUEST_BYTES as u64;
/// How long after the last read prefetching goes on.
const QUIET: Duration = Duration::from_millis(1);
/// Threads that prefetch; fewer where there are fewer processors, one of which is the readers'.
const MAX_THREADS: usize = 4;
/// A file up to this size is small.
const SMALL_BYTES: u64 = 4 << 20;
/// Prefetched bytes after which memory is looked at again.
const CHECKED_BYTES: u64 = 64 << 20;
/// Bytes of the start of a file of weights that hold its header.
const HEAD_BYTES: u64 = 1 << 20;
/// Reads of fewer bytes say little about the chunk that they touch.
const MIN_ASKED_BYTES: u32 = MAX_REQUEST_BYTES / 4;

/// A range of one file to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    inode: Inode,
    start: u64,
    end: u64,
}

/// A running prefetch; dropping it ends it soon.
pub(super) struct Prefetch(Arc<AtomicBool>);

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Which parts of the files that are prefetched the kernel has asked for.
pub(super) struct Asked(HashMap<Inode, Box<[AtomicBool]>>);

impl Asked {
    fn about(pieces: &[Piece]) -> Asked {
        let mut ends = HashMap::new();
        for piece in pieces {
            let end: &mut u64 = ends.entry(piece.inode).or_default();
            *end = piece.end.max(*end);
        }
        let steps = |end: u64| (0..end.div_ceil(STEP_BYTES)).map(|_| AtomicBool::new(false));
        let ends = ends.into_iter();
        Asked(
            ends.map(|(inode, end)| (inode, steps(end).collect()))
                .collect(),
        )
    }

    fn step(&self, inode: Inode, offset: u64) -> Option<&AtomicBool> {
        let steps = self.0.get(&inode)?;
        steps.get(usize::try_from(offset / STEP_BYTES).ok()?)
    }

    /// Takes note of a read. One that lies in two steps counts for the one that has more of it.
    pub(super) fn note(&self, inode: Inode, offset: u64, size: u32) {
        let middle = offset.saturating_add(u64::from(size / 2));
        if size >= MIN_ASKED_BYTES
            && let Some(step) = self.step(inode, middle)
        {
            step.store(true, Ordering::Relaxed);
        }
    }

    fn has(&self, inode: Inode, offset: u64) -> bool {
        self.step(inode, offset)
            .is_some_and(|step| step.load(Ordering::Relaxed))
    }
}

/// Starts prefetching.
pub(super) fn start(shared: Arc<Shared>, kernel: Notifier) -> Result<Prefetch> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::Builder::new()
        .name("prefetch".into())
        .spawn(move || run(&shared, &kernel, &stopped))
        .map_err(Error::io("start", "a thread"))?;
    Ok(Prefetch(stop))
}

fn run(shared: &Shared, kernel: &Notifier, stop: &AtomicBool) {
    let pieces = plan(&shared.model, bound());
    shared.expect_reads_of(Asked::about(&pieces));
    let work = Work::new(pieces);
    let all = shared.model.total_bytes();
    log::info!("prefetching {} of {all} bytes", work.total);
    make_known(shared, stop, &work);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let in_use = || shared.in_use(QUIET);
    let was_asked = |step: Piece| {
        let asked = shared.asked();
        asked.is_some_and(|asked| asked.has(step.inode, step.start))
    };
    let put = |step: Piece| match was_asked(step) {
        true => Ok(()),
        false => put(shared, kernel, step),
    };
    let fill = || fill(&work, stop, in_use, bound, put);
    thread::scope(|scope| {
        for number in 1..cores.saturating_sub(1).clamp(1, MAX_THREADS) {
            let name = format!("prefetch-{number}");
            // Without the others it takes longer.
            let _ = thread::Builder::new().name(name).spawn_scoped(scope, fill);
        }
        fill();
    });
    let done = work.done.load(Ordering::Relaxed);
    if stop.load(Ordering::Relaxed) {
        log::debug!("prefetch stopped after {done} bytes");
    } else if work.total < all || work.is_short.load(Ordering::Relaxed) {
        log::info!(
            "prefetch is complete with {done} of {all} bytes: more would be over half of the memory \
             that is available"
        );
    } else {
        log::info!("prefetch is complete");
    }
}

/// Most bytes that may be in the page cache because of this.
fn bound() -> u64 {
    memory::available() / 2
}

/// Looks at every file, because the kernel keeps content only of those that it knows. Who looks at one
/// keeps the mount busy for that moment; so all of it is done at once.
fn make_known(shared: &Shared, stop: &AtomicBool, work: &Work) {
    for inode in work.files() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Some(file) = shared.model.file(inode) {
            let path = shared.mountpoint.join(file.path.as_str());
            if let Err(errno) = rustix::fs::stat(&path) {
                log::debug!("prefetch: {}: {errno}", file.path);
            }
        }
    }
}

/// Takes one step after the other, with `put`, until there is none, or `stop`; not while the mount is
/// `in_use`, and never more than `bound`.
fn fill(
    work: &Work,
    stop: &AtomicBool,
    in_use: impl Fn() -> bool,
    bound: impl Fn() -> u64,
    put: impl Fn(Piece) -> Result<()>,
) {
    while let Some(step) = work.next() {
        while in_use() && !stop.load(Ordering::Relaxed) {
            thread::sleep(2 * QUIET);
        }
        if stop.load(Ordering::Relaxed) || work.takes_too_much(&bound) {
            return;
        }
        if let Err(error) = put(step) {
            // The reader who wants this file will be told; the others lose nothing.
            if work.give_up(step.inode) {
                log::warn!("prefetch: {error}");
            }
        }
        work.did(step);
    }
}

/// Hands a step's bytes to the kernel.
fn put(shared: &Shared, kernel: &Notifier, step: Piece) -> Result<()> {
    let len = usize::try_from(step.end - step.start).unwrap_or(usize::MAX);
    let bytes = shared.model.prefetch(step.inode, step.start, len)?;
    kernel
        .store(INodeNo(step.inode.0), step.start, &bytes)
        .map_err(Error::io("fill", "the kernel's page cache"))
}

/// Steps that are still to be taken, in order.
struct Work {
    left: Mutex<Left>,
    total: u64,
    done: AtomicU64,
    /// There was too little memory for the rest.
    is_short: AtomicBool,
}

impl Work {
    fn new(mut pieces: Vec<Piece>) -> Work {
        let total = pieces.iter().map(|piece| piece.end - piece.start).sum();
        pieces.reverse();
        Work {
            left: Mutex::new(Left {
                pieces,
                given_up: HashSet::new(),
                check_at: CHECKED_BYTES,
            }),
            total,
            done: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        }
    }

    /// The next piece that ends where a step does, or its file.
    fn next(&self) -> Option<Piece> {
        let pieces = &mut self.lock().pieces;
        let piece = pieces.last_mut()?;
        let step_end = (piece.start / STEP_BYTES + 1) * STEP_BYTES;
        let step = Piece {
            end: piece.end.min(step_end),
            ..*piece
        };
        piece.start = step.end;
        if piece.start == piece.end {
            pieces.pop();
        }
        Some(step)
    }

    /// The files that are not done.
    fn files(&self) -> BTreeSet<Inode> {
        let pieces = &self.lock().pieces;
        pieces.iter().map(|piece| piece.inode).collect()
    }

    /// True from when there was less than twice as much memory available as was prefetched.
    fn takes_too_much(&self, bound: impl Fn() -> u64) -> bool {
        let done = self.done.load(Ordering::Relaxed);
        let mut left = self.lock();
        if done >= left.check_at {
            left.check_at = done + CHECKED_BYTES;
            if done > bound() {
                left.pieces.clear();
                self.is_short.store(true, Ordering::Relaxed);
            }
        }
        self.is_short.load(Ordering::Relaxed)
    }

    /// Leaves out the rest of a file; true the first time.
    fn give_up(&self, inode: Inode) -> bool {
        let mut left = self.lock();
        left.pieces.retain(|piece| piece.inode != inode);
        left.given_up.insert(inode)
    }

    /// Takes note of a step, and tells of every tenth of the whole.
    fn did(&self, step: Piece) {
        let bytes = step.end - step.start;
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let tenths = |done: u64| u128::from(done) * 10 / u128::from(self.total.max(1));
        let done = before + bytes;
        if tenths(done) > tenths(before) {
            log::info!("prefetched {done} of {} bytes", self.total);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        // Nothing panics while it is held.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Left {
    /// The last one is the next.
    pieces: Vec<Piece>,
    given_up: HashSet<Inode>,
    /// Prefetched bytes at which memory is looked at.
    check_at: u64,
}

/// What to read, in order, `bound` bytes at most.
fn plan(model: &Model, bound: u64) -> Vec<Piece> {
    let files: Vec<_> = model
        .files()
        .map(|file| (file.inode, file.path.as_str(), file.size))
        .collect();
    order(&files, bound)
}

fn order(files: &[(Inode, &str, u64)], bound: u64) -> Vec<Piece> {
    let first = |&(inode, path, size): &(Inode, &str, u64)| {
        let weights = path.ends_with(".safetensors") || path.ends_with(".gguf");
        let end = match (size <= SMALL_BYTES, weights) {
            (true, _) => size,
            (false, true) => HEAD_BYTES,
            (false, false) => 0,
        };
        (inode, end, size)
    };
    let split: Vec<_> = files.iter().map(first).collect();
    let heads = split.iter().map(|&(inode, end, _)| (inode, 0, end));
    let rest = split
        .iter()
        .map(|&(inode, start, size)| (inode, start, size));
    let mut left = bound;
    let mut pieces = Vec::new();
    for (inode, start, end) in heads.chain(rest) {
        let end = end.min(start.saturating_add(left));
        if start < end {
            left -= end - start;
            pieces.push(Piece { inode, start, end });
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn piece(inode: u64, start: u64, end: u64) -> Piece {
        Piece {
            inode: Inode(inode),
            start,
            end,
        }
    }

    #[test]
    fn small_files_and_headers_come_first_and_the_bound_holds() {
        let files = [
            (Inode(2), "a.bin", 9 * MIB),
            (Inode(3), "b.safetensors", 20 * MIB),
            (Inode(4), "config.json", 7),
            (Inode(5), "empty", 0),
        ];
        assert_eq!(
            order(&files, 100 * MIB),
            [
                piece(3, 0, MIB),
                piece(4, 0, 7),
                piece(2, 0, 9 * MIB),
                piece(3, MIB, 20 * MIB),
            ]
        );
        assert_eq!(order(&files, MIB + 3), [piece(3, 0, MIB), piece(4, 0, 3)]);
        assert_eq!(order(&files, 0), []);
    }

    #[test]
    fn steps_are_aligned_and_leave_out_a_file_that_is_given_up() {
        let work = Work::new(vec![
            piece(2, 0, STEP_BYTES + 1),
            piece(3, 5, 3 * STEP_BYTES),
            piece(4, 0, 7),
        ]);
        assert_eq!(work.total, 4 * STEP_BYTES + 3);
        let step = |n| work.next().filter(|step| step.inode == Inode(n));
        assert_eq!(step(2), Some(piece(2, 0, STEP_BYTES)));
        assert_eq!(step(2), Some(piece(2, STEP_BYTES, STEP_BYTES + 1)));
        assert!(work.give_up(Inode(2)), "also after its last step");
        assert_eq!(step(3), Some(piece(3, 5, STEP_BYTES)));
        assert_eq!(step(3), Some(piece(3, STEP_BYTES, 2 * STEP_BYTES)));
        assert!(work.give_up(Inode(3)) && !work.give_up(Inode(3)));
        assert_eq!(step(4), Some(piece(4, 0, 7)));
        assert_eq!(work.next(), None);
    }

    #[test]
    fn nothing_is_prefetched_while_somebody_reads() {
        let work = Work::new(vec![piece(2, 0, 20 * STEP_BYTES)]);
        let (stop, in_use) = (AtomicBool::new(false), AtomicBool::new(true));
        let puts = AtomicU64::new(0);
        let put = |_| {
            assert!(!in_use.load(Ordering::SeqCst));
            // A reader comes after every third step.
            let number = puts.fetch_add(1, Ordering::SeqCst) + 1;
            in_use.store(number.is_multiple_of(3), Ordering::SeqCst);
            Ok(())
        };
        let in_use_now = || in_use.load(Ordering::SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| fill(&work, &stop, in_use_now, || u64::MAX, put));
            for expected in [0, 3, 6] {
                thread::sleep(Duration::from_millis(30));
                assert!(puts.load(Ordering::SeqCst) <= expected);
                while puts.load(Ordering::SeqCst) < expected {
                    thread::yield_now();
                }
                in_use.store(false, Ordering::SeqCst);
            }
            while puts.load(Ordering::SeqCst) < 9 {
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(
            puts.load(Ordering::SeqCst),
            9,
            "and it ends while somebody reads"
        );
    }

    #[test]
    fn r9_it_ends_when_memory_becomes_short() {
        let all = 100 * CHECKED_BYTES;
        let work = Work::new(vec![piece(2, 0, all)]);
        // What is available shrinks as others take it.
        let bound = || 30 * CHECKED_BYTES - work.done.load(Ordering::Relaxed) / 2;
        let stop = AtomicBool::new(false);
        fill(&work, &stop, || false, bound, |_| Ok(()));
        let done = work.done.load(Ordering::Relaxed);
        assert!(
            (20 * CHECKED_BYTES..=21 * CHECKED_BYTES).contains(&done),
            "{done}"
        );
        assert!(work.is_short.load(Ordering::Relaxed) && work.next().is_none());
    }

    #[test]
    fn what_was_asked_for_is_known_by_steps() {
        let step = MAX_REQUEST_BYTES;
        let asked = Asked::about(&[piece(2, 0, 1), piece(2, 1, 3 * STEP_BYTES - 1)]);
        asked.note(Inode(2), 0, 4096);
        assert!(
            !asked.has(Inode(2), 0),
            "the rest of it may still be wanted"
        );
        asked.note(Inode(2), STEP_BYTES, step);
        asked.note(Inode(2), 3 * STEP_BYTES - 4096, step);
        asked.note(Inode(9), 0, step);
        asked.note(Inode(2), u64::MAX, step);
        let has = [0, 1, 2].map(|n| asked.has(Inode(2), n * STEP_BYTES));
        assert_eq!(has, [false, true, false]);
        asked.note(Inode(2), 2 * STEP_BYTES - 4096, step);
        assert!(asked.has(Inode(2), 2 * STEP_BYTES + 1));
        assert!(!asked.has(Inode(9), 0));
    }
}
