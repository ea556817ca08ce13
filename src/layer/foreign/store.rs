//! Bytes put aside on disk while a layer is open: seek points, and content that cannot be decoded from
//! the middle. What comes back is checked against a digest that stayed in memory.
//!
//! A file that is memory (of a tmpfs, or of no file system) takes only as much as the limiter grants:
//! what does not fit is decoded again from an earlier place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::index_dir::IndexDir;
use crate::memory::limiter::{Limiter, Spooled};

/// An unlinked temporary file (or a loaded index), written once, read at any offset.
pub(super) struct Store {
    file: File,
    len: AtomicU64,
    memory: Option<Memory>,
}

/// What counts a file that is memory.
struct Memory {
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

impl Store {
    /// An empty one: on the first disk of `dir`, where temporary files go, and where those go that
    /// survive a restart; else, or without `disk`, in a file that is memory.
    pub(super) fn create(
        dir: Option<&Path>,
        disk: bool,
        limiter: &Arc<Limiter>,
    ) -> io::Result<Store> {
        type Place<'a> = Box<dyn Fn() -> io::Result<File> + 'a>;
        let places: [Place<'_>; 3] = [
            Box::new(|| match dir {
                Some(dir) => IndexDir::spool(dir).map_err(io::Error::other),
                None => Err(io::ErrorKind::NotFound.into()),
            }),
            Box::new(tempfile::tempfile),
            Box::new(|| tempfile::tempfile_in("/var/tmp")),
        ];
        let (mut in_memory, mut failure) = (None, None);
        for place in places.iter().filter(|_| disk) {
            match place() {
                Ok(file) if is_memory(&file) => in_memory = in_memory.or(Some(file)),
                Ok(file) => return Ok(Store::of(file, 0)),
                Err(error) => failure = Some(error),
            }
        }
        let file = in_memory.map_or_else(|| memory().map_err(|e| failure.unwrap_or(e)), Ok)?;
        Ok(Store::counted(file, limiter))
    }

    fn counted(file: File, limiter: &Arc<Limiter>) -> Store {
        let memory = Memory {
            limiter: Arc::clone(limiter),
            granted: Mutex::default(),
        };
        Store {
            memory: Some(memory),
            ..Store::of(file, 0)
        }
    }

    /// The pieces of a file that others wrote; nothing may be added.
    pub(super) fn of(file: File, len: u64) -> Store {
        Store {
            file,
            len: AtomicU64::new(len),
            memory: None,
        }
    }

    /// True when it is no place for content.
    pub(super) fn is_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Adds a piece; `None` when there is no memory for it.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<Option<Piece>> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        if let Some(memory) = &self.memory {
            let Some(more) = memory.limiter.spool(u64::from(length)) else {
                return Ok(None);
            };
            let mut granted = memory
                .granted
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match granted.first_mut() {
                Some(granted) => granted.join(more),
                None => granted.push(more),
            }
        }
        let offset = self.len.fetch_add(u64::from(length), Ordering::Relaxed);
        self.file.write_all_at(bytes, offset)?;
        Ok(Some(Piece {
            offset,
            length,
            digest: *blake3::hash(bytes).as_bytes(),
        }))
    }

    /// Reads a piece; `None` when its bytes are no longer what was written.
    pub(super) fn read(&self, piece: &Piece) -> io::Result<Option<Vec<u8>>> {
        let end = piece.offset.checked_add(u64::from(piece.length));
        if end.is_none_or(|end| end > self.len.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let mut bytes = vec![0; piece.length as usize];
        self.file.read_exact_at(&mut bytes, piece.offset)?;
        let intact = blake3::hash(&bytes).as_bytes() == &piece.digest;
        Ok(intact.then_some(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
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
            store.file.write_all_at(b"F", 0).unwrap();
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
}
