//! What of a stream never changes: its blob, the digest that this must have, and what it is taken for.
//! Shared by the stream and the threads that work for it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::advance::Advance;
use super::expected::Expected;
use super::facts::{self, Fact, Guess, Plan, Proven};
use super::index;
use super::packing::Packing;
use super::reader::{Digests, VerifiedBlocks};
use super::spans::{Blocks, Spans, Tuning, distance};
use crate::digest::Digest;
use crate::error::Result;
use crate::limits;
use crate::memory::context::Context;
use crate::memory::limiter::Term;
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
        self.guess.unproven().packing == Packing::Gzip
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

    /// What an earlier run found out, if it kept that and the blob's first bytes are still what the
    /// blob is taken for.
    pub(super) fn load_index(&self) -> Option<(Fact<Plan>, Digests, Spans)> {
        let dir = self.context.index_dir.as_deref()?;
        let load = || {
            let Some((blocks, spans)) = index::load(dir, &self.identity())? else {
                return Ok(None);
            };
            let digests = Digests::complete(blocks);
            let proven = self.look_again(&digests).map_err(|e| e.to_string())?;
            Ok(Some((self.guess.confirmed(proven), digests, spans)))
        };
        load().unwrap_or_else(|problem: String| {
            self.complain("used", &problem);
            None
        })
    }

    /// Has the first bytes compared with what the blob is taken for, as a pass has: an index says
    /// nothing of them.
    fn look_again(&self, digests: &Digests) -> Result<Proven> {
        let block = digests.block_size().min(self.bytes.len());
        let limiter = &self.context.limiter;
        let _unit = limiter.take(block, Term::Short, &self.subject)?;
        facts::prove_from_index(&VerifiedBlocks::of(self, digests), |first| {
            self.expected.confirm(first)
        })
    }

    /// Keeps what is known for later runs, where that is wanted and worth it.
    pub(super) fn save_index(&self, blocks: &Blocks, spans: &mut Spans) {
        let Some(dir) = self.context.index_dir.as_deref() else {
            return;
        };
        if self.bytes.len() < self.tuning.persist || !spans.outlive_the_store() {
            return;
        }
        if let Err(problem) = index::save(dir, &self.identity(), blocks, spans) {
            self.complain("kept", &problem);
        }
    }

    /// Says once why a layer has no index, however often it was looked for.
    fn complain(&self, verb: &str, problem: &str) {
        static LAST: Mutex<String> = Mutex::new(String::new());
        let what = format!("{}: {problem}", self.subject);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != what {
            log::warn!("{}: its index is not {verb}: {problem}", self.subject);
            *last = what;
        }
    }

    fn identity(&self) -> index::Identity {
        index::Identity {
            digest: self.digest,
            size: self.bytes.len(),
            plan: *self.guess.unproven(),
            tuning: self.tuning,
        }
    }
}
