//! What was written, and is not on its disk yet, stays small.
//!
//! The kernel keeps what is written in memory until it has written it back. It counts that in the memory
//! control group of whoever wrote it, cannot drop it, and in control groups of the first version does
//! not make the writer wait either: beside a busy disk, a process in a small group is killed for it. So
//! whoever writes much does so through a [`WrittenBack`], which waits for the disk where needed.
//!
//! Half of the [bound](MOST) is written back while the other half fills, so a disk that keeps up costs
//! no time. Whoever writes while both halves are full waits; nobody who reads does.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::io::{Errno, Result};

use super::calls;

/// Bytes that may be written and not be on their disks yet, of all files of a [`WriteBack`] together. Each
/// thread may go beyond it by two [pieces](PIECE). Every mount takes so much before anything is read, so
/// it is no larger than keeps a disk busy.
pub(crate) const MOST: u64 = 1 << 20;

/// What is written before it is looked at how much there is: a checkpoint of a decoder has as many bytes as
/// its window.
const PIECE: usize = 64 << 10;

/// Bounds what several files have not written back yet.
#[derive(Debug, Default)]
pub(crate) struct WriteBack {
    /// What was written since the last half was full.
    filling: Mutex<Half>,
    /// The half that the kernel writes back. Held by who waits for that, while the others wait their turn.
    leaving: Mutex<Half>,
}

/// Parts of files.
#[derive(Debug, Default)]
struct Half {
    bytes: u64,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    /// What nobody has open any more needs no disk.
    file: Weak<WrittenBack>,
    range: Range<u64>,
}

/// A file on a disk.
#[derive(Debug)]
pub(crate) struct WrittenBack {
    file: File,
    bound: Arc<WriteBack>,
    /// Why a part could not be written back, whoever found out.
    failure: OnceLock<Errno>,
}

impl WrittenBack {
    pub(crate) fn new(file: File, bound: &Arc<WriteBack>) -> Arc<WrittenBack> {
        Arc::new(WrittenBack {
            file,
            bound: Arc::clone(bound),
            failure: OnceLock::new(),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `bytes` at an offset, and has older ones written back where there are too many.
    ///
    /// # Errors
    /// Also those of writing back what was written to the file before.
    pub(crate) fn write_all_at(self: &Arc<Self>, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut at = at;
        for piece in bytes.chunks(PIECE) {
            calls::write_all_at(&self.file, piece, at)?;
            self.bound.note(self, at, piece.len() as u64);
            at = at.saturating_add(piece.len() as u64);
        }
        match self.failure.get() {
            None => Ok(()),
            Some(errno) => Err((*errno).into()),
        }
    }

    fn keep_failure(&self, result: Result<()>) {
        if let Err(errno) = result {
            let _ = self.failure.set(errno);
        }
    }
}

impl WriteBack {
    fn note(&self, file: &Arc<WrittenBack>, at: u64, bytes: u64) {
        let mut filling = lock(&self.filling);
        filling.add(file, at..at.saturating_add(bytes));
        let full = filling.is_full();
        drop(filling);
        if full {
            self.advance();
        }
    }

    /// Waits until the half before is written back, and has the one that is full begin.
    fn advance(&self) {
        let mut leaving = lock(&self.leaving);
        // Another thread may have done it while this one waited for its turn.
        if !lock(&self.filling).is_full() {
            return;
        }
        // Only then is there room: until it is empty again, whoever writes waits here.
        std::mem::take(&mut *leaving).each(calls::finish_write_back);
        let full = std::mem::take(&mut *lock(&self.filling));
        full.each(calls::start_write_back);
        *leaving = full;
    }
}

impl Half {
    fn is_full(&self) -> bool {
        self.bytes >= MOST / 2
    }

    fn add(&mut self, file: &Arc<WrittenBack>, range: Range<u64>) {
        self.bytes += range.end - range.start;
        let is_same = |part: &&mut Part| std::ptr::eq(part.file.as_ptr(), Arc::as_ptr(file));
        match self.parts.iter_mut().find(is_same) {
            Some(part) => {
                part.range.start = part.range.start.min(range.start);
                part.range.end = part.range.end.max(range.end);
            }
            None => {
                let file = Arc::downgrade(file);
                self.parts.push(Part { file, range });
            }
        }
    }

    fn each(&self, step: impl Fn(&File, &Range<u64>) -> Result<()>) {
        for part in &self.parts {
            if let Some(file) = part.file.upgrade() {
                file.keep_failure(step(&file.file, &part.range));
            }
        }
    }
}

fn lock(half: &Mutex<Half>) -> MutexGuard<'_, Half> {
    // Nothing panics while it is held.
    half.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::faults::{Fault, Op, Plan, Reach};
    use super::*;

    fn counting() -> Arc<Plan> {
        Plan::new(Fault::Fails(Errno::IO), Reach::Once, usize::MAX, &[])
    }

    /// Waits for the disk; where the kernel can be told to begin, that counts too.
    fn steps(plan: &Plan) -> usize {
        let made = plan.made();
        made.iter().filter(|op| **op == Op::WriteBack).count()
    }

    fn file(bound: &Arc<WriteBack>) -> Arc<WrittenBack> {
        WrittenBack::new(tempfile::tempfile().unwrap(), bound)
    }

    #[test]
    fn r16_no_more_is_unwritten_than_the_bound_whoever_writes() {
        const THREADS: usize = 4;
        const LENGTH: usize = 3 * PIECE;
        let bound = Arc::<WriteBack>::default();
        let files: Vec<_> = (0..10).map(|_| file(&bound)).collect();
        let half = MOST / 2 + (THREADS * PIECE) as u64;
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (bound, files) = (&bound, &files);
                scope.spawn(move || {
                    for number in 0..60 {
                        let file = &files[(number + thread) % files.len()];
                        let at = (number * THREADS + thread) * LENGTH;
                        file.write_all_at(&[7; LENGTH], at as u64).unwrap();
                        for part in [&bound.filling, &bound.leaving] {
                            assert!(lock(part).bytes <= half);
                        }
                    }
                });
            }
        });
    }

    /// What has begun to leave is waited for when the next half is full, and no earlier.
    #[test]
    fn r16_one_half_fills_while_one_leaves() {
        let bound = Arc::<WriteBack>::default();
        let file = file(&bound);
        let plan = counting();
        let mut at = 0;
        let mut write_half = || {
            for _ in 0..MOST / 2 / PIECE as u64 {
                plan.run(|| file.write_all_at(&[5; PIECE], at)).unwrap();
                at += PIECE as u64;
            }
        };
        write_half();
        let begun = steps(&plan);
        for half in 1..5 {
            write_half();
            assert_eq!(lock(&bound.filling).bytes, 0);
            assert_eq!(lock(&bound.leaving).bytes, MOST / 2);
            // Begun for each but the one that was left out here, and waited for of each but the last.
            assert_eq!(steps(&plan), begun + half * (begun + 1));
        }
    }

    #[test]
    fn a_disk_that_fails_is_told_to_those_who_wrote_there() {
        let bound = Arc::<WriteBack>::default();
        let [bad, good] = [0, 1].map(|_| file(&bound));
        bad.write_all_at(&[1; PIECE], 0).unwrap();
        // What comes first for the two is done for the bad one.
        let broken = Plan::new(Fault::Fails(Errno::IO), Reach::Once, 0, &[Op::Write]);
        for number in 0..MOST / PIECE as u64 {
            let at = number * PIECE as u64;
            calls::write_all_at(&good.file, &[2; PIECE], at).unwrap();
            broken.run(|| bound.note(&good, at, PIECE as u64));
        }
        assert_eq!(broken.hit(), Some(Op::WriteBack));
        good.write_all_at(b"more", 0).unwrap();
        let error = bad.write_all_at(b"more", 0).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    }

    #[test]
    fn what_nobody_has_open_needs_no_disk() {
        let bound = Arc::<WriteBack>::default();
        let plan = counting();
        for _ in 0..4 * MOST / PIECE as u64 {
            plan.run(|| file(&bound).write_all_at(&[3; PIECE], 0))
                .unwrap();
        }
        // Only of the one in hand.
        let halves = 4 * 2;
        assert!(steps(&plan) <= halves, "{}", steps(&plan));
    }
}
