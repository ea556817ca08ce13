//! Blobs that are files, or pieces of one.

use std::fs::{File, Metadata};
use std::io::IoSliceMut;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::blob::{ReadAt, check_range};
use crate::error::{Error, Result};
use crate::files::calls;

/// Root documents of a source; nothing else at the root is read.
pub(super) const DOCUMENTS: [&str; 4] =
    ["oci-layout", "index.json", "manifest.json", "config.json"];

/// What a user should have given instead.
pub(super) const EXPECTED: &str = "expected an uncompressed tar, or a directory, with the blobs and manifest of an OCI image layout";

/// Opens whatever is at a path for reading, this once, without waiting for the other end of a FIFO or for a
/// device, and without making a terminal the controlling one.
pub(super) fn open_any(path: &Path) -> Result<File> {
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
pub(super) const YEAR_1980: u64 = 315_532_800;

/// When a file got its content: its modification, or else its change of status, which nobody can choose.
pub(super) fn time_of(file: &Metadata) -> Option<Duration> {
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

pub(super) fn not_regular(path: &Path) -> Error {
    Error::malformed(
        crate::printable::printable_path(path),
        format!("neither a regular file nor a directory; {EXPECTED}"),
    )
}

/// Fills `buf` from `offset` of a file; `subject` names what is read.
pub(super) fn read_exact_at(
    file: &File,
    mut buf: &mut [u8],
    offset: u64,
    subject: &str,
) -> Result<()> {
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
pub(super) fn read_exact_vectored_at(
    file: &File,
    mut bufs: &mut [IoSliceMut<'_>],
    offset: u64,
    subject: &str,
) -> Result<()> {
    let mut at = offset;
    // Those that have no bytes count as filled.
    IoSliceMut::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        match calls::read_vectored_at(file, bufs, at) {
            Ok(0) => return Err(truncated(subject, at)),
            Ok(n) => {
                at = at.saturating_add(n as u64);
                IoSliceMut::advance_slices(&mut bufs, n);
            }
            Err(errno) => return Err(Error::io("read", subject)(errno.into())),
        }
    }
    Ok(())
}

pub(super) fn truncated(subject: &str, offset: u64) -> Error {
    Error::corrupt(
        subject,
        format!("the storage was truncated: there is nothing at offset {offset}"),
    )
}

pub(super) fn total(bufs: &[IoSliceMut<'_>]) -> usize {
    bufs.iter().map(|buf| buf.len()).sum()
}

/// A piece of an open file: a blob of an archive, or a file of its own.
pub(super) struct FileBlob {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Names the blob in messages.
    pub(super) subject: String,
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
