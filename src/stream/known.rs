//! What is known of a layer, and the thread that decodes its gzip stream.
//!
//! A gzip stream can only be decoded from its start, once. So that this once is enough for whoever
//! reads the file in order, the decoder starts with the first touch and goes as far as readers do:
//!
//! - While the blob is hashed, a thread decodes behind the hash (from blocks that the hash has
//!   passed, each checked against the digest computed there). What it decodes is
//!   [`Unproven`](crate::memory::waiting), and waits until three quarters of the cache's room are
//!   taken. Some way further on it pauses: what it does not keep there, a reader decodes on another core
//!   while the frontier moves on. Nobody is served before the hash has ended and was found right.
//! - Then it goes on from where it stands as far as readers want, and a bounded distance ahead of
//!   one that reads in order. Each span that it ends becomes a seek point at once; readers behind
//!   the *frontier* do not wait for it. One that jumps ahead waits until the decoder is there; what
//!   lies between is not kept.
//! - When nobody has read anything for a while, it goes on to the end of the stream by itself.
//! - The last span is served after all that follows it was checked, and the index was saved. So the
//!   whole of a file is never read from a layer that holds anything else, or is damaged.
//!
//! An error that the decoder meets is the error of all reads from there on, for good unless storage
//! is to blame. What lies before it goes on being served.
//!
//! A decoder that stands still may be sent home ([`Live`](crate::memory::admission::Live)); another one goes on
//! from the last seek point, with the checksum of the gzip member so far.
//!
//! Which of this is so at a time, and what may follow, are the states of a
//! [`Frontier`](super::frontier).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Scope};

use bytes::Bytes;

use super::blob::Blob;
use super::facts::{Fact, Plan, Proven};
use super::frontier::{Frontier, Mark, Obstacle, Order, State, Unstored};
use super::packing::lift;
use super::reader::{Digests, Fetched};
use super::spans::{Entry, Span, Spans, missing};
use crate::codec::gzip::{Gunzip, Member};
use crate::codec::inflate::{SLOP, WINDOW};
use crate::codec::seek::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::admission;
use crate::memory::cache::ChunkKey;
use crate::memory::context::Stats;
use crate::memory::limiter::Term;
use crate::memory::waiting::{Proof, Unproven};

/// What a pass, or the index of an earlier one, found out.
pub(super) struct Known {
    /// Its number in the cache: what was decoded by one division into spans is no answer for
    /// another.
    number: u32,
    /// What the layer holds, once its digest was found right.
    fact: OnceLock<Fact<Plan>>,
    pub(super) digests: Digests,
    pub(super) frontier: Frontier,
}

impl Proof for Fact<Plan> {}

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

impl Known {
    /// All that there is to know.
    pub(super) fn complete(number: u32, fact: Fact<Plan>, digests: Digests, spans: Spans) -> Known {
        Known {
            number,
            fact: OnceLock::from(fact),
            digests,
            frontier: Frontier::complete(spans),
        }
    }

    /// Nothing yet, of a gzip layer whose blob is about to be hashed.
    pub(super) fn growing(number: u32, block: u64) -> Known {
        Known {
            number,
            fact: OnceLock::new(),
            digests: Digests::growing(block),
            frontier: Frontier::at_the_start(Span {
                out: 0,
                entry: Entry::GzipStart,
            }),
        }
    }

    pub(super) fn key(&self, number: u32) -> ChunkKey {
        ChunkKey {
            layer: self.number,
            chunk: number,
        }
    }

    /// Starts the decoder, unless there is one; false where there is no thread for it: the system has none,
    /// or as many as may have one wait to be [admitted](admission::Live) already.
    fn start(self: &Arc<Known>, blob: &Arc<Blob>, state: &mut State) -> bool {
        if !state.wants_a_decoder() {
            return true;
        }
        let Some(place) = blob.context.frontier_threads.take() else {
            return false;
        };
        let (blob, known) = (Arc::clone(blob), Arc::clone(self));
        let spawned = thread::Builder::new()
            .name("layer-frontier".into())
            .spawn(move || {
                run(&blob, &known, None);
                drop(place);
            });
        if spawned.is_ok() {
            state.start();
        }
        spawned.is_ok()
    }

    /// Starts decoding, before the hash of the blob does. Without a thread for it, readers will decode.
    pub(super) fn begin(self: &Arc<Known>, blob: &Arc<Blob>) {
        let _ = self.start(blob, &mut self.frontier.lock());
    }

    /// How the blob is packed, and where its content is. Whoever answers a reader asks here.
    ///
    /// # Errors
    /// While that is not proven: nobody is given what is not known.
    pub(super) fn plan(&self, blob: &Blob) -> Result<&Plan> {
        let fact = self.fact.get().map(Fact::value);
        fact.ok_or_else(|| Error::corrupt(&blob.subject, "was not verified"))
    }

    /// The proof, once there is one.
    pub(super) fn proof(&self) -> Option<Proven> {
        self.fact.get().map(Fact::proof)
    }

    /// The digest of the blob was found right, and it holds what it was taken for.
    pub(super) fn serve(&self, blob: &Blob, fact: Fact<Plan>) {
        let _ = self.fact.set(fact);
        self.digests.finish();
        self.frontier.lock().prove();
        let (context, released) = (&blob.context, self.release(blob));
        for (number, unit) in released {
            context.cache.insert(self.key(number), unit.proven(&fact));
        }
        self.frontier.wake_the_decoder();
    }

    /// What was decoded before the blob was proven, and is not held any longer.
    fn release(&self, blob: &Blob) -> BTreeMap<u32, Unproven> {
        blob.context.waiting.release(self.number)
    }

    /// The bytes of a span, when it is the last one that was decoded, and did not fit into the cache.
    pub(super) fn latest(&self, number: u32) -> Option<Bytes> {
        let latest = self.frontier.latest(number)?;
        Some(latest.proven(self.fact.get()?))
    }

    /// Somebody reads bytes `at..end`: when that is near the frontier, it moves on ahead of them.
    pub(super) fn note(self: &Arc<Known>, blob: &Arc<Blob>, at: u64, end: u64) {
        let mut state = self.frontier.lock();
        if state.note(at, end, blob.ahead()) && self.start(blob, &mut state) {
            self.frontier.wake_the_decoder();
        }
    }

    /// Waits until byte `at` lies before the frontier. Decodes up to there on the calling thread where
    /// there is none for a decoder.
    ///
    /// # Errors
    /// What the decoder met before it got there.
    pub(super) fn reach(self: &Arc<Known>, blob: &Arc<Blob>, at: u64) -> Result<()> {
        let frontier = &self.frontier;
        let mut state = frontier.lock();
        if state.has_passed(at) {
            return Ok(());
        }
        Stats::add(&blob.context.stats.waits, 1);
        state.await_byte(at);
        frontier.wake_the_decoder();
        // What the last decoder met may be otherwise now.
        let mut wanted = state.wants_a_decoder();
        let result = loop {
            match state.obstacle(at, &blob.subject) {
                None => break Ok(()),
                Some(Obstacle::Never(error)) if !wanted => break Err(error),
                Some(Obstacle::Decoding) => state = frontier.wait_for_a_move(state),
                Some(Obstacle::Never(_) | Obstacle::NoDecoder) => {
                    wanted = false;
                    if !self.start(blob, &mut state) {
                        state.start();
                        drop(state);
                        run(blob, self, Some(at));
                        state = frontier.lock();
                    }
                }
            }
        };
        state.await_no_longer(at);
        result
    }

    /// Ends the decoder; readers that wait for it get `failure`, where there is one.
    pub(super) fn close(&self, blob: &Blob, failure: Option<Error>) {
        self.frontier.lock().close(failure);
        // What was decoded of a blob that is not the manifest's shall not keep others out.
        drop(self.release(blob));
        self.digests.abandon();
        self.frontier.wake_the_decoder();
        self.frontier.wake_readers();
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

/// What decodes: a thread of its own, or a reader that wants byte `until`.
fn run(blob: &Blob, known: &Arc<Known>, until: Option<u64>) {
    let mut leaving = Leaving {
        blob,
        known,
        trouble: None,
    };
    let frontier: Arc<dyn admission::Frontier> = Arc::<Known>::clone(known);
    let Some(_admission) = blob.context.frontiers.admit(&frontier) else {
        return;
    };
    if let Err(error) = decode(blob, known, until) {
        match error.kind() {
            ErrorKind::Environment => leaving.trouble = Some(error),
            _ => {
                let error = blob.context.errors.keep(error);
                known.frontier.lock().break_off(error);
            }
        }
    }
}

/// Reports the end of the decoder, by return or by panic.
struct Leaving<'a> {
    blob: &'a Blob,
    known: &'a Known,
    /// What it met that might be otherwise another time.
    trouble: Option<Error>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let cause = io::Error::other("the decoder panicked");
            self.trouble = Some(Error::failed("decode", &self.blob.subject, cause));
        }
        let frontier = &self.known.frontier;
        frontier.lock().end_decoder(self.trouble.take());
        frontier.wake_readers();
    }
}

/// Decodes from the frontier on, as long as that is wanted, while another thread reads and verifies
/// the blob some blocks ahead.
fn decode(blob: &Blob, known: &Known, until: Option<u64>) -> Result<()> {
    thread::scope(|scope| decode_beside(scope, blob, known, until))
}

fn decode_beside<'scope>(
    scope: &'scope Scope<'scope, '_>,
    blob: &'scope Blob,
    known: &'scope Known,
    until: Option<u64>,
) -> Result<()> {
    let (frontier, subject) = (&known.frontier, &blob.subject);
    let fail = |error: io::Error| lift(error, subject);
    let Entered {
        mut gunzip,
        mut history,
        mut number,
        mut at,
    } = enter(scope, blob, known)?;
    let mut orders = Orders::new(blob, known, until);
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
            let mark = mark.ok_or_else(|| ends_early(subject))?;
            Some(seek_point(blob, frontier, at, mark)?)
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
        let bytes = Unproven::new(behind(buffer.freeze(), window, len));
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
struct Entered<'a> {
    gunzip: Gunzip<'static, Fetched<'a>>,
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
) -> Result<Entered<'scope>> {
    let (frontier, subject) = (&known.frontier, &blob.subject);
    let (number, mark) = {
        let state = frontier.lock();
        let number = state.spans.spans.len().saturating_sub(1);
        (
            number,
            state.mark().cloned().ok_or_else(|| missing(subject))?,
        )
    };
    let Mark {
        at,
        member,
        unstored,
    } = mark;
    let place = frontier.place(number).ok_or_else(|| missing(subject))?;
    let (bit, checkpoint) = match unstored {
        Some(unstored) => (unstored.bit, unstored.checkpoint.clone()),
        None => place.checkpoint(subject)?,
    };
    let member = (at > 0).then_some(member);
    let source = Fetched::start(scope, blob, &known.digests, bit / 8);
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
    (bit, checkpoint, member): (u64, Checkpoint, Member),
) -> Result<(Span, Mark)> {
    let dir = blob.context.index_dir.as_deref();
    // Made under the lock, written outside of it.
    let (disk, limiter) = (blob.tuning.disk, &blob.context.limiter);
    let store = frontier.lock().spans.store(dir, disk, limiter);
    let stored = store
        .and_then(|store| store.append(&checkpoint.to_bytes()))
        .map_err(|error| lift(error, &blob.subject))?;
    let (entry, unstored) = match stored {
        Some(checkpoint) => (Entry::Gzip { bit, checkpoint }, None),
        None => {
            let entry = frontier.lock().spans.entry_after(at);
            let entry = entry.ok_or_else(|| missing(&blob.subject))?;
            let unstored = Unstored::new(bit, checkpoint, blob)?;
            (entry, Some(Arc::new(unstored)))
        }
    };
    let mark = Mark {
        at,
        member,
        unstored,
    };
    Ok((Span { out: at, entry }, mark))
}

/// Makes a span known, and what comes next; after the last one, the index is saved before.
fn publish(
    blob: &Blob,
    known: &Known,
    number: u32,
    span: Range<u64>,
    bytes: Unproven,
    next: Option<(Span, Mark)>,
) {
    let frontier = &known.frontier;
    let kept = match (&next, known.digests.all()) {
        (None, Some(blocks)) => {
            let mut spans = frontier.lock().spans.clone();
            blob.save_index(blob.guess.unproven(), &[], blocks, &mut spans);
            Some(spans)
        }
        _ => None,
    };
    let latest = keep(blob, known, number, span, bytes);
    let mut state = frontier.lock();
    match next {
        Some((next, mark)) => state.advance(next, mark, latest),
        None => state.complete(kept, latest),
    }
    drop(state);
    frontier.wake_readers();
}

/// Keeps a span for its readers, where that is wanted; returns it when it is too large for a cache, and
/// is to be kept until the next one is there.
fn keep(
    blob: &Blob,
    known: &Known,
    number: u32,
    span: Range<u64>,
    bytes: Unproven,
) -> Option<(u32, Unproven)> {
    let (key, context) = (known.key(number), &blob.context);
    let state = known.frontier.lock();
    if !state.wants(span.start, span.end, blob.hold(), blob.ahead()) {
        return None;
    }
    if bytes.len() > context.cache.capacity() {
        return Some((number, bytes));
    }
    match known.fact.get() {
        // Under the lock: who proves the blob, or closes it, releases what waits.
        None => context.waiting.hold(key, bytes),
        Some(fact) => {
            drop(state);
            context.cache.insert(key, bytes.proven(fact));
        }
    }
    None
}

/// Decides when the decoder goes on.
struct Orders<'a> {
    blob: &'a Blob,
    known: &'a Known,
    /// What had been read from the model when it was last looked at.
    read: u64,
    /// Nobody reads: go on to the end.
    alone: bool,
    /// Who decodes is a reader, and has what it wants when the frontier has passed this byte.
    until: Option<u64>,
}

impl<'a> Orders<'a> {
    fn new(blob: &'a Blob, known: &'a Known, until: Option<u64>) -> Orders<'a> {
        Orders {
            blob,
            known,
            read: 0,
            alone: false,
            until,
        }
    }

    /// Waits until the span at the frontier, which is at `at`, shall be decoded; false when the
    /// decoder shall end.
    fn next(&mut self, at: u64) -> bool {
        let (blob, frontier) = (self.blob, &self.known.frontier);
        let most = blob.hold().saturating_add(blob.ahead());
        if self.until.is_some_and(|until| until < at) {
            return false;
        }
        let mut state = frontier.lock();
        loop {
            match state.order(at, blob.span(), most) {
                Order::Leave => return false,
                Order::Decode => {
                    self.alone = false;
                    return true;
                }
                Order::AwaitTheHash => (state, _) = frontier.wait_for_an_order(state, None),
                Order::AwaitReaders => {
                    if blob.context.frontiers.is_wanted() {
                        return false;
                    }
                    if self.alone && self.is_quiet() {
                        return true;
                    }
                    let idle = Some(blob.tuning.idle);
                    let (again, late) = frontier.wait_for_an_order(state, idle);
                    state = again;
                    self.alone = self.is_quiet() && late;
                }
            }
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
        while !state.is_proven() && !state.is_closed() {
            (state, _) = frontier.wait_for_an_order(state, None);
        }
        !state.is_closed()
    }
}

fn ends_early(subject: &str) -> Error {
    Error::malformed(subject, "the layer ends inside its file")
}
