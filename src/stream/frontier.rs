//! What is known of a layer, and the place up to which its gzip stream was decoded.
//!
//! A gzip stream can only be decoded from its start, once. So that this once is enough for whoever
//! reads the file in order, the decoder starts with the first touch and goes as far as readers do:
//!
//! - While the blob is hashed, a thread decodes behind the hash (from blocks that the hash has
//!   passed, each checked against the digest computed there), and puts what it decodes into the
//!   cache, under a number that nobody knows, until that has taken three quarters of it. Some way
//!   further on it pauses: what it does not keep there, a reader decodes on another core while the
//!   frontier moves on. Nobody is served before the hash has ended and was found right.
//! - Then it goes on from where it stands as far as readers want, and a bounded distance ahead of
//!   one that reads in order. Each span that it ends becomes a seek point at once; readers behind
//!   the *frontier* do not wait for it. One that jumps ahead waits until the decoder is there; what
//!   lies between is not kept.
//! - When nobody has read anything for a while, it goes on to the end of the stream by itself.
//! - The last span is served after all that follows it was checked, and the index was saved. So the
//!   whole of a file is never read from a layer that holds anything else, or is damaged.
//!
//! An error that the decoder meets is the error of all reads from there on, for good unless storage
//! is to blame. What lies before it goes on being served: it is what the manifest's digest says.
//!
//! A decoder that stands still may be sent home ([`Live`](crate::memory::admission::Live)); another one goes on
//! from the last seek point, with the checksum of the gzip member so far.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Scope};

use bytes::Bytes;

use super::blob::Blob;
use super::facts::{Fact, Plan};
use super::packing::lift;
use super::reader::{Digests, FetchedAhead};
use super::spans::{Blocks, Entry, Place, Span, Spans, missing};
use crate::codec::gzip::{Gunzip, Member};
use crate::codec::inflate::{SLOP, WINDOW};
use crate::codec::seek::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::admission;
use crate::memory::cache::ChunkKey;
use crate::memory::context::Stats;
use crate::memory::limiter::{Grant, Term};

/// What a pass, or the index of an earlier one, found out.
pub(super) struct Known {
    /// Its number in the cache: what was decoded by one division into spans is no answer for
    /// another.
    number: u32,
    /// What the layer holds, once its digest was found right.
    fact: OnceLock<Fact>,
    pub(super) digests: Digests,
    pub(super) frontier: Frontier,
}

/// How far a layer is decoded.
pub(super) struct Frontier {
    state: Mutex<State>,
    /// Readers wait for this: a span was added, or there will be none.
    moved: Condvar,
    /// The decoder waits for this: readers want more, or it shall end.
    orders: Condvar,
}

struct State {
    /// The last one starts at the frontier, and has not been decoded yet; unless all are.
    spans: Spans,
    /// The frontier: what lies before it is in complete spans. The largest number at the end.
    covered: u64,
    /// What the gzip member holds before the frontier.
    member: Member,
    /// The checkpoint at the frontier, when the store had no room for it.
    unstored: Option<Arc<Unstored>>,
    /// True once the digest of the blob was found right.
    serving: bool,
    /// Where the decoder shall get.
    goal: u64,
    /// Where the last read ended that was near the frontier.
    reader: u64,
    /// Places that readers wait for.
    waiting: Vec<u64>,
    /// The last span, for readers that waited for it, when the cache does not take it.
    latest: Option<(u32, Bytes)>,
    decoder: Decoder,
    /// The decoder shall end.
    leave: bool,
    /// Nobody reads any more.
    closed: bool,
    /// Why the decoder ended last, when it might succeed another time.
    trouble: Option<Error>,
    /// Why nothing beyond the frontier can be had.
    failure: Option<Error>,
}

/// A checkpoint in memory.
struct Unstored {
    bit: u64,
    checkpoint: Checkpoint,
    _grant: Grant,
}

impl Unstored {
    fn new(bit: u64, checkpoint: Checkpoint, blob: &Blob) -> Result<Unstored> {
        let bytes = 2 * WINDOW as u64;
        let grant = blob.context.limiter.keep(bytes);
        Ok(Unstored {
            bit,
            checkpoint,
            _grant: grant.ok_or_else(|| {
                let problem = "there is neither a disk nor memory to put a seek point on";
                Error::environment(&blob.subject, problem)
            })?,
        })
    }
}

/// What the thread that decodes does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decoder {
    Absent,
    Works,
    /// It waits for orders, or works without any.
    Idle,
}

impl Known {
    /// All that there is to know.
    pub(super) fn complete(number: u32, fact: Fact, blocks: Blocks, spans: Spans) -> Known {
        let known = Known::new(number, Digests::complete(blocks), spans, u64::MAX);
        let _ = known.fact.set(fact);
        known.frontier.lock().serving = true;
        known
    }

    /// Nothing yet, of a gzip layer whose blob is about to be hashed.
    pub(super) fn growing(number: u32, block: u64) -> Known {
        let start = Span {
            out: 0,
            entry: Entry::GzipStart,
        };
        let spans = Spans {
            spans: vec![start],
            store: None,
        };
        Known::new(number, Digests::growing(block), spans, 0)
    }

    fn new(number: u32, digests: Digests, spans: Spans, covered: u64) -> Known {
        Known {
            number,
            fact: OnceLock::new(),
            digests,
            frontier: Frontier {
                state: Mutex::new(State {
                    spans,
                    covered,
                    member: Member::default(),
                    unstored: None,
                    serving: false,
                    goal: 0,
                    reader: 0,
                    waiting: Vec::new(),
                    latest: None,
                    decoder: Decoder::Absent,
                    leave: false,
                    closed: false,
                    trouble: None,
                    failure: None,
                }),
                moved: Condvar::new(),
                orders: Condvar::new(),
            },
        }
    }

    pub(super) fn key(&self, number: u32) -> ChunkKey {
        ChunkKey {
            layer: self.number,
            chunk: number,
        }
    }

    /// Starts the decoder, unless there is one.
    fn start(self: &Arc<Known>, blob: &Arc<Blob>, state: &mut State) -> Result<()> {
        if state.decoder != Decoder::Absent || state.closed || state.failure.is_some() {
            return Ok(());
        }
        let (blob, known) = (Arc::clone(blob), Arc::clone(self));
        let subject = blob.subject.clone();
        thread::Builder::new()
            .name("layer-frontier".into())
            .spawn(move || run(&blob, &known))
            .map_err(|source| Error::Io {
                action: "start a thread for",
                subject: subject.to_string(),
                source: Arc::new(source),
            })?;
        (state.decoder, state.trouble, state.leave) = (Decoder::Works, None, false);
        Ok(())
    }

    /// Starts decoding, before the hash of the blob does.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn begin(self: &Arc<Known>, blob: &Arc<Blob>) -> Result<()> {
        self.start(blob, &mut self.frontier.lock())
    }

    /// How the blob is packed, and where its content is. Whoever answers a reader asks here.
    ///
    /// # Errors
    /// While that is not proven: nobody is given what is not known.
    pub(super) fn plan(&self, blob: &Blob) -> Result<&Plan> {
        let fact = self.fact.get().map(Fact::plan);
        fact.ok_or_else(|| Error::corrupt(&blob.subject, "was not verified"))
    }

    /// The digest of the blob was found right, and it holds what it was taken for.
    pub(super) fn serve(&self, fact: Fact) {
        let _ = self.fact.set(fact);
        self.digests.finish();
        self.frontier.lock().serving = true;
        self.frontier.orders.notify_all();
    }

    /// Somebody reads bytes `at..end`: when that is near the frontier, it moves on ahead of them.
    pub(super) fn note(self: &Arc<Known>, blob: &Arc<Blob>, at: u64, end: u64) {
        let ahead = blob.ahead();
        let mut state = self.frontier.lock();
        if ahead == 0 || state.covered == u64::MAX || at.saturating_add(ahead) < state.covered {
            return;
        }
        state.reader = end;
        if at <= state.covered.saturating_add(ahead) {
            state.goal = state.goal.max(end.saturating_add(ahead));
        }
        if state.goal > state.covered && self.start(blob, &mut state).is_ok() {
            self.frontier.orders.notify_all();
        }
    }

    /// Waits until byte `at` lies before the frontier.
    ///
    /// # Errors
    /// What the decoder met before it got there.
    pub(super) fn reach(self: &Arc<Known>, blob: &Arc<Blob>, at: u64) -> Result<()> {
        let frontier = &self.frontier;
        let mut state = frontier.lock();
        if state.covered > at {
            return Ok(());
        }
        Stats::add(&blob.context.stats.waits, 1);
        state.goal = state.goal.max(at.saturating_add(1));
        state.waiting.push(at);
        let mut result = self.start(blob, &mut state);
        frontier.orders.notify_all();
        while result.is_ok() && state.covered <= at {
            if let Some(error) = &state.failure {
                result = Err(error.clone());
            } else if state.closed {
                result = Err(Error::corrupt(&blob.subject, "is no longer read"));
            } else if state.decoder == Decoder::Absent {
                // It failed, or was sent home.
                result = match &state.trouble {
                    Some(error) => Err(error.clone()),
                    None => self.start(blob, &mut state),
                };
            } else {
                state = frontier
                    .moved
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        if let Some(index) = state.waiting.iter().position(|place| *place == at) {
            state.waiting.swap_remove(index);
        }
        result
    }

    /// Ends the decoder; readers that wait for it get `failure`, where there is one.
    pub(super) fn close(&self, blob: &Blob, failure: Option<Error>) {
        let mut state = self.frontier.lock();
        state.closed = true;
        if state.failure.is_none() {
            state.failure = failure;
        }
        drop(state);
        self.digests.abandon();
        self.frontier.orders.notify_all();
        self.frontier.moved.notify_all();
        blob.context.frontiers.wake();
    }
}

impl admission::Frontier for Known {
    fn is_closed(&self) -> bool {
        self.frontier.is_closed()
    }

    fn send_home(&self) -> bool {
        self.frontier.send_home()
    }
}

impl Frontier {
    /// The span that holds byte `at`, when it lies before the frontier: its number, its start and
    /// its end, which is `end` for the last one.
    pub(super) fn locate(&self, at: u64, end: u64) -> Option<(usize, u64, u64)> {
        let state = self.lock();
        state.spans.locate(at, end).filter(|_| at < state.covered)
    }

    /// True when byte `at` lies before the frontier.
    pub(super) fn has_passed(&self, at: u64) -> bool {
        at < self.lock().covered
    }

    /// How the bytes of a span are had.
    pub(super) fn place(&self, number: usize) -> Option<Place> {
        self.lock().spans.place(number)
    }

    /// The bytes of a span, when it is the last one.
    pub(super) fn latest(&self, number: u32) -> Option<Bytes> {
        let state = self.lock();
        let latest = state.latest.as_ref();
        latest
            .filter(|(latest, _)| *latest == number)
            .map(|(_, bytes)| bytes.clone())
    }

    /// True when all of the layer was decoded and found right.
    #[cfg(test)]
    pub(super) fn is_complete(&self) -> bool {
        self.lock().covered == u64::MAX
    }

    #[cfg(test)]
    pub(super) fn covered(&self) -> u64 {
        self.lock().covered
    }

    #[cfg(test)]
    pub(super) fn has_decoder(&self) -> bool {
        self.lock().decoder != Decoder::Absent
    }

    #[cfg(test)]
    pub(super) fn span_count(&self) -> usize {
        self.lock().spans.spans.len()
    }

    #[cfg(test)]
    pub(super) fn spans(&self) -> Spans {
        self.lock().spans.clone()
    }

    /// True when nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Tells a decoder that stands still to end; false when it does not, or was told before.
    pub(super) fn send_home(&self) -> bool {
        let mut state = self.lock();
        let told = state.decoder == Decoder::Idle && !state.leave;
        state.leave |= told;
        drop(state);
        self.orders.notify_all();
        told
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// True when span `start..end` is worth keeping: somebody waits for it, or will soon get there.
    fn wants(&self, start: u64, end: u64, blob: &Blob) -> bool {
        if !self.serving {
            return start == 0 || end <= blob.hold();
        }
        let ahead = blob.ahead();
        self.waiting.iter().any(|at| (start..end).contains(at))
            || (end > self.reader && start <= self.reader.saturating_add(ahead))
    }
}

/// The thread that decodes.
fn run(blob: &Blob, known: &Arc<Known>) {
    let _leaving = Leaving { blob, known };
    let frontier: Arc<dyn admission::Frontier> = Arc::<Known>::clone(known);
    let Some(_admission) = blob.context.frontiers.admit(&frontier) else {
        return;
    };
    if let Err(error) = decode(blob, known) {
        let mut state = known.frontier.lock();
        match error.kind() {
            ErrorKind::Environment => state.trouble = Some(error),
            _ => state.failure = Some(error),
        }
    }
}

/// Reports the end of the decoder, by return or by panic.
struct Leaving<'a> {
    blob: &'a Blob,
    known: &'a Known,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.known.frontier.lock();
        state.decoder = Decoder::Absent;
        state.latest = None;
        if thread::panicking() {
            state.trouble = Some(Error::Io {
                action: "decode",
                subject: self.blob.subject.to_string(),
                source: Arc::new(io::Error::other("the decoder panicked")),
            });
        }
        // What was decoded of a blob that is not the manifest's shall not keep others out.
        if state.closed && !state.serving {
            let cache = &self.blob.context.cache;
            for number in 0..state.spans.spans.len() as u32 {
                cache.served(self.known.key(number), usize::MAX);
            }
        }
        drop(state);
        self.known.frontier.moved.notify_all();
    }
}

/// Decodes from the frontier on, as long as that is wanted, while another thread reads and verifies
/// the blob some blocks ahead.
fn decode(blob: &Blob, known: &Known) -> Result<()> {
    thread::scope(|scope| decode_beside(scope, blob, known))
}

fn decode_beside<'scope>(
    scope: &'scope Scope<'scope, '_>,
    blob: &'scope Blob,
    known: &'scope Known,
) -> Result<()> {
    let (frontier, subject) = (&known.frontier, &blob.subject);
    let fail = |error: io::Error| lift(error, subject);
    let Entered {
        mut gunzip,
        mut history,
        mut number,
        mut at,
    } = enter(scope, blob, known)?;
    let mut orders = Orders::new(blob, known);
    while orders.next(at) {
        let wanted = blob.span().min(blob.content_end().saturating_sub(at)) as usize;
        let window = history.len();
        let (buffers, len) = (&blob.context.buffers, WINDOW + wanted + SLOP);
        // It has no other unit; the hash that it may wait for has its own.
        let (_unit, mut buffer, _) = buffers.take_unit(len, 0, Term::Long, subject)?;
        let out = buffer.as_mut();
        if let Some(front) = out.get_mut(..window) {
            front.copy_from_slice(&history);
        }
        let mut pos = window;
        gunzip
            .decode_into(out, &mut pos, window + wanted)
            .map_err(fail)?;
        let decoded = out.get(..pos).unwrap_or_default();
        if pos < window + wanted {
            return Err(ends_early(subject));
        }
        history = decoded
            .get(pos.saturating_sub(WINDOW)..)
            .unwrap_or_default()
            .to_vec();
        Stats::add(&blob.context.stats.chunks_decoded, 1);
        let start = at;
        at += (pos - window) as u64;
        let next = if at < blob.content_end() {
            let mark = gunzip.mark(decoded).map_err(fail)?;
            let (bit, checkpoint, member) = mark.ok_or_else(|| ends_early(subject))?;
            let (span, unstored) = seek_point(blob, frontier, at, bit, checkpoint)?;
            Some((span, member, unstored))
        } else {
            // A match may have crossed the end of the span, and even have reached the file's.
            let end = window + (blob.content_end() - start) as usize;
            let extra = decoded.get(end..).unwrap_or_default().to_vec();
            gunzip.read_behind(decoded);
            blob.expected.check_rest(&mut extra.chain(&mut gunzip))?;
            at = blob.content_end();
            if !orders.wait_for_the_hash() {
                return Ok(());
            }
            None
        };
        let len = (at - start) as usize;
        let bytes = behind(buffer.freeze(), window, len);
        let last = next.is_none();
        publish(blob, known, number, start..at, bytes, next);
        if last {
            return Ok(());
        }
        number = number.checked_add(1).ok_or_else(|| missing(subject))?;
    }
    Ok(())
}

/// The `len` bytes behind a window. A cache counts what it is given: a short span must not hold one.
fn behind(decoded: Bytes, window: usize, len: usize) -> Bytes {
    let bytes = decoded.slice(window..window + len);
    match window > len / 16 {
        true => Bytes::copy_from_slice(&bytes),
        false => bytes,
    }
}

/// A decoder that stands at the frontier.
struct Entered {
    gunzip: Gunzip<'static, FetchedAhead>,
    /// What it has decoded before.
    history: Vec<u8>,
    /// The span that begins there,
    number: u32,
    /// and where that is.
    at: u64,
}

fn enter<'scope>(
    scope: &'scope Scope<'scope, '_>,
    blob: &'scope Blob,
    known: &'scope Known,
) -> Result<Entered> {
    let (frontier, subject) = (&known.frontier, &blob.subject);
    let (number, at, member, unstored) = {
        let state = frontier.lock();
        let number = state.spans.spans.len().saturating_sub(1);
        (number, state.covered, state.member, state.unstored.clone())
    };
    let place = frontier.place(number).ok_or_else(|| missing(subject))?;
    let (bit, checkpoint) = match unstored {
        Some(unstored) => (unstored.bit, unstored.checkpoint.clone()),
        None => place.checkpoint(subject)?,
    };
    let member = (at > 0).then_some(member);
    let source = FetchedAhead::start(scope, blob, &known.digests, bit / 8)?;
    let gunzip = Gunzip::enter(source, bit, &checkpoint, member);
    Ok(Entered {
        gunzip: gunzip.map_err(|error| lift(error, subject))?,
        history: checkpoint.window,
        number: u32::try_from(number).map_err(|_| missing(subject))?,
        at,
    })
}

/// The span that begins at `at`, with its checkpoint in the store, or in memory where that has no room.
fn seek_point(
    blob: &Blob,
    frontier: &Frontier,
    at: u64,
    bit: u64,
    checkpoint: Checkpoint,
) -> Result<(Span, Option<Arc<Unstored>>)> {
    let dir = blob.context.index_dir.as_deref();
    // Made under the lock, written outside of it.
    let (disk, limiter) = (blob.tuning.disk, &blob.context.limiter);
    let store = frontier.lock().spans.store(dir, disk, limiter);
    let stored = store
        .and_then(|store| store.append(&checkpoint.to_bytes()))
        .map_err(|error| lift(error, &blob.subject))?;
    if let Some(checkpoint) = stored {
        let entry = Entry::Gzip { bit, checkpoint };
        return Ok((Span { out: at, entry }, None));
    }
    let entry = frontier.lock().spans.entry_after(at);
    let entry = entry.ok_or_else(|| missing(&blob.subject))?;
    let unstored = Unstored::new(bit, checkpoint, blob)?;
    Ok((Span { out: at, entry }, Some(Arc::new(unstored))))
}

/// Makes a span known, and what comes next; after the last one, the index is saved before.
fn publish(
    blob: &Blob,
    known: &Known,
    number: u32,
    span: std::ops::Range<u64>,
    bytes: Bytes,
    next: Option<(Span, Member, Option<Arc<Unstored>>)>,
) {
    let (frontier, cache) = (&known.frontier, &blob.context.cache);
    let kept = match (&next, known.digests.all()) {
        (None, Some(blocks)) => {
            let mut spans = frontier.lock().spans.clone();
            blob.save_index(blocks, &mut spans);
            Some(spans)
        }
        _ => None,
    };
    let wanted = frontier.lock().wants(span.start, span.end, blob);
    if wanted {
        cache.insert(known.key(number), bytes.clone());
    }
    let mut state = frontier.lock();
    match next {
        Some((next, member, unstored)) => {
            state.spans.spans.push(next);
            (state.covered, state.member) = (next.out, member);
            state.unstored = unstored;
        }
        None => {
            if let Some(kept) = kept {
                state.spans = kept;
            }
            state.covered = u64::MAX;
            state.unstored = None;
        }
    }
    let too_large = bytes.len() as u64 > cache.capacity();
    state.latest = (wanted && too_large).then_some((number, bytes));
    drop(state);
    frontier.moved.notify_all();
}

/// Decides when the decoder goes on.
struct Orders<'a> {
    blob: &'a Blob,
    known: &'a Known,
    /// What had been read from the model when it was last looked at.
    read: u64,
    /// Nobody reads: go on to the end.
    alone: bool,
}

impl<'a> Orders<'a> {
    fn new(blob: &'a Blob, known: &'a Known) -> Orders<'a> {
        Orders {
            blob,
            known,
            read: 0,
            alone: false,
        }
    }

    /// Waits until the span at the frontier, which is at `at`, shall be decoded; false when the
    /// decoder shall end.
    fn next(&mut self, at: u64) -> bool {
        let frontier = &self.known.frontier;
        let mut state = frontier.lock();
        loop {
            if state.closed || state.leave {
                return false;
            }
            if !state.serving {
                let most = self.blob.hold().saturating_add(self.blob.ahead());
                let fits = at.saturating_add(self.blob.span()) <= most;
                if fits || at == 0 {
                    return true;
                }
                state = wait(&frontier.orders, state);
                continue;
            }
            if at < state.goal {
                state.decoder = Decoder::Works;
                self.alone = false;
                return true;
            }
            state.decoder = Decoder::Idle;
            if self.blob.context.frontiers.is_wanted() {
                return false;
            }
            if self.alone && self.is_quiet() {
                return true;
            }
            let (again, waited) = frontier
                .orders
                .wait_timeout(state, self.blob.tuning.idle)
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
            self.alone = self.is_quiet() && waited.timed_out();
        }
    }

    /// True when nothing was read from the model since the last call.
    fn is_quiet(&mut self) -> bool {
        let read = self.blob.context.stats.bytes_read();
        std::mem::replace(&mut self.read, read) == read
    }

    /// Waits until the digest of the blob was found right; false when the decoder shall end.
    fn wait_for_the_hash(&self) -> bool {
        let frontier = &self.known.frontier;
        let mut state = frontier.lock();
        while !state.serving && !state.closed {
            state = wait(&frontier.orders, state);
        }
        !state.closed
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

fn ends_early(subject: &str) -> Error {
    Error::malformed(subject, "the layer ends inside its file")
}
