//! An image layout in a directory.
//!
//! Everything is opened beneath one directory handle without following a symbolic link, and only
//! regular files are read: a layout cannot make anyone read a file outside of it, and a FIFO in it
//! blocks no one. Files are opened on demand and few stay open, so a model of thousands of layers
//! needs no more descriptors than one of three.

use std::fs::File;
use std::io::IoSliceMut;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::blob::{BlobSource, ReadAt, check_range, read_document};
use super::file::{
    DOCUMENTS, EXPECTED, FileBlob, open_any, read_exact_at, read_exact_vectored_at, time_of, total,
};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::{beneath, calls};
use crate::printable::printable_path;

/// Blob files kept open at once.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// An open image-layout directory.
pub struct LayoutDir {
    shared: Arc<Shared>,
    time: Option<Duration>,
}

struct Shared {
    root: OwnedFd,
    path: PathBuf,
    open: Mutex<LruCache<Digest, Arc<File>>>,
}

impl LayoutDir {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it is no image layout: it needs
    /// `blobs/` and one of `index.json` and `manifest.json`.
    pub fn open(path: &Path) -> Result<LayoutDir> {
        LayoutDir::from_file(open_any(path)?, path)
    }

    pub(super) fn from_file(root: File, path: &Path) -> Result<LayoutDir> {
        let shared = Shared {
            root: root.into(),
            path: path.to_path_buf(),
            open: Mutex::new(LruCache::new(OPEN_FILES)),
        };
        let refuse = |missing: &str| {
            Err(Error::malformed(
                printable_path(path),
                format!("not an image layout: no {missing}; {EXPECTED}"),
            ))
        };
        if shared.open_directory("blobs")?.is_none() {
            return refuse("directory \"blobs\"");
        }
        let mut document = shared.open_file("index.json")?;
        if document.is_none() {
            document = shared.open_file("manifest.json")?;
        }
        let Some((document, _)) = document else {
            return refuse("\"index.json\" or \"manifest.json\"");
        };
        let metadata = calls::metadata(&document);
        let metadata = metadata.map_err(|errno| Error::io("read", path)(errno.into()))?;
        Ok(LayoutDir {
            shared: Arc::new(shared),
            time: time_of(&metadata),
        })
    }
}

impl BlobSource for LayoutDir {
    fn name(&self) -> String {
        printable_path(&self.shared.path)
    }

    fn blob(&self, digest: &Digest, _: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        let Some((file, len)) = self.shared.open_file(&digest.blob_path())? else {
            return Ok(None);
        };
        self.shared.keep(*digest, Arc::new(file));
        Ok(Some(Arc::new(DirBlob {
            shared: Arc::clone(&self.shared),
            digest: *digest,
            len,
        })))
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if !DOCUMENTS.contains(&name) {
            return Ok(None);
        }
        let Some((file, len)) = self.shared.open_file(name)? else {
            return Ok(None);
        };
        let blob = FileBlob {
            file: Arc::new(file),
            offset: 0,
            len,
            subject: self.shared.subject(name),
        };
        read_document(&blob, &blob.subject, limit).map(Some)
    }

    /// That of its index: a blob says nothing about what the layout holds now.
    fn time(&self) -> Option<Duration> {
        self.time
    }
}

impl Shared {
    fn subject(&self, name: &str) -> String {
        format!("{}: {name}", printable_path(&self.path))
    }

    /// A regular file below the root with its length; `None` when there is nothing.
    fn open_file(&self, name: &str) -> Result<Option<(File, u64)>> {
        let Some(fd) = self.open_beneath(name, OFlags::NONBLOCK | OFlags::NOCTTY)? else {
            return Ok(None);
        };
        let file = File::from(fd);
        let subject = self.subject(name);
        let metadata = calls::metadata(&file);
        let metadata = metadata.map_err(|errno| Error::io("read", &subject)(errno.into()))?;
        if !metadata.is_file() {
            return Err(Error::malformed(subject, "not a regular file"));
        }
        Ok(Some((file, metadata.len())))
    }

    fn open_directory(&self, name: &str) -> Result<Option<OwnedFd>> {
        self.open_beneath(name, OFlags::DIRECTORY)
    }

    fn open_beneath(&self, name: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = beneath::open(self.root.as_fd(), Path::new(name), flags);
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::XDEV) => Err(Error::malformed(
                self.subject(name),
                "reached through a symbolic link",
            )),
            Err(Errno::NOTDIR) => Err(Error::malformed(
                self.subject(name),
                "not a directory, or reached through a file or symbolic link",
            )),
            Err(Errno::NXIO | Errno::NODEV) => {
                Err(Error::malformed(self.subject(name), "not a regular file"))
            }
            Err(errno) => Err(Error::io("open", self.subject(name))(errno.into())),
        }
    }

    fn keep(&self, digest: Digest, file: Arc<File>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.put(digest, file);
    }

    fn kept(&self, digest: &Digest) -> Option<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(digest).cloned()
    }
}

/// A blob in a file of its own, which is opened again when it was closed to make room.
struct DirBlob {
    shared: Arc<Shared>,
    digest: Digest,
    len: u64,
}

impl DirBlob {
    fn subject(&self) -> String {
        self.shared.subject(&format!("blob {}", self.digest))
    }

    fn file(&self) -> Result<Arc<File>> {
        if let Some(file) = self.shared.kept(&self.digest) {
            return Ok(file);
        }
        match self.shared.open_file(&self.digest.blob_path())? {
            Some((file, len)) if len == self.len => {
                let file = Arc::new(file);
                self.shared.keep(self.digest, Arc::clone(&file));
                Ok(file)
            }
            Some((_, len)) => Err(Error::corrupt(
                self.subject(),
                format!(
                    "has {len} bytes instead of {} since it was opened",
                    self.len
                ),
            )),
            None => Err(Error::corrupt(
                self.subject(),
                "was removed since it was opened",
            )),
        }
    }
}

impl ReadAt for DirBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range("blob", self.len, offset, buf.len()).map_err(|e| e.within(self.subject()))?;
        read_exact_at(&*self.file()?, buf, offset, "blob").map_err(|e| e.within(self.subject()))
    }

    fn read_exact_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        check_range("blob", self.len, offset, total(bufs)).map_err(|e| e.within(self.subject()))?;
        read_exact_vectored_at(&*self.file()?, bufs, offset, "blob")
            .map_err(|e| e.within(self.subject()))
    }
}

#[cfg(test)]
mod tests;
