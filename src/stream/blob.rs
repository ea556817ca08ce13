//! What of a stream never changes: its blob, the digest that this must have, and what it is taken for.
//! Shared by the stream and the threads that work for it.

use std::sync::Arc;

use bytes::Bytes;

use super::advance::Advance;
use super::expected::Expected;
use super::facts::{Fact, Guess, Plan, Proven};
use super::packing::Packing;
use super::spans::{Tuning, distance};
use crate::digest::Digest;
use crate::limits;
use crate::memory::context::Context;
use crate::memory::windows::Windows;
use crate::source::ReadAt;

/// Largest blocks, in bytes, of a layer whose decoder may stand still: of blobs below 128 GiB.
const LARGEST_BLOCK: u64 = 512 << 10;
/// Most bytes that are decoded ahead of a sequential reader.
const MOST_AHEAD: u64 = 128 << 20;

/// A blob that a stream comes out of.
pub(super) struct Blob {
    /// Reads of it are counted in `advance`.
    pub(super) bytes: Arc<dyn ReadAt>,
    pub(super) advance: Arc<Advance>,
    /// Its digest, as the manifest has it.
    pub(super) digest: Digest,
    pub(super) context: Arc<Context>,
    pub(super) tuning: Tuning,
    /// Names it in messages.
    pub(super) subject: Arc<str>,
    /// What it is taken for. Only plans are made with it,
    pub(super) guess: Guess<Plan>,
    /// (its content ends where the stream does, which only a pass finds out),
    pub(super) measured: bool,
    /// and whether it is that is asked here.
    pub(super) expected: Arc<dyn Expected>,
    /// What its zstd decoders take.
    pub(super) windows: Windows,
}

impl Blob {
    /// True when a pass takes no time, and no memory, worth mentioning.
    pub(super) fn is_small(&self) -> bool {
        self.bytes.len().max(self.guess.unproven().content()) <= self.tuning.whole
    }

    /// What is so, now that the blob is proven: `end` is that of a content that had to be measured.
    pub(super) fn fact(&self, end: u64, proven: Proven) -> Fact<Plan> {
        let measured = |plan: Plan| match self.measured {
            true => Plan { end, ..plan },
            false => plan,
        };
        self.guess.map(measured).confirmed(proven)
    }

    /// Where the content probably ends in the stream.
    pub(super) fn content_end(&self) -> u64 {
        self.guess.unproven().end
    }

    /// Decompressed bytes between seek points.
    pub(super) fn span(&self) -> u64 {
        distance(self.tuning.span, self.guess.unproven().content())
    }

    /// True when the decoder goes only as far as readers do, instead of once over all of the layer.
    ///
    /// Only gzip is decoded slowly enough for that to be worth it. A file that claims to be huge has
    /// spans that are not to be decoded before the digest was found right; a huge blob has blocks of
    /// which too few fit into memory.
    pub(super) fn has_frontier(&self) -> bool {
        !self.measured
            && self.guess.unproven().packing == Packing::Gzip
            && self.guess.unproven().content() > self.tuning.whole
            && self.span() <= u64::from(limits::MAX_CHUNK_BYTES)
            && self.block() <= LARGEST_BLOCK
    }

    /// Compressed bytes of a block.
    pub(super) fn block(&self) -> u64 {
        self.tuning
            .block(self.guess.unproven().packing, self.bytes.len())
    }

    /// Bytes that may be decoded ahead of a reader, so that the cache holds them until it comes;
    /// none when it is too small for that.
    pub(super) fn ahead(&self) -> u64 {
        match self.context.cache.capacity() / 2 {
            half if half < self.span() => 0,
            half => half.min(MOST_AHEAD),
        }
    }

    /// Bytes that may wait in the cache before the blob's digest is known.
    pub(super) fn hold(&self) -> u64 {
        self.context.cache.capacity() / 4 * 3
    }

    /// Bytes that are counted as long as anybody holds them. The cache counts lengths, not capacities.
    pub(super) fn counted(&self, mut bytes: Vec<u8>) -> Bytes {
        bytes.shrink_to_fit();
        self.context.limiter.charge(bytes.len() as u64).hold(bytes)
    }
}
