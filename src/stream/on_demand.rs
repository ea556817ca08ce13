//! Any blob as the stream that comes out of it: decompressed, verified, read at any offset.
//!
//! Whoever opens one says how the blob is packed and where in its stream the content is that will be
//! read, as far as its first kilobytes tell, and how to find out whether that is true: see `expected`.
//! The first read reads and hashes the whole blob; not a byte is served before its digest was found
//! to be the manifest's.
//!
//! - A gzip stream is decoded as far as its readers get, by a thread that starts together with the
//!   hash: see `known`. What it finds wrong beyond the hash (a damaged stream, several files) is
//!   the error of all reads from there on; the last span is served only after everything was checked.
//! - All others, and small ones, are checked to their end before anything is served: see `pass`.
//!   [`verify`](Stream::verify) does so with every stream, and after it has failed, nothing is served
//!   any more.
//!
//! What was found on the way (`spans`) lets later reads decode a few megabytes around what is wanted,
//! each verified again, and may be kept between runs (`index`).
//!
//! Refuses: streams that are damaged, cut short or followed by anything.

use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::advance::Advance;
use super::blob::Blob;
use super::expected::Expected;
use super::facts::{Fact, Guess, Plan, Proven};
use super::known::Known;
use super::packing::Packing;
use super::pass::{Listener, Pass};
use super::reader::{Digests, VerifiedReader};
use super::spans::{Tuning, missing};
use super::wait::{Wait, Within};
use crate::codec::inflate::{SLOP, WINDOW};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::buffers::Buffer;
use crate::memory::cache::ChunkKey;
use crate::memory::context::{Context, Stats};
use crate::memory::flight::Flight;
use crate::memory::limiter::Term;
use crate::memory::units::{can_wait_in, is_part_of_a_stream};
use crate::memory::windows::Windows;
use crate::source::ReadAt;
use crate::work::cores;

/// A blob, decompressed and verified.
pub(crate) struct Stream {
    pub(super) blob: Arc<Blob>,
    /// What is known since the first touch. A blob that was found bad stays so; a storage that
    /// failed may recover.
    known: Mutex<Option<Result<Arc<Known>>>>,
    touching: Flight<(), Arc<Known>>,
    /// True when it was found.
    recalling: Flight<(), bool>,
    /// There is no index of an earlier run, or it is of no use.
    forgotten: AtomicBool,
    /// How often what was put aside was lost.
    lost: AtomicU32,
    advance: Arc<Advance>,
    loading: Flight<ChunkKey, Bytes>,
}

/// What a blob is, as far as is known before it is read.
pub(crate) struct Taken {
    /// Its digest, as the manifest has it.
    pub(crate) digest: Digest,
    /// Names it in messages.
    pub(crate) subject: Arc<str>,
    /// How it is packed, and where its content is.
    pub(crate) plan: Guess<Plan>,
    /// True where the content is all of the stream: see [`Plan::of_all`].
    pub(crate) measured: bool,
    /// How that is compared with its bytes.
    pub(crate) expected: Arc<dyn Expected>,
}

/// A part of the stream that is read, verified, decoded and cached as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) number: u32,
    /// In bytes of the stream.
    pub(super) start: u64,
    pub(super) end: u64,
}

/// How often a stream is gone over again because what was put aside was lost.
const MOST_LOST: u32 = 3;

/// The number of the unit that is the whole of the content.
const WHOLE: u32 = u32::MAX;

impl Stream {
    /// The stream of a blob. Reads the first bytes of one that is packed with zstd, for the memory
    /// that its decoder takes.
    ///
    /// # Errors
    /// When there is not as much memory, and never will be.
    pub(crate) fn open(
        blob: Arc<dyn ReadAt>,
        taken: Taken,
        context: Arc<Context>,
        tuning: Tuning,
    ) -> Result<Stream> {
        let advance = Advance::of(blob, Arc::clone(&context));
        let blob = Blob {
            bytes: advance.clone(),
            advance: Arc::clone(&advance),
            digest: taken.digest,
            context,
            tuning,
            subject: taken.subject,
            guess: taken.plan,
            measured: taken.measured,
            expected: taken.expected,
            windows: Windows::default(),
        };
        Pass(&blob).expect_windows()?;
        Ok(Stream {
            blob: Arc::new(blob),
            known: Mutex::new(None),
            touching: Flight::new(),
            recalling: Flight::new(),
            forgotten: AtomicBool::new(false),
            lost: AtomicU32::new(0),
            advance,
            loading: Flight::new(),
        })
    }

    /// Names the blob in messages.
    pub(crate) fn subject(&self) -> &str {
        &self.blob.subject
    }

    /// Bytes `at..at + len` of the stream, fewer only at the end of its content.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the blob is not what it must be, [`ErrorKind::Environment`] when
    /// it cannot be read.
    pub(crate) fn read_at(&self, at: u64, len: usize) -> Result<Bytes> {
        match self.read_within(Some(Wait::Pass), at, len)? {
            Within::Read(bytes) => Ok(bytes),
            Within::Waits(_) => Err(Error::corrupt(&self.blob.subject, "waits for ever")),
        }
    }

    /// As [`read_at`](Stream::read_at), when that waits for no more than `may`; otherwise what it
    /// would wait for.
    ///
    /// # Errors
    /// As [`read_at`](Stream::read_at).
    pub(crate) fn read_within(&self, may: Option<Wait>, at: u64, len: usize) -> Result<Within> {
        loop {
            // Also for an answer of no bytes: that a file ends here is as much to be known as a byte.
            let known = match self.known_within(may)? {
                Ok(known) => known,
                Err(wait) => return Ok(Within::Waits(wait)),
            };
            match self.serve(&known, may, at, len) {
                Err(_) if known.frontier.is_lost() && self.forget(&known) => {}
                read => return read,
            }
        }
    }

    /// Lets go of what is known, because what was put aside of it is lost: the index of an earlier run, or
    /// a temporary file. Whoever reads goes over the blob again, which is as good as ever. False when that
    /// has not helped.
    fn forget(&self, lost: &Arc<Known>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*known, Some(Ok(now)) if Arc::ptr_eq(now, lost)) {
            // Another reader was faster.
            return true;
        }
        if self.lost.fetch_add(1, Ordering::Relaxed) >= MOST_LOST {
            return false;
        }
        self.forgotten.store(true, Ordering::Relaxed);
        *known = None;
        drop(known);
        let subject = &self.blob.subject;
        log::warn!("{subject}: what was kept of an earlier pass is damaged, and made anew");
        lost.close(&self.blob, None);
        true
    }

    /// Has the blob proven, or waits until another thread has.
    ///
    /// # Errors
    /// As [`read_at`](Stream::read_at).
    pub(crate) fn touch(&self) -> Result<()> {
        self.known().map(drop)
    }

    /// What has become of proving the blob by now; `None` while nobody has.
    pub(crate) fn proof(&self) -> Option<Result<Proven>> {
        match self.known_by_now()? {
            Ok(known) => known.proof().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// A number that grows as long as what a read would wait for gets on: a count of bytes.
    pub(crate) fn advance(&self) -> u64 {
        self.advance.get()
    }

    /// Goes over all of the blob, whatever is known of it, and tells its content to `listener`.
    ///
    /// # Errors
    /// As [`read_at`](Stream::read_at).
    pub(crate) fn verify(&self, listener: &mut dyn Listener) -> Result<()> {
        let passed = self.pass(listener);
        match &passed {
            Err(error) if error.kind() == ErrorKind::Environment => {}
            passed => drop(self.remember(passed.clone())),
        }
        passed.map(drop)
    }

    /// What is known of the layer; reads and hashes the whole of it when that is nothing yet.
    pub(super) fn known(&self) -> Result<Arc<Known>> {
        if let Some(known) = self.known_by_now() {
            return known;
        }
        let touch = || {
            // Another reader may have finished between the look and the flight.
            if let Some(known) = self.known_by_now() {
                return known;
            }
            let known = self.begin();
            match &known {
                Err(error) if error.kind() == ErrorKind::Environment => known,
                _ => self.remember(known),
            }
        };
        let (known, shared) = self.touching.run((), touch);
        if shared {
            Stats::add(&self.blob.context.stats.waits, 1);
        }
        known
    }

    fn known_by_now(&self) -> Option<Result<Arc<Known>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// What is known of the layer, if finding out takes no longer than `may`; else what it takes.
    fn known_within(&self, may: Option<Wait>) -> Result<Result<Arc<Known>, Wait>> {
        if let Some(known) = self.known_by_now() {
            return known.map(Ok);
        }
        let has_index = !self.forgotten.load(Ordering::Relaxed);
        let small = self.blob.is_small();
        let limiter = &self.blob.context.limiter;
        let wait = match small || has_index {
            true if small && !limiter.is_small(Pass(&self.blob).takes()) => Wait::Memory,
            true => Wait::Work,
            false => Wait::Pass,
        };
        if may < Some(wait) {
            return Ok(Err(wait));
        }
        if wait == Wait::Work && !small && !self.recall()? && may < Some(Wait::Pass) {
            return Ok(Err(Wait::Pass));
        }
        self.known().map(Ok)
    }

    /// Uses the index of an earlier run, if there is one.
    fn recall(&self) -> Result<bool> {
        let recall = || {
            if self.known_by_now().is_some() {
                return Ok(true);
            }
            let Some((fact, digests, spans)) = self.blob.load_index() else {
                self.forgotten.store(true, Ordering::Relaxed);
                return Ok(false);
            };
            let number = self.blob.context.next_layer();
            let known = Arc::new(Known::complete(number, fact, digests, spans));
            self.remember(Ok(known)).map(|_| true)
        };
        self.recalling.run((), recall).0
    }

    fn begin(&self) -> Result<Arc<Known>> {
        let blob = &self.blob;
        let number = blob.context.next_layer();
        if !self.forgotten.load(Ordering::Relaxed)
            && let Some((fact, digests, spans)) = blob.load_index()
        {
            return Ok(Arc::new(Known::complete(number, fact, digests, spans)));
        }
        if !blob.has_frontier() {
            return self.pass(&mut ());
        }
        let known = Arc::new(Known::growing(number, blob.block()));
        let hashing = Hashing {
            blob,
            known: &known,
        };
        let pass = Pass(blob);
        let may_hash = pass.begin_hashing()?;
        known.begin(blob);
        let fact = pass.hash_blocks(&known.digests, may_hash)?;
        hashing.done(fact);
        if let Some(blocks) = known.digests.all() {
            let verified = blocks.digests.len() as u64;
            Stats::add(&blob.context.stats.chunks_verified, verified);
        }
        Ok(known)
    }

    /// Takes note of a result, if it is the first or the worst; returns the one that stands.
    pub(super) fn remember(&self, result: Result<Arc<Known>>) -> Result<Arc<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (stands, closed) = match (&*known, &result) {
            (Some(before @ Err(_)), _) | (Some(before @ Ok(_)), Ok(_)) => {
                (before.clone(), result.ok())
            }
            _ => {
                let errors = &self.blob.context.errors;
                let kept = result.map_err(|error| errors.keep(error));
                let before = known.replace(kept.clone());
                (kept, before.and_then(Result::ok))
            }
        };
        drop(known);
        if let Some(closed) = closed {
            closed.close(&self.blob, stands.as_ref().err().cloned());
        }
        stands
    }

    /// Goes over the whole layer, and decodes all of it.
    fn pass(&self, listener: &mut dyn Listener) -> Result<Arc<Known>> {
        let blob = &self.blob;
        let mut passed = Pass(blob).run(listener)?;
        let stats = &blob.context.stats;
        Stats::add(&stats.chunks_verified, passed.blocks.digests.len() as u64);
        blob.expected.learn(&passed.found)?;
        let plan = passed.fact.value();
        blob.save_index(plan, &passed.found, &passed.blocks, &mut passed.spans);
        let number = blob.context.next_layer();
        let known = Arc::new(Known::complete(
            number,
            passed.fact,
            Digests::complete(passed.blocks),
            passed.spans,
        ));
        if let Some(whole) = passed.whole {
            Stats::add(&stats.chunks_decoded, 1);
            let whole = blob.counted(whole);
            blob.context.cache.insert(known.key(WHOLE), whole);
        }
        Ok(known)
    }

    /// The unit that holds byte `at` of the decompressed layer.
    fn unit(&self, known: &Arc<Known>, at: u64) -> Result<Unit> {
        let plan = known.plan(&self.blob)?;
        if plan.content() <= self.blob.tuning.whole {
            return Ok(Unit {
                number: WHOLE,
                start: plan.start,
                end: plan.end,
            });
        }
        self.part(known, at)
    }

    /// The block or span that holds byte `at` of the decompressed layer; waits until it is known.
    pub(super) fn part(&self, known: &Arc<Known>, at: u64) -> Result<Unit> {
        let blob = &self.blob;
        let plan = known.plan(blob)?;
        if plan.packing != Packing::Plain {
            known.reach(blob, at)?;
        }
        self.known_part(known, plan, at)
            .ok_or_else(|| Error::corrupt(&blob.subject, format!("no span holds byte {at}")))
    }

    /// The same, if it is known by now.
    pub(super) fn known_part(&self, known: &Known, plan: &Plan, at: u64) -> Option<Unit> {
        let (number, start, end) = match plan.packing {
            Packing::Plain => {
                let size = known.digests.block_size();
                let start = at / size * size;
                let end = start.saturating_add(size).min(self.blob.bytes.len());
                (usize::try_from(at / size).ok()?, start, end)
            }
            Packing::Gzip | Packing::Zstd => known.frontier.locate(at, plan.end)?,
        };
        let number = u32::try_from(number).ok().filter(|n| *n != WHOLE)?;
        (at < end).then_some(Unit { number, start, end })
    }

    /// The bytes of a unit for a read of `len` bytes. While another thread decodes them, this one
    /// decodes what will be wanted next: the kernel asks for some ten pieces of one span at once, and
    /// their readers would all wait while other processors rest.
    fn load(&self, known: &Arc<Known>, unit: Unit, len: usize) -> Result<Bytes> {
        let cache = &self.blob.context.cache;
        let before = unit.number.checked_sub(1).map(|number| known.key(number));
        let streams = || is_part_of_a_stream(&**cache, len, before);
        self.load_or(known, unit, || {
            unit.number != WHOLE && streams() && self.decode_next(known, unit)
        })
    }

    /// Decodes one of the next units, unless every processor decodes already; true if it did.
    pub(super) fn decode_next(&self, known: &Arc<Known>, unit: Unit) -> bool {
        let cache = &self.blob.context.cache;
        let Ok(plan) = known.plan(&self.blob) else {
            return false;
        };
        let short = self.is_short(known, unit).is_ok_and(|short| short);
        let after = |unit: &Unit| self.known_part(known, plan, unit.end);
        let next = iter::successors(after(&unit), after)
            .take(cores())
            .take_while(|unit| can_wait_in(&**cache, unit.end - unit.start))
            // Who must not wait for long does not do so for what is not wanted yet.
            .take_while(|next| !short || self.is_short(known, *next).is_ok_and(|short| short))
            .find(|unit| {
                let key = known.key(unit.number);
                self.loading.has_room_for(&key, cores()) && cache.get(key).is_none()
            });
        // An error is the reader's to meet: it reads the same unit again.
        next.map(|next| drop(self.load_or(known, next, || false)))
            .is_some()
    }

    /// The bytes of a unit, from the cache or decoded now; once, however many readers ask. While
    /// another one decodes them, `meanwhile` is called: see [`Flight::run_or`].
    fn load_or(
        &self,
        known: &Arc<Known>,
        unit: Unit,
        meanwhile: impl FnMut() -> bool,
    ) -> Result<Bytes> {
        let (stats, cache) = (&self.blob.context.stats, &self.blob.context.cache);
        let key = known.key(unit.number);
        if let Some(bytes) = self.at_hand(known, unit) {
            return Ok(bytes);
        }
        let work = || {
            // Another reader may have finished between the look and the flight.
            if let Some(bytes) = cache.get(key) {
                return Ok(bytes);
            }
            let bytes = match unit.number {
                WHOLE => self.decode_whole(known)?,
                _ => self.decode(known, unit)?,
            };
            Stats::add(&stats.chunks_decoded, 1);
            cache.insert(key, bytes.clone());
            Ok(bytes)
        };
        let (bytes, shared) = self.loading.run_or(key, work, meanwhile);
        if shared {
            Stats::add(&stats.waits, 1);
        }
        bytes
    }

    /// The bytes of a unit that was decoded already, and is still there.
    fn at_hand(&self, known: &Known, unit: Unit) -> Option<Bytes> {
        let context = &self.blob.context;
        if let Some(bytes) = context.cache.get(known.key(unit.number)) {
            Stats::add(&context.stats.cache_hits, 1);
            return Some(bytes);
        }
        known.latest(unit.number)
    }

    fn decode_whole(&self, known: &Arc<Known>) -> Result<Bytes> {
        let plan = known.plan(&self.blob)?;
        let mut whole = Vec::new();
        let mut at = plan.start;
        while at < plan.end {
            let part = self.part(known, at)?;
            let bytes = self.decode(known, part)?;
            let end = part.end.min(plan.end);
            let wanted = bytes.get((at - part.start) as usize..(end - part.start) as usize);
            whole.extend_from_slice(wanted.unwrap_or_default());
            at = end;
        }
        self.exactly(self.blob.counted(whole), plan.content())
    }

    /// Bytes of memory that decoding a unit takes, besides a zstd decoder and the unit itself.
    fn beside(&self, known: &Known) -> Result<u64> {
        Ok(match known.plan(&self.blob)?.packing {
            Packing::Plain => 0,
            Packing::Gzip | Packing::Zstd => known.digests.block_size() + (WINDOW + SLOP) as u64,
        })
    }

    /// True when decoding a unit stands behind no long work.
    fn is_short(&self, known: &Known, unit: Unit) -> Result<bool> {
        let takes = self.beside(known)? + self.blob.windows.expected();
        let takes = takes.saturating_add(unit.end.saturating_sub(unit.start));
        Ok(self.blob.context.limiter.is_small(takes))
    }

    /// Reads, verifies and decodes a block or span.
    pub(super) fn decode(&self, known: &Known, part: Unit) -> Result<Bytes> {
        let len = (part.end - part.start) as usize;
        let (blob, subject) = (&*self.blob, &self.blob.subject);
        let packed = known.plan(blob)?.packing != Packing::Plain;
        let beside = self.beside(known)?;
        // All that it takes, as waiting twice could be for ever.
        let memory = beside.saturating_add(len as u64);
        let limiter = &blob.context.limiter;
        let bytes = blob
            .windows
            .run(limiter, memory, Term::Short, subject, |unit, decoder| {
                let mut bytes = Vec::new();
                if packed {
                    let source = |byte| VerifiedReader::new(blob, &known.digests, byte);
                    let place = known.frontier.place(part.number as usize);
                    let place = place.ok_or_else(|| missing(subject))?;
                    let memory = |size| decoder.grow(size);
                    bytes = place.decode(len, source, memory, subject)?;
                } else {
                    let number = u64::from(part.number);
                    known.digests.read(blob, number, &mut bytes)?;
                }
                let front = bytes.len().saturating_sub(len);
                if front > len / 16 {
                    // A cache counts what it is given: a short span must not hold a window.
                    bytes.drain(..front);
                    bytes.shrink_to_fit();
                }
                let front = bytes.len().saturating_sub(len);
                let grant = unit.part(bytes.len() as u64);
                Ok(grant.hold(bytes).slice(front..))
            })?;
        self.exactly(bytes, part.end - part.start)
    }

    fn exactly(&self, bytes: Bytes, len: u64) -> Result<Bytes> {
        match bytes.len() as u64 == len {
            true => Ok(bytes),
            false => Err(Error::corrupt(
                &self.blob.subject,
                format!("{} bytes were decoded where {len} belong", bytes.len()),
            )),
        }
    }

    /// The bytes of a read, unless they have to be waited for longer than `may`.
    fn serve(
        &self,
        known: &Arc<Known>,
        may: Option<Wait>,
        mut at: u64,
        len: usize,
    ) -> Result<Within> {
        let available = known.plan(&self.blob)?.end.saturating_sub(at);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(Within::Read(Bytes::new()));
        }
        let end = at + len as u64;
        known.note(&self.blob, at, end);
        let buffers = &self.blob.context.buffers;
        let mut joined: Option<(Buffer, usize)> = None;
        while at < end {
            if may < Some(Wait::Decoder) && !known.frontier.has_passed(at) {
                return Ok(Within::Waits(Wait::Decoder));
            }
            let unit = self.unit(known, at)?;
            let bytes = match self.at_hand(known, unit) {
                Some(bytes) => bytes,
                None => match self.is_short(known, unit)? {
                    true if may < Some(Wait::Work) => return Ok(Within::Waits(Wait::Work)),
                    false if may < Some(Wait::Memory) => return Ok(Within::Waits(Wait::Memory)),
                    _ => self.load(known, unit, len)?,
                },
            };
            let (from, to) = (at - unit.start, end.min(unit.end) - unit.start);
            let wanted = from as usize..to as usize;
            let cache = &self.blob.context.cache;
            cache.served(known.key(unit.number), wanted.len());
            if wanted.len() == len {
                return Ok(Within::Read(bytes.slice(wanted)));
            }
            let (joined, filled) = joined.get_or_insert_with(|| (buffers.take(len), 0));
            let piece = bytes.get(wanted).unwrap_or_default();
            let place = joined.as_mut().get_mut(*filled..*filled + piece.len());
            if let Some(place) = place {
                place.copy_from_slice(piece);
                *filled += piece.len();
            }
            at = unit.end;
        }
        let joined = joined.map(|(joined, filled)| joined.freeze().slice(..filled));
        let joined = joined.unwrap_or_default();
        self.exactly(joined, len as u64).map(Within::Read)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(known)) = known {
            known.close(&self.blob, None);
        }
    }
}

/// Ends the decoder of a layer whose hash does not end well, by return or by panic.
struct Hashing<'a> {
    blob: &'a Blob,
    known: &'a Known,
}

impl Hashing<'_> {
    /// The hash is right: from here on, the layer is served.
    fn done(self, fact: Fact<Plan>) {
        self.known.serve(self.blob, fact);
        std::mem::forget(self);
    }
}

impl Drop for Hashing<'_> {
    fn drop(&mut self) {
        self.known.close(self.blob, None);
    }
}
