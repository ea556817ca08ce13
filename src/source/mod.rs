//! Where blobs are: a digest gives bytes at an offset.
//!
//! Nothing here verifies content: a source only promises the bytes that its storage holds. It does
//! promise that a digest names one blob, that a blob is a regular file inside the source, and that
//! a storage which shrank or vanished meanwhile gives an error, never fewer bytes.

use std::fs::{File, Metadata};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::calls;

pub mod archive;
mod closed;
pub mod layout_dir;
pub mod memory;
pub mod watched;

pub use archive::ArchiveSource;
pub use layout_dir::LayoutDir;
pub use memory::MemorySource;
pub use watched::WatchedSource;

/// Bytes at an offset: a blob, or a file.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`. Retries interruptions and short reads.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the bytes end before `buf` is full
    /// (a storage that was truncated), [`ErrorKind::Environment`](crate::ErrorKind::Environment)
    /// when reading fails.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Fills buffers, one after the other, from `offset`.
    ///
    /// # Errors
    /// As [`read_exact_at`](ReadAt::read_exact_at).
    fn read_exact_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let mut at = offset;
        for buf in bufs {
            self.read_exact_at(buf, at)?;
            at = at.saturating_add(buf.len() as u64);
        }
        Ok(())
    }

    /// True when there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A store of blobs with the root documents of an image layout.
pub trait BlobSource: Send + Sync {
    /// Names the source in messages: the path of the archive.
    fn name(&self) -> String;

    /// The blob of a digest; `None` when the source does not have it.
    fn blob(&self, digest: &Digest) -> Result<Option<Arc<dyn ReadAt>>>;

    /// A root document (`oci-layout`, `index.json`, `manifest.json`, `config.json`); `None` when
    /// there is none. Refused over `limit` bytes before anything is allocated.
    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// Digests of all blobs that the source lists, in its order; for reports.
    fn blobs(&self) -> Vec<(Digest, u64)>;

    /// When the storage got what it holds, since the epoch; `None` where nothing tells. Another version
    /// of a model that takes the place of one has another time.
    fn time(&self) -> Option<Duration> {
        None
    }
}

/// Opens an archive file or an image-layout directory.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it is neither (says what was
/// expected), or breaks a rule of its format; FIFOs and devices are refused without blocking.
pub fn open(path: &Path) -> Result<Arc<dyn BlobSource>> {
    Unread::open(path)?.read()
}

/// What is at a path, of which nothing was read yet. A process can give up rights in between.
pub struct Unread {
    file: File,
    path: PathBuf,
}

impl Unread {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> Result<Unread> {
        Ok(Unread {
            file: open_any(path)?,
            path: path.to_path_buf(),
        })
    }

    /// True for a layout directory of which root could not read some file without the capability for
    /// that; an archive is open already.
    pub fn is_closed_to_root(&self) -> bool {
        closed::is_closed_to_root(self.as_fd())
    }

    /// Reads what it is.
    ///
    /// # Errors
    /// As [`open`].
    pub fn read(self) -> Result<Arc<dyn BlobSource>> {
        let Unread { file, path } = self;
        let metadata = file.metadata().map_err(Error::io("read", &path))?;
        if metadata.is_dir() {
            Ok(Arc::new(LayoutDir::from_file(file, &path)?))
        } else {
            Ok(Arc::new(ArchiveSource::from_file(file, &path)?))
        }
    }
}

impl AsFd for Unread {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Root documents of a source; nothing else at the root is read.
const DOCUMENTS: [&str; 4] = ["oci-layout", "index.json", "manifest.json", "config.json"];

/// What a user should have given instead.
const EXPECTED: &str = "expected an uncompressed tar, or a directory, with the blobs and manifest of an OCI image layout";

/// Opens whatever is at a path for reading, this once, without waiting for the other end of a FIFO or for a
/// device, and without making a terminal the controlling one.
fn open_any(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match calls::open(path, flags) {
        Ok(fd) => Ok(File::from(fd)),
        // What a socket answers, and a device without a driver.
        Err(Errno::NXIO | Errno::NODEV) => Err(not_regular(path)),
        Err(errno) => Err(Error::io("open", path)(errno.into())),
    }
}

/// 1 January 1980, in seconds since the epoch. What is older was not modified then: it was unpacked, or
/// put into a store, by something that does not keep times.
const YEAR_1980: u64 = 315_532_800;

/// When a file got its content: its modification, or else its change of status, which nobody can choose.
fn time_of(file: &Metadata) -> Option<Duration> {
    let time = |seconds: i64, nanoseconds: i64| {
        let nanoseconds = u32::try_from(nanoseconds)
            .ok()
            .filter(|n| *n < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
    };
    let modified = time(file.mtime(), file.mtime_nsec());
    modified
        .filter(|modified| modified.as_secs() >= YEAR_1980)
        .or_else(|| time(file.ctime(), file.ctime_nsec()))
}

fn not_regular(path: &Path) -> Error {
    Error::malformed(
        crate::entry_path::printable_path(path),
        format!("neither a regular file nor a directory; {EXPECTED}"),
    )
}

/// Fills `buf` from `offset` of a file; `subject` names what is read.
fn read_exact_at(file: &File, mut buf: &mut [u8], offset: u64, subject: &str) -> Result<()> {
    let mut at = offset;
    while !buf.is_empty() {
        match calls::read_at(file, buf, at) {
            Ok(0) => return Err(truncated(subject, at)),
            Ok(n) => {
                at = at.saturating_add(n as u64);
                buf = buf.get_mut(n..).unwrap_or_default();
            }
            Err(errno) => return Err(Error::io("read", subject)(errno.into())),
        }
    }
    Ok(())
}

/// Fills `bufs` from `offset` of a file; `subject` names what is read.
fn read_exact_vectored_at(
    file: &File,
    mut bufs: &mut [IoSliceMut<'_>],
    offset: u64,
    subject: &str,
) -> Result<()> {
    let mut at = offset;
    // Those that have no bytes count as filled.
    IoSliceMut::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        match rustix::io::preadv(file, bufs, at) {
            Ok(0) => return Err(truncated(subject, at)),
            Ok(n) => {
                at = at.saturating_add(n as u64);
                IoSliceMut::advance_slices(&mut bufs, n);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("read", subject)(errno.into())),
        }
    }
    Ok(())
}

fn truncated(subject: &str, offset: u64) -> Error {
    Error::corrupt(
        subject,
        format!("the storage was truncated: there is nothing at offset {offset}"),
    )
}

fn total(bufs: &[IoSliceMut<'_>]) -> usize {
    bufs.iter().map(|buf| buf.len()).sum()
}

/// Checks that `buf_len` bytes from `offset` lie within `len`.
fn check_range(subject: &str, len: u64, offset: u64, buf_len: usize) -> Result<()> {
    match offset.checked_add(buf_len as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(Error::corrupt(
            subject,
            format!("{buf_len} bytes at offset {offset} lie beyond its {len} bytes"),
        )),
    }
}

/// A whole blob or document of at most `limit` bytes, which is checked before anything is allocated.
fn read_document(bytes: &dyn ReadAt, subject: &str, limit: u64) -> Result<Vec<u8>> {
    let len = bytes.len();
    let size = usize::try_from(len)
        .ok()
        .filter(|_| len <= limit)
        .ok_or_else(|| {
            Error::malformed(subject, format!("has {len} bytes, the limit is {limit}"))
        })?;
    let mut out = vec![0; size];
    bytes.read_exact_at(&mut out, 0)?;
    Ok(out)
}

/// A piece of an open file: a blob of an archive, or a file of its own.
struct FileBlob {
    file: Arc<File>,
    offset: u64,
    len: u64,
    /// Names the blob in messages.
    subject: String,
}

impl ReadAt for FileBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(&self.subject, self.len, offset, buf.len())?;
        // Cannot overflow: an archive's entry lies within the archive.
        let at = self.offset.saturating_add(offset);
        read_exact_at(&self.file, buf, at, &self.subject)
    }

    fn read_exact_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        check_range(&self.subject, self.len, offset, total(bufs))?;
        let at = self.offset.saturating_add(offset);
        read_exact_vectored_at(&self.file, bufs, at, &self.subject)
    }
}

#[cfg(test)]
mod tests;
