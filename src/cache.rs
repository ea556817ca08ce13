//! A least-recently-used cache of decoded, verified chunks, bounded in bytes.

use std::sync::Mutex;

use bytes::Bytes;
use lru::LruCache;

/// Names a cached chunk: a layer of the open model, and a chunk (or span) of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// Number of the layer, unique within the process.
    pub layer: u32,
    /// Number of the chunk within the layer.
    pub chunk: u32,
}

/// Keeps decoded chunks. Everything put in was verified; an implementation may forget at any time.
pub trait ChunkCache: Send + Sync {
    /// The chunk, if it is still kept; marks it as used.
    fn get(&self, key: ChunkKey) -> Option<Bytes>;
    /// Keeps `chunk`, forgetting others as the bound requires. A chunk over the bound is not kept.
    fn insert(&self, key: ChunkKey, chunk: Bytes);
    /// Bytes kept now.
    fn used(&self) -> u64;
}

/// The cache of a mount: least recently used first out, bounded in bytes.
pub struct LruChunkCache {
    capacity: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    chunks: LruCache<ChunkKey, Bytes>,
    used: u64,
}

impl LruChunkCache {
    /// A cache that keeps at most `capacity` bytes of chunk data.
    pub fn new(capacity: u64) -> LruChunkCache {
        LruChunkCache {
            capacity,
            inner: Mutex::new(Inner {
                chunks: LruCache::unbounded(),
                used: 0,
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

impl ChunkCache for LruChunkCache {
    fn get(&self, key: ChunkKey) -> Option<Bytes> {
        self.lock().chunks.get(&key).cloned()
    }

    fn insert(&self, key: ChunkKey, chunk: Bytes) {
        let size = chunk.len() as u64;
        if size > self.capacity {
            return;
        }
        // Evicted chunks are dropped after the lock is released: freeing memory is slow.
        let mut evicted = Vec::new();
        let mut inner = self.lock();
        inner.used += size;
        if let Some(old) = inner.chunks.put(key, chunk) {
            inner.used -= old.len() as u64;
            evicted.push(old);
        }
        while inner.used > self.capacity {
            let Some((_, old)) = inner.chunks.pop_lru() else {
                break;
            };
            inner.used -= old.len() as u64;
            evicted.push(old);
        }
        drop(inner);
    }

    fn used(&self) -> u64 {
        self.lock().used
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
}
