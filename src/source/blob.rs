//! What a source of blobs is asked for.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{Error, Result};

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

    /// When the storage got what it holds, since the epoch; `None` where nothing tells. Another version
    /// of a model that takes the place of one has another time.
    fn time(&self) -> Option<Duration> {
        None
    }
}

/// Checks that `buf_len` bytes from `offset` lie within `len`.
pub(super) fn check_range(subject: &str, len: u64, offset: u64, buf_len: usize) -> Result<()> {
    match offset.checked_add(buf_len as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(Error::corrupt(
            subject,
            format!("{buf_len} bytes at offset {offset} lie beyond its {len} bytes"),
        )),
    }
}

/// A whole blob or document of at most `limit` bytes, which is checked before anything is allocated.
pub(super) fn read_document(bytes: &dyn ReadAt, subject: &str, limit: u64) -> Result<Vec<u8>> {
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
