//! What is known of a blob, kept between runs.

use std::sync::{Mutex, PoisonError};

use super::blob::Blob;
use super::facts::{self, Fact, Plan, Proven};
use super::index;
use super::reader::{Digests, VerifiedBlocks};
use super::spans::{Blocks, Spans};
use crate::error::Result;
use crate::memory::limiter::Term;

impl Blob {
    /// What an earlier run found out, if it kept that and the blob's first bytes are still what the
    /// blob is taken for.
    pub(super) fn load_index(&self) -> Option<(Fact<Plan>, Digests, Spans)> {
        let dir = self.context.index_dir.as_deref()?;
        let load = || {
            let plan = *self.guess.unproven();
            let Some(kept) = index::load(dir, &self.identity(plan))? else {
                return Ok(None);
            };
            let digests = Digests::complete(kept.blocks);
            let proven = self.look_again(&digests).map_err(|e| e.to_string())?;
            let learnt = self.expected.learn(&kept.found);
            learnt.map_err(|e| e.to_string())?;
            Ok(Some((self.fact(kept.end, proven), digests, kept.spans)))
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

    /// Keeps what is known for later runs, where that is wanted and worth it: where the content is, what
    /// was found in it, and how it is read.
    pub(super) fn save_index(&self, plan: &Plan, found: &[u8], blocks: &Blocks, spans: &mut Spans) {
        let Some(dir) = self.context.index_dir.as_deref() else {
            return;
        };
        if self.bytes.len() < self.tuning.persist || !spans.outlive_the_store() {
            return;
        }
        let (plan, limiter) = (self.identity(*plan), &self.context.limiter);
        if let Err(problem) = index::save(dir, &plan, found, blocks, spans, limiter.write_back()) {
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

    fn identity(&self, plan: Plan) -> index::Identity {
        index::Identity {
            digest: self.digest,
            size: self.bytes.len(),
            plan,
            measured: self.measured,
            tuning: self.tuning,
        }
    }
}
