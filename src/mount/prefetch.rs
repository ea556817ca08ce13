//! Warming a model in the background: what loaders want first, first.
//!
//! Headers of safetensors and GGUF files and small files come first, then the weights in the order
//! of their paths. Everything is read through the model, verified, and put where the kernel keeps
//! what it was answered: in its page cache. A loader that comes later finds it there, and needs this
//! process no more. Readers come first: while one waits, nothing is prefetched; and what the kernel
//! has asked for meanwhile is left out.

use std::collections::{HashMap, HashSet};
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
    let pieces = plan(&shared.model, memory::available() / 2);
    shared.expect_reads_of(Asked::about(&pieces));
    let work = Work::new(pieces);
    log::info!(
        "prefetching {} of {} bytes",
        work.total,
        shared.model.total_bytes()
    );
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let fill = || fill(shared, kernel, stop, &work);
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
    } else {
        log::info!("prefetch is complete");
    }
}

/// Takes one step after the other until there is none, or `stop`.
fn fill(shared: &Shared, kernel: &Notifier, stop: &AtomicBool, work: &Work) {
    while let Some(step) = work.next() {
        while shared.in_use(QUIET) && !stop.load(Ordering::Relaxed) {
            thread::sleep(2 * QUIET);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let was_asked = shared
            .asked()
            .is_some_and(|asked| asked.has(step.inode, step.start));
        if !was_asked && let Err(error) = put(shared, kernel, work, step) {
            // The reader who wants this file will be told; the others lose nothing.
            if work.give_up(step.inode) {
                log::warn!("prefetch: {error}");
            }
        }
        work.did(step);
    }
}

/// Hands a step's bytes to the kernel.
fn put(shared: &Shared, kernel: &Notifier, work: &Work, step: Piece) -> Result<()> {
    let len = usize::try_from(step.end - step.start).unwrap_or(usize::MAX);
    let bytes = shared.model.prefetch(step.inode, step.start, len)?;
    // The kernel keeps content only of files that it knows. Whoever looks at one keeps the mount busy
    // for that moment, so it is done once.
    if let Some(file) = shared.model.file(step.inode)
        && !work.is_known(step.inode)
    {
        let path = shared.mountpoint.join(file.path.as_str());
        rustix::fs::stat(&path).map_err(|e| Error::io("look at", &path)(e.into()))?;
        work.lock().known.insert(step.inode);
    }
    kernel
        .store(INodeNo(step.inode.0), step.start, &bytes)
        .map_err(Error::io("fill", "the kernel's page cache"))
}

/// Steps that are still to be taken, in order.
struct Work {
    left: Mutex<Left>,
    total: u64,
    done: AtomicU64,
}

impl Work {
    fn new(mut pieces: Vec<Piece>) -> Work {
        let total = pieces.iter().map(|piece| piece.end - piece.start).sum();
        pieces.reverse();
        Work {
            left: Mutex::new(Left {
                pieces,
                known: HashSet::new(),
                given_up: HashSet::new(),
            }),
            total,
            done: AtomicU64::new(0),
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

    fn is_known(&self, inode: Inode) -> bool {
        self.lock().known.contains(&inode)
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
    /// Files that the kernel knows.
    known: HashSet<Inode>,
    given_up: HashSet<Inode>,
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
