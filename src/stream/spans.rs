//! What one pass over a layer leaves behind, so that later reads decode and verify only a part.
//!
//! - The BLAKE3 of every *block* of the blob, a fixed power of two of compressed bytes: whatever is
//!   read again is read in whole blocks and verified again before anything decodes it.
//! - For compressed layers, *spans*: where the decompressed stream can be entered. A gzip stream can
//!   be entered anywhere with a checkpoint (32 KiB, kept in the store), a zstd stream where a frame
//!   starts; what a frame that is too long holds is kept in the store itself. Where the store is
//!   memory and full, a span is decoded from an earlier entry, past what lies between.
//!
//! The blob size and the declared file size choose the distances, so that neither memory nor the
//! store grows beyond [`limits::MAX_FOREIGN_SPANS`] of them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::packing::{Packing, lift};
use super::store::{Piece, Store};
use crate::codec::frames::Frames;
use crate::codec::gzip::Gunzip;
use crate::codec::seek::{Checkpoint, Record};
use crate::error::{Error, Result};
use crate::limits;
use crate::memory::limiter::Limiter;

/// The distances, in bytes; a test takes smaller ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// Decompressed bytes between seek points.
    pub(super) span: u64,
    /// Compressed bytes of a block that is decoded.
    pub(super) packed_block: u64,
    /// Bytes of a block that is served as it is.
    pub(super) plain_block: u64,
    /// Decompressed bytes of zstd frames that are decoded again rather than kept in the store.
    pub(super) frame: usize,
    /// Largest file that is kept and decoded as a whole.
    pub(super) whole: u64,
    /// Smallest blob whose index is worth keeping between runs.
    pub(super) persist: u64,
    /// What is put aside may go on disk. Where there is none it is much the same, only less of it.
    pub(super) disk: bool,
    /// How long nobody must have read anything before a layer that was read in part is decoded to
    /// its end.
    pub(super) idle: Duration,
}

impl Tuning {
    /// Most bytes of a stream that wait to be put aside, of one that should hold a file of `size` bytes.
    /// Behind the file there may be more than that: it is put aside in pieces.
    pub(super) fn pending(&self, size: u64) -> usize {
        let expected = size.saturating_add(self.plain_block);
        self.frame
            .min(usize::try_from(expected).unwrap_or(usize::MAX))
    }

    pub(crate) const DEFAULT: Tuning = Tuning {
        span: 4 << 20,
        packed_block: 256 << 10,
        plain_block: 1 << 20,
        frame: 8 << 20,
        whole: 2 << 20,
        persist: 1 << 20,
        disk: true,
        idle: Duration::from_secs(2),
    };

    /// For fuzzing.
    pub(crate) const MINIATURE: Tuning = Tuning {
        span: 40_000,
        packed_block: 4 << 10,
        plain_block: 8 << 10,
        frame: 90_000,
        whole: 1_000,
        persist: 0,
        disk: true,
        idle: Duration::from_secs(3600),
    };
}

impl Tuning {
    /// Bytes of the blocks of a blob of `len`.
    pub(super) fn block(&self, packing: Packing, len: u64) -> u64 {
        let least = match packing {
            Packing::Plain => self.plain_block,
            Packing::Gzip | Packing::Zstd => self.packed_block,
        };
        distance(least, len)
    }
}

/// `least`, or so much that `total` has no more than the allowed number of parts.
pub(super) fn distance(least: u64, total: u64) -> u64 {
    let needed = (total / limits::MAX_FOREIGN_SPANS).checked_next_power_of_two();
    least.max(needed.unwrap_or(1 << 62))
}

/// Digests of all blocks of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Size of a block, in bytes; the last one may be shorter.
    pub(super) size: u64,
    /// BLAKE3 of each.
    pub(super) digests: Vec<[u8; 32]>,
}

/// Computes [`Blocks`] of a stream.
pub(super) struct BlockHasher {
    blocks: Blocks,
    hasher: blake3::Hasher,
    filled: u64,
}

impl BlockHasher {
    pub(super) fn new(size: u64) -> BlockHasher {
        BlockHasher {
            blocks: Blocks {
                size,
                digests: Vec::new(),
            },
            hasher: blake3::Hasher::new(),
            filled: 0,
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.blocks.size - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.filled += now.len() as u64;
            bytes = later;
            if self.filled == self.blocks.size {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.blocks.digests.push(*self.hasher.finalize().as_bytes());
        self.hasher.reset();
        self.filled = 0;
    }

    /// The digests of the blocks that ended since the last call.
    pub(super) fn take(&mut self) -> Vec<[u8; 32]> {
        std::mem::take(&mut self.blocks.digests)
    }

    pub(super) fn finish(mut self) -> Blocks {
        if self.filled > 0 {
            self.end_block();
        }
        self.blocks
    }
}

/// Where and how the decompressed stream can be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Decompressed offset.
    pub(super) out: u64,
    pub(super) entry: Entry,
}

/// How a span's bytes are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// From the start of a gzip stream.
    GzipStart,
    /// From bit `bit` of a gzip stream, with a [`Checkpoint`].
    Gzip {
        /// Bits from the start of the blob.
        bit: u64,
        /// The checkpoint's bytes.
        checkpoint: Piece,
    },
    /// From a zstd frame that starts at this byte of the blob.
    Frame(u64),
    /// From the store.
    Spooled(Piece),
    /// As another span, which has an entry of its own, but so many bytes later.
    After {
        /// Its number.
        span: u32,
        /// Decompressed bytes to skip.
        skip: u64,
    },
}

/// The spans of a layer and what they need. Empty for layers that are not compressed.
#[derive(Default, Clone)]
pub(super) struct Spans {
    pub(super) spans: Vec<Span>,
    pub(super) store: Option<Arc<Store>>,
}

impl Spans {
    /// The span that holds decompressed offset `out`: its number, its start and its end, which is
    /// `end` for the last one.
    pub(super) fn locate(&self, out: u64, end: u64) -> Option<(usize, u64, u64)> {
        let number = self
            .spans
            .partition_point(|span| span.out <= out)
            .checked_sub(1)?;
        let span = self.spans.get(number)?;
        let end = self
            .spans
            .get(number + 1)
            .map_or(end, |next| next.out.min(end));
        Some((number, span.out, end))
    }

    /// How the bytes of span `number` are had.
    pub(super) fn place(&self, number: usize) -> Option<Place> {
        let (entry, skip) = match self.spans.get(number)?.entry {
            Entry::After { span, skip } => (self.spans.get(span as usize)?.entry, skip),
            entry => (entry, 0),
        };
        Some(Place {
            entry,
            skip,
            store: self.store.clone(),
        })
    }

    /// True when a later run can use them too.
    pub(super) fn outlive_the_store(&self) -> bool {
        !self
            .spans
            .iter()
            .any(|s| matches!(s.entry, Entry::Spooled(_) | Entry::After { .. }))
    }

    /// The store, made now when there is none yet: see [`Store::create`].
    pub(super) fn store(
        &mut self,
        dir: Option<&Path>,
        disk: bool,
        limiter: &Arc<Limiter>,
    ) -> io::Result<Arc<Store>> {
        Ok(Arc::clone(match &mut self.store {
            Some(store) => store,
            empty => empty.insert(Arc::new(Store::create(dir, disk, limiter)?)),
        }))
    }

    /// An entry for offset `out`, behind all spans so far, that needs nothing new.
    pub(super) fn entry_after(&self, out: u64) -> Option<Entry> {
        let number = self.spans.len().checked_sub(1)?;
        let last = self.spans.get(number)?;
        let further = out.checked_sub(last.out)?;
        Some(match last.entry {
            Entry::After { span, skip } => Entry::After {
                span,
                skip: skip.checked_add(further)?,
            },
            _ => Entry::After {
                span: u32::try_from(number).ok()?,
                skip: further,
            },
        })
    }
}

/// One span apart from the others.
pub(super) struct Place {
    pub(super) entry: Entry,
    /// Decompressed bytes between the entry and the span.
    skip: u64,
    store: Option<Arc<Store>>,
}

impl Place {
    /// Reads a piece of the store.
    pub(super) fn piece(&self, piece: &Piece, subject: &str) -> Result<Vec<u8>> {
        let store = self.store.as_ref().map(|store| store.read(piece));
        match store {
            Some(Ok(Some(bytes))) => Ok(bytes),
            Some(Err(error)) => Err(Error::failed("read the temporary file of", subject, error)),
            Some(Ok(None)) | None => Err(Error::corrupt(
                subject,
                "the temporary file changed since it was written",
            )),
        }
    }

    /// The bit of a gzip stream where the span begins, and the checkpoint there.
    pub(super) fn checkpoint(&self, subject: &str) -> Result<(u64, Checkpoint)> {
        match &self.entry {
            Entry::GzipStart => Ok((0, Checkpoint::start())),
            Entry::Gzip { bit, checkpoint } => {
                let bytes = self.piece(checkpoint, subject)?;
                let checkpoint =
                    Checkpoint::from_bytes(&bytes).map_err(|e| Error::corrupt(subject, e))?;
                Ok((*bit, checkpoint))
            }
            Entry::Frame(_) | Entry::Spooled(_) | Entry::After { .. } => Err(missing(subject)),
        }
    }

    /// Decodes `len` bytes from the start of the span. `source` gives the verified blob from a byte
    /// on; `memory` is asked for what a zstd decoder takes. The result may have other bytes in front; the
    /// `len` last ones are meant.
    pub(super) fn decode<R: Read>(
        &self,
        len: usize,
        source: impl FnOnce(u64) -> R,
        memory: impl FnMut(u64) -> io::Result<()>,
        subject: &str,
    ) -> Result<Vec<u8>> {
        let fail = |error: io::Error| lift(error, subject);
        match &self.entry {
            Entry::GzipStart | Entry::Gzip { .. } => {
                let (bit, checkpoint) = self.checkpoint(subject)?;
                let source = source(bit / 8);
                if self.skip == 0 {
                    return Gunzip::resume(source, bit, &checkpoint, len).map_err(fail);
                }
                let mut gunzip = Gunzip::enter(source, bit, &checkpoint, None).map_err(fail)?;
                gunzip.read_behind(&checkpoint.window);
                self.read_later(gunzip, len).map_err(fail)
            }
            Entry::Frame(byte) => Frames::new(source(*byte), None, Box::new(memory))
                .and_then(|frames| self.read_later(frames, len))
                .map_err(fail),
            Entry::Spooled(piece) => {
                let mut bytes = self.piece(piece, subject)?;
                if bytes.len() < len {
                    return Err(missing(subject));
                }
                bytes.truncate(len);
                Ok(bytes)
            }
            Entry::After { .. } => Err(missing(subject)),
        }
    }

    /// Bytes of a stream that begins at the entry.
    fn read_later(&self, mut stream: impl Read, len: usize) -> io::Result<Vec<u8>> {
        let mut before = stream.by_ref().take(self.skip);
        if io::copy(&mut before, &mut io::sink())? < self.skip {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut out = vec![0; len];
        stream.read_exact(&mut out)?;
        Ok(out)
    }
}

/// The error when a span does not exist.
pub(super) fn missing(subject: &str) -> Error {
    Error::corrupt(subject, "has no such span")
}

/// Collects [`Spans`] while a stream is decoded.
pub(super) struct Recorder {
    spans: Spans,
    next: u64,
    spacing: u64,
    /// Largest content of frames that is decoded again, and size of what is spooled at once.
    frame: usize,
    piece: usize,
    /// Where the store goes.
    dir: Option<PathBuf>,
    disk: bool,
    limiter: Arc<Limiter>,
    /// Bytes that may still be spooled.
    allowance: u64,
    /// The frames since the last span, where they start, and what they yield; once there is too
    /// much of it, that is spooled.
    open: Option<(u64, u64)>,
    pending: Vec<u8>,
    spooling: bool,
    /// Where the output is, in frames of which too much comes and nothing can be put aside.
    passing: Option<u64>,
}

impl Recorder {
    /// For a stream that should hold a file of `size` bytes, in a blob of `blob_len`.
    pub(super) fn new(
        tuning: &Tuning,
        size: u64,
        blob_len: u64,
        dir: Option<PathBuf>,
        limiter: Arc<Limiter>,
    ) -> Recorder {
        let spacing = distance(tuning.span, size);
        Recorder {
            spans: Spans::default(),
            next: 0,
            spacing,
            frame: tuning.pending(size),
            piece: usize::try_from(distance(tuning.plain_block, size)).unwrap_or(usize::MAX),
            dir,
            disk: tuning.disk,
            limiter,
            allowance: blob_len
                .saturating_mul(limits::MAX_SPOOL_RATIO)
                .saturating_add(limits::SPOOL_ALLOWANCE),
            open: None,
            pending: Vec::new(),
            spooling: false,
            passing: None,
        }
    }

    /// For a gzip stream: its start is the first span.
    pub(super) fn start_gzip(&mut self) {
        self.next = self.spacing;
        self.spans.spans.push(Span {
            out: 0,
            entry: Entry::GzipStart,
        });
    }

    /// All spans, at the end of the stream.
    pub(super) fn finish(mut self) -> io::Result<Spans> {
        self.close()?;
        Ok(self.spans)
    }

    fn store(&mut self) -> io::Result<Arc<Store>> {
        let dir = self.dir.as_deref();
        self.spans.store(dir, self.disk, &self.limiter)
    }

    /// Ends the frames since the last span.
    fn close(&mut self) -> io::Result<()> {
        if self.spooling {
            self.spool(1)?;
            self.spooling = false;
        } else if self.passing.take().is_some() {
            // Its spans are noted already.
        } else if let (Some((out, byte)), false) = (self.open, self.pending.is_empty()) {
            let entry = Entry::Frame(byte);
            self.spans.spans.push(Span { out, entry });
        }
        self.open = None;
        self.pending.clear();
        Ok(())
    }

    /// Too much came since the last span, and there is no disk to put it on.
    fn start_passing(&mut self) -> io::Result<()> {
        let came = std::mem::take(&mut self.pending).len() as u64;
        if let Some((out, byte)) = self.open {
            let entry = Entry::Frame(byte);
            self.spans.spans.push(Span { out, entry });
            self.passing = Some(out);
            self.next = out.saturating_add(self.spacing);
        }
        self.pass(came)
    }

    /// So many bytes came that cannot be put aside: notes where spans begin in them.
    fn pass(&mut self, came: u64) -> io::Result<()> {
        let at = self.passing.unwrap_or_default().saturating_add(came);
        self.passing = Some(at);
        while self.next < at {
            let out = self.next;
            let entry = self.spans.entry_after(out).ok_or_else(full)?;
            self.spans.spans.push(Span { out, entry });
            self.next = out.saturating_add(self.spacing);
        }
        Ok(())
    }

    /// Moves what is pending to the store, in pieces, as long as `least` bytes are.
    fn spool(&mut self, least: usize) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while rest.len() >= least {
            let (piece, later) = rest.split_at(self.piece.min(rest.len()));
            self.allowance = match self.allowance.checked_sub(piece.len() as u64) {
                Some(left) => left,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "one frame expands beyond what can be kept in a temporary file",
                    ));
                }
            };
            let stored = self.store()?.append(piece)?.ok_or_else(full)?;
            if let Some((out, _)) = &mut self.open {
                self.spans.spans.push(Span {
                    out: *out,
                    entry: Entry::Spooled(stored),
                });
                *out += piece.len() as u64;
            }
            rest = later;
        }
        self.pending = rest.to_vec();
        Ok(())
    }
}

/// The store takes nothing, where something was to be counted on.
fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "there is no memory for it")
}

impl Record for Recorder {
    fn next(&self) -> u64 {
        self.next
    }

    fn checkpoint(&mut self, out: u64, bit: u64, checkpoint: Checkpoint) -> io::Result<()> {
        let checkpoint = self.store()?.append(&checkpoint.to_bytes())?;
        let entry = match checkpoint {
            Some(checkpoint) => Entry::Gzip { bit, checkpoint },
            None => self.spans.entry_after(out).ok_or_else(full)?,
        };
        self.next = out.saturating_add(self.spacing);
        self.spans.spans.push(Span { out, entry });
        Ok(())
    }

    fn frame(&mut self, out: u64, byte: u64) -> io::Result<()> {
        self.close()?;
        self.open = Some((out, byte));
        self.next = out.saturating_add(self.spacing);
        Ok(())
    }

    fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.passing.is_some() {
            return self.pass(bytes.len() as u64);
        }
        self.pending.extend_from_slice(bytes);
        if !self.spooling && self.pending.len() > self.frame {
            if self.store()?.is_memory() {
                return self.start_passing();
            }
            self.spooling = true;
        }
        if self.spooling && self.pending.len() >= self.piece {
            self.spool(self.piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::memory::promise::Promise;

    #[test]
    fn r9_what_comes_behind_a_small_file_is_put_aside_in_what_was_granted() {
        const WRITE: usize = 512 << 10;
        let tuning = Tuning::DEFAULT;
        let limiter = Limiter::new(Promise::unmounted(0), Duration::ZERO);
        let mut recorder = Recorder::new(&tuning, 5, 1 << 20, None, limiter);
        recorder.frame(0, 0).unwrap();
        for _ in 0..16 {
            recorder.output(&[0; WRITE]).unwrap();
            assert!(recorder.pending.len() <= tuning.pending(5) + WRITE);
        }
        recorder.finish().unwrap();
    }
}
