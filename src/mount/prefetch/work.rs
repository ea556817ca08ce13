//! Warming a model in the background: what loaders want first, first.
//!
//! Headers of safetensors and GGUF files and small files come first, then the weights in the order
//! of their paths. The kernel is asked, by another process (see [`filler`](super::filler)), to read
//! them ahead into its page cache: a loader that comes later finds them there. What is there already
//! it does not read again. Readers come first: while one waits, nothing is prefetched. It ends where it
//! would take more than half of the memory that is available by then.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::filler::{Answer, Filler};
use crate::error::{Error, Result};
use crate::memory::available;
use crate::model::{Inode, Model};
use crate::mount::options::MAX_REQUEST_BYTES;
use crate::mount::serve::filesystem::Shared;

/// Bytes of one request.
const REQUEST_BYTES: u64 = MAX_REQUEST_BYTES as u64;
/// Requests at a time; fewer where there are fewer processors, one of which is the readers'.
const MAX_REQUESTS: usize = 4;
/// How long after the last read prefetching goes on.
const QUIET: Duration = Duration::from_millis(1);
/// How often to look whether the kernel got what it was asked to read: first, and at last.
const SOON: Duration = Duration::from_micros(50);
const LATER: Duration = Duration::from_millis(20);
/// Rest after each microsecond in which a file may have been open.
const REST: Duration = Duration::from_micros(4);
/// A file up to this size is small.
const SMALL_BYTES: u64 = 4 << 20;
/// Prefetched bytes after which memory is looked at again.
const CHECKED_BYTES: u64 = 64 << 20;
/// Bytes of the start of a file of weights that hold its header.
const HEAD_BYTES: u64 = 1 << 20;

/// A range of one file to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    inode: Inode,
    start: u64,
    end: u64,
}

/// A running prefetch; dropping it ends it.
pub struct Prefetch {
    stop: Arc<AtomicBool>,
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Starts prefetching, with the process `pid`, which somebody else has started. Calls `over` when
/// it is needed no more.
pub(in crate::mount) fn start(
    shared: Arc<Shared>,
    filler: Filler,
    pid: u32,
    over: impl FnOnce() + Send + 'static,
) -> Result<Prefetch> {
    shared.activity.set_prefetcher(pid);
    let stop = Arc::new(AtomicBool::new(false));
    let prefetch = Prefetch {
        stop: Arc::clone(&stop),
    };
    thread::Builder::new()
        .name("prefetch".into())
        .spawn(move || {
            run(&shared, filler, &stop);
            // Another process may get its number.
            shared.activity.set_prefetcher(0);
            over();
        })
        .map_err(Error::io("start", "a thread"))?;
    Ok(prefetch)
}

fn run(shared: &Shared, mut filler: Filler, stop: &AtomicBool) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let requests = cores.saturating_sub(1).clamp(1, MAX_REQUESTS) as u64;
    let pieces = plan(&shared.model, bound());
    let _counted = shared.model.count(std::mem::size_of_val(&pieces[..]));
    let mut work = Work::new(pieces, requests * REQUEST_BYTES);
    let all = shared.model.total_bytes();
    log::info!("prefetching {} of {all} bytes", work.total);
    let in_use = || shared.activity.in_use(QUIET);
    fill(&mut work, stop, in_use, bound, |step| {
        read(shared, &mut filler, stop, step)
    });
    let done = work.done;
    if stop.load(Ordering::Relaxed) {
        log::debug!("prefetch stopped after {done} bytes");
    } else if work.total < all || work.is_short {
        log::info!(
            "prefetch is complete with {done} of {all} bytes: more would be over half of the memory \
             that is available"
        );
    } else {
        log::info!("prefetch is complete");
    }
}

/// Has the kernel read a step, and waits until it has what it lacked; false when the file cannot be
/// read.
fn read(shared: &Shared, filler: &mut Filler, stop: &AtomicBool, step: Piece) -> bool {
    let Some(file) = shared.model.file(step.inode) else {
        return false;
    };
    if !shared.settle_ahead(step.inode) {
        return false;
    }
    let begun = Instant::now();
    match filler.ask(
        Path::new(file.path.as_str()),
        step.start,
        step.end - step.start,
    ) {
        Ok(Answer::Asked) => {}
        // Unmounted, or about to end.
        Ok(Answer::Gone) | Err(_) => {
            stop.store(true, Ordering::Relaxed);
            return false;
        }
    }
    // Meanwhile it had the file open, and who unmounts found the mount busy: most of the time it must
    // not be.
    thread::sleep(REST * u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    // Its requests may be on their way still: none must be there twice in a row.
    let (mut pause, mut idle) = (SOON, 0);
    while idle < 2 && !stop.load(Ordering::Relaxed) {
        thread::sleep(pause);
        if shared.activity.reads_ahead() == 0 {
            idle += 1;
        } else {
            (idle, pause) = (0, LATER.min(pause * 2));
        }
    }
    shared.activity.take_failed_ahead() != Some(step.inode)
}

/// Most bytes that may be in the page cache because of this.
fn bound() -> u64 {
    available::bytes() / 2
}

/// Takes one step after the other, with `read`, until there is none, or `stop`; not while the mount is
/// `in_use`, and never more than `bound`. Leaves out the rest of a file when `read` returns false.
fn fill(
    work: &mut Work,
    stop: &AtomicBool,
    in_use: impl Fn() -> bool,
    bound: impl Fn() -> u64,
    mut read: impl FnMut(Piece) -> bool,
) {
    while let Some(step) = work.next() {
        let mut pause = 2 * QUIET;
        while in_use() && !stop.load(Ordering::Relaxed) {
            thread::sleep(pause);
            pause = LATER.min(pause + QUIET);
        }
        if stop.load(Ordering::Relaxed) || work.takes_too_much(&bound) {
            return;
        }
        // The reader who wants the file will be told; the others lose nothing.
        if !read(step) {
            work.given_up.insert(step.inode);
        }
        work.did(step);
    }
}

/// Steps that are still to be taken.
struct Work {
    /// The last one is the next.
    pieces: Vec<Piece>,
    given_up: HashSet<Inode>,
    step_bytes: u64,
    total: u64,
    done: u64,
    /// `done` at which memory is looked at.
    check_at: u64,
    /// There was too little memory for the rest.
    is_short: bool,
}

impl Work {
    fn new(mut pieces: Vec<Piece>, step_bytes: u64) -> Work {
        let total = pieces.iter().map(|piece| piece.end - piece.start).sum();
        pieces.reverse();
        Work {
            pieces,
            given_up: HashSet::new(),
            step_bytes,
            total,
            done: 0,
            check_at: CHECKED_BYTES,
            is_short: false,
        }
    }

    /// The next piece that ends where a step does, or its file.
    fn next(&mut self) -> Option<Piece> {
        let Work {
            pieces, given_up, ..
        } = self;
        while pieces
            .pop_if(|piece| given_up.contains(&piece.inode))
            .is_some()
        {}
        let piece = pieces.last_mut()?;
        let step_end = (piece.start / self.step_bytes + 1).saturating_mul(self.step_bytes);
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

    /// Looks at memory from time to time; true when more was prefetched than `bound`.
    fn takes_too_much(&mut self, bound: impl Fn() -> u64) -> bool {
        if self.done >= self.check_at {
            self.check_at = self.done + CHECKED_BYTES;
            self.is_short = self.done > bound();
        }
        self.is_short
    }

    /// Takes note of a step, and tells of every tenth of the whole.
    fn did(&mut self, step: Piece) {
        let tenths = |done: u64| u128::from(done) * 10 / u128::from(self.total.max(1));
        let done = self.done + (step.end - step.start);
        if tenths(done) > tenths(self.done) {
            log::info!("prefetched {done} of {} bytes", self.total);
        }
        self.done = done;
    }
}

/// What to read, in order, `bound` bytes at most.
fn plan(model: &Model, bound: u64) -> Vec<Piece> {
    let files: Vec<_> = model
        .files()
        .map(|file| (file.inode, file.path.as_str(), file.shown_size))
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
    use std::cell::Cell;
    use std::sync::atomic::AtomicU64;

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
        let pieces = vec![piece(2, 0, MIB + 1), piece(3, 5, 3 * MIB), piece(4, 0, 7)];
        let mut work = Work::new(pieces, MIB);
        assert_eq!(work.total, 4 * MIB - 5 + 8);
        assert_eq!(work.next(), Some(piece(2, 0, MIB)));
        assert_eq!(work.next(), Some(piece(2, MIB, MIB + 1)));
        assert_eq!(work.next(), Some(piece(3, 5, MIB)));
        assert_eq!(work.next(), Some(piece(3, MIB, 2 * MIB)));
        work.given_up.insert(Inode(3));
        assert_eq!(work.next(), Some(piece(4, 0, 7)));
        assert_eq!(work.next(), None);
    }

    #[test]
    fn nothing_is_prefetched_while_somebody_reads() {
        let mut work = Work::new(vec![piece(2, 0, 20 * MIB)], MIB);
        let (stop, in_use) = (AtomicBool::new(false), AtomicBool::new(true));
        let puts = AtomicU64::new(0);
        let put = |_| {
            assert!(!in_use.load(Ordering::SeqCst));
            // A reader comes after every third step.
            let number = puts.fetch_add(1, Ordering::SeqCst) + 1;
            in_use.store(number.is_multiple_of(3), Ordering::SeqCst);
            true
        };
        let in_use_now = || in_use.load(Ordering::SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| fill(&mut work, &stop, in_use_now, || u64::MAX, put));
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
        let mut work = Work::new(vec![piece(2, 0, 100 * CHECKED_BYTES)], MIB);
        // What is available shrinks as others take it.
        let bound = Cell::new(30 * CHECKED_BYTES);
        let read = |step: Piece| {
            bound.set(bound.get() - (step.end - step.start) / 2);
            true
        };
        let stop = AtomicBool::new(false);
        fill(&mut work, &stop, || false, || bound.get(), read);
        let done = work.done / CHECKED_BYTES;
        assert!(work.is_short && (20..=21).contains(&done), "{done}");
    }
}
