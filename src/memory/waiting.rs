//! What was decoded before anybody knows whether it is what the manifest names.
//!
//! It is a type of its own, [`Unproven`], which no cache takes and no reader is given. It waits here
//! until there is a [`Proof`], and becomes bytes with that alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::cache::{ChunkCache, ChunkKey};
use super::limiter::Reclaim;
use super::sync::{Mutex, MutexGuard, PoisonError};

/// Whoever has one has seen that a blob is what the manifest names.
pub(crate) trait Proof {}

/// Bytes decoded from a blob that may not be the manifest's.
#[derive(Debug, Clone)]
pub(crate) struct Unproven(Bytes);

impl Unproven {
    pub(crate) fn new(bytes: Bytes) -> Unproven {
        Unproven(bytes)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The bytes, once the blob that they come from is proven.
    pub(crate) fn proven(self, _: &impl Proof) -> Bytes {
        self.0
    }
}

/// Units that wait, of all layers; together with what the cache has, no more than that may have.
pub(crate) struct Waiting {
    cache: Arc<dyn ChunkCache>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    layers: HashMap<u32, BTreeMap<u32, Unproven>>,
    used: u64,
}

impl Waiting {
    pub(crate) fn new(cache: Arc<dyn ChunkCache>) -> Waiting {
        Waiting {
            cache,
            inner: Mutex::default(),
        }
    }

    /// Keeps a unit until its layer is [released](Waiting::release). What does not fit is not kept.
    pub(crate) fn hold(&self, key: ChunkKey, unit: Unproven) {
        let len = unit.len();
        let mut inner = self.lock();
        let used = inner.used.saturating_add(len);
        if used > self.cache.capacity() {
            return;
        }
        let layer = inner.layers.entry(key.layer).or_default();
        let before = layer.insert(key.chunk, unit);
        inner.used = used - before.as_ref().map_or(0, Unproven::len);
        let both = inner.used.saturating_add(self.cache.used());
        drop(inner);
        let over = both.saturating_sub(self.cache.capacity());
        if over > 0 {
            self.cache.reclaim(over);
        }
    }

    /// The units of a layer, which wait no longer, by number.
    pub(crate) fn release(&self, layer: u32) -> BTreeMap<u32, Unproven> {
        let mut inner = self.lock();
        let units = inner.layers.remove(&layer).unwrap_or_default();
        inner.used -= units.values().map(Unproven::len).sum::<u64>();
        units
    }

    /// Bytes that wait now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reclaim for Waiting {
    /// What a layer's readers would come to last goes first.
    fn reclaim(&self, bytes: u64) -> bool {
        let mut inner = self.lock();
        let mut forgotten = Vec::new();
        let mut freed = 0;
        while freed < bytes {
            let last = inner.layers.iter().filter_map(|(layer, units)| {
                let (number, _) = units.last_key_value()?;
                Some((*number, *layer))
            });
            let Some((_, layer)) = last.max() else {
                break;
            };
            if let Some(units) = inner.layers.get_mut(&layer)
                && let Some((_, unit)) = units.pop_last()
            {
                freed += unit.len();
                forgotten.push(unit);
            }
        }
        inner.used -= freed;
        drop(inner);
        // Freed after the lock is.
        !forgotten.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::cache::LruChunkCache;

    struct Seen;
    impl Proof for Seen {}

    fn key(layer: u32, chunk: u32) -> ChunkKey {
        ChunkKey { layer, chunk }
    }

    fn unit(byte: u8, len: usize) -> Unproven {
        Unproven::new(Bytes::from(vec![byte; len]))
    }

    fn waiting(capacity: u64) -> (Arc<dyn ChunkCache>, Waiting) {
        let cache: Arc<dyn ChunkCache> = Arc::new(LruChunkCache::new(capacity));
        (Arc::clone(&cache), Waiting::new(cache))
    }

    #[test]
    fn what_waits_is_released_layer_by_layer_and_is_in_no_cache() {
        let (cache, waiting) = waiting(100);
        waiting.hold(key(1, 4), unit(4, 10));
        waiting.hold(key(1, 0), unit(0, 10));
        waiting.hold(key(2, 7), unit(7, 10));
        assert_eq!((waiting.used(), cache.used()), (30, 0));
        assert!(cache.get(key(1, 0)).is_none());
        let released = waiting.release(1).into_iter();
        let released: Vec<_> = released.map(|(n, unit)| (n, unit.proven(&Seen))).collect();
        assert_eq!(
            released,
            [(0, Bytes::from(vec![0; 10])), (4, Bytes::from(vec![4; 10]))]
        );
        assert!(waiting.release(1).is_empty());
        assert_eq!(waiting.used(), 10);
    }

    #[test]
    fn r9_what_waits_and_what_is_cached_share_one_bound() {
        let (cache, waiting) = waiting(100);
        cache.insert(key(9, 0), Bytes::from(vec![0; 50]));
        cache.insert(key(9, 1), Bytes::from(vec![0; 50]));
        waiting.hold(key(1, 0), unit(0, 60));
        assert_eq!((waiting.used(), cache.used()), (60, 0));
        // What does not fit beside what waits is not kept, the same unit once more counts once.
        waiting.hold(key(1, 1), unit(1, 50));
        waiting.hold(key(1, 0), unit(0, 30));
        assert_eq!(waiting.used(), 30);
    }

    #[test]
    fn r9_of_what_waits_the_last_is_given_back_first() {
        let (_, waiting) = waiting(100);
        for n in 0..4 {
            waiting.hold(key(1, n), unit(0, 10));
        }
        waiting.hold(key(2, 2), unit(0, 10));
        assert!(waiting.reclaim(15));
        assert_eq!(waiting.used(), 30);
        let left = |layer| waiting.release(layer).into_keys().collect::<Vec<_>>();
        assert_eq!((left(1), left(2)), (vec![0, 1, 2], vec![]));
        assert!(!waiting.reclaim(1));
    }
}
