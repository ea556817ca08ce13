//! Where blobs are: a digest gives bytes at an offset.
//!
//! Nothing here verifies content: a source only promises the bytes that its storage holds.

use std::path::Path;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Result;

pub mod archive;
pub mod layout_dir;
pub mod memory;

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
}

/// Opens an archive file or an image-layout directory.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it is neither (says what was
/// expected), or breaks a rule of its format; FIFOs and devices are refused without blocking.
pub fn open(path: &Path) -> Result<Arc<dyn BlobSource>> {
    let _ = path;
    todo!()
}
