//! Bytes put aside outside of memory while a layer is open: seek points, and content that cannot be
//! decoded from the middle. What comes back is checked against a digest that stayed in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::index_dir::IndexDir;

/// An unlinked temporary file (or a loaded index), written once, read at any offset.
pub(super) struct Store {
    file: File,
    len: AtomicU64,
}

/// One piece of a [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u32,
    /// BLAKE3 of its bytes.
    pub(super) digest: [u8; 32],
}

impl Store {
    /// An empty one: in `dir` where given and possible, else where temporary files go, else in
    /// memory that is no file system's.
    pub(super) fn create(dir: Option<&Path>) -> io::Result<Store> {
        let in_dir = dir.and_then(|dir| IndexDir::spool(dir).ok());
        let file = match in_dir.map_or_else(tempfile::tempfile, Ok) {
            Ok(file) => file,
            Err(error) => {
                let flags = rustix::fs::MemfdFlags::CLOEXEC;
                match rustix::fs::memfd_create("modeloci", flags) {
                    Ok(memory) => File::from(memory),
                    Err(_) => return Err(error),
                }
            }
        };
        Ok(Store::of(file, 0))
    }

    /// The pieces of a file that others wrote; nothing may be added.
    pub(super) fn of(file: File, len: u64) -> Store {
        Store {
            file,
            len: AtomicU64::new(len),
        }
    }

    /// Adds a piece.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<Piece> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let offset = self.len.fetch_add(u64::from(length), Ordering::Relaxed);
        self.file.write_all_at(bytes, offset)?;
        Ok(Piece {
            offset,
            length,
            digest: *blake3::hash(bytes).as_bytes(),
        })
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
    use super::*;

    #[test]
    fn gives_back_what_was_put_aside_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for dir in [None, Some(dir.path()), Some(&*file.join("below"))] {
            let store = Store::create(dir).unwrap();
            let pieces = [&b"first"[..], b"", b"third"].map(|bytes| store.append(bytes).unwrap());
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
}
