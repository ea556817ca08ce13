//! Reads, hashes and compresses on all cores, and writes in order.
//!
//! ```text
//!          jobs              done               pieces
//! reader ------> workers --------> composer ----------> writer (the calling thread)
//!   ^ read         encode, digest,    put in order,       |   write
//!   |              CRC                SHA-256 of file     |
//!   |                                 and blob            |
//!   +-----------------------------------------------------+
//!                           free slots
//! ```
//!
//! A *slot* is a pair of buffers: the bytes of a segment and its compressed bytes. There is a fixed
//! number of them, so memory is bounded, whatever the number and size of the files. Segments are
//! numbered in the order in which the reader takes slots; the segment that the composer waits for
//! therefore always has one, and nobody waits for ever. The threads live as long as the run: a
//! segment of the next file follows the last of one file without a stop.
//!
//! When a stage fails it drops its channels, which ends the others. Where the system has no threads for
//! them, one thread does it all, segment by segment.

use std::collections::BTreeMap;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::Advice;

use super::archive::Archive;
use super::layer::{self, LayerComposer, Segment};
use super::plan::Settings;
use super::tree::{InputFile, Tree};
use crate::codec::{Encoded, Encoder};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::{calls, faults};
use crate::layer::table::Framing;
use crate::oci::Descriptor;
use crate::work::Progress;

/// The buffers of one segment; used again and again.
#[derive(Default)]
struct Slot {
    /// Only grows; `filled` bytes count.
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
}

/// What a segment is.
enum Part {
    /// The head of the layer of file number `.0`.
    Head(usize),
    /// A chunk of the file.
    Data,
    /// The tail.
    Tail,
}

struct Job {
    number: u64,
    part: Part,
    slot: Slot,
}

struct Done {
    job: Job,
    encoded: Encoded,
    digest: Digest,
    crc: crc32fast::Hasher,
}

/// What the archive goes on with.
enum Piece {
    /// A blob begins.
    Begin,
    /// Bytes of the blob: the framing's.
    Framing(Vec<u8>),
    /// Bytes of the blob: a segment, of so many bytes of a file.
    Segment(Slot, u64),
    /// The blob ends, and this is its digest.
    End(Digest),
}

/// Writes the layers of all files, in their order.
///
/// # Errors
/// What the reader found wrong with a file, or writing failed with; `archive` is then unfinished.
pub(super) fn write_layers(
    tree: &Tree,
    settings: &Settings,
    archive: &mut Archive,
    progress: Progress<'_>,
) -> Result<Vec<Descriptor>> {
    let (free, free_slots) = channel();
    for _ in 0..settings.slots {
        // The receiver is still here.
        let _ = free.send(Slot::default());
    }
    let (jobs, waiting) = channel();
    let (done, results) = channel();
    let waiting = &Mutex::new(waiting);
    let out = &mut *archive;
    let layers = thread::scope(move |scope| {
        // Threads that cannot be started drop their ends of the channels, so that every stage that
        // was started comes to an end.
        let inherited = faults::inherit();
        let reader = thread::Builder::new().spawn_scoped(scope, move || {
            inherited.enter();
            let belt = Channels {
                free: free_slots,
                jobs,
            };
            Reader::new(tree, settings, belt).run()
        });
        let reader = reader.ok()?;
        let (pieces, composed) = channel();
        let composer = move || Composer::new(tree, settings, pieces).run(&results);
        let composer = match thread::Builder::new().spawn_scoped(scope, composer) {
            Ok(composer) => composer,
            Err(_) => {
                // The reader waits for slots that nobody gives back.
                drop(free);
                return None;
            }
        };
        let mut workers = Vec::with_capacity(settings.workers);
        for _ in 0..settings.workers {
            let done = done.clone();
            let worker = move || work(settings, waiting, &done);
            match thread::Builder::new().spawn_scoped(scope, worker) {
                Ok(worker) => workers.push(worker),
                // The others have more to do.
                Err(_) => break,
            }
        }
        drop(done);
        if workers.is_empty() {
            drop(free);
            return None;
        }
        let written = Writer::new(tree, settings, out, progress).run(composed, free);
        let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
        for worker in workers {
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
        let layers = composer.join().unwrap_or_else(|panic| resume_unwind(panic));
        // Stages that stopped because another one failed report nothing.
        Some(read.and(written).and(layers))
    });
    match layers {
        Some(layers) => layers,
        // Nothing is written yet.
        None => write_alone(tree, settings, archive, progress),
    }
}

/// The same in one thread.
fn write_alone(
    tree: &Tree,
    settings: &Settings,
    archive: &mut Archive,
    progress: Progress<'_>,
) -> Result<Vec<Descriptor>> {
    let (pieces, composed) = channel();
    let writer = Writer::new(tree, settings, archive, progress);
    (writer.progress)(0, writer.total);
    let mut alone = Alone {
        slot: Some(Slot::default()),
        settings,
        encoder: Encoder::new(settings.compression),
        composer: Composer::new(tree, settings, pieces),
        composed,
        writer,
        failure: None,
    };
    let read = Reader::new(tree, settings, &mut alone).run();
    match alone.failure {
        Some(error) => Err(error),
        None => read.map(|()| alone.composer.layers),
    }
}

/// Where a reader gets slots, and gives segments.
trait Belt {
    fn slot(&mut self) -> Result<Slot, Stopped>;
    fn send(&mut self, job: Job) -> Result<(), Stopped>;
}

/// To and from other threads.
struct Channels {
    free: Receiver<Slot>,
    jobs: Sender<Job>,
}

impl Belt for Channels {
    fn slot(&mut self) -> Result<Slot, Stopped> {
        self.free.recv().map_err(|_| Stopped)
    }

    fn send(&mut self, job: Job) -> Result<(), Stopped> {
        self.jobs.send(job).map_err(|_| Stopped)
    }
}

/// All stages after the reader's, in its thread.
struct Alone<'a> {
    /// One is enough: it comes back before the next is wanted.
    slot: Option<Slot>,
    settings: &'a Settings,
    encoder: Encoder,
    composer: Composer<'a>,
    composed: Receiver<Piece>,
    writer: Writer<'a>,
    failure: Option<Error>,
}

impl Belt for &mut Alone<'_> {
    fn slot(&mut self) -> Result<Slot, Stopped> {
        self.slot.take().ok_or(Stopped)
    }

    fn send(&mut self, job: Job) -> Result<(), Stopped> {
        let done = encode(self.settings, &mut self.encoder, job);
        let mut written = self.composer.compose(done).map(drop);
        while let (Ok(()), Ok(piece)) = (&written, self.composed.try_recv()) {
            written = self.writer.write(piece, |slot| self.slot = Some(slot));
        }
        written.map_err(|error| {
            self.failure = Some(error);
            Stopped
        })
    }
}

/// Encodes segments until there are no more.
fn work(settings: &Settings, waiting: &Mutex<Receiver<Job>>, done: &Sender<Option<Done>>) {
    let _notice = PanicNotice(done);
    let mut encoder = Encoder::new(settings.compression);
    loop {
        // One worker waits in `recv` with the lock, the others for the lock.
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(job) = job else { return };
        if done
            .send(Some(encode(settings, &mut encoder, job)))
            .is_err()
        {
            return;
        }
    }
}

fn encode(settings: &Settings, encoder: &mut Encoder, mut job: Job) -> Done {
    let Slot {
        input,
        filled,
        output,
    } = &mut job.slot;
    let input = input.get(..*filled).unwrap_or_default();
    output.clear();
    let encoded = match job.part {
        Part::Data => encoder.encode(input, output),
        Part::Head(_) | Part::Tail => encoder.encode_generic(input, output),
    };
    let mut crc = crc32fast::Hasher::new();
    if settings.framing == Framing::Gzip {
        crc.update(input);
    }
    let digest = Digest::of(settings.algorithm, output);
    Done {
        job,
        encoded,
        digest,
        crc,
    }
}

/// Tells the composer that a worker panicked: the segment it had will never come.
struct PanicNotice<'a>(&'a Sender<Option<Done>>);

impl Drop for PanicNotice<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(None);
        }
    }
}

/// Puts segments in order, and composes layers of them.
struct Composer<'a> {
    tree: &'a Tree,
    settings: &'a Settings,
    pieces: Sender<Piece>,
    layer: Option<LayerComposer<'a>>,
    layers: Vec<Descriptor>,
}

impl<'a> Composer<'a> {
    fn new(tree: &'a Tree, settings: &'a Settings, pieces: Sender<Piece>) -> Composer<'a> {
        Composer {
            tree,
            settings,
            pieces,
            layer: None,
            layers: Vec::with_capacity(tree.files.len()),
        }
    }

    fn run(mut self, results: &Receiver<Option<Done>>) -> Result<Vec<Descriptor>> {
        let mut next = 0;
        let mut early = BTreeMap::new();
        while let Ok(Some(result)) = results.recv() {
            early.insert(result.job.number, result);
            while let Some(result) = early.remove(&next) {
                if let Err(Stopped) = self.compose(result)? {
                    return Ok(self.layers);
                }
                next += 1;
            }
        }
        Ok(self.layers)
    }

    fn compose(&mut self, result: Done) -> Result<Result<(), Stopped>> {
        let Done {
            job,
            encoded,
            digest,
            crc,
        } = result;
        let Job { part, slot, .. } = job;
        let mut pieces = Vec::with_capacity(3);
        if let Part::Head(number) = part
            && let Some(file) = self.tree.files.get(number)
        {
            let (layer, start) = LayerComposer::begin(file, self.settings);
            self.layer = Some(layer);
            pieces.extend([Piece::Begin, Piece::Framing(start.to_vec())]);
        }
        let input = slot.input.get(..slot.filled).unwrap_or_default();
        let length = input.len() as u64;
        let content = match part {
            Part::Data => input,
            Part::Head(_) | Part::Tail => &[],
        };
        if let Some(layer) = &mut self.layer {
            layer.segment(&Segment {
                encoded,
                bytes: &slot.output,
                digest,
                crc,
                length,
                content,
            })?;
        }
        let of_file = content.len() as u64;
        pieces.push(Piece::Segment(slot, of_file));
        if let Part::Tail = part
            && let Some(layer) = self.layer.take()
        {
            let end = layer.finish();
            self.layers.push(end.descriptor);
            pieces.extend([Piece::Framing(end.bytes), Piece::End(end.digest)]);
        }
        for piece in pieces {
            if self.pieces.send(piece).is_err() {
                return Ok(Err(Stopped));
            }
        }
        Ok(Ok(()))
    }
}

/// Writes what the layers are composed of.
struct Writer<'a> {
    settings: &'a Settings,
    archive: &'a mut Archive,
    progress: Progress<'a>,
    total: u64,
    bytes: u64,
}

impl<'a> Writer<'a> {
    fn new(
        tree: &Tree,
        settings: &'a Settings,
        archive: &'a mut Archive,
        progress: Progress<'a>,
    ) -> Writer<'a> {
        Writer {
            settings,
            archive,
            progress,
            total: tree.bytes(),
            bytes: 0,
        }
    }

    fn run(mut self, pieces: Receiver<Piece>, free: Sender<Slot>) -> Result<()> {
        (self.progress)(0, self.total);
        while let Ok(piece) = pieces.recv() {
            self.write(piece, |slot| {
                // The reader is gone when it has read everything.
                let _ = free.send(slot);
            })?;
        }
        Ok(())
    }

    /// Writes a piece, and gives its slot back.
    fn write(&mut self, piece: Piece, free: impl FnOnce(Slot)) -> Result<()> {
        self.settings.check_cancelled(self.archive.name())?;
        match piece {
            Piece::Begin => self.archive.begin_blob()?,
            Piece::Framing(bytes) => self.archive.write(&bytes)?,
            Piece::Segment(slot, length) => {
                self.archive.write(&slot.output)?;
                free(slot);
                if length > 0 {
                    self.bytes += length;
                    (self.progress)(self.bytes, self.total);
                }
            }
            Piece::End(digest) => self.archive.end_blob(&digest)?,
        }
        Ok(())
    }
}

/// Reads all files and cuts them into segments.
struct Reader<'a, B> {
    tree: &'a Tree,
    settings: &'a Settings,
    belt: B,
    number: u64,
}

/// The other stages are gone: the error is theirs to report.
struct Stopped;

impl<'a, B: Belt> Reader<'a, B> {
    fn new(tree: &'a Tree, settings: &'a Settings, belt: B) -> Reader<'a, B> {
        Reader {
            tree,
            settings,
            belt,
            number: 0,
        }
    }

    fn run(mut self) -> Result<()> {
        let tree = self.tree;
        for (number, file) in tree.files.iter().enumerate() {
            match self.file(number, file) {
                Ok(Ok(())) => {}
                Ok(Err(Stopped)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads one file. It must be what the walk saw, from the first byte to the last.
    fn file(&mut self, number: usize, file: &InputFile) -> Result<Result<(), Stopped>> {
        layer::check_table_size(file, self.settings)?;
        let input = self.tree.open(file)?;
        // Only a hint.
        let _ = rustix::fs::fadvise(&input, 0, None, Advice::Sequential);
        let head = layer::head(file, self.settings);
        if self.send_bytes(Part::Head(number), &head).is_err() {
            return Ok(Err(Stopped));
        }
        let mut rest = file.identity.size;
        while rest > 0 {
            let length = usize::try_from(rest)
                .unwrap_or(usize::MAX)
                .min(self.settings.chunk_size as usize);
            let Ok(mut slot) = self.belt.slot() else {
                return Ok(Err(Stopped));
            };
            if slot.input.len() < length {
                slot.input.resize(length, 0);
            }
            let chunk = slot.input.get_mut(..length).unwrap_or_default();
            calls::read_exact(&input, chunk).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    self.tree.changed(file, "shrank while it was packed")
                }
                _ => self.tree.failed(file, "read", error),
            })?;
            slot.filled = length;
            if self.send(Part::Data, slot).is_err() {
                return Ok(Err(Stopped));
            }
            rest -= length as u64;
        }
        // Not every file system keeps the times that would show a growth.
        let mut more = [0];
        let grown = calls::read(&input, &mut more);
        if grown.map_err(|errno| self.tree.failed(file, "read", errno.into()))? > 0 {
            return Err(self.tree.changed(file, "grew while it was packed"));
        }
        self.tree.check(file, &input)?;
        let tail = layer::tail(file);
        Ok(self.send_bytes(Part::Tail, &tail))
    }

    fn send_bytes(&mut self, part: Part, bytes: &[u8]) -> Result<(), Stopped> {
        let mut slot = self.belt.slot()?;
        if slot.input.len() < bytes.len() {
            slot.input.resize(bytes.len(), 0);
        }
        if let Some(input) = slot.input.get_mut(..bytes.len()) {
            input.copy_from_slice(bytes);
        }
        slot.filled = bytes.len();
        self.send(part, slot)
    }

    fn send(&mut self, part: Part, slot: Slot) -> Result<(), Stopped> {
        let number = self.number;
        self.number += 1;
        let job = Job { number, part, slot };
        self.belt.send(job)
    }
}
