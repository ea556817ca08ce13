//! Layers without a chunk table: anyone's gzip, zstd, tar or raw blob.
//!
//! Opening one reads its first kilobytes, for the size and mode that its own header gives its file.
//! The first read of it (or [`verify`](FileReader::verify)) goes over the whole blob once: see
//! `pass`. Not a byte is served before the blob's digest was found to be the manifest's and its
//! stream to hold exactly the one file. What the pass leaves behind (`spans`) lets later reads
//! decode a few megabytes around what is wanted, each verified again, and may be kept between runs
//! (`index`).
//!
//! A layer that holds a link in place of a file is verified as a whole when it is opened.
//!
//! Refuses: streams that are damaged, cut short or followed by anything; tars with no file, several
//! files, devices, links beside a file, or a file of another name than the manifest's.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::flight::Flight;
use super::{Context, FileReader, LayerSpec, LinkTarget, Opened, Stats};
use crate::cache::ChunkKey;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::oci::annotations;
use crate::source::ReadAt;

mod index;
mod pass;
mod scan;
mod spans;
mod store;
mod turns;

use pass::Pass;
use scan::{FileDigests, Head, Look, Packaging};
use spans::{Blocks, Spans, Tuning};

/// Opens a layer without a chunk table: reads at most its first kilobytes, and the whole of a
/// layer that holds a link.
///
/// # Errors
/// [`ErrorKind::Malformed`] when the layer's tar begins with anything but the one file,
/// [`ErrorKind::Corrupt`] when its first bytes cannot be decoded or disagree with the manifest.
pub fn open(blob: Arc<dyn ReadAt>, spec: LayerSpec, context: Arc<Context>) -> Result<Opened> {
    Ok(
        match ForeignFile::look(blob, spec, context, Tuning::DEFAULT)? {
            Ok(file) => {
                let attr = file.head.attr;
                Opened::File(Arc::new(file), attr)
            }
            Err(target) => Opened::Link(target),
        },
    )
}

/// A file in a layer without a chunk table.
struct ForeignFile {
    blob: Arc<dyn ReadAt>,
    spec: LayerSpec,
    context: Arc<Context>,
    tuning: Tuning,
    /// Names the layer in messages.
    subject: String,
    packaging: Packaging,
    head: Head,
    /// What is known since the first touch. A layer that was found bad stays so; a storage that
    /// failed may recover.
    known: Mutex<Option<Result<Arc<Known>>>>,
    touching: Flight<(), Arc<Known>>,
    loading: Flight<ChunkKey, Bytes>,
}

/// What a pass, or the index of an earlier one, found out.
struct Known {
    /// Its number in the cache: what was decoded by one division into spans is no answer for
    /// another.
    layer: u32,
    blocks: Blocks,
    spans: Spans,
}

/// A part of the (decompressed) layer that is read, verified, decoded and cached as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit {
    number: u32,
    /// In bytes of the decompressed layer.
    start: u64,
    end: u64,
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
        let subject = format!("{} ({})", spec.path, spec.descriptor.digest);
        if blob.len() != spec.descriptor.size {
            return Err(Error::malformed(
                subject,
                format!(
                    "the layer has {} bytes, the manifest says {}",
                    blob.len(),
                    spec.descriptor.size
                ),
            ));
        }
        let (packaging, head) = match scan::look(&*blob, &spec, &subject)? {
            Look::File(packaging, head) => (packaging, head),
            Look::Link(target) => return Ok(Err(target)),
        };
        let stated = spec.descriptor.annotation(annotations::FILE_SIZE);
        if let Some(stated) = stated
            && *stated != head.attr.size.to_string()
        {
            return Err(Error::corrupt(
                subject,
                format!(
                    "the layer holds a file of {} bytes, the manifest says {stated}",
                    head.attr.size
                ),
            ));
        }
        Ok(Ok(ForeignFile {
            blob,
            spec,
            context,
            tuning,
            subject,
            packaging,
            head,
            known: Mutex::new(None),
            touching: Flight::new(),
            loading: Flight::new(),
        }))
    }

    /// What is known of the layer; goes over the whole of it when that is nothing yet.
    fn known(&self) -> Result<Arc<Known>> {
        let look = || {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.clone()
        };
        if let Some(known) = look() {
            return known;
        }
        let touch = || {
            // Another reader may have finished between the look and the flight.
            if let Some(known) = look() {
                return known;
            }
            if let Some(known) = self.load_index() {
                let known = Arc::new(known);
                self.remember(Ok(Arc::clone(&known)));
                return Ok(known);
            }
            self.pass(None).map(|(known, _)| known)
        };
        let (known, shared) = self.touching.run((), touch);
        if shared {
            Stats::add(&self.context.stats.waits, 1);
        }
        known
    }

    fn remember(&self, result: Result<Arc<Known>>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    /// Goes over the whole layer.
    fn pass(&self, digests: Option<FileDigests>) -> Result<(Arc<Known>, Option<Digest>)> {
        let pass = Pass {
            blob: &*self.blob,
            spec: &self.spec,
            subject: &self.subject,
            packaging: self.packaging,
            head: self.head,
            tuning: &self.tuning,
            dir: self.context.index_dir.clone(),
        };
        let mut passed = match pass.run(digests) {
            Ok(passed) => passed,
            Err(error) => {
                if error.kind() != ErrorKind::Environment {
                    self.remember(Err(error.clone()));
                }
                return Err(error);
            }
        };
        let stats = &self.context.stats;
        Stats::add(&stats.chunks_verified, passed.blocks.digests.len() as u64);
        self.save_index(&passed.blocks, &mut passed.spans);
        let known = Arc::new(Known {
            layer: self.context.next_layer(),
            blocks: passed.blocks,
            spans: passed.spans,
        });
        if let Some(whole) = passed.whole {
            Stats::add(&stats.chunks_decoded, 1);
            let whole = without_spare(whole);
            self.context.cache.insert(known.key(WHOLE), whole);
        }
        self.remember(Ok(Arc::clone(&known)));
        Ok((known, passed.file))
    }

    fn load_index(&self) -> Option<Known> {
        let dir = self.context.index_dir.as_deref()?;
        match index::load(dir, &self.identity()) {
            Ok(loaded) => loaded.map(|(blocks, spans)| Known {
                layer: self.context.next_layer(),
                blocks,
                spans,
            }),
            Err(problem) => {
                log::warn!("{}: its index is not used: {problem}", self.subject);
                None
            }
        }
    }

    /// Keeps what a pass found for later runs, where that is wanted and worth it.
    fn save_index(&self, blocks: &Blocks, spans: &mut Spans) {
        let Some(dir) = self.context.index_dir.as_deref() else {
            return;
        };
        if self.blob.len() < self.tuning.persist || !spans.outlive_the_store() {
            return;
        }
        if let Err(problem) = index::save(dir, &self.identity(), blocks, spans) {
            log::warn!("{}: its index is not kept: {problem}", self.subject);
        }
    }

    fn identity(&self) -> index::Identity {
        index::Identity {
            digest: self.spec.descriptor.digest,
            size: self.blob.len(),
            packaging: self.packaging,
            head: self.head,
            tuning: self.tuning,
        }
    }

    /// Where the file ends in the decompressed layer.
    fn data_end(&self) -> u64 {
        self.head.data_offset.saturating_add(self.head.attr.size)
    }

    /// The unit that holds byte `at` of the decompressed layer.
    fn unit(&self, known: &Known, at: u64) -> Result<Unit> {
        if self.head.attr.size <= self.tuning.whole {
            return Ok(Unit {
                number: WHOLE,
                start: self.head.data_offset,
                end: self.data_end(),
            });
        }
        self.part(known, at)
    }

    /// The block or span that holds byte `at` of the decompressed layer.
    fn part(&self, known: &Known, at: u64) -> Result<Unit> {
        let located = match self.packaging {
            Packaging::Raw | Packaging::Tar => {
                let size = known.blocks.size;
                let start = at / size * size;
                let end = start.saturating_add(size).min(self.blob.len());
                usize::try_from(at / size).ok().map(|n| (n, start, end))
            }
            Packaging::Gzip | Packaging::Zstd => known.spans.locate(at, self.data_end()),
        };
        located
            .and_then(|(number, start, end)| {
                let number = u32::try_from(number).ok().filter(|n| *n != WHOLE)?;
                (at < end).then_some(Unit { number, start, end })
            })
            .ok_or_else(|| Error::corrupt(&self.subject, format!("no span holds byte {at}")))
    }

    /// The bytes of a unit, from the cache or decoded now; once, however many readers ask.
    fn load(&self, known: &Known, unit: Unit) -> Result<Bytes> {
        let (stats, cache) = (&self.context.stats, &self.context.cache);
        let key = known.key(unit.number);
        if let Some(bytes) = cache.get(key) {
            Stats::add(&stats.cache_hits, 1);
            return Ok(bytes);
        }
        let (bytes, shared) = self.loading.run(key, || {
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
        });
        if shared {
            Stats::add(&stats.waits, 1);
        }
        bytes
    }

    fn decode_whole(&self, known: &Known) -> Result<Bytes> {
        let mut whole = Vec::new();
        let mut at = self.head.data_offset;
        while at < self.data_end() {
            let part = self.part(known, at)?;
            let bytes = self.decode(known, part)?;
            let end = part.end.min(self.data_end());
            let wanted = bytes.get((at - part.start) as usize..(end - part.start) as usize);
            whole.extend_from_slice(wanted.unwrap_or_default());
            at = end;
        }
        self.exactly(without_spare(whole), self.head.attr.size)
    }

    /// Reads, verifies and decodes a block or span.
    fn decode(&self, known: &Known, part: Unit) -> Result<Bytes> {
        let len = (part.end - part.start) as usize;
        let number = part.number as usize;
        let bytes = match self.packaging {
            Packaging::Raw | Packaging::Tar => {
                let block =
                    known
                        .blocks
                        .read(&*self.blob, u64::from(part.number), &self.subject)?;
                Stats::add(&self.context.stats.chunks_verified, 1);
                Bytes::from(block)
            }
            Packaging::Gzip | Packaging::Zstd => {
                // Each takes its megabytes beyond what the cache holds.
                let _share = self.context.budget.take(len as u64);
                let source = |byte| VerifiedReader::new(self, &known.blocks, byte);
                let bytes = known.spans.decode(number, len, source, &self.subject)?;
                let front = bytes.len().saturating_sub(len);
                if front > len / 16 {
                    // A cache counts what it is given: a short span must not hold a window.
                    Bytes::copy_from_slice(bytes.get(front..).unwrap_or_default())
                } else {
                    Bytes::from(bytes).slice(front..)
                }
            }
        };
        self.exactly(bytes, part.end - part.start)
    }

    fn exactly(&self, bytes: Bytes, len: u64) -> Result<Bytes> {
        match bytes.len() as u64 == len {
            true => Ok(bytes),
            false => Err(Error::corrupt(
                &self.subject,
                format!("{} bytes were decoded where {len} belong", bytes.len()),
            )),
        }
    }
}

impl Known {
    fn key(&self, number: u32) -> ChunkKey {
        ChunkKey {
            layer: self.layer,
            chunk: number,
        }
    }
}

/// For the cache, which counts lengths, not capacities.
fn without_spare(mut bytes: Vec<u8>) -> Bytes {
    bytes.shrink_to_fit();
    bytes.into()
}

impl FileReader for ForeignFile {
    fn size(&self) -> u64 {
        self.head.attr.size
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let known = self.known()?;
        let available = self.head.attr.size.saturating_sub(offset);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(Bytes::new());
        }
        let mut at = self.head.data_offset + offset;
        let end = at + len as u64;
        let mut joined = Vec::new();
        while at < end {
            let unit = self.unit(&known, at)?;
            let bytes = self.load(&known, unit)?;
            let (from, to) = (at - unit.start, end.min(unit.end) - unit.start);
            let wanted = from as usize..to as usize;
            let cache = &self.context.cache;
            cache.served(known.key(unit.number), wanted.len());
            if wanted.len() == len {
                return Ok(bytes.slice(wanted));
            }
            if joined.is_empty() {
                joined.reserve_exact(len);
            }
            joined.extend_from_slice(bytes.get(wanted).unwrap_or_default());
            at = unit.end;
        }
        self.exactly(joined.into(), len as u64)
    }

    fn verify(&self) -> Result<Digest> {
        let digests = FileDigests::new(&self.spec, &self.subject)?;
        let (_, file) = self.pass(Some(digests))?;
        file.ok_or_else(|| Error::corrupt(&self.subject, "its file was not hashed"))
    }
}

/// The blob from some byte on: block by block, each verified before any of it is passed on.
struct VerifiedReader<'a> {
    file: &'a ForeignFile,
    blocks: &'a Blocks,
    at: u64,
    block: Vec<u8>,
    /// Where the block starts in the blob.
    start: u64,
}

impl<'a> VerifiedReader<'a> {
    fn new(file: &'a ForeignFile, blocks: &'a Blocks, at: u64) -> VerifiedReader<'a> {
        VerifiedReader {
            file,
            blocks,
            at,
            block: Vec::new(),
            start: 0,
        }
    }
}

impl Read for VerifiedReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.file.blob.len() {
            return Ok(0);
        }
        if self.at >= self.start + self.block.len() as u64 || self.block.is_empty() {
            let number = self.at / self.blocks.size;
            self.block = self
                .blocks
                .read(&*self.file.blob, number, &self.file.subject)
                .map_err(io::Error::other)?;
            self.start = number * self.blocks.size;
            Stats::add(&self.file.context.stats.chunks_verified, 1);
        }
        let from = (self.at - self.start) as usize;
        let rest = self.block.get(from..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
