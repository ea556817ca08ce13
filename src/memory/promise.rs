//! What a mount may take, as one number, and what of it is spoken for before anything is read; and what
//! commands take that do their work on several threads and end.
//!
//! All budgets stand here; tests add them up.

use crate::files::write_back;
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
/// What decoders of foreign layers hold while they stand still: blocks that were read ahead, and
/// the state between two spans, of each that is allowed at a time.
const FRONTIERS: u64 = super::admission::MOST as u64 * 2 * MIB;
/// Seek points of all layers that are put aside in memory because there is no disk to put them on.
pub(crate) const SPOOL: u64 = 2 * MIB;

/// What a registry as a source takes: connections, a manifest, certificates, addresses.
pub(crate) const REGISTRY: u64 = 10 * MIB;

/// The largest unit that every mount must have room for: the largest chunk, its compressed bytes,
/// and a decoder. (A layer that needs more names the cache size that would do.)
pub(crate) const LARGEST_CHUNK: u64 = 35 * MIB;

/// The largest decoder: its window, and what it reads and writes through.
pub(crate) const LARGEST_DECODER: u64 = (1 << limits::MAX_ZSTD_WINDOW_LOG) + MIB;

/// What long work leaves to short: a span of a foreign layer, or some chunks of the default size.
pub(crate) const SHARE: u64 = 5 * MIB;
/// The same where there is little more than the largest chunk needs: one chunk of the default size.
const LEAST_SHARE: u64 = MIB;

/// Of the memory of a control group, what is left for the keeper, what the kernel counts for all processes,
/// and file pages to read and write through.
pub(crate) const BESIDE: u64 = 16 * MIB;

/// What a thread reads at a time to write it out: an answer that no limiter makes wait.
pub const ANSWER: u64 = MIB;
/// Threads that go over foreign layers beside those that were asked for (see `model::verify`).
const PASSES: u64 = 6;
/// Beside cache and [`HEADROOM`], what a command that reads a model may take: the largest decoder always
/// fits.
const READING: u64 = LARGEST_DECODER;
/// Cache of a command that reads each byte once: its threads stay close together.
pub const READING_CACHE: u64 = 64 * MIB;

/// Threads of `pack` beside its workers: who reads, who composes, who writes.
const PACK_STAGES: u64 = 3;
/// Slots of `pack` beyond those that it needs take so much.
const PACK_SLOTS: u64 = 96 * MIB;
/// What `pack` knows of its input: names, heads of files, the largest index of shards.
const PACK_TREE: u64 = limits::MAX_SHARD_INDEX_BYTES + 8 * MIB;

/// What a command takes that reads a model on so many threads, before the limiter grants anything.
const fn reading_base(threads: usize) -> u64 {
    PROCESS + (threads as u64 + PASSES) * (THREAD + ANSWER)
}

/// The least that such a command needs.
pub(crate) fn least_reading(threads: usize) -> u64 {
    reading_base(threads) + LARGEST_CHUNK + SHARE
}

/// What it takes where there is enough.
pub(crate) fn usual_reading(threads: usize) -> u64 {
    reading_base(threads) + READING_CACHE + HEADROOM + READING
}

/// What `pack` does, and with how many threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    pub(crate) workers: usize,
    /// In bytes.
    pub(crate) chunk_size: u32,
    /// What each encoder keeps, in bytes.
    pub(crate) encoder: u64,
}

impl Packing {
    /// The least that it needs, in bytes.
    pub(crate) fn least(&self) -> u64 {
        self.base() + self.least_slots() as u64 * self.slot()
    }

    /// How many slots there are, where so many bytes may be taken in all. Each worker has one in hand while
    /// another waits, and the other stages share two at least; more let every stage go on while another
    /// one takes its time.
    pub(crate) fn slots(&self, memory: Option<u64>) -> usize {
        let room = memory.map_or(PACK_SLOTS, |memory| {
            memory.saturating_sub(self.base()).min(PACK_SLOTS)
        });
        let room = usize::try_from(room / self.slot()).unwrap_or(usize::MAX);
        (6 * self.workers + 2).min(room).max(self.least_slots())
    }

    fn least_slots(&self) -> usize {
        2 * self.workers + 2
    }

    /// A segment, and its compressed bytes.
    fn slot(&self) -> u64 {
        2 * u64::from(self.chunk_size)
    }

    fn base(&self) -> u64 {
        let workers = self.workers as u64;
        PROCESS + PACK_TREE + (workers + PACK_STAGES) * THREAD + workers * self.encoder
    }
}

/// Whose promise it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Mount,
    Command,
}

/// The promise of one mount, or of one command.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    whose: Whose,
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
            whose: Whose::Command,
            cache,
            headroom: HEADROOM + READING,
            base: 0,
            model: 0,
        }
    }

    /// Of a command that reads a model on so many threads, and takes no more than `bytes`.
    pub(crate) fn reading(bytes: u64, threads: usize) -> Promise {
        Promise {
            whose: Whose::Command,
            cache: LEAST_CACHE,
            headroom: bytes.saturating_sub(LEAST_CACHE),
            base: reading_base(threads),
            model: 0,
        }
    }

    /// For a cache of `cache` bytes, so many event loops, and a model that takes `model` bytes.
    pub fn new(cache: u64, loops: usize, model: u64) -> Promise {
        let threads = super::threads::all(loops) as u64;
        Promise {
            whose: Whose::Mount,
            cache,
            headroom: HEADROOM,
            base: PROCESS + threads * THREAD + FRONTIERS + SPOOL + write_back::MOST,
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

    /// What would do for a unit that needs `bytes`, which may be held for minutes.
    pub(crate) fn advice(&self, bytes: u64, long: bool) -> String {
        let share = if long { SHARE } else { 0 };
        let all = bytes.max(LARGEST_CHUNK) + share + self.spoken_for();
        match (self.whose, long) {
            (Whose::Command, _) => format!("{} MiB in all would do", (all + BESIDE).div_ceil(MIB)),
            (Whose::Mount, false) => cache_size(self.cache_for(bytes)),
            (Whose::Mount, true) => cache_size(self.cache_for_long(bytes)),
        }
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

fn cache_size(bytes: u64) -> String {
    format!("--cache-size {}MiB would do", bytes.div_ceil(MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_what_commands_take_adds_up() {
        for threads in [1, 2, 8, 64] {
            let least = Promise::reading(least_reading(threads), threads);
            assert!(least.can_be_kept());
            assert_eq!(least.limit(), LARGEST_CHUNK + SHARE);
            assert_eq!(least.total(), least_reading(threads));
            let usual = Promise::reading(usual_reading(threads), threads);
            assert_eq!(usual.limit(), Promise::unmounted(READING_CACHE).limit());
            for chunk_size in [
                limits::MIN_CHUNK_BYTES,
                limits::DEFAULT_CHUNK_BYTES,
                limits::MAX_CHUNK_BYTES,
            ] {
                let packing = Packing {
                    workers: threads,
                    chunk_size,
                    encoder: MIB,
                };
                let takes = |slots: usize| packing.base() + slots as u64 * packing.slot();
                assert_eq!(packing.least(), takes(2 * threads + 2));
                assert_eq!(packing.slots(Some(0)), 2 * threads + 2);
                for memory in [packing.least(), packing.least() + 40 * MIB, 1 << 40] {
                    assert!(takes(packing.slots(Some(memory))) <= memory, "{packing:?}");
                }
                assert_eq!(packing.slots(None), packing.slots(Some(1 << 40)));
                // At no time more than is needed, or some megabytes.
                assert!(
                    takes(packing.slots(None)) <= packing.least().max(packing.base() + PACK_SLOTS)
                );
            }
        }
    }

    #[test]
    fn two_workers_take_less_than_256_mib_whatever_the_chunk_size() {
        let slots = |chunk_size| {
            let packing = Packing {
                workers: 2,
                chunk_size,
                encoder: MIB,
            };
            packing.slots(None)
        };
        let mut chunk_size = limits::MIN_CHUNK_BYTES;
        while chunk_size <= limits::MAX_CHUNK_BYTES {
            assert!(slots(chunk_size) >= 6, "every stage needs its own");
            let bytes = slots(chunk_size) as u64 * 2 * u64::from(chunk_size);
            assert!(bytes <= 200 * MIB, "{chunk_size}");
            chunk_size *= 2;
        }
        assert_eq!(slots(limits::DEFAULT_CHUNK_BYTES), 14);
    }

    #[test]
    fn r16_a_command_says_how_much_would_do_in_all() {
        let promise = Promise::reading(least_reading(2), 2);
        let all = (least_reading(2) - LARGEST_CHUNK - SHARE + 130 * MIB + SHARE + BESIDE) / MIB;
        assert_eq!(
            promise.advice(130 * MIB, true),
            format!("{all} MiB in all would do")
        );
        let mount = Promise::new(16 * MIB, 2, 0);
        assert_eq!(mount.advice(MIB, false), "--cache-size 16MiB would do");
    }

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
