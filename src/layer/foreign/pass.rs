//! Passes over a whole layer: one must happen before its first byte is served.
//!
//! One thread reads the blob and hashes it, another decodes what the first has read and takes notes
//! (see [`spans`](super::spans)), a few buffers apart; the slower of the two sets the pace. What was
//! decoded counts only once the digest is the manifest's.
//!
//! For a large gzip layer the pass only hashes; its decoder outlives it: see
//! [`frontier`](super::frontier).

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{panic, thread};

use super::advance::Advance;
use super::facts::{self, BUFFER, Fact, Guess};
use super::scan::{self, Content, Packaging};
use super::spans::{BlockHasher, Blocks, Recorder, Spans, Tuning, distance, lift};
use super::verified::Digests;
use crate::codec::seek::Record;
use crate::error::{Error, Result};
use crate::layer::LayerSpec;
use crate::layer::file_digests::{FileDigests, FileHasher};
use crate::memory::context::Context;
use crate::memory::limiter::{Term, Unit};
use crate::memory::turns::{Turn, Turns};
use crate::memory::windows::{Decoder, Windows};
use crate::source::ReadAt;

/// Buffers that the hash may be ahead of the decoder.
const AHEAD: usize = 4;
/// Passes at a time, in the whole process.
static PASSING: Turns = Turns::new(4);
/// The same for small layers, which must not wait until large ones are done.
static PASSING_SMALL: Turns = Turns::new(2);

/// True when a pass takes no time, and no memory, worth mentioning.
pub(super) fn is_small(blob: &dyn ReadAt, content: &Content, tuning: &Tuning) -> bool {
    blob.len().max(content.head.attr.size) <= tuning.whole
}

/// What to go over.
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    pub(super) blob: &'a dyn ReadAt,
    pub(super) advance: &'a Advance,
    pub(super) spec: &'a LayerSpec,
    pub(super) subject: &'a str,
    /// What the layer's first bytes said.
    pub(super) guess: Guess,
    pub(super) tuning: &'a Tuning,
    /// Where temporary files go.
    pub(super) dir: Option<std::path::PathBuf>,
    /// What the layer's zstd decoders take.
    pub(super) windows: &'a Windows,
}

/// What a pass found out: the layer is what the manifest says.
pub(super) struct Passed {
    pub(super) fact: Fact,
    pub(super) blocks: Blocks,
    pub(super) spans: Spans,
    /// The file, when it is small.
    pub(super) whole: Option<Vec<u8>>,
    /// Digests of the file, when they were asked for.
    pub(super) file: Option<FileDigests>,
}

/// The right to hash a blob.
pub(super) struct Hashing<'a> {
    _unit: Unit,
    _turn: Turn<'a>,
}

/// What the decoding side found.
struct Decoded {
    blocks: Option<Blocks>,
    spans: Spans,
    whole: Option<Vec<u8>>,
    file: Option<FileDigests>,
}

impl Pass<'_> {
    fn turns(&self) -> &'static Turns {
        match is_small(self.blob, self.guess.unproven(), self.tuning) {
            true => &PASSING_SMALL,
            false => &PASSING,
        }
    }

    fn term(&self) -> Term {
        match is_small(self.blob, self.guess.unproven(), self.tuning) {
            true => Term::Short,
            false => Term::Long,
        }
    }

    /// Goes over the layer. With `digests`, also computes the file's.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the blob is not what the manifest says
    /// or its stream is damaged, [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it does
    /// not hold exactly the one file, [`ErrorKind::Environment`](crate::ErrorKind::Environment) when
    /// it cannot be read.
    pub(super) fn run(&self, digests: Option<FileHasher>) -> Result<Passed> {
        let _turn = self.turns().take();
        let limiter = &self.context.limiter;
        self.windows.run(
            limiter,
            self.memory(),
            self.term(),
            self.subject,
            |_, decoder| self.run_within(decoder, digests.clone()),
        )
    }

    /// Bytes that a pass takes, besides a zstd decoder.
    pub(super) fn memory(&self) -> u64 {
        let buffers = self.blob.len().min((AHEAD as u64 + 3) * BUFFER as u64);
        let Content { packaging, head } = self.guess.unproven();
        let whole = head.attr.size.min(self.tuning.whole);
        let pending = match packaging {
            Packaging::Zstd => head.attr.size.min(self.tuning.frame as u64) + BUFFER as u64,
            Packaging::Raw | Packaging::Tar | Packaging::Gzip => 0,
        };
        buffers + whole + pending
    }

    fn run_within(&self, memory: &mut Decoder, digests: Option<FileHasher>) -> Result<Passed> {
        // BLAKE3 is the business of the side that has less to do.
        let (hashing, decoding) = match self.guess.unproven().packaging {
            Packaging::Raw | Packaging::Tar => {
                let size = distance(self.tuning.plain_block, self.blob.len());
                (None, Some(BlockHasher::new(size)))
            }
            Packaging::Gzip | Packaging::Zstd => {
                let size = distance(self.tuning.packed_block, self.blob.len());
                (Some(BlockHasher::new(size)), None)
            }
        };
        let stop = &AtomicBool::new(false);
        let (hashed, decoded) = thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            let source = Buffers::new(receiver, stop, decoding, self.advance);
            let decoder = thread::Builder::new()
                .name("layer-pass".into())
                .spawn_scoped(scope, move || self.decode(source, digests, memory))
                .map_err(|source| Error::Io {
                    action: "start a thread for",
                    subject: self.subject.into(),
                    source: Arc::new(source),
                })?;
            let hashed = self.hash(sender, hashing);
            // What is left in the channel is of no use then.
            stop.store(hashed.is_err(), Ordering::Relaxed);
            match decoder.join() {
                Ok(decoded) => Ok((hashed, decoded)),
                Err(panic) => panic::resume_unwind(panic),
            }
        })?;
        // A wrong digest explains whatever the decoder met.
        let (fact, blocks) = hashed?;
        let decoded = decoded?;
        Ok(Passed {
            fact,
            blocks: blocks.or(decoded.blocks).ok_or_else(|| {
                Error::corrupt(self.subject, "no digests of its blocks were computed")
            })?,
            spans: decoded.spans,
            whole: decoded.whole,
            file: decoded.file,
        })
    }

    /// Waits until [`hash_blocks`](Pass::hash_blocks) may begin. Decoders wait for what it finds, with
    /// memory in their hands: they must not begin before.
    ///
    /// # Errors
    /// When there is not enough memory, and never will be.
    pub(super) fn begin_hashing(&self) -> Result<Hashing<'_>> {
        let turn = self.turns().take();
        let limiter = &self.context.limiter;
        let unit = limiter.take(2 * BUFFER as u64, self.term(), self.subject)?;
        Ok(Hashing {
            _turn: turn,
            _unit: unit,
        })
    }

    /// Only reads and hashes the blob, and makes the digests of its blocks known as it goes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the blob is not what the manifest
    /// says, [`ErrorKind::Environment`](crate::ErrorKind::Environment) when it cannot be read.
    pub(super) fn hash_blocks(&self, digests: &Digests, _turn: Hashing<'_>) -> Result<Fact> {
        let mut blocks = BlockHasher::new(digests.block_size());
        let fact = self.prove(|buffer| {
            blocks.update(buffer);
            digests.publish(blocks.take());
        })?;
        digests.publish(blocks.finish().digests);
        Ok(fact)
    }

    /// Reads and hashes the blob, and sends on what it read.
    fn hash(
        &self,
        sender: SyncSender<Arc<Vec<u8>>>,
        mut blocks: Option<BlockHasher>,
    ) -> Result<(Fact, Option<Blocks>)> {
        let mut sender = Some(sender);
        let fact = self.prove(|buffer| {
            // The decoder may have given up; the digest still decides what to say of the layer.
            if let Some(open) = &sender
                && open.send(Arc::clone(buffer)).is_err()
            {
                sender = None;
            }
            if let Some(blocks) = &mut blocks {
                blocks.update(buffer);
            }
        })?;
        Ok((fact, blocks.map(BlockHasher::finish)))
    }

    /// Reads the blob, hands it to `each`, checks its digest, and what it was taken for.
    fn prove(&self, each: impl FnMut(&Arc<Vec<u8>>)) -> Result<Fact> {
        facts::prove(self.blob, self.spec, self.subject, each)?.confirm(&self.guess, self.subject)
    }

    /// Decodes what comes, and checks that it is the one file.
    fn decode(
        &self,
        mut source: Buffers<'_>,
        mut digests: Option<FileHasher>,
        memory: &mut Decoder,
    ) -> Result<Decoded> {
        let Content { packaging, head } = *self.guess.unproven();
        let (attr, subject) = (head.attr, self.subject);
        let mut whole = (attr.size <= self.tuning.whole).then(Vec::new);
        let limiter = Arc::clone(&self.context.limiter);
        let dir = self.dir.clone();
        let mut recorder = Recorder::new(self.tuning, attr.size, self.blob.len(), dir, limiter);
        if packaging == Packaging::Gzip {
            recorder.start_gzip();
        }
        let record: &mut dyn Record = &mut recorder;
        let memory = Box::new(|size| memory.grow(size));
        let stream = scan::unpack(&mut source, packaging, Some(record), memory)
            .map_err(|error| lift(error, subject))?;
        let walked = scan::walk(stream, packaging, self.spec, subject, |bytes| {
            if let Some(whole) = &mut whole {
                whole.extend_from_slice(bytes);
            }
            if let Some(digests) = &mut digests {
                digests.update(bytes);
            }
        })?;
        if walked.is_some_and(|walked| walked != head) {
            return Err(facts::changed(subject));
        }
        Ok(Decoded {
            blocks: source.blocks.map(BlockHasher::finish),
            spans: recorder.finish().map_err(|error| lift(error, subject))?,
            whole,
            file: digests.map(FileHasher::finish),
        })
    }
}

/// The blob as the hashing side sends it.
struct Buffers<'a> {
    receiver: Receiver<Arc<Vec<u8>>>,
    stop: &'a AtomicBool,
    blocks: Option<BlockHasher>,
    advance: &'a Advance,
    current: Arc<Vec<u8>>,
    used: usize,
}

impl<'a> Buffers<'a> {
    fn new(
        receiver: Receiver<Arc<Vec<u8>>>,
        stop: &'a AtomicBool,
        blocks: Option<BlockHasher>,
        advance: &'a Advance,
    ) -> Buffers<'a> {
        Buffers {
            receiver,
            stop,
            blocks,
            advance,
            current: Arc::default(),
            used: 0,
        }
    }
}

impl Read for &mut Buffers<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.used == self.current.len() {
            // Gives the buffer back before waiting for the next.
            self.current = Arc::default();
            self.used = 0;
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("the layer could not be read"));
            }
            // A closed channel is the end of the blob, or of the attempt to read it.
            let Ok(next) = self.receiver.recv() else {
                return Ok(0);
            };
            if let Some(blocks) = &mut self.blocks {
                blocks.update(&next);
            }
            self.current = next;
        }
        let mut rest = self.current.get(self.used..).unwrap_or_default();
        let n = rest.read(buf)?;
        self.used += n;
        self.advance.add(n);
        Ok(n)
    }
}
