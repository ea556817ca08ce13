//! Writing a model's files below a directory handle, on several threads.
//!
//! Threads take ranges in file order from one cursor, so that they stay close together in the
//! archive, large files are shared between them, and the number of open files is bounded by the
//! number of threads. A byte is written only after the model has verified it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use rustix::fs::{Timespec, Timestamps};

use super::{UnpackOptions, Unpacked};
use crate::digest::Hasher;
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::files::{beneath, calls, faults};
use crate::model::{FileFacts, FileInfo, Model, verify};
use crate::printable::printable_path;
use crate::work::Progress;

/// Bytes that one thread writes of a file before it looks for other work.
const RANGE_BYTES: u64 = 8 << 20;
/// Bytes of one read; a whole number of default chunks.
const READ_BYTES: u64 = 1 << 20;
/// Beyond this many files one sync of the whole file system costs less than one sync each.
const SYNC_EACH: usize = 256;

/// One file to write.
struct Target<'a> {
    info: &'a FileInfo,
    /// Open from the first range to the last.
    file: Mutex<Option<Arc<File>>>,
    /// Ranges not written yet.
    left: AtomicU64,
}

/// Where the next range starts.
struct Cursor {
    target: usize,
    offset: u64,
}

pub(super) struct Writer<'a> {
    model: &'a Model,
    root: BorrowedFd<'a>,
    output: &'a Path,
    targets: Vec<Target<'a>>,
    directories: BTreeSet<&'a str>,
    cursor: Mutex<Cursor>,
    threads: usize,
    total: u64,
    done: AtomicU64,
    progress: Progress<'a>,
    cancel: Option<&'static AtomicBool>,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl<'a> Writer<'a> {
    /// Plans to write `files` below `root`; `output` only names it in messages.
    pub(super) fn new(
        model: &'a Model,
        files: &[&'a FileInfo],
        root: BorrowedFd<'a>,
        output: &'a Path,
        options: &UnpackOptions,
        progress: Progress<'a>,
    ) -> Result<Writer<'a>> {
        let mut targets = Vec::with_capacity(files.len());
        let mut directories = BTreeSet::new();
        let mut total = 0u64;
        for info in files {
            directories.extend(info.path.directories());
            total = total.saturating_add(info.shown_size);
            targets.push(Target {
                info,
                file: Mutex::new(None),
                left: AtomicU64::new(info.shown_size.div_ceil(RANGE_BYTES).max(1)),
            });
        }
        Ok(Writer {
            model,
            root,
            output,
            targets,
            directories,
            cursor: Mutex::new(Cursor {
                target: 0,
                offset: 0,
            }),
            threads: verify::threads(options.jobs),
            total,
            done: AtomicU64::new(0),
            progress,
            cancel: options.cancel,
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        })
    }

    /// Adds directories with nothing in them.
    pub(super) fn add_directories(&mut self, empty: impl Iterator<Item = &'a EntryPath>) {
        for path in empty {
            self.directories.extend(path.directories());
            self.directories.insert(path.as_str());
        }
    }

    /// Writes everything, and syncs it.
    pub(super) fn run(self) -> Result<Unpacked> {
        (self.progress)(0, self.total);
        // Sorted: a directory comes before what is in it.
        for path in &self.directories {
            beneath::make_dir(self.root, path)
                .map_err(|e| self.io("create directory", path, e.into()))?;
        }
        let writer = &self;
        thread::scope(|scope| {
            for _ in 1..self.threads.min(self.ranges()) {
                let inherited = faults::inherit();
                // Without a thread the others have more to do.
                let spawned = thread::Builder::new().spawn_scoped(scope, move || {
                    inherited.enter();
                    writer.work();
                });
                if spawned.is_err() {
                    break;
                }
            }
            self.work();
        });
        // What fails because it was interrupted is told by this name.
        self.check_cancelled()?;
        if let Some(error) = lock(&self.failure).take() {
            return Err(error);
        }
        self.sync()?;
        self.check_cancelled()?;
        Ok(Unpacked {
            files: self.targets.len() as u64,
            bytes: self.total,
        })
    }

    fn ranges(&self) -> usize {
        let ranges = self.targets.iter().map(|t| t.left.load(Ordering::Relaxed));
        usize::try_from(ranges.fold(0, u64::saturating_add)).unwrap_or(usize::MAX)
    }

    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) && !self.cancelled() {
            let Some((target, offset)) = self.next() else {
                return;
            };
            if let Err(error) = self.write(target, offset) {
                self.stop.store(true, Ordering::Relaxed);
                lock(&self.failure).get_or_insert(error);
            }
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        match self.cancelled() {
            true => Err(Error::refused(printable_path(self.output), "interrupted")),
            false => Ok(()),
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// The next range: a file, and where the range starts in it.
    fn next(&self) -> Option<(&Target<'a>, u64)> {
        let mut cursor = lock(&self.cursor);
        let target = self.targets.get(cursor.target)?;
        let offset = cursor.offset;
        cursor.offset = offset.saturating_add(RANGE_BYTES);
        if cursor.offset >= target.info.shown_size {
            *cursor = Cursor {
                target: cursor.target + 1,
                offset: 0,
            };
        }
        Some((target, offset))
    }

    fn write(&self, target: &Target<'_>, start: u64) -> Result<()> {
        let info = target.info;
        // Nothing is restored from a layer that was not verified, and an empty file is something.
        let facts = self.model.facts(info.inode)?;
        let file = self.open(target, facts.executable)?;
        let end = facts.size.min(start.saturating_add(RANGE_BYTES));
        // A file of one range is hashed on the way: a second check that costs no second read.
        // Larger files rest on the digests of their chunks.
        let mut hasher = info
            .digest
            .filter(|_| start == 0 && end == facts.size)
            .map(|digest| (digest, Hasher::new(digest.algorithm())));
        if end == start {
            self.model.read_at(info.inode, start, 0)?;
        }
        let mut offset = start;
        while offset < end {
            if self.cancelled() || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let want = (end - offset).min(READ_BYTES);
            let bytes = self.model.read_at(info.inode, offset, want as usize)?;
            if bytes.len() as u64 != want {
                return Err(Error::corrupt(
                    info.subject(),
                    format!(
                        "ends at byte {}, its size is stated as {}",
                        offset.saturating_add(bytes.len() as u64),
                        facts.size
                    ),
                ));
            }
            if let Some((_, hasher)) = &mut hasher {
                hasher.update(&bytes);
            }
            calls::write_all_at(&file, &bytes, offset)
                .map_err(|e| self.io("write", info.path.as_str(), e))?;
            offset += want;
            let done = self.done.fetch_add(want, Ordering::Relaxed);
            (self.progress)(done.saturating_add(want), self.total);
        }
        if let Some((expected, hasher)) = hasher {
            let found = hasher.finish();
            if found != expected {
                return Err(Error::corrupt(
                    info.subject(),
                    format!("has digest {found}, the manifest states {expected}"),
                ));
            }
        }
        if target.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(target, &facts, &file)?;
        }
        Ok(())
    }

    fn open(&self, target: &Target<'_>, executable: bool) -> Result<Arc<File>> {
        let mut slot = lock(&target.file);
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = beneath::create_file(self.root, &target.info.path, executable)
            .map_err(|e| self.io("create", target.info.path.as_str(), e.into()))?;
        Ok(Arc::clone(slot.insert(Arc::new(file))))
    }

    /// The last range of a file was written.
    fn finish(&self, target: &Target<'_>, facts: &FileFacts, file: &File) -> Result<()> {
        let path = target.info.path.as_str();
        let stat = calls::fstat(file).map_err(|e| self.io("stat", path, e.into()))?;
        let size = stat.st_size;
        if u64::try_from(size) != Ok(facts.size) {
            return Err(Error::refused(
                printable_path(&self.output.join(path)),
                format!(
                    "has {size} bytes instead of {}; something else wrote it",
                    facts.size
                ),
            ));
        }
        if let Some(mtime) = facts.time
            && let Ok(tv_sec) = i64::try_from(mtime.as_secs())
        {
            let time = Timespec {
                tv_sec,
                tv_nsec: mtime.subsec_nanos().into(),
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            calls::set_times(file, &times)
                .map_err(|e| self.io("set the time of", path, e.into()))?;
        }
        if self.sync_each() {
            calls::sync(file).map_err(|e| self.io("sync", path, e.into()))?;
        }
        lock(&target.file).take();
        Ok(())
    }

    fn sync_each(&self) -> bool {
        self.targets.len() <= SYNC_EACH && self.directories.len() <= SYNC_EACH
    }

    /// Makes names durable, and contents where [`finish`](Writer::finish) has not.
    fn sync(&self) -> Result<()> {
        if !self.sync_each() {
            return calls::sync_file_system(self.root).map_err(|e| self.io("sync", "", e.into()));
        }
        for path in self.directories.iter().copied().rev().chain([""]) {
            beneath::open_dir(self.root, path)
                .and_then(calls::sync_dir)
                .map_err(|e| self.io("sync directory", path, e.into()))?;
        }
        Ok(())
    }

    fn io(&self, action: &'static str, path: &str, error: std::io::Error) -> Error {
        Error::io(action, self.output.join(path))(error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
