//! Layers without a chunk table: anyone's gzip, zstd, tar or raw blob.
//!
//! Opening one reads its first kilobytes, for the size and mode that its own header gives its file.
//! The first read reads and hashes the whole blob; not a byte is served before its digest was found
//! to be the manifest's.
//!
//! - A gzip layer is decoded as far as its readers get, by a thread that starts together with the
//!   hash: see `frontier`. What it finds wrong beyond the hash (a damaged stream, several files) is
//!   the error of all reads from there on; the last span is served only after everything was checked.
//! - All other layers, and those of small files, are checked to their end before anything is served:
//!   see `pass`. [`verify`](FileReader::verify) does so with every layer, and after it has failed,
//!   nothing is served any more.
//!
//! What was found on the way (`spans`) lets later reads decode a few megabytes around what is wanted,
//! each verified again, and may be kept between runs (`index`).
//!
//! A layer that holds a link in place of a file is verified as a whole when it is opened.
//!
//! Refuses: streams that are damaged, cut short or followed by anything; tars with no file, several
//! files, devices, links beside a file, or a file of another name than the manifest's.

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::file_digests::{FileDigests, FileHasher};
use super::{FileAttr, FileReader, LayerSpec, LinkTarget, Opened, Reading, Wait, Within};
use crate::codec::inflate::{SLOP, WINDOW};
use crate::digest::Algorithm;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::cache::ChunkKey;
use crate::memory::context::{Context, Stats};
use crate::memory::flight::Flight;
use crate::memory::limiter::Term;
use crate::memory::units::{can_wait_in, is_part_of_a_stream};
use crate::memory::windows::Windows;
use crate::oci::media_type;
use crate::source::ReadAt;
use crate::work::cores;

mod advance;
mod facts;
mod frontier;
mod index;
#[expect(
    clippy::disallowed_methods,
    reason = "directories that were made a moment ago, and are removed only when they are empty"
)]
pub(crate) mod index_dir;
mod layer;
mod pass;
mod scan;
mod spans;
mod store;
mod verified;

use advance::Advance;
use facts::{Fact, Opening};
use frontier::Known;
use layer::Layer;
use scan::{Content, Packaging};
use spans::{Tuning, missing};
use verified::VerifiedReader;

/// Looks at a layer without a chunk table: reads at most its first kilobytes, and the whole of a
/// layer that holds a link, which is the inner error.
///
/// # Errors
/// [`ErrorKind::Malformed`] when the layer's tar begins with anything but the one file,
/// [`ErrorKind::Corrupt`] when its first bytes cannot be decoded.
pub(super) fn look(
    blob: Arc<dyn ReadAt>,
    spec: LayerSpec,
    context: Arc<Context>,
) -> Result<Result<ForeignFile, LinkTarget>> {
    ForeignFile::look(blob, spec, context, Tuning::DEFAULT)
}

/// True for media types that say what a layer must be, so that nothing else is read in its place.
pub(super) fn claims_tar(media_type: &str) -> bool {
    scan::claims_compressed_tar(media_type)
}

/// As [`open`](super::open), with distances so short that a few kilobytes have the spans, seek points
/// and frontier that otherwise only files of megabytes have: for fuzzing.
#[doc(hidden)]
pub fn open_in_miniature(
    blob: Arc<dyn ReadAt>,
    spec: LayerSpec,
    context: Arc<Context>,
) -> Result<Opened> {
    let looked = ForeignFile::look(blob, spec.clone(), context, Tuning::MINIATURE)?;
    Ok(match looked {
        Ok(file) => {
            let attr = file.attr_of(&spec)?;
            Opened::File(Arc::new(file), attr)
        }
        Err(target) => Opened::Link(target),
    })
}

/// A file in a layer without a chunk table.
pub(super) struct ForeignFile {
    layer: Arc<Layer>,
    /// What is known since the first touch. A layer that was found bad stays so; a storage that
    /// failed may recover.
    known: Mutex<Option<Result<Arc<Known>>>>,
    touching: Flight<(), Arc<Known>>,
    /// True when it was found.
    recalling: Flight<(), bool>,
    /// There is no index of an earlier run.
    forgotten: AtomicBool,
    advance: Arc<Advance>,
    loading: Flight<ChunkKey, Bytes>,
}

/// A part of the (decompressed) layer that is read, verified, decoded and cached as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit {
    number: u32,
    /// In bytes of the decompressed layer.
    start: u64,
    end: u64,
}

/// What an execute bit says, for messages.
pub(super) fn kind(executable: bool) -> &'static str {
    match executable {
        true => "an executable file",
        false => "a file that is not executable",
    }
}

/// The number of the unit that is the whole file.
const WHOLE: u32 = u32::MAX;

impl ForeignFile {
    /// The file of a layer, or the link that it holds instead.
    fn look(
        blob: Arc<dyn ReadAt>,
        spec: LayerSpec,
        context: Arc<Context>,
        tuning: Tuning,
    ) -> Result<Result<ForeignFile, LinkTarget>> {
        let subject = format!("{} ({})", spec.path, spec.stated.digest);
        if blob.len() != spec.stated.size {
            return Err(Error::malformed(
                subject,
                format!(
                    "the layer has {} bytes, the manifest says {}",
                    blob.len(),
                    spec.stated.size
                ),
            ));
        }
        let guess = match facts::open(&*blob, &spec, &subject, &context.opening)? {
            Opening::File(guess) => guess,
            Opening::Link(target) => return Ok(Err(target)),
        };
        let advance = Advance::of(blob, Arc::clone(&context));
        let layer = Layer {
            blob: advance.clone(),
            advance: Arc::clone(&advance),
            spec,
            context,
            tuning,
            subject,
            guess,
            windows: Windows::default(),
        };
        layer.expect_windows()?;
        let file = ForeignFile {
            layer: Arc::new(layer),
            known: Mutex::new(None),
            touching: Flight::new(),
            recalling: Flight::new(),
            forgotten: AtomicBool::new(false),
            advance,
            loading: Flight::new(),
        };
        file.prove_if_empty()?;
        Ok(Ok(file))
    }

    /// What the layer is, where its media type says that it is something else.
    pub(super) fn disagreement(&self) -> Option<&'static str> {
        let spec = &self.layer.spec;
        if spec.reading == Reading::File {
            return None;
        }
        let said = media_type::compression(&spec.stated.media_type);
        match (self.layer.guess.unproven().packaging, said) {
            (Packaging::Tar, None)
            | (Packaging::Gzip, Some("gzip"))
            | (Packaging::Zstd, Some("zstd")) => None,
            (Packaging::Raw, _) => Some("no tar"),
            (Packaging::Tar, _) => Some("a tar that is not compressed"),
            (Packaging::Gzip, _) => Some("a tar compressed with gzip"),
            (Packaging::Zstd, _) => Some("a tar compressed with zstd"),
        }
    }

    /// Nobody reads an empty file: that it is one is verified when it is opened, or never.
    fn prove_if_empty(&self) -> Result<()> {
        let layer = &self.layer;
        if layer.guess.attr().size > 0 {
            return Ok(());
        }
        if !layer.context.opening.affords(layer.blob.len()) {
            let bytes = layer.blob.len();
            let problem = format!("its first bytes say that {bytes} bytes hold an empty file");
            return Err(Error::corrupt(&layer.subject, problem));
        }
        self.known().map(drop)
    }

    /// The attributes of the file under a descriptor, which may be another than the layer was opened
    /// for.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Malformed`] when it states what the layer's header does
    /// not.
    pub(super) fn attr_of(&self, spec: &LayerSpec) -> Result<FileAttr> {
        let Content { packaging, head } = self.layer.guess.unproven();
        self.check_name(spec.path.file_name())?;
        let differs = |found: String, stated: String| {
            Err(Error::corrupt(
                format!("{} ({})", spec.path, spec.stated.digest),
                format!("the layer holds {found}, the manifest says {stated}"),
            ))
        };
        match spec.stated.file_size {
            Some(stated) if stated != head.attr.size => {
                return differs(
                    format!("a file of {} bytes", head.attr.size),
                    stated.to_string(),
                );
            }
            _ => {}
        }
        match spec.stated.executable {
            Some(stated) if *packaging != Packaging::Raw && stated != head.attr.executable => {
                return differs(kind(head.attr.executable).into(), kind(stated).into());
            }
            _ => {}
        }
        Ok(match packaging {
            Packaging::Raw => FileAttr {
                // A raw layer has no header that could say so.
                executable: spec.stated.executable == Some(true),
                ..head.attr
            },
            _ => head.attr,
        })
    }

    fn check_name(&self, name: &str) -> Result<()> {
        let found = self.layer.spec.path.file_name();
        if self.layer.guess.unproven().packaging == Packaging::Raw || found == name {
            return Ok(());
        }
        Err(Error::malformed(
            &self.layer.subject,
            format!("member \"{found}\" of the layer's tar is not the manifest's \"{name}\""),
        ))
    }

    /// What is known of the layer; reads and hashes the whole of it when that is nothing yet.
    fn known(&self) -> Result<Arc<Known>> {
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
            Stats::add(&self.layer.context.stats.waits, 1);
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
        let wait = match self.layer.is_small() || has_index {
            true => Wait::Work,
            false => Wait::Pass,
        };
        if may < Some(wait) {
            return Ok(Err(wait));
        }
        if wait == Wait::Work && !self.layer.is_small() && !self.recall()? && may < Some(Wait::Pass)
        {
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
            let Some((fact, blocks, spans)) = self.layer.load_index() else {
                self.forgotten.store(true, Ordering::Relaxed);
                return Ok(false);
            };
            let number = self.layer.context.next_layer();
            let known = Arc::new(Known::complete(number, fact, blocks, spans));
            self.remember(Ok(known)).map(|_| true)
        };
        self.recalling.run((), recall).0
    }

    fn begin(&self) -> Result<Arc<Known>> {
        let layer = &self.layer;
        let number = layer.context.next_layer();
        if let Some((fact, blocks, spans)) = layer.load_index() {
            return Ok(Arc::new(Known::complete(number, fact, blocks, spans)));
        }
        if !layer.has_frontier() {
            return self.pass(None).map(|(known, _)| known);
        }
        let known = Arc::new(Known::growing(number, layer.block()));
        let hashing = Hashing {
            layer,
            known: &known,
        };
        let pass = layer.pass();
        let may_hash = pass.begin_hashing()?;
        known.begin(layer)?;
        let fact = pass.hash_blocks(&known.digests, may_hash)?;
        hashing.done(fact);
        if let Some(blocks) = known.digests.all() {
            let verified = blocks.digests.len() as u64;
            Stats::add(&layer.context.stats.chunks_verified, verified);
        }
        Ok(known)
    }

    /// Takes note of a result, if it is the first or the worst; returns the one that stands.
    fn remember(&self, result: Result<Arc<Known>>) -> Result<Arc<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (stands, closed) = match (&*known, &result) {
            (Some(before @ Err(_)), _) | (Some(before @ Ok(_)), Ok(_)) => {
                (before.clone(), result.ok())
            }
            _ => {
                let before = known.replace(result.clone());
                (result, before.and_then(Result::ok))
            }
        };
        drop(known);
        if let Some(closed) = closed {
            closed.close(&self.layer, stands.as_ref().err().cloned());
        }
        stands
    }

    /// Goes over the whole layer, and decodes all of it.
    fn pass(&self, digests: Option<FileHasher>) -> Result<(Arc<Known>, Option<FileDigests>)> {
        let layer = &self.layer;
        let mut passed = layer.pass().run(digests)?;
        let stats = &layer.context.stats;
        Stats::add(&stats.chunks_verified, passed.blocks.digests.len() as u64);
        layer.save_index(&passed.blocks, &mut passed.spans);
        let number = layer.context.next_layer();
        let known = Arc::new(Known::complete(
            number,
            passed.fact,
            passed.blocks,
            passed.spans,
        ));
        if let Some(whole) = passed.whole {
            Stats::add(&stats.chunks_decoded, 1);
            let whole = layer.counted(whole);
            layer.context.cache.insert(known.key(WHOLE), whole);
        }
        Ok((known, passed.file))
    }

    /// The unit that holds byte `at` of the decompressed layer.
    fn unit(&self, known: &Arc<Known>, at: u64) -> Result<Unit> {
        let content = known.content(&self.layer)?;
        if content.head.attr.size <= self.layer.tuning.whole {
            return Ok(Unit {
                number: WHOLE,
                start: content.head.data_offset,
                end: content.data_end(),
            });
        }
        self.part(known, at)
    }

    /// The block or span that holds byte `at` of the decompressed layer; waits until it is known.
    fn part(&self, known: &Arc<Known>, at: u64) -> Result<Unit> {
        let layer = &self.layer;
        let content = known.content(layer)?;
        if matches!(content.packaging, Packaging::Gzip | Packaging::Zstd) {
            known.reach(layer, at)?;
        }
        self.known_part(known, content, at)
            .ok_or_else(|| Error::corrupt(&layer.subject, format!("no span holds byte {at}")))
    }

    /// The same, if it is known by now.
    fn known_part(&self, known: &Known, content: &Content, at: u64) -> Option<Unit> {
        let (number, start, end) = match content.packaging {
            Packaging::Raw | Packaging::Tar => {
                let size = known.digests.block_size();
                let start = at / size * size;
                let end = start.saturating_add(size).min(self.layer.blob.len());
                (usize::try_from(at / size).ok()?, start, end)
            }
            Packaging::Gzip | Packaging::Zstd => known.frontier.locate(at, content.data_end())?,
        };
        let number = u32::try_from(number).ok().filter(|n| *n != WHOLE)?;
        (at < end).then_some(Unit { number, start, end })
    }

    /// The bytes of a unit for a read of `len` bytes. While another thread decodes them, this one
    /// decodes what will be wanted next: the kernel asks for some ten pieces of one span at once, and
    /// their readers would all wait while other processors rest.
    fn load(&self, known: &Arc<Known>, unit: Unit, len: usize) -> Result<Bytes> {
        let cache = &self.layer.context.cache;
        let before = unit.number.checked_sub(1).map(|number| known.key(number));
        let streams = || is_part_of_a_stream(&**cache, len, before);
        self.load_or(known, unit, || {
            unit.number != WHOLE && streams() && self.decode_next(known, unit)
        })
    }

    /// Decodes one of the next units, unless every processor decodes already; true if it did.
    fn decode_next(&self, known: &Arc<Known>, unit: Unit) -> bool {
        let cache = &self.layer.context.cache;
        let Ok(content) = known.content(&self.layer) else {
            return false;
        };
        let after = |unit: &Unit| self.known_part(known, content, unit.end);
        let next = iter::successors(after(&unit), after)
            .take(cores())
            .take_while(|unit| can_wait_in(&**cache, unit.end - unit.start))
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
        let (stats, cache) = (&self.layer.context.stats, &self.layer.context.cache);
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
        let context = &self.layer.context;
        if let Some(bytes) = context.cache.get(known.key(unit.number)) {
            Stats::add(&context.stats.cache_hits, 1);
            return Some(bytes);
        }
        known.frontier.latest(unit.number)
    }

    fn decode_whole(&self, known: &Arc<Known>) -> Result<Bytes> {
        let content = known.content(&self.layer)?;
        let mut whole = Vec::new();
        let mut at = content.head.data_offset;
        while at < content.data_end() {
            let part = self.part(known, at)?;
            let bytes = self.decode(known, part)?;
            let end = part.end.min(content.data_end());
            let wanted = bytes.get((at - part.start) as usize..(end - part.start) as usize);
            whole.extend_from_slice(wanted.unwrap_or_default());
            at = end;
        }
        self.exactly(self.layer.counted(whole), content.head.attr.size)
    }

    /// Reads, verifies and decodes a block or span.
    fn decode(&self, known: &Known, part: Unit) -> Result<Bytes> {
        let len = (part.end - part.start) as usize;
        let (layer, subject) = (&*self.layer, &self.layer.subject);
        let packed = matches!(
            known.content(layer)?.packaging,
            Packaging::Gzip | Packaging::Zstd
        );
        let beside = match packed {
            true => known.digests.block_size() + (WINDOW + SLOP) as u64,
            false => 0,
        };
        // All that it takes, as waiting twice could be for ever.
        let memory = beside.saturating_add(len as u64);
        let limiter = &layer.context.limiter;
        let bytes = layer
            .windows
            .run(limiter, memory, Term::Short, subject, |unit, decoder| {
                let mut bytes = Vec::new();
                if packed {
                    let source = |byte| VerifiedReader::new(layer, &known.digests, byte);
                    let place = known.frontier.place(part.number as usize);
                    let place = place.ok_or_else(|| missing(subject))?;
                    let memory = |size| decoder.grow(size);
                    bytes = place.decode(len, source, memory, subject)?;
                } else {
                    let number = u64::from(part.number);
                    known.digests.read(layer, number, &mut bytes)?;
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
                &self.layer.subject,
                format!("{} bytes were decoded where {len} belong", bytes.len()),
            )),
        }
    }

    /// The bytes of a read, unless they have to be waited for longer than `may`.
    fn serve(
        &self,
        known: &Arc<Known>,
        may: Option<Wait>,
        offset: u64,
        len: usize,
    ) -> Result<Within> {
        let head = known.content(&self.layer)?.head;
        let available = head.attr.size.saturating_sub(offset);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(Within::Read(Bytes::new()));
        }
        let mut at = head.data_offset + offset;
        let end = at + len as u64;
        known.note(&self.layer, at, end);
        let mut joined = Vec::new();
        while at < end {
            if may < Some(Wait::Decoder) && !known.frontier.has_passed(at) {
                return Ok(Within::Waits(Wait::Decoder));
            }
            let unit = self.unit(known, at)?;
            let bytes = match may {
                Some(_) => self.load(known, unit, len)?,
                None => match self.at_hand(known, unit) {
                    Some(bytes) => bytes,
                    None => return Ok(Within::Waits(Wait::Work)),
                },
            };
            let (from, to) = (at - unit.start, end.min(unit.end) - unit.start);
            let wanted = from as usize..to as usize;
            let cache = &self.layer.context.cache;
            cache.served(known.key(unit.number), wanted.len());
            if wanted.len() == len {
                return Ok(Within::Read(bytes.slice(wanted)));
            }
            if joined.is_empty() {
                joined.reserve_exact(len);
            }
            joined.extend_from_slice(bytes.get(wanted).unwrap_or_default());
            at = unit.end;
        }
        self.exactly(joined.into(), len as u64).map(Within::Read)
    }
}

impl Drop for ForeignFile {
    fn drop(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(known)) = known {
            known.close(&self.layer, None);
        }
    }
}

/// Ends the decoder of a layer whose hash does not end well, by return or by panic.
struct Hashing<'a> {
    layer: &'a Layer,
    known: &'a Known,
}

impl Hashing<'_> {
    /// The hash is right: from here on, the layer is served.
    fn done(self, fact: Fact) {
        self.known.serve(fact);
        std::mem::forget(self);
    }
}

impl Drop for Hashing<'_> {
    fn drop(&mut self) {
        self.known.close(self.layer, None);
    }
}

impl FileReader for ForeignFile {
    fn size(&self) -> u64 {
        self.layer.guess.attr().size
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        // Also for an answer of no bytes: that a file ends here is as much to be known as a byte.
        let known = self.known()?;
        match self.serve(&known, Some(Wait::Pass), offset, len)? {
            Within::Read(bytes) => Ok(bytes),
            Within::Waits(_) => Err(Error::corrupt(&self.layer.subject, "waits for ever")),
        }
    }

    fn read_within(&self, may: Option<Wait>, offset: u64, len: usize) -> Result<Within> {
        match self.known_within(may)? {
            Ok(known) => self.serve(&known, may, offset, len),
            Err(wait) => Ok(Within::Waits(wait)),
        }
    }

    fn touch(&self) -> Result<()> {
        self.known().map(drop)
    }

    fn advance(&self) -> u64 {
        self.advance.get()
    }

    fn confirm(&self, name: &str, executable: bool) -> Result<()> {
        self.check_name(name)?;
        let Content { packaging, head } = self.layer.guess.unproven();
        if *packaging == Packaging::Raw || head.attr.executable == executable {
            return Ok(());
        }
        let (found, stated) = (kind(head.attr.executable), kind(executable));
        Err(Error::corrupt(
            &self.layer.subject,
            format!("the layer holds {found}, the manifest says {stated}"),
        ))
    }

    fn verify(&self, also: &[Algorithm]) -> Result<FileDigests> {
        let passed = self.pass(Some(FileHasher::new(also)));
        match &passed {
            Err(error) if error.kind() == ErrorKind::Environment => {}
            Err(error) => drop(self.remember(Err(error.clone()))),
            Ok((known, _)) => drop(self.remember(Ok(Arc::clone(known)))),
        }
        let (_, file) = passed?;
        file.ok_or_else(|| Error::corrupt(&self.layer.subject, "its file was not hashed"))
    }
}

#[cfg(test)]
mod tests;
