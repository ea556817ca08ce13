//! A least-recently-used cache of decoded, verified chunks, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use lru::LruCache;

use super::limiter::Reclaim;

/// Names a cached chunk: a layer of the open model, and a chunk (or span) of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// Number of the layer, unique within the process.
    pub layer: u32,
    /// Number of the chunk within the layer.
    pub chunk: u32,
}

/// Keeps decoded chunks. Everything put in was verified; an implementation may forget at any time.
pub trait ChunkCache: Reclaim {
    /// The chunk, if it is still kept; marks it as used.
    fn get(&self, key: ChunkKey) -> Option<Bytes>;
    /// Keeps `chunk`, forgetting others as the bound requires. A chunk over the bound is not kept.
    fn insert(&self, key: ChunkKey, chunk: Bytes);
    /// Notes that so many bytes of the chunk were served. Once all of it was, it is *spent*: the next
    /// to forget.
    fn served(&self, key: ChunkKey, bytes: usize);
    /// Bytes kept now.
    fn used(&self) -> u64;
    /// Most bytes that are kept.
    fn capacity(&self) -> u64;
}

/// Most bytes of spent chunks that are kept, and at least two of them: they serve readers that follow
/// each other closely.
///
/// A sequential reader needs no chunk twice (and the kernel's page cache has it anyway). What it is
/// through with makes room at once, so that its working set stays small enough for the processor's
/// own caches, and the memory of one chunk serves the next.
const SPENT_BYTES: u64 = 2 << 20;

/// The cache of a mount: least recently used first out, bounded in bytes.
pub struct LruChunkCache {
    capacity: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    chunks: LruCache<ChunkKey, Kept>,
    used: u64,
    /// Keys of spent chunks, oldest first; some may be forgotten already.
    spent: VecDeque<ChunkKey>,
    spent_bytes: u64,
}

struct Kept {
    chunk: Bytes,
    /// Bytes served, in any order: requests of one reader overtake each other.
    served: usize,
    spent: bool,
}

impl Inner {
    /// Forgets what was used least recently until the rest fits `capacity`.
    fn shrink(&mut self, capacity: u64, forgotten: &mut Vec<Bytes>) {
        while self.used > capacity {
            let Some((_, old)) = self.chunks.pop_lru() else {
                break;
            };
            self.forget(old, forgotten);
        }
    }

    /// Takes a chunk that left the map out of the counts.
    fn forget(&mut self, kept: Kept, forgotten: &mut Vec<Bytes>) {
        let size = kept.chunk.len() as u64;
        self.used -= size;
        if kept.spent {
            self.spent_bytes -= size;
        }
        forgotten.push(kept.chunk);
    }
}

impl LruChunkCache {
    /// A cache that keeps at most `capacity` bytes of chunk data.
    pub fn new(capacity: u64) -> LruChunkCache {
        LruChunkCache {
            capacity,
            inner: Mutex::new(Inner {
                chunks: LruCache::unbounded(),
                used: 0,
                spent: VecDeque::new(),
                spent_bytes: 0,
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held; a poisoned cache is still a consistent cache.
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Reclaim for LruChunkCache {
    fn reclaim(&self, bytes: u64) -> bool {
        let mut forgotten = Vec::new();
        let mut inner = self.lock();
        let less = inner.used.saturating_sub(bytes);
        inner.shrink(less, &mut forgotten);
        drop(inner);
        !forgotten.is_empty()
    }
}

// Forgotten chunks are dropped after the lock is released: freeing memory is slow.
impl ChunkCache for LruChunkCache {
    fn get(&self, key: ChunkKey) -> Option<Bytes> {
        self.lock().chunks.get(&key).map(|kept| kept.chunk.clone())
    }

    fn insert(&self, key: ChunkKey, chunk: Bytes) {
        let size = chunk.len() as u64;
        let mut forgotten = Vec::new();
        let mut inner = self.lock();
        if size > self.capacity {
            return;
        }
        inner.used += size;
        let kept = Kept {
            chunk,
            served: 0,
            spent: false,
        };
        if let Some(old) = inner.chunks.put(key, kept) {
            inner.forget(old, &mut forgotten);
        }
        inner.shrink(self.capacity, &mut forgotten);
        drop(inner);
    }

    fn served(&self, key: ChunkKey, bytes: usize) {
        let mut forgotten = Vec::new();
        let mut inner = self.lock();
        let Some(kept) = inner.chunks.peek_mut(&key).filter(|kept| !kept.spent) else {
            return;
        };
        kept.served = kept.served.saturating_add(bytes);
        if kept.served < kept.chunk.len() {
            return;
        }
        kept.spent = true;
        let size = kept.chunk.len() as u64;
        inner.spent_bytes += size;
        inner.spent.push_back(key);
        // Large chunks, too, serve a second reader.
        let bound = SPENT_BYTES.max(2 * size);
        while inner.spent_bytes > bound {
            let Some(oldest) = inner.spent.pop_front() else {
                break;
            };
            if inner.chunks.peek(&oldest).is_some_and(|kept| kept.spent)
                && let Some(old) = inner.chunks.pop(&oldest)
            {
                inner.forget(old, &mut forgotten);
            }
        }
        // Keys of chunks that were forgotten otherwise must not pile up.
        if inner.spent.len() > 2 * inner.chunks.len() + 64 {
            let Inner { chunks, spent, .. } = &mut *inner;
            spent.retain(|key| chunks.peek(key).is_some_and(|kept| kept.spent));
        }
        drop(inner);
    }

    fn used(&self) -> u64 {
        self.lock().used
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(chunk: u32) -> ChunkKey {
        ChunkKey { layer: 0, chunk }
    }

    #[test]
    fn keeps_what_was_used_last_within_the_bound() {
        let cache = LruChunkCache::new(30);
        for n in 0..3 {
            cache.insert(key(n), Bytes::from(vec![n as u8; 10]));
        }
        assert!(cache.get(key(0)).is_some());
        cache.insert(key(3), Bytes::from(vec![3; 10]));
        assert!(
            cache.get(key(1)).is_none(),
            "the least recently used goes first"
        );
        assert_eq!(cache.get(key(0)).unwrap()[0], 0);
        assert_eq!(cache.used(), 30);
    }

    #[test]
    fn replacing_and_oversized_chunks_keep_the_count_true() {
        let cache = LruChunkCache::new(30);
        cache.insert(key(0), Bytes::from(vec![0; 20]));
        cache.insert(key(0), Bytes::from(vec![0; 5]));
        assert_eq!(cache.used(), 5);
        cache.insert(key(1), Bytes::from(vec![0; 31]));
        assert!(cache.get(key(1)).is_none());
        assert_eq!(cache.used(), 5);
    }

    #[test]
    fn spent_chunks_make_room_before_any_other() {
        let chunk = || Bytes::from(vec![0; 1 << 20]);
        let cache = LruChunkCache::new(1 << 30);
        cache.insert(key(1000), chunk());
        for n in 0..100 {
            cache.insert(key(n), chunk());
            cache.served(key(n), 1000);
            cache.served(key(n), (1 << 20) - 1000);
            cache.served(key(n), 1000);
        }
        assert_eq!(cache.used(), SPENT_BYTES + (1 << 20));
        assert!(cache.get(key(1000)).is_some());
        assert!(cache.get(key(99)).is_some() && cache.get(key(91)).is_none());
        cache.served(key(5_000), 1 << 20);
        cache.served(key(1000), (1 << 20) - 1);
        assert_eq!(cache.lock().spent_bytes, SPENT_BYTES);
    }

    /// Bytes served are those of all readers: of two in step, none may be through with the chunk yet.
    #[test]
    fn r10_large_spent_chunks_are_kept_for_the_next_reader() {
        let cache = LruChunkCache::new(1 << 30);
        for n in 0..10 {
            cache.insert(key(n), Bytes::from(vec![0; 16 << 20]));
            cache.served(key(n), 16 << 20);
            assert!(cache.get(key(n)).is_some());
            assert!(n == 0 || cache.get(key(n - 1)).is_some());
        }
        assert_eq!(cache.used(), 32 << 20);
    }

    #[test]
    fn a_spent_chunk_that_comes_back_counts_once() {
        let cache = LruChunkCache::new(10 << 20);
        for _ in 0..1_000 {
            for n in 0..12 {
                cache.insert(key(n), Bytes::from(vec![0; 1 << 20]));
                cache.served(key(n), 1 << 20);
            }
        }
        let inner = cache.lock();
        let flagged = inner.chunks.iter().filter(|(_, kept)| kept.spent).count() as u64;
        assert_eq!(inner.spent_bytes, flagged << 20);
        assert_eq!(inner.used, (inner.chunks.len() as u64) << 20);
        assert!(inner.spent.len() <= 2 * inner.chunks.len() + 65);
    }
}
