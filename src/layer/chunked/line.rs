//! Segments on their way from who reads them to who takes them decoded, in order.
//!
//! Any number of threads work on a line, and all do the same: take what is decoded and next, else
//! decode the first that waits. Whoever would have to wait works, the reader too when the line is long.
//! So one thread is enough, every other one is a gain, and the memory of what waits has a bound: who reads
//! asks for it segment by segment, and works while there is none.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::{Error, Result};

/// Who takes the decoded segments, one at a time.
pub(super) trait Taker {
    /// Takes the next one.
    ///
    /// # Errors
    /// Ends everything: no more are taken.
    fn take(&mut self, segment: &[u8]) -> Result<()>;
}

/// The line. `J` is a segment that is not decoded yet.
pub(super) struct Line<J, T> {
    state: Mutex<State<J, T>>,
    moved: Condvar,
    /// How many may stand in it.
    room: usize,
    subject: String,
}

struct State<J, T> {
    places: VecDeque<Place<J>>,
    /// The number of the front place.
    front: u64,
    /// `None` while somebody has it take a segment.
    taker: Option<T>,
    /// Nothing comes any more.
    ended: bool,
    /// Why nothing is wanted any more.
    failure: Option<Error>,
}

enum Place<J> {
    Waits(J),
    /// Somebody decodes it.
    InHand,
    Done(Result<Bytes>),
}

/// What a thread can do about a line.
enum Next<J, T> {
    Take(T, Result<Bytes>),
    Decode(u64, J),
    Nothing,
}

impl<J, T> State<J, T> {
    fn next(&mut self) -> Next<J, T> {
        if self.failure.is_some() {
            return Next::Nothing;
        }
        if matches!(self.places.front(), Some(Place::Done(_)))
            && let Some(taker) = self.taker.take()
            && let Some(Place::Done(segment)) = self.places.pop_front()
        {
            self.front += 1;
            return Next::Take(taker, segment);
        }
        let places = self.places.iter_mut().enumerate();
        for (at, place) in places {
            if let Place::Waits(_) = place
                && let Place::Waits(job) = std::mem::replace(place, Place::InHand)
            {
                return Next::Decode(self.front + at as u64, job);
            }
        }
        Next::Nothing
    }
}

impl<J, T: Taker> Line<J, T> {
    pub(super) fn new(room: usize, taker: T, subject: &str) -> Line<J, T> {
        Line {
            state: Mutex::new(State {
                places: VecDeque::new(),
                front: 0,
                taker: Some(taker),
                ended: false,
                failure: None,
            }),
            moved: Condvar::new(),
            room,
            subject: subject.into(),
        }
    }

    /// Works until there is a place for one more segment, and memory: what `now` gives, or, when nothing
    /// of this line is left that could give some back, what comes of `wait`. `None` when nothing is wanted
    /// any more.
    pub(super) fn memory<M>(
        &self,
        decode: &mut impl FnMut(J) -> Result<Bytes>,
        now: impl Fn() -> Option<M>,
        wait: impl FnOnce() -> Result<M>,
    ) -> Result<Option<M>> {
        let mut places = self.room;
        loop {
            let state = self.work(decode, |state| state.places.len() < places);
            if state.failure.is_some() {
                return Ok(None);
            }
            places = state.places.len();
            drop(state);
            match now() {
                Some(memory) => return Ok(Some(memory)),
                // Only the reader adds to the line: it is still empty.
                None if places == 0 => return wait().map(Some),
                None => {}
            }
        }
    }

    /// Adds a segment at the end.
    pub(super) fn push(&self, job: J) {
        self.lock().places.push_back(Place::Waits(job));
        self.moved.notify_all();
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }

    /// Works until nothing comes any more, and all is taken.
    pub(super) fn help(&self, decode: &mut impl FnMut(J) -> Result<Bytes>) {
        drop(self.work(decode, |state| state.ended && state.places.is_empty()));
    }

    /// The same, for who has called [`end`](Line::end); returns who took it all.
    ///
    /// # Errors
    /// The first error, in the order of the segments.
    pub(super) fn finish(&self, decode: &mut impl FnMut(J) -> Result<Bytes>) -> Result<T> {
        let all = |state: &State<J, T>| state.places.is_empty() && state.taker.is_some();
        let mut state = self.work(decode, all);
        // It stays for the others to see.
        match (state.failure.clone(), state.taker.take()) {
            (None, Some(taker)) => Ok(taker),
            (Some(error), _) => Err(error),
            (None, None) => Err(self.lost()),
        }
    }

    /// Works until `done`, or nothing is wanted any more.
    fn work(
        &self,
        decode: &mut impl FnMut(J) -> Result<Bytes>,
        done: impl Fn(&State<J, T>) -> bool,
    ) -> MutexGuard<'_, State<J, T>> {
        let mut state = self.lock();
        while !done(&state) && state.failure.is_none() {
            state = match state.next() {
                Next::Take(taker, segment) => {
                    drop(state);
                    // There is room for one more.
                    self.moved.notify_all();
                    InHand(self).take(taker, segment);
                    self.lock()
                }
                Next::Decode(number, job) => {
                    drop(state);
                    InHand(self).decode(number, job, decode);
                    self.lock()
                }
                Next::Nothing => {
                    let moved = self.moved.wait(state);
                    moved.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
        state
    }

    fn lost(&self) -> Error {
        Error::corrupt(&self.subject, "could not be verified")
    }
}

impl<J, T> Line<J, T> {
    fn lock(&self) -> MutexGuard<'_, State<J, T>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread has taken out of the line: should it panic, nobody waits for that for ever.
struct InHand<'a, J, T: Taker>(&'a Line<J, T>);

impl<J, T: Taker> InHand<'_, J, T> {
    fn take(self, mut taker: T, segment: Result<Bytes>) {
        let taken = segment.and_then(|segment| taker.take(&segment));
        let mut state = self.0.lock();
        state.taker = Some(taker);
        if let Err(error) = taken {
            state.failure.get_or_insert(error);
        }
        drop(state);
        self.put_back();
    }

    fn decode(self, number: u64, job: J, decode: &mut impl FnMut(J) -> Result<Bytes>) {
        let decoded = decode(job);
        let mut state = self.0.lock();
        let at = number.checked_sub(state.front);
        let place = at.and_then(|at| state.places.get_mut(usize::try_from(at).ok()?));
        if let Some(place) = place {
            *place = Place::Done(decoded);
        }
        drop(state);
        self.put_back();
    }

    fn put_back(self) {
        self.0.moved.notify_all();
        std::mem::forget(self);
    }
}

impl<J, T: Taker> Drop for InHand<'_, J, T> {
    fn drop(&mut self) {
        let lost = self.0.lost();
        self.0.lock().failure.get_or_insert(lost);
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn decode(n: u32) -> Result<Bytes> {
        Ok(Bytes::from(n.to_le_bytes().to_vec()))
    }

    #[derive(Default)]
    struct Numbers(Vec<u32>);

    impl Taker for Numbers {
        fn take(&mut self, segment: &[u8]) -> Result<()> {
            match u32::from_le_bytes(segment.try_into().unwrap()) {
                u32::MAX => Err(Error::corrupt("the last", "is not taken")),
                number => {
                    self.0.push(number);
                    Ok(())
                }
            }
        }
    }

    fn line(room: usize) -> Line<u32, Numbers> {
        Line::new(room, Numbers::default(), "layer")
    }

    /// False when nothing is wanted any more.
    fn push(
        line: &Line<u32, Numbers>,
        n: u32,
        decode: &mut impl FnMut(u32) -> Result<Bytes>,
    ) -> bool {
        let memory = line.memory(decode, || Some(()), || unreachable!("there is memory"));
        let wanted = memory.unwrap().is_some();
        if wanted {
            line.push(n);
        }
        wanted
    }

    #[test]
    fn r16_who_reads_works_while_there_is_no_memory() {
        /// One segment's memory.
        struct Memory<'a>(&'a AtomicUsize);

        impl Drop for Memory<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        for (helpers, most) in [(0, 1), (0, 3), (3, 1), (3, 5)] {
            let taken = AtomicUsize::new(0);
            let line = Line::new(100, Numbers::default(), "layer");
            let mut decode = |(n, _memory): (u32, Memory<'_>)| decode(n);
            let numbers = thread::scope(|scope| {
                for _ in 0..helpers {
                    let (line, mut decode) = (&line, decode);
                    scope.spawn(move || line.help(&mut decode));
                }
                for n in 0..1_000 {
                    let now = || {
                        let more = |now| (now < most).then_some(now + 1);
                        let update = taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
                        update.is_ok().then(|| Memory(&taken))
                    };
                    let wait = || unreachable!("an empty line holds none");
                    let memory = line.memory(&mut decode, now, wait).unwrap().unwrap();
                    assert!(taken.load(Ordering::SeqCst) <= most);
                    line.push((n, memory));
                }
                line.end();
                line.finish(&mut decode).unwrap().0
            });
            assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
            assert_eq!(taken.load(Ordering::SeqCst), 0);
        }
    }

    #[test]
    fn r16_who_has_nothing_to_work_on_waits_for_memory() {
        let line = line(4);
        let memory = line.memory(&mut decode, || None, || Ok(7));
        assert_eq!(memory.unwrap(), Some(7));
        let refused = || Err(Error::environment("layer", "needs too much"));
        let error = line.memory::<()>(&mut decode, || None, refused);
        assert_eq!(error.unwrap_err().to_string(), "layer: needs too much");
    }

    #[test]
    fn r19_everything_comes_in_order_whoever_helps() {
        for (helpers, room) in [(0, 1), (0, 2), (1, 4), (3, 8), (7, 2)] {
            let line = line(room);
            let taken = thread::scope(|scope| {
                for _ in 0..helpers {
                    scope.spawn(|| line.help(&mut decode));
                }
                for n in 0..10_000 {
                    assert!(push(&line, n, &mut decode));
                    assert!(line.lock().places.len() <= room);
                }
                line.end();
                line.finish(&mut decode).unwrap().0
            });
            assert!(taken == (0..10_000).collect::<Vec<_>>(), "{helpers}");
        }
    }

    #[test]
    fn the_first_error_in_order_is_the_one_and_ends_everything() {
        let fails = |n: u32| match n {
            50 | 70 => Err(Error::corrupt(n, "is bad")),
            n => decode(n),
        };
        for helpers in [0, 3] {
            let line = line(64);
            let error = thread::scope(|scope| {
                for _ in 0..helpers {
                    scope.spawn(|| line.help(&mut { fails }));
                }
                let pushed = (0..1000).take_while(|n| push(&line, *n, &mut { fails }));
                assert!(pushed.count() < 1000);
                line.end();
                line.finish(&mut { fails }).map(|numbers| numbers.0)
            });
            assert_eq!(error.unwrap_err().to_string(), "50: is bad");
        }
        let line = line(2);
        assert!(push(&line, u32::MAX, &mut decode));
        line.end();
        let error = line.finish(&mut decode).map(|numbers| numbers.0);
        assert_eq!(error.unwrap_err().to_string(), "the last: is not taken");
    }

    #[test]
    fn r7_a_decoder_that_panics_is_an_error_and_no_wait() {
        let line = line(4);
        assert!(push(&line, 1, &mut decode));
        thread::scope(|scope| {
            let panics = scope.spawn(|| line.help(&mut |_| panic!("expected by the test")));
            assert!(panics.join().is_err());
        });
        assert!(!push(&line, 2, &mut decode));
        line.end();
        let error = line.finish(&mut decode).map(|numbers| numbers.0);
        assert_eq!(
            error.unwrap_err().to_string(),
            "layer: could not be verified"
        );
    }
}
