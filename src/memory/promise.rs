//! What a mount may take, as one number, and what of it is spoken for before anything is read.
//!
//! All budgets stand here; a test adds them up.

use crate::limits;

/// A mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Caches below this size make no promise smaller.
pub const LEAST_CACHE: u64 = 16 * MIB;
/// What is promised beyond the cache.
pub const HEADROOM: u64 = 64 * MIB;

/// The program, its libraries' data, the allocator, and what the kernel keeps for the process.
const PROCESS: u64 = 12 * MIB;
/// The stack of one thread, its part of the allocator, a decoder of its own, and what the kernel
/// keeps for it.
const THREAD: u64 = 128 << 10;
/// Threads beside event loops: those that wait, those that decode ahead.
const OTHER_THREADS: u64 = 64;
/// Threads that decode ahead, at most: few readers are faster than so many, and all count, however many
/// processors there are.
pub(crate) const MOST_DECODERS: usize = 16;
/// Room for those is left beside the lanes of reads that wait.
const _: () = assert!((MOST_DECODERS as u64) * 2 <= OTHER_THREADS);
/// What decoders of foreign layers hold while they stand still: blocks that were read ahead, and
/// the state between two spans, of each that is allowed at a time.
const FRONTIERS: u64 = super::admission::MOST as u64 * 2 * MIB;
/// Seek points of all layers that are put aside in memory because there is no disk to put them on.
pub(crate) const SPOOL: u64 = 2 * MIB;

/// The largest unit that every mount must have room for: the largest chunk, its compressed bytes,
/// and a decoder. (A layer that needs more names the cache size that would do.)
pub(crate) const LARGEST_CHUNK: u64 = 35 * MIB;

/// The largest decoder: its window, and what it reads and writes through.
pub(crate) const LARGEST_DECODER: u64 = (1 << limits::MAX_ZSTD_WINDOW_LOG) + MIB;

/// What long work leaves to short: a span of a foreign layer, or some chunks of the default size.
pub(crate) const SHARE: u64 = 5 * MIB;
/// The same where there is little more than the largest chunk needs: one chunk of the default size.
const LEAST_SHARE: u64 = MIB;

/// The promise of one mount.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    cache: u64,
    headroom: u64,
    base: u64,
    /// Of the open model: its tree, what is known of its layers.
    model: u64,
}

impl Promise {
    /// Of a model that is not mounted: nothing is promised, and everything that a layer may ask for
    /// fits.
    pub fn unmounted(cache: u64) -> Promise {
        Promise {
            cache,
            headroom: HEADROOM + LARGEST_DECODER,
            base: 0,
            model: 0,
        }
    }

    /// For a cache of `cache` bytes, so many event loops, and a model that takes `model` bytes.
    pub fn new(cache: u64, loops: usize, model: u64) -> Promise {
        // Each event loop has a reader that stands in for it.
        let threads = 2 * loops as u64 + OTHER_THREADS;
        Promise {
            cache,
            headroom: HEADROOM,
            base: PROCESS + threads * THREAD + FRONTIERS + SPOOL,
            model,
        }
    }

    /// All that the process may ever take, in bytes.
    pub fn total(&self) -> u64 {
        self.cache.max(LEAST_CACHE).saturating_add(self.headroom)
    }

    /// What is left for whatever grows with what is read.
    pub(crate) fn limit(&self) -> u64 {
        self.total().saturating_sub(self.spoken_for())
    }

    /// What long work leaves to short.
    pub(crate) fn share(&self) -> u64 {
        let spare = self.limit().saturating_sub(LARGEST_CHUNK);
        spare.clamp(LEAST_SHARE, SHARE)
    }

    /// The smallest cache, in bytes, that leaves `bytes` and the share.
    pub(crate) fn cache_for_long(&self, bytes: u64) -> u64 {
        let cache = self.cache_for(bytes.saturating_add(LEAST_SHARE));
        let promise = Promise { cache, ..*self };
        match bytes.saturating_add(promise.share()) <= promise.limit() {
            true => cache,
            false => self.cache_for(bytes.saturating_add(SHARE)),
        }
    }

    /// True when there is room for the largest chunk.
    pub(crate) fn can_be_kept(&self) -> bool {
        self.limit() >= LARGEST_CHUNK
    }

    /// What is there before anything is read.
    fn spoken_for(&self) -> u64 {
        self.base.saturating_add(self.model)
    }

    /// The same for a model that takes `model` bytes.
    pub(crate) fn with(self, model: u64) -> Promise {
        Promise { model, ..self }
    }

    /// The smallest cache, in bytes, that leaves `bytes`.
    pub(crate) fn cache_for(&self, bytes: u64) -> u64 {
        bytes
            .max(LARGEST_CHUNK)
            .saturating_add(self.spoken_for())
            .saturating_sub(self.headroom)
            .max(LEAST_CACHE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_the_budgets_add_up_to_the_promise() {
        for cache in [0, 16 * MIB, 64 * MIB, 256 * MIB] {
            for loops in [2, 8, 64] {
                let promise = Promise::new(cache, loops, 0);
                assert_eq!(promise.total(), cache.max(16 * MIB) + 64 * MIB);
                assert_eq!(promise.spoken_for() + promise.limit(), promise.total());
                assert!(promise.can_be_kept(), "{promise:?}");
                // The cache itself fits, and beside it what makes readers of small chunks fast.
                assert!(promise.limit() >= cache + 16 * MIB, "{promise:?}");
            }
        }
    }

    #[test]
    fn r16_a_promise_that_cannot_be_kept_names_the_cache_that_would_do() {
        for (loops, tree) in [(256, 0), (8, 60 * MIB), (8, 900 * MIB)] {
            let promise = Promise::new(16 * MIB, loops, tree);
            assert!(!promise.can_be_kept());
            let larger = Promise::new(promise.cache_for(0), loops, tree);
            assert!(larger.can_be_kept(), "{larger:?}");
            let smaller = Promise::new(promise.cache_for(0) - 1, loops, tree);
            assert!(!smaller.can_be_kept(), "{smaller:?}");
            let window = Promise::new(promise.cache_for(150 * MIB), loops, tree);
            assert_eq!(window.limit(), 150 * MIB);
            for bytes in [1, 33, 34, 35, 36, 38, 40, 150] {
                let fits = |cache| {
                    let promise = Promise::new(cache, loops, tree);
                    bytes * MIB + promise.share() <= promise.limit()
                };
                let cache = promise.cache_for_long(bytes * MIB);
                assert!(fits(cache), "{bytes}, {loops}, {tree}");
                let least = cache == promise.cache_for(0) || cache == LEAST_CACHE;
                assert!(least || !fits(cache - 1), "{bytes}, {loops}, {tree}");
            }
        }
    }
}
