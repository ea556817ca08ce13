//! The bytes of one file out of one layer: verified, decoded on demand, cached.
//!
//! A *chunk* is a fixed-size piece of a layer's file that is stored so that it decodes alone; a
//! *chunk table* says where each is and what the digest of its compressed bytes is, and is itself
//! pinned by the manifest. `docs/layer-format.md` specifies both.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::digest::Algorithm;
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::memory::admission::Live;
use crate::memory::buffers::Buffers;
use crate::memory::cache::{ChunkCache, ChunkKey};
use crate::memory::limiter::{Limiter, Reclaim};
use crate::memory::pool::Pool;
use crate::memory::promise::Promise;
use crate::memory::tables::Tables;
use crate::oci::Stated;
use crate::source::ReadAt;

mod chunked;
mod damaged;
pub mod effort;
mod file_digests;
pub mod foreign;
mod open_layer;
mod readahead;
pub mod table;

use effort::Effort;
pub use file_digests::FileDigests;
pub use open_layer::{LayerKey, OpenLayer};

/// What the manifest says about one layer and the file in it.
#[derive(Clone)]
pub struct LayerSpec {
    /// What the layer's descriptor states.
    pub stated: Arc<Stated>,
    /// The path of the file, for messages and to check the layer's own header.
    pub path: EntryPath,
    /// How the layer is read.
    pub reading: Reading,
    /// The blob that the annotations name as the chunk table, of layers that do not carry it
    /// themselves; its content is not verified yet.
    pub table: Option<Arc<dyn ReadAt>>,
}

/// How a layer without a chunk table is read: its media type and its system say it, not its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reading {
    /// The blob is the file, whatever its bytes look like.
    File,
    /// It is an archive that holds the file; its bytes say how it is packed. Where they are those of
    /// no archive, the blob is the file.
    Archive,
}

/// What all layers of an open model share.
pub struct Context {
    /// Decoded chunks.
    pub cache: Arc<dyn ChunkCache>,
    /// What was done so far.
    pub stats: Stats,
    /// Where seek tables of foreign layers are kept between runs; `None` to keep none.
    pub index_dir: Option<PathBuf>,
    /// What opening layers may still cost.
    pub opening: Effort,
    /// Recycled memory for decoded chunks.
    buffers: Arc<Buffers>,
    /// Who grants memory for whatever is decoded or kept.
    pub(crate) limiter: Arc<Limiter>,
    /// Chunk tables that were loaded.
    tables: Arc<Tables>,
    /// Foreign layers that are decoded as far as their readers got.
    frontiers: Live,
    /// Decodes ahead of sequential readers; `None` when something else reads ahead.
    pool: Option<Pool>,
    /// Most bytes decoded ahead of one reader.
    readahead_bytes: u64,
    layers: AtomicU32,
    /// Bytes that were read of foreign layers, or came out of their decoders.
    advanced: AtomicU64,
}

impl Context {
    /// A context with no layers yet. `readahead_bytes` bounds what is decoded ahead of one
    /// sequential reader; 0 for nothing.
    pub fn new(
        cache: Arc<dyn ChunkCache>,
        index_dir: Option<PathBuf>,
        readahead_bytes: u64,
    ) -> Context {
        let promise = Promise::unmounted(cache.capacity());
        let limiter = Limiter::new(promise, Duration::ZERO);
        Context::within(limiter, cache, index_dir, readahead_bytes)
    }

    /// The same within a limit of memory.
    pub fn within(
        limiter: Arc<Limiter>,
        cache: Arc<dyn ChunkCache>,
        index_dir: Option<PathBuf>,
        readahead_bytes: u64,
    ) -> Context {
        let buffers = Arc::new(Buffers::new(Arc::clone(&limiter)));
        let unused: Arc<dyn Reclaim> = Arc::<Buffers>::clone(&buffers);
        let cached: Arc<dyn Reclaim> = Arc::<dyn ChunkCache>::clone(&cache);
        let tables = Arc::<Tables>::default();
        let loaded: Arc<dyn Reclaim> = Arc::<Tables>::clone(&tables);
        let givers = [unused, cached, loaded];
        limiter.reclaims_from(givers.iter().map(Arc::downgrade).collect());
        Context {
            cache,
            stats: Stats::default(),
            index_dir,
            opening: Effort::default(),
            buffers,
            limiter,
            tables,
            frontiers: Live::default(),
            pool: (readahead_bytes > 0).then(|| Pool::new(cores().saturating_sub(1).max(1))),
            readahead_bytes,
            layers: AtomicU32::new(0),
            advanced: AtomicU64::new(0),
        }
    }

    /// A number for one more layer: the `layer` of its cache keys.
    pub fn next_layer(&self) -> u32 {
        self.layers.fetch_add(1, Ordering::Relaxed)
    }
}

/// Processors that this process may use.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// True when more reads will follow one of `len` bytes: it is as long as those of readahead, and the
/// chunk before its own was read, too.
fn is_part_of_a_stream(cache: &dyn ChunkCache, len: usize, before: Option<ChunkKey>) -> bool {
    len >= 64 << 10 && before.is_some_and(|key| cache.get(key).is_some())
}

/// True when a chunk (or span) of so many bytes, decoded before somebody wants it, pushes nothing out
/// of the cache that is wanted now.
fn can_wait_in(cache: &dyn ChunkCache, bytes: u64) -> bool {
    bytes <= cache.capacity() / 4
}

/// Counters of an open model. All only grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// Bytes handed to readers.
    pub bytes_served: AtomicU64,
    /// Bytes read ahead of them.
    pub bytes_prefetched: AtomicU64,
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
    /// Bytes read for whatever purpose.
    pub fn bytes_read(&self) -> u64 {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        load(&self.bytes_served) + load(&self.bytes_prefetched)
    }

    /// Adds `n` to a counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// What a read may have to wait for, besides storage and the decoding of one chunk; what takes longer
/// comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Work whose end is in sight: a span is decoded, a small layer is checked.
    Work,
    /// The decoder of a layer has to get to what is read.
    Decoder,
    /// The first pass over a large layer.
    Pass,
}

/// What became of a read that may not wait for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Within {
    /// The bytes.
    Read(Bytes),
    /// It would have to wait for this.
    Waits(Wait),
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

    /// As [`read_at`](FileReader::read_at), when that waits for no more than `may`; otherwise what
    /// it would wait for. With `None` it waits for storage, and for the decoding of one chunk.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn read_within(&self, may: Option<Wait>, offset: u64, len: usize) -> Result<Within> {
        let _ = may;
        self.read_at(offset, len).map(Within::Read)
    }

    /// Makes the pass that [`Wait::Pass`] is about, or waits until another thread has.
    ///
    /// # Errors
    /// What will be the error of all reads, or of this attempt.
    fn touch(&self) -> Result<()> {
        Ok(())
    }

    /// A number that grows as long as what a read would wait for gets on: a count of bytes.
    fn advance(&self) -> u64 {
        0
    }

    /// Checks that the layer's own header gives the file this base name, and says the same of its
    /// execute bit, where it has a header and the file was not opened for a descriptor that states
    /// these. It may be read for that.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn confirm(&self, _name: &str, _executable: bool) -> Result<()> {
        Ok(())
    }

    /// Verifies everything there is to verify of the layer: the blob against its digest, the table
    /// against the stream. Returns the digests of the file: SHA-256, and those by the other
    /// algorithms that are asked for.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn verify(&self, also: &[Algorithm]) -> Result<FileDigests>;
}

/// Opens a layer for the one file that names it: see [`OpenLayer`].
///
/// # Errors
/// As [`OpenLayer::open`].
pub fn open(blob: Arc<dyn ReadAt>, spec: LayerSpec, context: Arc<Context>) -> Result<Opened> {
    OpenLayer::open(blob, &spec, &context)?.entry(&spec)
}

/// What a layer holds.
pub enum Opened {
    /// A file.
    File(Arc<dyn FileReader>, FileAttr),
    /// A link, in a layer that was verified as a whole.
    Link(LinkTarget),
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTarget {
    /// The target as stored, checked against no rule.
    pub path: String,
    /// True for a symbolic link, whose target counts from the directory it is in; that of a hard
    /// link counts from the root of the model.
    pub symbolic: bool,
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
