//! Passes over a whole layer: one must happen before its first byte is served.
//!
//! One thread reads the blob and hashes it, another decodes what the first has read and takes notes
//! (see [`spans`](super::spans)), a few buffers apart; the slower of the two sets the pace. What was
//! decoded counts only once the digest is the manifest's.
//!
//! For a large gzip layer the pass only hashes; its decoder outlives it: see
//! [`known`](super::known).

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{panic, thread};

use super::advance::Advance;
use super::blob::Blob;
use super::facts::{self, Fact, Plan, Proven};
use super::packing::{self, Packing, lift};
use super::reader::Digests;
use super::spans::{BlockHasher, Blocks, Recorder, Spans};
use crate::codec::frames;
use crate::codec::seek::Record;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::memory::limiter::{Term, Unit};
use crate::memory::threads;
use crate::memory::turns::{Turn, Turns};
use crate::memory::windows::Decoder;
use crate::source::ReadAt;

/// Bytes that a zstd decoder takes beside its window, at most.
const BESIDE_A_WINDOW: u64 = 512 << 10;
/// Buffers that the hash may be ahead of the decoder.
const AHEAD: usize = 4;
/// Passes at a time, in the whole process.
static PASSING: Turns = Turns::new(threads::PASSES);
/// The same for small layers, which must not wait until large ones are done.
static PASSING_SMALL: Turns = Turns::new(threads::SMALL_PASSES);

/// Who is told the content of a stream while a pass goes over it.
pub(crate) trait Listener: Send {
    /// From its start on, again if need be.
    fn begin(&mut self);
    /// The next bytes of it.
    fn hear(&mut self, content: &[u8]);
}

/// Nobody.
impl Listener for () {
    fn begin(&mut self) {}
    fn hear(&mut self, _: &[u8]) {}
}

/// A pass over all of a blob.
pub(super) struct Pass<'a>(pub(super) &'a Blob);

/// What a pass found out: the layer is what the manifest says.
pub(super) struct Passed {
    pub(super) fact: Fact<Plan>,
    pub(super) blocks: Blocks,
    pub(super) spans: Spans,
    /// The content, when it is small.
    pub(super) whole: Option<Vec<u8>>,
    /// What is to be learnt of it.
    pub(super) found: Vec<u8>,
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
    /// Bytes of the stream,
    end: u64,
    /// and what was found in it.
    found: Vec<u8>,
}

impl Pass<'_> {
    /// Looks how much memory a decoder will take.
    ///
    /// # Errors
    /// When there is not as much, and never will be.
    pub(super) fn expect_windows(&self) -> Result<()> {
        let blob = self.0;
        if blob.guess.unproven().packing != Packing::Zstd {
            return Ok(());
        }
        let mut start = [0; 18];
        let len = blob.bytes.len().min(start.len() as u64) as usize;
        let start = start.get_mut(..len).unwrap_or_default();
        blob.bytes.read_exact_at(start, 0)?;
        let window = frames::window(start);
        if window > 0 {
            blob.windows.expect(window + BESIDE_A_WINDOW);
        }
        let memory = self.takes();
        let limiter = &blob.context.limiter;
        limiter.check(memory, Term::Long, &blob.subject)
    }

    fn turns(&self) -> &'static Turns {
        match self.0.is_small() {
            true => &PASSING_SMALL,
            false => &PASSING,
        }
    }

    fn term(&self) -> Term {
        match self.0.is_small() {
            true => Term::Short,
            false => Term::Long,
        }
    }

    /// Goes over the blob, and tells its content to `listener`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the blob is not what the manifest says
    /// or its stream is damaged, [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it does
    /// not hold exactly the one file, [`ErrorKind::Environment`](crate::ErrorKind::Environment) when
    /// it cannot be read.
    pub(super) fn run(&self, listener: &mut dyn Listener) -> Result<Passed> {
        let _turn = self.turns().take();
        let limiter = &self.0.context.limiter;
        self.0.windows.run(
            limiter,
            self.memory(),
            self.term(),
            &self.0.subject,
            |_, decoder| self.run_within(decoder, listener),
        )
    }

    /// Bytes that a pass takes, besides a zstd decoder.
    pub(super) fn memory(&self) -> u64 {
        let buffer = self.buffer();
        let buffers = self.0.bytes.len().min((AHEAD as u64 + 3) * buffer);
        let plan = self.0.guess.unproven();
        let whole = plan.content().min(self.0.tuning.whole);
        let pending = match plan.packing {
            Packing::Zstd => self.0.tuning.pending(plan.content()) as u64 + buffer,
            Packing::Plain | Packing::Gzip => 0,
        };
        buffers + whole + pending
    }

    /// Bytes of what is read at once.
    fn buffer(&self) -> u64 {
        facts::at_once(&*self.0.bytes) as u64
    }

    /// The same with one.
    pub(super) fn takes(&self) -> u64 {
        self.memory().saturating_add(self.0.windows.expected())
    }

    fn run_within(&self, memory: &mut Decoder, listener: &mut dyn Listener) -> Result<Passed> {
        let beside = self.beside(&mut *memory, &mut *listener);
        let (hashed, decoded) = match beside {
            Some(both) => both,
            None => self.alone(memory, listener),
        };
        // A wrong digest explains whatever the decoder met.
        let (proven, blocks) = hashed?;
        let decoded = decoded?;
        Ok(Passed {
            fact: self.0.fact(decoded.end, proven),
            blocks: blocks.or(decoded.blocks).ok_or_else(|| {
                Error::corrupt(&self.0.subject, "no digests of its blocks were computed")
            })?,
            spans: decoded.spans,
            whole: decoded.whole,
            found: decoded.found,
        })
    }

    fn blocks(&self) -> BlockHasher {
        let packing = self.0.guess.unproven().packing;
        BlockHasher::new(self.0.tuning.block(packing, self.0.bytes.len()))
    }

    /// Reads and hashes, while another thread decodes. `None` where there is no other thread.
    fn beside(
        &self,
        memory: &mut Decoder,
        listener: &mut dyn Listener,
    ) -> Option<(Result<HashedBlocks>, Result<Decoded>)> {
        // BLAKE3 is the business of the side that has less to do.
        let (hashing, decoding) = match self.0.guess.unproven().packing {
            Packing::Plain => (None, Some(self.blocks())),
            Packing::Gzip | Packing::Zstd => (Some(self.blocks()), None),
        };
        let stop = &AtomicBool::new(false);
        thread::scope(move |scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            let feed = Feed::Sent(receiver);
            let source = Buffers::new(feed, stop, decoding, &self.0.advance);
            let decoder = thread::Builder::new()
                .name("layer-pass".into())
                .spawn_scoped(scope, move || self.decode(source, listener, memory))
                .ok()?;
            let hashed = self.hash(Some(sender), hashing);
            // What is left in the channel is of no use then.
            stop.store(hashed.is_err(), Ordering::Relaxed);
            match decoder.join() {
                Ok(decoded) => Some((hashed, decoded)),
                Err(panic) => panic::resume_unwind(panic),
            }
        })
    }

    /// Reads and hashes, and then reads again, hashes and decodes.
    fn alone(
        &self,
        memory: &mut Decoder,
        listener: &mut dyn Listener,
    ) -> (Result<HashedBlocks>, Result<Decoded>) {
        let nothing = || Err(Error::corrupt(&self.0.subject, "was not decoded"));
        let hashed = self.hash(None, Some(self.blocks()));
        if hashed.is_err() {
            return (hashed, nothing());
        }
        let mut again = Again {
            bytes: Arc::clone(&self.0.bytes),
            at: 0,
            hasher: Hasher::new(self.0.digest.algorithm()),
        };
        let stop = AtomicBool::new(false);
        let source = Buffers::new(Feed::Read(&mut again), &stop, None, &self.0.advance);
        let decoded = self.decode(source, listener, memory);
        // Nothing is believed of what was not hashed in the same breath.
        let rest = || -> Result<()> {
            while again.next()?.is_some() {}
            let found = again.hasher.finish();
            match found == self.0.digest {
                true => Ok(()),
                false => Err(Error::corrupt(
                    &self.0.subject,
                    format!("changed while it was read: the blob is now {found}"),
                )),
            }
        };
        match rest() {
            Ok(()) => (hashed, decoded),
            Err(error) => (Err(error), nothing()),
        }
    }

    /// Waits until [`hash_blocks`](Pass::hash_blocks) may begin. Decoders wait for what it finds, with
    /// memory in their hands: they must not begin before.
    ///
    /// # Errors
    /// When there is not enough memory, and never will be.
    pub(super) fn begin_hashing(&self) -> Result<Hashing<'_>> {
        let turn = self.turns().take();
        let limiter = &self.0.context.limiter;
        let unit = limiter.take(2 * self.buffer(), self.term(), &self.0.subject)?;
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
    pub(super) fn hash_blocks(&self, digests: &Digests, _turn: Hashing<'_>) -> Result<Fact<Plan>> {
        let mut blocks = BlockHasher::new(digests.block_size());
        let proven = self.prove(|buffer| {
            blocks.update(buffer);
            digests.publish(blocks.take());
        })?;
        digests.publish(blocks.finish().digests);
        Ok(self.0.guess.confirmed(proven))
    }

    /// Reads and hashes the blob, and sends on what it read.
    fn hash(
        &self,
        mut sender: Option<SyncSender<Arc<Vec<u8>>>>,
        mut blocks: Option<BlockHasher>,
    ) -> Result<HashedBlocks> {
        let proven = self.prove(|buffer| {
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
        Ok((proven, blocks.map(BlockHasher::finish)))
    }

    /// Reads the blob, hands it to `each`, checks its digest, and what it was taken for.
    fn prove(&self, each: impl FnMut(&Arc<Vec<u8>>)) -> Result<Proven> {
        let confirm = |first: &dyn ReadAt| self.0.expected.confirm(first);
        facts::prove(
            &*self.0.bytes,
            self.0.digest,
            &self.0.subject,
            confirm,
            each,
        )
    }

    /// Decodes what comes, and checks that it is what was expected.
    fn decode(
        &self,
        mut source: Buffers<'_>,
        listener: &mut dyn Listener,
        memory: &mut Decoder,
    ) -> Result<Decoded> {
        let (plan, subject) = (*self.0.guess.unproven(), &self.0.subject);
        let mut whole = (plan.content() <= self.0.tuning.whole).then(Vec::new);
        let limiter = Arc::clone(&self.0.context.limiter);
        let (dir, size) = (self.0.context.index_dir.clone(), plan.content());
        let mut recorder = Recorder::new(&self.0.tuning, size, self.0.bytes.len(), dir, limiter);
        if plan.packing == Packing::Gzip {
            recorder.start_gzip();
        }
        let record: &mut dyn Record = &mut recorder;
        let memory = Box::new(|size| memory.grow(size));
        let stream = packing::unpack(&mut source, plan.packing, Some(record), memory)
            .map_err(|error| lift(error, subject))?;
        listener.begin();
        let mut overheard = Overheard {
            stream,
            at: 0,
            content: match self.0.measured {
                true => 0..u64::MAX,
                false => plan.start..plan.end,
            },
            whole: whole.as_mut(),
            most: usize::try_from(self.0.tuning.whole).unwrap_or(usize::MAX),
            listener,
        };
        let checked = self.0.expected.check(&mut overheard);
        let (end, fits) = (overheard.at, overheard.whole.is_some());
        self.0.context.decoded.fetch_add(end, Ordering::Relaxed);
        drop(overheard);
        let found = checked?;
        Ok(Decoded {
            blocks: source.blocks.map(BlockHasher::finish),
            spans: recorder.finish().map_err(|error| lift(error, subject))?,
            whole: whole.filter(|_| fits),
            end,
            found,
        })
    }
}

/// A stream whose content is kept, or told to somebody, while another reads it.
struct Overheard<'a, R> {
    stream: R,
    /// Offset of the next byte.
    at: u64,
    /// Where the content is.
    content: Range<u64>,
    /// Keeps it, unless it has more bytes than the most that are kept.
    whole: Option<&'a mut Vec<u8>>,
    most: usize,
    listener: &'a mut dyn Listener,
}

impl<R: Read> Read for Overheard<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buf)?;
        let end = self.at.saturating_add(n as u64);
        let (from, to) = (self.content.start.max(self.at), self.content.end.min(end));
        if from < to {
            let content = (from - self.at) as usize..(to - self.at) as usize;
            let content = buf.get(content).unwrap_or_default();
            if let Some(whole) = &mut self.whole {
                match whole.len() + content.len() <= self.most {
                    true => whole.extend_from_slice(content),
                    false => self.whole = None,
                }
            }
            self.listener.hear(content);
        }
        self.at = end;
        Ok(n)
    }
}

/// What hashing the blob has shown.
type HashedBlocks = (Proven, Option<Blocks>);

/// Where the blob comes from.
enum Feed<'a> {
    /// Another thread, which hashes it.
    Sent(Receiver<Arc<Vec<u8>>>),
    /// The storage, once more.
    Read(&'a mut Again),
}

/// The blob, read once more, and hashed once more.
struct Again {
    bytes: Arc<dyn ReadAt>,
    at: u64,
    hasher: Hasher,
}

impl Again {
    fn next(&mut self) -> Result<Option<Arc<Vec<u8>>>> {
        let left = self.bytes.len().saturating_sub(self.at);
        let at_once = facts::at_once(&*self.bytes);
        let length = usize::try_from(left).map_or(at_once, |left| left.min(at_once));
        if length == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; length];
        self.bytes.read_exact_at(&mut buffer, self.at)?;
        self.hasher.update(&buffer);
        self.at += length as u64;
        Ok(Some(Arc::new(buffer)))
    }
}

/// The blob as it comes.
struct Buffers<'a> {
    feed: Feed<'a>,
    stop: &'a AtomicBool,
    blocks: Option<BlockHasher>,
    advance: &'a Advance,
    current: Arc<Vec<u8>>,
    used: usize,
}

impl<'a> Buffers<'a> {
    fn new(
        feed: Feed<'a>,
        stop: &'a AtomicBool,
        blocks: Option<BlockHasher>,
        advance: &'a Advance,
    ) -> Buffers<'a> {
        Buffers {
            feed,
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
            let next = match &mut self.feed {
                Feed::Sent(receiver) => receiver.recv().ok(),
                Feed::Read(again) => again.next().map_err(io::Error::other)?,
            };
            let Some(next) = next else {
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
        self.advance.add(n).map_err(io::Error::other)?;
        Ok(n)
    }
}
