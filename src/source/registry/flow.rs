//! Reading ahead without holding anything: one answer for many reads that follow each other.
//!
//! To ask costs a round trip, and a registry some milliseconds of its own. So where reads of a blob follow each
//! other, the next one asks for more than it wants, and those behind it go on reading the same answer: the bytes
//! that nobody has read yet wait in the connection, and not in our memory. A single read asks for no byte more
//! than it wants.
//!
//! Reads come from several threads, nearly in order. Each takes its part of the flow before it waits for its turn.
//! One that comes a little too early waits for the part in front of it; if nobody wants that, it is passed over.
//! Whoever waits too long leaves, and asks for himself: a connection that stands still holds up nobody for
//! longer.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::answer::Answer;
use super::patience::Patience;
use crate::digest::Digest;

/// Most flows at a time. Each has a connection.
pub(super) const FLOWS: usize = 8;
/// The fewest bytes and the most that one asks for.
const LEAST: u64 = 1 << 20;
const MOST: u64 = 16 << 20;
/// Reads that follow each other until more is asked for than is wanted.
const SIGNS: u32 = 2;
/// Such a gap is passed over, once nobody has asked for it for so long; and so many of them by one flow, as
/// what is read in strides is not read in order.
const GAP: u64 = 4 << 20;
const GAP_PATIENCE: Duration = Duration::from_millis(20);
const GAPS: u32 = 4;
/// Places at which reads have ended, of all blobs: where one may go on.
const ENDS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The flows of a source.
pub(super) struct Flows {
    inner: Mutex<Inner>,
}

struct Inner {
    flows: Vec<Arc<Flow>>,
    /// Where reads have ended, how many before them were in order, and how many bytes those had.
    ends: LruCache<(Digest, u64), (u32, u64)>,
}

/// One answer, from some offset of a blob on.
pub(super) struct Flow {
    digest: Digest,
    /// Where it ends.
    pub(super) end: u64,
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    /// Up to here it belongs to somebody.
    claimed: u64,
    /// Up to here it was read.
    at: u64,
    /// Taken while somebody reads.
    answer: Option<Answer>,
    /// Gaps that were passed over.
    gaps: u32,
    ended: bool,
    used: Instant,
}

/// A part of a flow.
pub(super) struct Part {
    pub(super) flow: Arc<Flow>,
    /// Where the flow is when it is this part's turn; before the part itself there may be a gap.
    from: u64,
    offset: u64,
    pub(super) length: usize,
}

/// How a read gets its bytes.
pub(super) enum Plan {
    /// It asks for just what it wants.
    Alone,
    /// It asks for more, and others go on from there.
    Begin(Part),
    /// It goes on from where others are.
    Join(Part),
}

impl Flows {
    pub(super) fn new() -> Flows {
        Flows {
            inner: Mutex::new(Inner {
                flows: Vec::new(),
                ends: LruCache::new(ENDS),
            }),
        }
    }

    /// Plans a read of a blob of `size` bytes.
    pub(super) fn plan(&self, digest: &Digest, size: u64, offset: u64, length: usize) -> Plan {
        if let Some(part) = self.join(digest, offset, length, false) {
            return Plan::Join(part);
        }
        let near = lock(&self.inner)
            .flows
            .iter()
            .any(|flow| flow.is_near(digest, offset));
        if near {
            let deadline = Instant::now() + GAP_PATIENCE;
            while Instant::now() < deadline {
                // Whoever reads what lies before it is about to come.
                std::thread::sleep(GAP_PATIENCE / 20);
                if let Some(part) = self.join(digest, offset, length, false) {
                    return Plan::Join(part);
                }
            }
            if let Some(part) = self.join(digest, offset, length, true) {
                return Plan::Join(part);
            }
        }
        self.begin(digest, size, offset, length)
    }

    fn join(&self, digest: &Digest, offset: u64, length: usize, over_gap: bool) -> Option<Part> {
        let mut inner = lock(&self.inner);
        let (flow, from, length) = inner.flows.iter().find_map(|flow| {
            if flow.digest != *digest || offset >= flow.end {
                return None;
            }
            let mut state = lock(&flow.state);
            let gap = offset.checked_sub(state.claimed)?;
            if state.ended || gap > 0 && !(over_gap && gap <= GAP) {
                return None;
            }
            state.gaps += u32::from(gap > 0);
            let length = usize::try_from(flow.end - offset).map_or(length, |left| left.min(length));
            let from = std::mem::replace(&mut state.claimed, offset + length as u64);
            state.used = Instant::now();
            Some((Arc::clone(flow), from, length))
        })?;
        inner.follows(digest, offset, length);
        Some(Part {
            flow,
            from,
            offset,
            length,
        })
    }

    fn begin(&self, digest: &Digest, size: u64, offset: u64, length: usize) -> Plan {
        let mut inner = lock(&self.inner);
        let (signs, bytes) = inner.follows(digest, offset, length);
        let window = bytes
            .saturating_mul(2)
            .clamp(LEAST, MOST)
            .max(length as u64);
        let end = size.min(offset.saturating_add(window));
        // Whoever is late for a gap that was passed over wants that and no more.
        let more = end.saturating_sub(offset) > length as u64
            && !inner
                .flows
                .iter()
                .any(|flow| flow.has_passed(digest, offset));
        if signs < SIGNS || !more || !inner.make_room() {
            return Plan::Alone;
        }
        let flow = Arc::new(Flow {
            digest: *digest,
            end,
            state: Mutex::new(State {
                claimed: offset + length as u64,
                at: offset,
                answer: None,
                gaps: 0,
                ended: false,
                used: Instant::now(),
            }),
            moved: Condvar::new(),
        });
        inner.flows.push(Arc::clone(&flow));
        Plan::Begin(Part {
            flow,
            from: offset,
            offset,
            length,
        })
    }

    /// Forgets a flow that has ended.
    pub(super) fn remove(&self, flow: &Arc<Flow>) {
        lock(&self.inner)
            .flows
            .retain(|other| !Arc::ptr_eq(other, flow));
    }
}

impl Inner {
    /// Notes a read. Returns how many before it were in order, and how many bytes they and it have.
    fn follows(&mut self, digest: &Digest, offset: u64, length: usize) -> (u32, u64) {
        let (signs, bytes) = match self.ends.pop(&(*digest, offset)) {
            Some((signs, bytes)) => (signs.saturating_add(1), bytes),
            None => (0, 0),
        };
        let now = (signs, bytes.saturating_add(length as u64));
        self.ends.put((*digest, offset + length as u64), now);
        now
    }

    /// Ends the flow that nobody reads, and that was read the longest time ago, where there are too many.
    fn make_room(&mut self) -> bool {
        if self.flows.len() < FLOWS {
            return true;
        }
        let idle = |flow: &&Arc<Flow>| {
            let state = lock(&flow.state);
            (state.ended || state.at == state.claimed).then_some(state.used)
        };
        let idle = self
            .flows
            .iter()
            .filter_map(|flow| Some((idle(&flow)?, flow)));
        let Some((_, oldest)) = idle.min_by_key(|(used, _)| *used) else {
            return false;
        };
        let oldest = Arc::clone(oldest);
        oldest.end();
        self.flows.retain(|other| !Arc::ptr_eq(other, &oldest));
        true
    }
}

impl Flow {
    fn is_near(&self, digest: &Digest, offset: u64) -> bool {
        let state = lock(&self.state);
        let gap = offset.checked_sub(state.claimed);
        self.digest == *digest
            && !state.ended
            && state.gaps < GAPS
            && offset < self.end
            && gap.is_some_and(|gap| gap > 0 && gap <= GAP)
    }

    fn has_passed(&self, digest: &Digest, offset: u64) -> bool {
        let ahead = lock(&self.state).claimed.checked_sub(offset);
        self.digest == *digest && ahead.is_some_and(|ahead| ahead > 0 && ahead <= GAP)
    }

    /// Gives the flow the answer that its first reader has asked for.
    pub(super) fn start(&self, answer: Answer) {
        lock(&self.state).answer = Some(answer);
        self.moved.notify_all();
    }

    /// Nobody gets anything from it any more; those who wait ask for themselves.
    pub(super) fn end(&self) {
        let answer = {
            let mut state = lock(&self.state);
            state.ended = true;
            state.answer.take()
        };
        self.moved.notify_all();
        // Closes a connection, perhaps.
        drop(answer);
    }

    /// The answer, when it has come to a part; `None` when the flow has ended before, or waited too long.
    fn turn(&self, from: u64, patience: Duration) -> Option<Answer> {
        let state = lock(&self.state);
        let not_yet =
            |state: &mut State| !state.ended && (state.at != from || state.answer.is_none());
        let waited = self.moved.wait_timeout_while(state, patience, not_yet);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.ended || state.at != from {
            true => None,
            false => state.answer.take(),
        }
    }
}

impl Part {
    /// Fills `buf`, of the part's length, once it is its turn. Returns how much of it was filled, less when the
    /// flow broke off.
    pub(super) fn read(
        &self,
        flows: &Flows,
        buf: &mut [u8],
        patience: &mut Patience,
        stall: Duration,
    ) -> usize {
        let flow = &self.flow;
        let Some(mut answer) = flow.turn(self.from, stall.min(patience.left())) else {
            flow.end();
            flows.remove(flow);
            return 0;
        };
        answer.pass_over(self.offset - self.from);
        let (done, why) = answer.fill(buf, patience);
        let end = self.offset + done as u64;
        if let Some(why) = why {
            log::debug!("a connection is given up: {why}");
            flow.end();
            flows.remove(flow);
            return done;
        }
        if end >= flow.end {
            flow.end();
            flows.remove(flow);
            answer.finish();
            return done;
        }
        let mut state = lock(&flow.state);
        state.at = end;
        state.used = Instant::now();
        // Another one may have had enough of waiting.
        if !state.ended {
            state.answer = Some(answer);
        }
        drop(state);
        flow.moved.notify_all();
        done
    }
}

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn only_what_follows_reads_ahead() {
        let flows = Flows::new();
        let digest = Digest::sha256(b"");
        let plan = |offset: u64, length: usize| flows.plan(&digest, 64 << 20, offset, length);
        for offset in [0, 10 * KIB, 5 * KIB, 40 << 20] {
            assert!(matches!(plan(offset, 1024), Plan::Alone));
        }
        assert!(matches!(plan(KIB, 1024), Plan::Alone));
        let Plan::Begin(part) = plan(2 * KIB, 1024) else {
            panic!("the third in order");
        };
        assert_eq!(
            (part.offset, part.length, part.flow.end),
            (2 * KIB, 1024, 2 * KIB + LEAST)
        );
        // Another blob is another matter.
        let other = Digest::sha256(b"other");
        assert!(matches!(
            flows.plan(&other, 64 << 20, 3 * KIB, 1024),
            Plan::Alone
        ));
        let Plan::Join(next) = plan(3 * KIB, 1 << 20) else {
            panic!("goes on");
        };
        // No more than there is.
        assert_eq!((next.from, next.length as u64), (3 * KIB, LEAST - KIB));
        assert!(matches!(plan(3 * KIB, 1024), Plan::Alone));
    }

    #[test]
    fn what_comes_early_waits_and_then_passes_over() {
        let flows = Flows::new();
        let digest = Digest::sha256(b"");
        let plan = |offset: u64| flows.plan(&digest, 64 << 20, offset, 1024);
        for offset in [0, KIB] {
            assert!(matches!(plan(offset), Plan::Alone));
        }
        assert!(matches!(plan(2 * KIB), Plan::Begin(_)));
        let Plan::Join(part) = plan(5 * KIB) else {
            panic!("a gap");
        };
        assert_eq!((part.from, part.offset), (3 * KIB, 5 * KIB));
        // Whoever comes for the gap now asks for himself.
        assert!(matches!(plan(3 * KIB), Plan::Alone));
        let other = Digest::sha256(b"other");
        assert!(matches!(
            flows.plan(&other, 64 << 20, 3 * KIB, 1024),
            Plan::Alone
        ));
    }
}
