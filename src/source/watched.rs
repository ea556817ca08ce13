//! A source that says what is read of its blobs, and stops reading when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::blob::{BlobSource, ReadAt, Root};
use crate::digest::Digest;
use crate::error::Result;

/// Takes the bytes of a blob that were read for the first time; its error is that of the read.
type Watch = dyn Fn(u64) -> Result<()> + Send + Sync;

/// Another source, watched: see [`new`](WatchedSource::new).
pub struct WatchedSource {
    source: Arc<dyn BlobSource>,
    watch: Arc<Watch>,
}

impl WatchedSource {
    /// Watches `source`: after each read of a blob, `watch` is called with the bytes by which it went
    /// further than any before, which add up to at most the blob's length. The read fails with the
    /// error of `watch`.
    pub fn new(
        source: Arc<dyn BlobSource>,
        watch: impl Fn(u64) -> Result<()> + Send + Sync + 'static,
    ) -> WatchedSource {
        WatchedSource {
            source,
            watch: Arc::new(watch),
        }
    }
}

impl BlobSource for WatchedSource {
    fn name(&self) -> String {
        self.source.name()
    }

    fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        let blob = self.source.blob(digest, size)?;
        Ok(blob.map(|blob| {
            let watched: Arc<dyn ReadAt> = Arc::new(WatchedBlob {
                blob,
                watch: Arc::clone(&self.watch),
                furthest: AtomicU64::new(0),
            });
            watched
        }))
    }

    fn root(&self, limit: u64) -> Result<Option<Root>> {
        self.source.root(limit)
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.source.document(name, limit)
    }

    fn time(&self) -> Option<Duration> {
        self.source.time()
    }

    fn memory(&self) -> u64 {
        self.source.memory()
    }
}

struct WatchedBlob {
    blob: Arc<dyn ReadAt>,
    watch: Arc<Watch>,
    /// Where the read that went furthest has ended.
    furthest: AtomicU64,
}

impl WatchedBlob {
    fn has_read(&self, offset: u64, length: u64) -> Result<()> {
        let end = offset.saturating_add(length);
        let before = self.furthest.fetch_max(end, Ordering::Relaxed);
        (self.watch)(end.saturating_sub(before))
    }
}

impl ReadAt for WatchedBlob {
    fn len(&self) -> u64 {
        self.blob.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.blob.read_exact_at(buf, offset)?;
        self.has_read(offset, buf.len() as u64)
    }

    fn read_exact_vectored_at(
        &self,
        bufs: &mut [std::io::IoSliceMut<'_>],
        offset: u64,
    ) -> Result<()> {
        self.blob.read_exact_vectored_at(bufs, offset)?;
        let length = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.has_read(offset, length)
    }

    fn would_wait(&self, offset: u64, len: u64) -> bool {
        self.blob.would_wait(offset, len)
    }

    fn piece(&self) -> usize {
        self.blob.piece()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::source::MemorySource;

    #[test]
    fn what_is_read_again_counts_once_and_a_word_ends_it() {
        let mut source = MemorySource::new();
        let digest = source.insert(vec![7; 100]);
        let read = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&read);
        let watched = WatchedSource::new(Arc::new(source), move |bytes| {
            match counted.fetch_add(bytes, Ordering::Relaxed) + bytes {
                100.. => Err(Error::refused("all of it", "is enough")),
                _ => Ok(()),
            }
        });
        let blob = watched.blob(&digest, None).unwrap().unwrap();
        let mut buf = [0; 50];
        for (offset, sum) in [(0, 50), (10, 60), (0, 60)] {
            blob.read_exact_at(&mut buf, offset).unwrap();
            assert_eq!(read.load(Ordering::Relaxed), sum);
        }
        assert_eq!(buf, [7; 50]);
        let error = blob.read_exact_at(&mut buf, 50).unwrap_err();
        assert_eq!(error.to_string(), "all of it: is enough");
        assert_eq!(read.load(Ordering::Relaxed), 100);
    }
}
