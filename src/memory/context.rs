//! What all layers of an open model share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::admission::Live;
use super::buffers::Buffers;
use super::cache::ChunkCache;
use super::effort::Effort;
use super::kept::KeptErrors;
use super::limiter::{Limiter, Reclaim};
use super::pool::Pool;
use super::promise::Promise;
use super::tables::Tables;
use super::threads::{self, Places};
use super::waiting::Waiting;
use crate::error::{Error, Result};
use crate::work::cores;

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
    /// What is kept of what was wrong with layers.
    pub(crate) errors: KeptErrors,
    /// What was decoded of layers that are not proven yet.
    pub(crate) waiting: Arc<Waiting>,
    /// Recycled memory for decoded chunks.
    pub(crate) buffers: Arc<Buffers>,
    /// Who grants memory for whatever is decoded or kept.
    pub(crate) limiter: Arc<Limiter>,
    /// Chunk tables that were loaded.
    pub(crate) tables: Arc<Tables>,
    /// Foreign layers that are decoded as far as their readers got.
    pub(crate) frontiers: Live,
    /// Of the threads that decode there.
    pub(crate) frontier_threads: Places,
    /// Decodes ahead of sequential readers; `None` when something else reads ahead.
    pub(crate) pool: Option<Pool>,
    /// Most bytes decoded ahead of one reader.
    pub(crate) readahead_bytes: u64,
    /// Ends all work once it is true.
    pub(crate) cancel: Option<&'static AtomicBool>,
    layers: AtomicU32,
    /// Bytes that came out of streams in passes over all of them.
    pub(crate) decoded: AtomicU64,
    /// Bytes that were read of foreign layers, or came out of their decoders.
    pub(crate) advanced: Arc<AtomicU64>,
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
        let waiting = Arc::new(Waiting::new(Arc::clone(&cache)));
        let ahead: Arc<dyn Reclaim> = Arc::<Waiting>::clone(&waiting);
        let givers = [unused, ahead, cached, loaded];
        limiter.reclaims_from(givers.iter().map(Arc::downgrade).collect());
        Context {
            cache,
            stats: Stats::default(),
            index_dir,
            opening: Effort::default(),
            errors: KeptErrors::default(),
            waiting,
            buffers,
            limiter,
            tables,
            frontiers: Live::default(),
            frontier_threads: Places::new(threads::FRONTIERS),
            pool: (readahead_bytes > 0).then(|| Pool::new(cores())),
            readahead_bytes,
            cancel: None,
            layers: AtomicU32::new(0),
            decoded: AtomicU64::new(0),
            advanced: Arc::default(),
        }
    }

    /// Has what is read and decoded counted there from now on.
    pub(crate) fn count_with(&mut self, advance: Arc<AtomicU64>) {
        self.advanced = Arc::clone(&advance);
        self.opening.count_with(advance);
    }

    /// Fails once all work is to end.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment): nothing is wrong with what is read.
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        match self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => {
                Err(Error::environment("reading", "interrupted"))
            }
            _ => Ok(()),
        }
    }

    /// A number for one more layer: the `layer` of its cache keys.
    pub fn next_layer(&self) -> u32 {
        self.layers.fetch_add(1, Ordering::Relaxed)
    }
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
