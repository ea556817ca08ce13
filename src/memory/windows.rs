//! Memory of zstd decoders that keep a large window: taken from the cache's.
//!
//! A frame may ask its decoder for a window of 128 MiB, twice what a mount may take beyond its cache.
//! So decoders with large windows go one after the other, and while one is at work the cache keeps as
//! much less. A cache that is smaller than a window is emptied, and no more can be done then. Passes
//! over whole layers, which take long, and reads of single spans do not wait for each other.

use super::cache::ChunkCache;
use super::turns::{Turn, Turns};

/// Bytes of a decoder that the promised memory has room for, whatever the cache holds.
const FREE_BYTES: u64 = 16 << 20;

/// Decoders for whole layers that have more, at a time in the whole process.
static PASSES: Turns = Turns::new(1);
/// Decoders for single spans that have more.
static SPANS: Turns = Turns::new(1);

/// What one decoder has taken, until it is dropped.
pub(crate) struct WindowMemory<'a> {
    cache: &'a dyn ChunkCache,
    turns: &'static Turns,
    size: u64,
    turn: Option<Turn<'static>>,
}

impl<'a> WindowMemory<'a> {
    /// Nothing yet, of a decoder for a whole layer.
    pub(crate) fn of_pass(cache: &'a dyn ChunkCache) -> WindowMemory<'a> {
        WindowMemory::new(cache, &PASSES)
    }

    /// Nothing yet, of a decoder for one span.
    pub(crate) fn of_span(cache: &'a dyn ChunkCache) -> WindowMemory<'a> {
        WindowMemory::new(cache, &SPANS)
    }

    fn new(cache: &'a dyn ChunkCache, turns: &'static Turns) -> WindowMemory<'a> {
        WindowMemory {
            cache,
            turns,
            size: 0,
            turn: None,
        }
    }

    /// Waits until there may be a decoder of `size` bytes, and takes as many in all.
    pub(crate) fn grow(&mut self, size: u64) {
        if size <= self.size.max(FREE_BYTES) {
            return;
        }
        self.give_back();
        self.turn = Some(self.turns.take());
        self.size = size;
        self.cache.reserve(self.beyond());
    }

    fn beyond(&self) -> u64 {
        self.size.saturating_sub(FREE_BYTES)
    }

    fn give_back(&mut self) {
        self.cache.release(self.beyond());
        self.size = 0;
        self.turn = None;
    }
}

impl Drop for WindowMemory<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use super::*;
    use crate::memory::cache::{ChunkKey, LruChunkCache};

    #[test]
    fn r9_a_large_window_takes_the_place_of_chunks() {
        const MIB: u64 = 1 << 20;
        let cache = LruChunkCache::new(64 * MIB);
        let fill = || {
            for chunk in 0..64 {
                cache.insert(ChunkKey { layer: 0, chunk }, Bytes::from(vec![0; 1 << 20]));
            }
            cache.used() / MIB
        };
        assert_eq!(fill(), 64);
        let mut one = WindowMemory::of_pass(&cache);
        one.grow(8 * MIB);
        assert_eq!(cache.used(), 64 * MIB);
        one.grow(48 * MIB);
        one.grow(40 * MIB);
        assert_eq!(cache.used(), 32 * MIB);
        assert_eq!(fill(), 32);
        let mut span = WindowMemory::of_span(&cache);
        span.grow(32 * MIB);
        assert_eq!(cache.used(), 16 * MIB, "it does not wait for the pass");
        drop(span);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut other = WindowMemory::of_pass(&cache);
                other.grow(128 * MIB);
                cache.used()
            });
            // Before, there were both.
            assert!(!other.is_finished());
            drop(one);
            assert_eq!(other.join().unwrap(), 0, "all of a cache that is too small");
        });
        assert_eq!(fill(), 64);
    }
}
