//! How far a gzip stream is decoded, and what its readers and its decoder have to know of each other:
//! three machines of named states, which move by nothing but the transitions below.
//!
//! ```text
//! the blob      Hashing --prove--> Proven
//!                  \------close-----> Closed <--close-- Proven
//! the frontier  Open --advance--> Open --complete--> Complete
//!                 \-----break_off----> Broken
//! the decoder   Absent --start--> Working <--order--> Idle --send_home--> Leaving
//!                 ^-----------------------end_decoder--------------------------/
//! ```
//!
//! What lies before the frontier is in complete spans. Nothing of it is given to anybody before the blob
//! is proven, and it goes on being given when the frontier is broken or the blob closed: it is what the
//! manifest's digest says. What an order to the decoder is follows from all three.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::spans::{Place, Span, Spans};
use crate::codec::gzip::Member;
use crate::codec::seek::Checkpoint;
use crate::error::Error;
use crate::memory::limiter::Grant;
use crate::memory::waiting::Unproven;

/// How far a layer is decoded.
pub(super) struct Frontier {
    state: Mutex<State>,
    /// Readers wait for this: a span was added, or there will be none.
    moved: Condvar,
    /// The decoder waits for this: readers want more, or it shall end.
    orders: Condvar,
}

/// See the head of this file.
pub(super) struct State {
    blob: BlobState,
    reach: Reach,
    decoder: Decoder,
    /// While the frontier is not complete, the last one starts there, and has not been decoded yet.
    pub(super) spans: Spans,
    /// Where the decoder shall get.
    goal: u64,
    /// Where the last read ended that was near the frontier.
    reader: u64,
    /// Places that readers wait for.
    waiting: Vec<u64>,
    /// The last span, for readers that waited for it, when the cache does not take it.
    latest: Option<(u32, Unproven)>,
}

/// Whether the blob is what the manifest names.
enum BlobState {
    /// Nobody knows yet.
    Hashing,
    /// It is.
    Proven,
    /// Nobody reads any more.
    Closed {
        /// It was proven before.
        proven: bool,
        /// What is told to those who wait.
        error: Option<Error>,
    },
}

/// Where the frontier is.
enum Reach {
    /// Here; more can be decoded.
    Open(Mark),
    /// Here for good: what is beyond cannot be decoded.
    Broken { at: u64, error: Error },
    /// Behind the last span; all that follows it was checked.
    Complete,
}

/// A place in the stream from which a decoder can go on.
#[derive(Clone)]
pub(super) struct Mark {
    /// Offset in the stream.
    pub(super) at: u64,
    /// What the gzip member holds before it.
    pub(super) member: Member,
    /// The checkpoint there, when the store had no room for it.
    pub(super) unstored: Option<Arc<Unstored>>,
}

/// A checkpoint in memory.
pub(super) struct Unstored {
    pub(super) bit: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) _grant: Grant,
}

/// What the thread that decodes does.
enum Decoder {
    /// There is none. The last one met this, and might not another time.
    Absent(Option<Error>),
    /// It decodes, or waits for the hash.
    Working,
    /// It waits for readers, or decodes without any.
    Idle,
    /// It was told to end.
    Leaving,
}

/// What stands between a reader and a byte.
pub(super) enum Obstacle {
    /// The decoder is on its way.
    Decoding,
    /// There is no decoder, and could be one.
    NoDecoder,
    /// It is never had.
    Never(Error),
}

/// What the decoder shall do at the frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Decode,
    /// Wait until the blob is proven.
    AwaitTheHash,
    /// Wait for readers.
    AwaitReaders,
    Leave,
}

impl Frontier {
    /// At `at`, or behind all of `spans`, of a blob in a given state.
    fn new(blob: BlobState, spans: Spans, reach: Reach) -> Frontier {
        Frontier {
            state: Mutex::new(State {
                blob,
                reach,
                decoder: Decoder::Absent(None),
                spans,
                goal: 0,
                reader: 0,
                waiting: Vec::new(),
                latest: None,
            }),
            moved: Condvar::new(),
            orders: Condvar::new(),
        }
    }

    /// Behind all spans of a blob that is proven.
    pub(super) fn complete(spans: Spans) -> Frontier {
        Frontier::new(BlobState::Proven, spans, Reach::Complete)
    }

    /// At the start of a blob that is about to be hashed.
    pub(super) fn at_the_start(first: Span) -> Frontier {
        let mark = Mark {
            at: first.out,
            member: Member::default(),
            unstored: None,
        };
        let spans = Spans {
            spans: vec![first],
            store: None,
        };
        Frontier::new(BlobState::Hashing, spans, Reach::Open(mark))
    }

    /// Looks at it, or moves it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something may stand between a reader and its byte no longer.
    pub(super) fn wait_for_a_move<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        let waited = self.moved.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the order may be another; true when that took longer than `most`.
    pub(super) fn wait_for_an_order<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        most: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        match most {
            None => {
                let waited = self.orders.wait(state);
                (waited.unwrap_or_else(PoisonError::into_inner), false)
            }
            Some(most) => {
                let waited = self.orders.wait_timeout(state, most);
                let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                (state, waited.timed_out())
            }
        }
    }

    /// What the decoder waits for may have come.
    pub(super) fn wake_the_decoder(&self) {
        self.orders.notify_all();
    }

    /// What readers wait for may have come.
    pub(super) fn wake_readers(&self) {
        self.moved.notify_all();
    }

    /// The span that holds byte `at`, when it lies before the frontier: its number, its start and
    /// its end, which is `end` for the last one.
    pub(super) fn locate(&self, at: u64, end: u64) -> Option<(usize, u64, u64)> {
        let state = self.lock();
        let passed = state.has_passed(at);
        state.spans.locate(at, end).filter(|_| passed)
    }

    /// True when byte `at` lies before the frontier.
    pub(super) fn has_passed(&self, at: u64) -> bool {
        self.lock().has_passed(at)
    }

    /// How the bytes of a span are had.
    pub(super) fn place(&self, number: usize) -> Option<Place> {
        self.lock().spans.place(number)
    }

    /// True when what was put aside of the stream is not what it was: see [`Store::is_lost`].
    pub(super) fn is_lost(&self) -> bool {
        let state = self.lock();
        state
            .spans
            .store
            .as_ref()
            .is_some_and(|store| store.is_lost())
    }

    /// The bytes of a span, when it is the last one.
    pub(super) fn latest(&self, number: u32) -> Option<Unproven> {
        let state = self.lock();
        let latest = state.latest.as_ref();
        latest
            .filter(|(latest, _)| *latest == number)
            .map(|(_, bytes)| bytes.clone())
    }

    /// True when nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Tells a decoder that stands still to end; false when it does not, or was told before.
    pub(super) fn send_home(&self) -> bool {
        let told = self.lock().send_home();
        self.wake_the_decoder();
        told
    }

    /// True when all of the layer was decoded and found right.
    #[cfg(test)]
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.lock().reach, Reach::Complete)
    }

    #[cfg(test)]
    pub(super) fn covered(&self) -> u64 {
        match &self.lock().reach {
            Reach::Open(Mark { at, .. }) | Reach::Broken { at, .. } => *at,
            Reach::Complete => u64::MAX,
        }
    }

    #[cfg(test)]
    pub(super) fn has_decoder(&self) -> bool {
        !matches!(self.lock().decoder, Decoder::Absent(_))
    }

    #[cfg(test)]
    pub(super) fn span_count(&self) -> usize {
        self.lock().spans.spans.len()
    }

    #[cfg(test)]
    pub(super) fn spans(&self) -> Spans {
        self.lock().spans.clone()
    }
}

/// What is so.
impl State {
    /// True when byte `at` lies before the frontier.
    pub(super) fn has_passed(&self, at: u64) -> bool {
        match &self.reach {
            Reach::Open(Mark { at: here, .. }) | Reach::Broken { at: here, .. } => at < *here,
            Reach::Complete => true,
        }
    }

    /// Where a decoder would go on, if there is more to decode.
    pub(super) fn mark(&self) -> Option<&Mark> {
        match &self.reach {
            Reach::Open(mark) => Some(mark),
            Reach::Broken { .. } | Reach::Complete => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.blob, BlobState::Closed { .. })
    }

    /// True once the blob was found to be what the manifest names.
    pub(super) fn is_proven(&self) -> bool {
        match self.blob {
            BlobState::Hashing => false,
            BlobState::Proven => true,
            BlobState::Closed { proven, .. } => proven,
        }
    }

    /// True when a decoder may be started.
    pub(super) fn wants_a_decoder(&self) -> bool {
        matches!(self.decoder, Decoder::Absent(_)) && self.mark().is_some() && !self.is_closed()
    }

    /// What stands between a reader and byte `at`; nothing where it lies before the frontier.
    pub(super) fn obstacle(&self, at: u64, subject: &str) -> Option<Obstacle> {
        if self.has_passed(at) {
            return None;
        }
        Some(match (&self.reach, &self.blob, &self.decoder) {
            (Reach::Broken { error, .. }, ..)
            | (
                _,
                BlobState::Closed {
                    error: Some(error), ..
                },
                _,
            )
            | (_, _, Decoder::Absent(Some(error))) => Obstacle::Never(error.clone()),
            (_, BlobState::Closed { error: None, .. }, _) => {
                Obstacle::Never(Error::corrupt(subject, "is no longer read"))
            }
            (_, _, Decoder::Absent(None)) => Obstacle::NoDecoder,
            _ => Obstacle::Decoding,
        })
    }

    /// True when span `start..end` is worth keeping: somebody waits for it, or will soon get there. Up
    /// to `hold` bytes are kept of a blob that is not proven; up to `ahead` before a reader.
    pub(super) fn wants(&self, start: u64, end: u64, hold: u64, ahead: u64) -> bool {
        match self.blob {
            BlobState::Hashing => start == 0 || end <= hold,
            BlobState::Proven => {
                self.waiting.iter().any(|at| (start..end).contains(at))
                    || (end > self.reader && start <= self.reader.saturating_add(ahead))
            }
            BlobState::Closed { .. } => false,
        }
    }
}

/// Its transitions.
impl State {
    /// The blob is what the manifest names.
    pub(super) fn prove(&mut self) {
        if matches!(self.blob, BlobState::Hashing) {
            self.blob = BlobState::Proven;
        }
    }

    /// Nobody reads any more, because of `error` where there is one.
    pub(super) fn close(&mut self, error: Option<Error>) {
        let proven = self.is_proven();
        let before = match &mut self.blob {
            BlobState::Closed { error, .. } => error.take(),
            BlobState::Hashing | BlobState::Proven => None,
        };
        let error = before.or(error);
        self.blob = BlobState::Closed { proven, error };
    }

    /// A decoder was started.
    pub(super) fn start(&mut self) {
        self.decoder = Decoder::Working;
    }

    /// Tells a decoder that stands still to end; false when it does not, or was told before.
    pub(super) fn send_home(&mut self) -> bool {
        let idle = matches!(self.decoder, Decoder::Idle);
        if idle {
            self.decoder = Decoder::Leaving;
        }
        idle
    }

    /// What the decoder, which is at `at`, shall do there. Of a blob that is not proven no more than
    /// `most` bytes are decoded, of which the next span has `span`.
    pub(super) fn order(&mut self, at: u64, span: u64, most: u64) -> Order {
        match (&self.blob, &self.decoder) {
            (BlobState::Closed { .. }, _) | (_, Decoder::Leaving) => Order::Leave,
            (BlobState::Hashing, _) => match at == 0 || at.saturating_add(span) <= most {
                true => Order::Decode,
                false => Order::AwaitTheHash,
            },
            (BlobState::Proven, _) if at < self.goal => {
                self.decoder = Decoder::Working;
                Order::Decode
            }
            (BlobState::Proven, _) => {
                self.decoder = Decoder::Idle;
                Order::AwaitReaders
            }
        }
    }

    /// Somebody reads `at..end`, near the frontier or not: it moves on ahead of those that are near.
    /// True when a decoder has something to do.
    pub(super) fn note(&mut self, at: u64, end: u64, ahead: u64) -> bool {
        let Reach::Open(Mark { at: here, .. }) = self.reach else {
            return false;
        };
        if ahead == 0 || at.saturating_add(ahead) < here {
            return false;
        }
        self.reader = end;
        if at <= here.saturating_add(ahead) {
            self.goal = self.goal.max(end.saturating_add(ahead));
        }
        self.goal > here
    }

    /// A reader waits for byte `at`.
    pub(super) fn await_byte(&mut self, at: u64) {
        self.goal = self.goal.max(at.saturating_add(1));
        self.waiting.push(at);
    }

    /// A reader no longer waits for byte `at`.
    pub(super) fn await_no_longer(&mut self, at: u64) {
        if let Some(index) = self.waiting.iter().position(|place| *place == at) {
            self.waiting.swap_remove(index);
        }
    }

    /// A span was decoded: the frontier moves to where the next one starts.
    pub(super) fn advance(&mut self, next: Span, mark: Mark, latest: Option<(u32, Unproven)>) {
        self.spans.spans.push(next);
        self.reach = Reach::Open(mark);
        self.latest = latest;
    }

    /// The last span was decoded, and all that follows it checked.
    pub(super) fn complete(&mut self, kept: Option<Spans>, latest: Option<(u32, Unproven)>) {
        if let Some(kept) = kept {
            self.spans = kept;
        }
        self.reach = Reach::Complete;
        self.latest = latest;
    }

    /// What lies beyond the frontier cannot be decoded.
    pub(super) fn break_off(&mut self, error: Error) {
        if let Reach::Open(Mark { at, .. }) = self.reach {
            self.reach = Reach::Broken { at, error };
        }
    }

    /// The decoder has ended, because of something that may be otherwise another time, or of nothing.
    pub(super) fn end_decoder(&mut self, trouble: Option<Error>) {
        self.decoder = Decoder::Absent(trouble);
        self.latest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::spans::Entry;
    use super::*;

    fn span(out: u64) -> Span {
        let entry = Entry::GzipStart;
        Span { out, entry }
    }

    fn mark(at: u64) -> Mark {
        Mark {
            at,
            member: Member::default(),
            unstored: None,
        }
    }

    fn error(text: &str) -> Error {
        Error::corrupt("layer", text)
    }

    fn never(state: &State, at: u64) -> String {
        match state.obstacle(at, "layer") {
            Some(Obstacle::Never(error)) => error.to_string(),
            Some(Obstacle::Decoding) => "decoding".into(),
            Some(Obstacle::NoDecoder) => "no decoder".into(),
            None => "passed".into(),
        }
    }

    #[test]
    fn what_stands_between_a_reader_and_a_byte_follows_from_the_states() {
        let frontier = Frontier::at_the_start(span(0));
        let state = &mut *frontier.lock();
        assert_eq!(never(state, 0), "no decoder");
        state.start();
        assert_eq!(never(state, 0), "decoding");
        state.advance(span(100), mark(100), None);
        assert_eq!(
            (never(state, 99), never(state, 100)),
            ("passed".into(), "decoding".into())
        );
        state.end_decoder(Some(error("has trouble")));
        assert!(state.wants_a_decoder(), "trouble may pass");
        assert_eq!(never(state, 100), "layer: has trouble");
        state.start();
        state.break_off(error("is bad"));
        state.break_off(error("is worse"));
        state.end_decoder(None);
        assert!(!state.wants_a_decoder());
        assert_eq!(never(state, 100), "layer: is bad");
        state.close(Some(error("is closed")));
        assert_eq!(
            (never(state, 99), never(state, 100)),
            ("passed".into(), "layer: is bad".into())
        );

        let frontier = Frontier::at_the_start(span(0));
        let state = &mut *frontier.lock();
        state.start();
        state.complete(None, None);
        assert_eq!(never(state, u64::MAX), "passed");
        assert!(!state.wants_a_decoder());
    }

    #[test]
    fn who_is_closed_stays_so_with_the_first_reason() {
        for proven in [false, true] {
            let frontier = Frontier::at_the_start(span(0));
            let state = &mut *frontier.lock();
            if proven {
                state.prove();
            }
            state.close(None);
            assert_eq!(never(state, 5), "layer: is no longer read");
            state.close(Some(error("was found bad")));
            state.close(Some(error("once more")));
            state.prove();
            assert_eq!(never(state, 5), "layer: was found bad");
            assert_eq!((state.is_closed(), state.is_proven()), (true, proven));
            assert!(!state.wants_a_decoder() && !state.wants(0, 10, 100, 100));
            assert_eq!(state.order(0, 10, 100), Order::Leave);
        }
    }

    #[test]
    fn the_decoder_is_told_what_the_states_say() {
        let frontier = Frontier::at_the_start(span(0));
        let state = &mut *frontier.lock();
        state.start();
        // Behind the hash: the first span always, then as far as there is room.
        for (at, order) in [
            (0, Order::Decode),
            (40, Order::Decode),
            (41, Order::AwaitTheHash),
        ] {
            assert_eq!(
                state.order(at, if at == 0 { 99 } else { 10 }, 50),
                order,
                "{at}"
            );
        }
        assert!(!state.send_home(), "who works is not sent home");
        state.advance(span(50), mark(50), None);
        state.prove();
        assert_eq!(state.order(50, 10, 50), Order::AwaitReaders);
        assert!(state.note(45, 55, 20));
        assert_eq!(state.order(50, 10, 50), Order::Decode);
        assert!(!state.send_home());
        state.advance(span(90), mark(90), None);
        assert_eq!(state.order(90, 10, 50), Order::AwaitReaders);
        // Too far behind, and too far ahead: neither is followed; who waits is.
        assert!(!state.note(60, 69, 20) && !state.note(111, 120, 20));
        state.await_byte(130);
        assert_eq!(state.order(90, 10, 50), Order::Decode);
        state.advance(span(131), mark(131), None);
        assert_eq!(state.order(131, 10, 50), Order::AwaitReaders);
        assert!(state.send_home() && !state.send_home());
        assert_eq!(state.order(131, 10, 50), Order::Leave);
        state.end_decoder(None);
        assert!(state.wants_a_decoder());
    }

    #[test]
    fn a_span_is_kept_for_who_waits_or_will_soon_get_there() {
        let frontier = Frontier::at_the_start(span(0));
        let state = &mut *frontier.lock();
        assert!(state.wants(0, 500, 100, 0) && state.wants(50, 100, 100, 0));
        assert!(!state.wants(50, 101, 100, 0));
        state.prove();
        state.note(0, 10, 20);
        assert!(state.wants(0, 11, 0, 20) && state.wants(30, 40, 0, 20));
        assert!(!state.wants(0, 10, 0, 20) && !state.wants(31, 40, 0, 20));
        state.await_byte(1_000);
        assert!(state.wants(1_000, 1_001, 0, 20) && !state.wants(990, 1_000, 0, 20));
        state.await_no_longer(1_000);
        assert!(!state.wants(1_000, 1_001, 0, 20));
    }
}
