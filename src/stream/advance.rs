//! How far work on a layer has got, for those who wait for it.
//!
//! A wait ends when nothing gets on any more, and never before. So what is counted are bytes: those
//! read of the blob (which are hashed or decoded at once), and those that a decoder takes out of
//! memory. Only storage can stand still; while a layer waits for its storage, its own bytes count.
//! Else it may be waiting for others, for a turn or for memory, and the bytes of all layers do.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::error::Result;
use crate::memory::context::Context;
use crate::source::ReadAt;

/// A blob whose reads are counted.
pub(crate) struct Advance {
    blob: Arc<dyn ReadAt>,
    context: Arc<Context>,
    bytes: AtomicU64,
    /// Threads that wait for storage.
    reading: AtomicUsize,
}

impl Advance {
    pub(crate) fn of(blob: Arc<dyn ReadAt>, context: Arc<Context>) -> Arc<Advance> {
        Arc::new(Advance {
            blob,
            context,
            bytes: AtomicU64::new(0),
            reading: AtomicUsize::new(0),
        })
    }

    /// Counts bytes.
    ///
    /// # Errors
    /// When all work is to end: whatever takes long comes by here again and again.
    pub(super) fn add(&self, bytes: usize) -> Result<()> {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let all = &self.context.advanced;
        all.fetch_add(bytes as u64, Ordering::Relaxed);
        self.context.check_cancelled()
    }

    /// A number that changes as long as this layer gets on, or what it waits for.
    pub(crate) fn get(&self) -> u64 {
        match self.reading.load(Ordering::Relaxed) {
            0 => self.context.advanced.load(Ordering::Relaxed),
            _ => self.bytes.load(Ordering::Relaxed),
        }
    }

    fn counted(&self, bytes: usize, read: impl FnOnce() -> Result<()>) -> Result<()> {
        self.reading.fetch_add(1, Ordering::Relaxed);
        let result = read();
        self.reading.fetch_sub(1, Ordering::Relaxed);
        result.and(self.add(bytes))
    }
}

impl ReadAt for Advance {
    fn len(&self) -> u64 {
        self.blob.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.counted(buf.len(), || self.blob.read_exact_at(buf, offset))
    }

    fn read_exact_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        self.counted(bytes, || self.blob.read_exact_vectored_at(bufs, offset))
    }

    fn would_wait(&self, offset: u64, len: u64) -> bool {
        self.blob.would_wait(offset, len)
    }

    fn piece(&self) -> usize {
        self.blob.piece()
    }
}
