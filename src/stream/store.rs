//! Bytes put aside on disk while a layer is open: seek points, and content that cannot be decoded from
//! the middle. What comes back is checked against a digest that stayed in memory.
//!
//! A file that is memory (of a tmpfs, or of no file system) takes only as much as the limiter grants:
//! what does not fit is decoded again from an earlier place. What is written to a disk is memory too until
//! it is written back, which is done as it goes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::index_dir::IndexDir;
use crate::files::calls;
use crate::files::scratch::Scratch;
use crate::files::write_back::WrittenBack;
use crate::memory::limiter::{Limiter, Spooled};

/// Unlinked temporary files (or a loaded index), written once, read at any offset. Where one cannot
/// be written to any more, the next one is in another place: what was kept stays where it is.
pub(super) struct Store {
    parts: RwLock<Parts>,
    /// Where the next piece goes, in all parts.
    len: AtomicU64,
    /// A piece could not be read.
    lost: AtomicBool,
}

struct Parts {
    /// In the order of where they start.
    files: Vec<Part>,
    /// Disks where another one can be, the next one last.
    places: Vec<Place>,
    /// For a last one in memory.
    limiter: Option<Arc<Limiter>>,
}

#[derive(Clone)]
struct Part {
    start: u64,
    kept: Kept,
}

/// A file, and what bounds the memory that it takes.
#[derive(Clone)]
pub(super) enum Kept {
    Disk(Arc<WrittenBack>),
    Memory(Arc<Memory>),
    /// Nothing is written to it.
    Loaded(Arc<File>),
}

/// Where there may be a disk.
enum Place {
    /// Beside the indexes in this directory.
    Indexes(PathBuf),
    /// Where temporary files go.
    Scratch(Scratch),
}

/// A file that is memory, and is counted.
pub(super) struct Memory {
    file: File,
    limiter: Arc<Limiter>,
    granted: Mutex<Vec<Spooled>>,
}

/// One piece of a [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u32,
    /// BLAKE3 of its bytes.
    pub(super) digest: [u8; 32],
}

/// Types of file systems whose files are memory (`linux/magic.h`).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const HUGETLBFS: u64 = 0x9584_58f6;

/// True when the file is memory, or may be.
fn is_memory(file: &File) -> bool {
    let kind = rustix::fs::fstatfs(file).map(|stat| stat.f_type as u64 & 0xffff_ffff);
    kind.map_or(true, |kind| [TMPFS, RAMFS, HUGETLBFS].contains(&kind))
}

fn memory() -> io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("modeloci", flags)?.into())
}

impl Memory {
    /// False when there is none left.
    fn grant(&self, bytes: u64) -> bool {
        let Some(more) = self.limiter.spool(bytes) else {
            return false;
        };
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        match granted.first_mut() {
            Some(granted) => granted.join(more),
            None => granted.push(more),
        }
        true
    }
}

impl Kept {
    fn file(&self) -> &File {
        match self {
            Kept::Disk(file) => file.file(),
            Kept::Memory(memory) => &memory.file,
            Kept::Loaded(file) => file,
        }
    }

    /// False when there is no room for it.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<bool> {
        match self {
            Kept::Disk(file) => file.write_all_at(bytes, at)?,
            Kept::Memory(memory) if !memory.grant(bytes.len() as u64) => return Ok(false),
            Kept::Memory(memory) => calls::write_all_at(&memory.file, bytes, at)?,
            Kept::Loaded(_) => return Ok(false),
        }
        Ok(true)
    }
}

impl Place {
    fn create(&self) -> io::Result<File> {
        match self {
            Place::Indexes(dir) => IndexDir::spool(dir).map_err(io::Error::other),
            Place::Scratch(place) => place.create(),
        }
    }
}

impl Parts {
    /// Adds a part that starts at `start`: on the next disk, else in memory, once.
    fn add(&mut self, start: u64) -> io::Result<()> {
        let (mut in_memory, mut failure) = (None, None);
        while let (Some(place), Some(limiter)) = (self.places.pop(), &self.limiter) {
            match place.create() {
                Ok(file) if is_memory(&file) => in_memory = in_memory.or(Some(file)),
                Ok(file) => {
                    let file = WrittenBack::new(file, limiter.write_back());
                    self.push(start, Kept::Disk(file));
                    return Ok(());
                }
                Err(error) => failure = Some(error),
            }
        }
        let Some(limiter) = self.limiter.take() else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        let file = in_memory.map_or_else(|| memory().map_err(|e| failure.unwrap_or(e)), Ok)?;
        let granted = Mutex::default();
        let memory = Memory {
            file,
            limiter,
            granted,
        };
        self.push(start, Kept::Memory(Arc::new(memory)));
        Ok(())
    }

    fn push(&mut self, start: u64, kept: Kept) {
        self.files.push(Part { start, kept });
    }
}

impl Store {
    /// An empty one: on the first disk of `dir`, where temporary files go, and where those go that
    /// survive a restart; else, or without `disk`, in a file that is memory.
    pub(super) fn create(
        dir: Option<&Path>,
        disk: bool,
        limiter: &Arc<Limiter>,
    ) -> io::Result<Store> {
        let mut parts = Parts {
            files: Vec::new(),
            places: Vec::new(),
            limiter: Some(Arc::clone(limiter)),
        };
        if disk {
            parts.places = [Scratch::Lasting, Scratch::Temporary]
                .map(Place::Scratch)
                .into();
            parts
                .places
                .extend(dir.map(|dir| Place::Indexes(dir.into())));
        }
        parts.add(0)?;
        Ok(Store {
            parts: RwLock::new(parts),
            len: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        })
    }

    /// The pieces of a file that is complete; nothing may be added.
    pub(super) fn of(file: Kept, len: u64) -> Store {
        let mut parts = Parts {
            files: Vec::new(),
            places: Vec::new(),
            limiter: None,
        };
        parts.push(0, file);
        Store {
            parts: RwLock::new(parts),
            len: AtomicU64::new(len),
            lost: AtomicBool::new(false),
        }
    }

    fn parts(&self) -> RwLockReadGuard<'_, Parts> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part in which an offset of all lies, and its number.
    fn part(&self, offset: u64) -> Option<(usize, Part)> {
        let parts = self.parts();
        let behind = parts.files.partition_point(|part| part.start <= offset);
        let number = behind.checked_sub(1)?;
        Some((number, parts.files.get(number)?.clone()))
    }

    /// True when it is no place for content.
    pub(super) fn is_memory(&self) -> bool {
        let parts = self.parts();
        let last = parts.files.last();
        last.is_some_and(|part| matches!(part.kept, Kept::Memory(_)))
    }

    /// Adds a piece; `None` when there is neither a disk nor memory for it.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<Option<Piece>> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        loop {
            let offset = self.len.fetch_add(u64::from(length), Ordering::Relaxed);
            let Some((number, part)) = self.part(offset) else {
                return Ok(None);
            };
            let at = offset.saturating_sub(part.start);
            match part.kept.write_all_at(bytes, at) {
                Ok(true) => {
                    return Ok(Some(Piece {
                        offset,
                        length,
                        digest: *blake3::hash(bytes).as_bytes(),
                    }));
                }
                Ok(false) => return Ok(None),
                Err(error) if !self.leave(number, &error) => return Ok(None),
                Err(_) => {}
            }
        }
    }

    /// Goes on in another place, unless another thread has done so; false when there is none.
    fn leave(&self, number: usize, why: &io::Error) -> bool {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        if parts.files.len() > number + 1 {
            return true;
        }
        log::warn!("a temporary file of a layer cannot be written to, and is left: {why}");
        parts.add(self.len.load(Ordering::Relaxed)).is_ok()
    }

    /// Reads a piece; `None` when its bytes are no longer what was written.
    pub(super) fn read(&self, piece: &Piece) -> io::Result<Option<Vec<u8>>> {
        let read = self.try_read(piece);
        if !matches!(read, Ok(Some(_))) {
            self.lost.store(true, Ordering::Relaxed);
        }
        read
    }

    /// True once a piece could not be read: what this held has to be made anew.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn try_read(&self, piece: &Piece) -> io::Result<Option<Vec<u8>>> {
        let end = piece.offset.checked_add(u64::from(piece.length));
        if end.is_none_or(|end| end > self.len.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let mut bytes = vec![0; piece.length as usize];
        let Some((_, part)) = self.part(piece.offset) else {
            return Ok(None);
        };
        let at = piece.offset.saturating_sub(part.start);
        calls::read_exact_at(part.kept.file(), &mut bytes, at)?;
        let intact = blake3::hash(&bytes).as_bytes() == &piece.digest;
        Ok(intact.then_some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::time::Duration;

    use rustix::io::Errno;

    use super::*;
    use crate::files::faults::{Fault, Op, Plan, Reach};
    use crate::files::write_back;
    use crate::memory::promise::{self, Promise};

    fn limiter() -> Arc<Limiter> {
        Limiter::new(Promise::new(0, 2, 0), Duration::ZERO)
    }

    #[test]
    fn gives_back_what_was_put_aside_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for dir in [None, Some(dir.path()), Some(&*file.join("below"))] {
            let store = Store::create(dir, true, &limiter()).unwrap();
            let pieces =
                [&b"first"[..], b"", b"third"].map(|bytes| store.append(bytes).unwrap().unwrap());
            assert_eq!(store.read(&pieces[0]).unwrap().unwrap(), b"first");
            assert_eq!(store.read(&pieces[1]).unwrap().unwrap(), b"");
            assert_eq!(store.read(&pieces[2]).unwrap().unwrap(), b"third");
            let (_, part) = store.part(0).unwrap();
            part.kept.file().write_all_at(b"F", 0).unwrap();
            assert_eq!(store.read(&pieces[0]).unwrap(), None);
            let beyond = Piece {
                offset: u64::MAX,
                ..pieces[0]
            };
            assert_eq!(store.read(&beyond).unwrap(), None);
        }
    }

    #[test]
    fn r16_what_is_put_aside_in_memory_is_little_for_all_together() {
        let limiter = limiter();
        let stores: Vec<_> = (0..3)
            .map(|_| Store::create(None, false, &limiter).unwrap())
            .collect();
        assert!(stores[0].is_memory());
        let piece = vec![7; 100_000];
        let mut kept = 0;
        for store in stores.iter().cycle().take(300) {
            kept += u64::from(
                store
                    .append(&piece)
                    .unwrap()
                    .map_or(0, |piece| piece.length),
            );
        }
        assert!(
            kept <= promise::SPOOL && kept + 100_000 > promise::SPOOL,
            "{kept}"
        );
        drop(stores);
        assert!(
            Store::create(None, false, &limiter)
                .unwrap()
                .append(&piece)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn r17_a_place_that_is_full_is_left_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(Some(dir.path()), true, &limiter()).unwrap();
        let mut kept = vec![(store.append(b"first").unwrap().unwrap(), b"first".to_vec())];
        // One place after the other, until memory is the last; what is memory is not tried.
        for number in 0..5u8 {
            let full = Plan::new(Fault::Fails(Errno::NOSPC), Reach::Once, 0, &[]);
            let bytes = vec![number; 1000];
            let last = store.is_memory();
            let piece = full.run(|| store.append(&bytes)).unwrap();
            assert_eq!(full.hit(), Some(Op::Write));
            assert_eq!(piece.is_none(), last, "there is nothing behind memory");
            kept.extend(piece.map(|piece| (piece, bytes)));
            kept.push((store.append(b"more").unwrap().unwrap(), b"more".to_vec()));
        }
        assert!(store.is_memory());
        for (piece, bytes) in &kept {
            assert_eq!(store.read(piece).unwrap().as_ref(), Some(bytes));
        }
    }

    #[test]
    fn r16_what_is_spooled_is_written_back_as_it_goes() {
        const PIECES: u64 = 24;
        const LENGTH: u64 = write_back::MOST / 4;
        let limiter = limiter();
        let stores = [0, 1].map(|_| Store::create(None, true, &limiter).unwrap());
        let counting = Plan::new(Fault::Fails(Errno::IO), Reach::Once, usize::MAX, &[]);
        for number in 0..PIECES {
            let store = &stores[number as usize % 2];
            let bytes = vec![number as u8; LENGTH as usize];
            let piece = counting.run(|| store.append(&bytes)).unwrap();
            assert!(piece.is_some() || store.is_memory());
        }
        // Each half waits for the one before; of both files, but of a file system that is memory.
        let made = counting.made();
        let waits = made.iter().filter(|op| **op == Op::WriteBack).count() as u64;
        let halves = PIECES * LENGTH * 2 / write_back::MOST;
        let least = if stores[0].is_memory() { 0 } else { 2 };
        assert!(waits >= least * (halves - 1), "{waits}");
    }

    #[test]
    fn r17_a_place_that_writes_nothing_back_is_left_for_the_next() {
        let fill = |plan: &Arc<Plan>| {
            let store = Store::create(None, true, &limiter()).unwrap();
            let pieces = (0..12u8).filter_map(|number| {
                let bytes = vec![number; 1 << 20];
                let piece = plan.run(|| store.append(&bytes)).unwrap()?;
                Some((piece, bytes))
            });
            (pieces.collect::<Vec<_>>(), store)
        };
        let counting = Plan::new(Fault::Fails(Errno::IO), Reach::Once, usize::MAX, &[]);
        fill(&counting);
        let mut made = counting.made().into_iter();
        let Some(first) = made.position(|op| op == Op::WriteBack) else {
            return; // memory, here
        };
        let broken = Plan::new(Fault::Fails(Errno::IO), Reach::Once, first, &[]);
        let (kept, store) = fill(&broken);
        assert_eq!(broken.hit(), Some(Op::WriteBack));
        assert_eq!(store.parts().files.len(), 2);
        for (piece, bytes) in &kept {
            assert_eq!(store.read(piece).unwrap().as_ref(), Some(bytes));
        }
    }

    #[test]
    fn threads_that_leave_a_place_at_once_lose_nothing() {
        let store = Store::create(None, true, &limiter()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..50u8 {
                        let bytes = [thread, number].repeat(100);
                        let plan = Plan::new(Fault::Fails(Errno::NOSPC), Reach::Once, 0, &[]);
                        let piece = match thread == 0 && number == 20 && !store.is_memory() {
                            true => plan.run(|| store.append(&bytes)),
                            false => store.append(&bytes),
                        };
                        let piece = piece.unwrap().unwrap();
                        assert_eq!(store.read(&piece).unwrap().unwrap(), bytes);
                    }
                });
            }
        });
    }
}
