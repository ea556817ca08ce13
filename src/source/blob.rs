//! What a source of blobs is asked for.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// What is read at a time from a disk: hashed while it is still in the processor's cache.
pub(crate) const LOCAL_PIECE: usize = 256 << 10;

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

    /// True when these bytes are further away than the storage of this machine: reading them waits for a
    /// network. What may not wait for long leaves that to another thread.
    fn would_wait(&self, offset: u64, len: u64) -> bool {
        let _ = (offset, len);
        false
    }

    /// How many bytes are best asked for at a time, where more are wanted.
    fn piece(&self) -> usize {
        LOCAL_PIECE
    }
}

/// The document that leads to all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// An index, which lists manifests.
    Index(Vec<u8>),
    /// A manifest.
    Manifest(Vec<u8>),
}

/// A store of blobs, and the document that leads to them.
pub trait BlobSource: Send + Sync {
    /// Names the source in messages: the path of the archive.
    fn name(&self) -> String;

    /// The blob of a digest; `None` when the source does not have it. `size` is what a descriptor
    /// states of it, where one does: a source that would have to ask how long its blob is takes it at
    /// its word; one that knows gives the length that there is, and who asked compares.
    fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>>;

    /// Where reading begins: the index of a layout, else the manifest that stands alone; `None` when
    /// there is neither. Refused over `limit` bytes before anything is allocated.
    fn root(&self, limit: u64) -> Result<Option<Root>> {
        if let Some(index) = self.document("index.json", limit)? {
            return Ok(Some(Root::Index(index)));
        }
        let manifest = self.document("manifest.json", limit)?;
        Ok(manifest.map(Root::Manifest))
    }

    /// What a layout has at its root besides blobs (`oci-layout`, `index.json`, `manifest.json`,
    /// `config.json`); `None` when there is none, as where there is no layout. Refused over `limit`
    /// bytes before anything is allocated.
    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let _ = (name, limit);
        Ok(None)
    }

    /// When the storage got what it holds, since the epoch; `None` where nothing tells. Another version
    /// of a model that takes the place of one has another time.
    fn time(&self) -> Option<Duration> {
        None
    }

    /// Bytes of memory that it may take, whatever is read of it.
    fn memory(&self) -> u64 {
        0
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
