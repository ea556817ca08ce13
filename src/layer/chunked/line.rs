//! Segments on their way from who reads them to who wants them decoded, in order.
//!
//! Whoever would have to wait decodes: the reader when the line is long, and who takes from its front
//! when that is not decoded yet. So everything goes on with any number of threads beside them, none
//! included, and the memory of what waits has a bound.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::{Error, Result};

/// The line. `J` is a segment that is not decoded yet.
pub(super) struct Line<J> {
    state: Mutex<State<J>>,
    moved: Condvar,
    /// How many may stand in it.
    room: usize,
    subject: String,
}

struct State<J> {
    places: VecDeque<Place<J>>,
    /// The number of the front place.
    front: u64,
    /// Nothing comes any more.
    ended: bool,
    /// Nobody wants any more.
    unwanted: bool,
}

enum Place<J> {
    Waits(J),
    /// Somebody decodes it.
    Taken,
    Done(Result<Bytes>),
}

/// What somebody decodes: should that panic, it is an error, and nobody waits for it for ever.
struct InHand<'a, J> {
    line: &'a Line<J>,
    number: u64,
}

impl<J> Line<J> {
    pub(super) fn new(room: usize, subject: &str) -> Line<J> {
        Line {
            state: Mutex::new(State {
                places: VecDeque::new(),
                front: 0,
                ended: false,
                unwanted: false,
            }),
            moved: Condvar::new(),
            room,
            subject: subject.into(),
        }
    }

    /// Adds a segment at the end; false when nobody wants it. Where there is no room one is decoded first.
    pub(super) fn push(&self, job: J, mut decode: impl FnMut(J) -> Result<Bytes>) -> bool {
        let mut state = self.lock();
        while state.places.len() >= self.room && !state.unwanted {
            state = match self.take(&mut state) {
                Some((hand, job)) => {
                    drop(state);
                    hand.done(decode(job));
                    self.lock()
                }
                None => self.wait(state),
            };
        }
        if state.unwanted {
            return false;
        }
        state.places.push_back(Place::Waits(job));
        drop(state);
        self.moved.notify_all();
        true
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }

    /// Nobody wants any more.
    pub(super) fn give_up(&self) {
        let mut state = self.lock();
        (state.unwanted, state.ended) = (true, true);
        state.places.clear();
        drop(state);
        self.moved.notify_all();
    }

    /// The next one, decoded; `None` behind the last.
    pub(super) fn next(&self, mut decode: impl FnMut(J) -> Result<Bytes>) -> Option<Result<Bytes>> {
        let mut state = self.lock();
        loop {
            match state.places.front() {
                Some(Place::Done(_)) => {
                    let place = state.places.pop_front();
                    state.front += 1;
                    drop(state);
                    self.moved.notify_all();
                    match place {
                        Some(Place::Done(result)) => return Some(result),
                        _ => return None,
                    }
                }
                None if state.ended => return None,
                Some(Place::Waits(_)) => {
                    if let Some((hand, job)) = self.take(&mut state) {
                        drop(state);
                        hand.done(decode(job));
                        state = self.lock();
                    }
                }
                None | Some(Place::Taken) => state = self.wait(state),
            }
        }
    }

    /// True when the front can be had without waiting for more.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().places.is_empty()
    }

    /// Decodes what waits, until nothing comes any more.
    pub(super) fn help(&self, mut decode: impl FnMut(J) -> Result<Bytes>) {
        let mut state = self.lock();
        loop {
            state = match self.take(&mut state) {
                Some((hand, job)) => {
                    drop(state);
                    hand.done(decode(job));
                    self.lock()
                }
                None if state.ended => return,
                None => self.wait(state),
            };
        }
    }

    /// The first one that waits.
    fn take(&self, state: &mut State<J>) -> Option<(InHand<'_, J>, J)> {
        let (at, place) = state
            .places
            .iter_mut()
            .enumerate()
            .find(|(_, place)| matches!(place, Place::Waits(_)))?;
        match std::mem::replace(place, Place::Taken) {
            Place::Waits(job) => {
                let number = state.front + at as u64;
                Some((InHand { line: self, number }, job))
            }
            Place::Taken | Place::Done(_) => None,
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<J>>) -> MutexGuard<'a, State<J>> {
        let waited = self.moved.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> InHand<'_, J> {
    fn done(self, result: Result<Bytes>) {
        self.set(result);
        std::mem::forget(self);
    }

    fn set(&self, result: Result<Bytes>) {
        let mut state = self.line.lock();
        let at = self.number.checked_sub(state.front);
        let place = at.and_then(|at| state.places.get_mut(usize::try_from(at).ok()?));
        if let Some(place) = place {
            *place = Place::Done(result);
        }
        drop(state);
        self.line.moved.notify_all();
    }
}

impl<J> Drop for InHand<'_, J> {
    fn drop(&mut self) {
        self.set(Err(Error::corrupt(
            &self.line.subject,
            "could not be decoded",
        )));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    fn decode(n: u32) -> Result<Bytes> {
        Ok(Bytes::from(n.to_le_bytes().to_vec()))
    }

    fn all(line: &Line<u32>) -> Vec<u32> {
        let next = || line.next(decode).map(Result::unwrap);
        std::iter::from_fn(next)
            .map(|bytes| u32::from_le_bytes(bytes[..].try_into().unwrap()))
            .collect()
    }

    #[test]
    fn r19_everything_comes_in_order_whoever_helps() {
        for helpers in [0, 1, 3] {
            let line = Line::new(4, "layer");
            let taken = thread::scope(|scope| {
                let taken = scope.spawn(|| all(&line));
                for _ in 0..helpers {
                    scope.spawn(|| line.help(decode));
                }
                for n in 0..10_000 {
                    assert!(line.push(n, decode));
                }
                line.end();
                taken.join().unwrap()
            });
            assert!(taken == (0..10_000).collect::<Vec<_>>(), "{helpers}");
        }
    }

    #[test]
    fn r19_one_thread_is_enough() {
        let line = Line::new(2, "layer");
        for n in 0..100 {
            assert!(line.push(n, decode));
            assert_eq!(line.next(decode).unwrap().unwrap()[..], n.to_le_bytes());
            assert!(line.is_empty());
        }
        line.end();
        assert!(line.next(decode).is_none());
    }

    #[test]
    fn r7_a_decoder_that_panics_is_an_error_and_no_wait() {
        let line: Line<u32> = Line::new(4, "layer");
        assert!(line.push(1, decode));
        thread::scope(|scope| {
            let panics = scope.spawn(|| line.help(|_| panic!("expected by the test")));
            assert!(panics.join().is_err());
        });
        let error = line.next(decode).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "layer: could not be decoded");
        line.give_up();
        assert!(!line.push(2, decode));
        assert!(line.next(decode).is_none());
    }
}
