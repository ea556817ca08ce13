//! The bytes of one file out of one layer: verified, decoded on demand, cached.
//!
//! A *chunk* is a fixed-size piece of a layer's file that is stored so that it decodes alone; a
//! *chunk table* says where each is and what the digest of its compressed bytes is, and is itself
//! pinned by the manifest. `docs/layer-format.md` specifies both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::cache::ChunkCache;
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::oci::Descriptor;
use crate::source::ReadAt;

pub mod flight;
pub mod foreign;
pub mod table;

/// What the manifest says about one layer and the file in it.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// The layer's descriptor, annotations included.
    pub descriptor: Descriptor,
    /// The path of the file, for messages and to check the layer's own header.
    pub path: EntryPath,
}

/// What all layers of an open model share.
pub struct Context {
    /// Decoded chunks.
    pub cache: Arc<dyn ChunkCache>,
    /// What was done so far.
    pub stats: Arc<Stats>,
    /// Where seek tables of foreign layers are kept between runs; `None` to keep none.
    pub index_dir: Option<PathBuf>,
}

/// Counters of an open model. All only grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// Bytes handed to readers.
    pub bytes_served: AtomicU64,
    /// Chunks (or spans) whose compressed bytes were checked against their digest.
    pub chunks_verified: AtomicU64,
    /// Chunks (or spans) decoded.
    pub chunks_decoded: AtomicU64,
    /// Reads answered from the cache.
    pub cache_hits: AtomicU64,
    /// Reads that waited for a decode another reader had begun.
    pub waits: AtomicU64,
    /// Reads that failed.
    pub failures: AtomicU64,
}

impl Stats {
    /// Adds `n` to a counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// One file, readable at any offset.
pub trait FileReader: Send + Sync {
    /// Size of the file, in bytes.
    fn size(&self) -> u64;

    /// The bytes from `offset`: `len` of them, fewer only at the end of the file. Never unverified.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) naming the layer, its digest and the
    /// offset; [`ErrorKind::Environment`](crate::ErrorKind::Environment) when storage fails.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;

    /// Verifies everything there is to verify of the layer: the blob against its digest, the table
    /// against the stream, the file against its digest. Returns the SHA-256 of the file.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn verify(&self) -> Result<Digest>;
}

/// Opens a layer: reads at most its first kilobytes, so that its file's size and mode are known.
pub fn open(
    blob: Arc<dyn ReadAt>,
    spec: LayerSpec,
    context: Arc<Context>,
) -> Result<(Arc<dyn FileReader>, FileAttr)> {
    let _ = (blob, spec, context);
    todo!()
}

/// Attributes of a layer's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAttr {
    /// Size in bytes.
    pub size: u64,
    /// True when any execute bit is set.
    pub executable: bool,
    /// Modification time, in seconds since the epoch; 0 when unknown.
    pub mtime: u64,
}
