//! The blob, block by block: nothing of a block is passed on before its digest was found right.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, Scope};

use super::blob::Blob;
use super::facts::Verified;
use super::packing::lift;
use super::spans::Blocks;
use crate::error::{Error, Result};
use crate::memory::context::Stats;
use crate::source::ReadAt;

/// The digests of a blob's blocks: all of them, or those that a hash under way has passed.
pub(super) struct Digests {
    size: u64,
    complete: OnceLock<Blocks>,
    growing: Mutex<Growing>,
    grown: Condvar,
}

#[derive(Default)]
struct Growing {
    digests: Vec<[u8; 32]>,
    abandoned: bool,
}

impl Digests {
    /// None yet; for blocks of `size` bytes.
    pub(super) fn growing(size: u64) -> Digests {
        Digests {
            size,
            complete: OnceLock::new(),
            growing: Mutex::default(),
            grown: Condvar::new(),
        }
    }

    /// The digests of a blob whose own digest was found right.
    pub(super) fn complete(blocks: Blocks) -> Digests {
        let digests = Digests::growing(blocks.size);
        let _ = digests.complete.set(blocks);
        digests
    }

    /// Size of a block, in bytes.
    pub(super) fn block_size(&self) -> u64 {
        self.size
    }

    /// All of them, once the hash has ended well.
    pub(super) fn all(&self) -> Option<&Blocks> {
        self.complete.get()
    }

    /// Adds those of the next blocks.
    pub(super) fn publish(&self, mut digests: Vec<[u8; 32]>) {
        if !digests.is_empty() {
            self.lock().digests.append(&mut digests);
            self.grown.notify_all();
        }
    }

    /// There are no more: the hash of the blob is right.
    pub(super) fn finish(&self) {
        let mut growing = self.lock();
        let digests = std::mem::take(&mut growing.digests);
        let size = self.size;
        let _ = self.complete.set(Blocks { size, digests });
        drop(growing);
        self.grown.notify_all();
    }

    /// There will be no more: the hash has failed.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.grown.notify_all();
    }

    /// The digest of block `number`, as soon as it is known.
    fn of(&self, number: u64) -> Option<[u8; 32]> {
        let number = usize::try_from(number).ok()?;
        let mut growing = self.lock();
        loop {
            if let Some(blocks) = self.complete.get() {
                return blocks.digests.get(number).copied();
            }
            if growing.abandoned || growing.digests.len() > number {
                return growing.digests.get(number).copied();
            }
            growing = self
                .grown
                .wait(growing)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads and verifies block `number` of `layer`.
    pub(super) fn read(&self, blob: &Blob, number: u64, block: &mut Vec<u8>) -> Result<()> {
        let changed = |what: &str| {
            let offset = number.saturating_mul(self.size);
            Error::corrupt(
                &blob.subject,
                format!("the layer {what} at offset {offset}"),
            )
        };
        let expected = self.of(number).ok_or_else(|| changed("has no bytes"))?;
        let offset = number * self.size;
        let len = self.size.min(blob.bytes.len().saturating_sub(offset)) as usize;
        block.resize(len, 0);
        blob.bytes.read_exact_at(block, offset)?;
        Stats::add(&blob.context.stats.chunks_verified, 1);
        if blake3::hash(block).as_bytes() != &expected {
            block.clear();
            return Err(changed("changed since its digest was verified,"));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Growing> {
        // Nothing panics while it is held.
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blob from some byte on.
pub(super) struct VerifiedReader<'a> {
    blob: &'a Blob,
    digests: &'a Digests,
    at: u64,
    block: Vec<u8>,
    /// Where the block starts in the blob.
    start: u64,
}

impl<'a> VerifiedReader<'a> {
    pub(super) fn new(blob: &'a Blob, digests: &'a Digests, at: u64) -> VerifiedReader<'a> {
        VerifiedReader {
            blob,
            digests,
            at,
            block: Vec::new(),
            start: 0,
        }
    }

    /// Reads on from byte `at`; the block that is there is kept.
    fn go_to(&mut self, at: u64) {
        self.at = at;
        if at < self.start {
            self.block.clear();
        }
    }
}

impl Read for VerifiedReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.blob.bytes.len() {
            return Ok(0);
        }
        if self.at >= self.start + self.block.len() as u64 || self.block.is_empty() {
            let number = self.at / self.digests.size;
            self.digests
                .read(self.blob, number, &mut self.block)
                .map_err(io::Error::other)?;
            self.start = number * self.digests.size;
        }
        let from = (self.at - self.start) as usize;
        let mut rest = self.block.get(from..).unwrap_or_default();
        let n = rest.read(buf)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// The blob at any offset, for who reads a little of it: holds one block.
pub(super) struct VerifiedBlocks<'a>(Mutex<VerifiedReader<'a>>);

impl<'a> VerifiedBlocks<'a> {
    /// Of a blob whose digests are complete.
    pub(super) fn of(blob: &'a Blob, digests: &'a Digests) -> VerifiedBlocks<'a> {
        VerifiedBlocks(Mutex::new(VerifiedReader::new(blob, digests, 0)))
    }
}

impl ReadAt for VerifiedBlocks<'_> {
    fn len(&self) -> u64 {
        let reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reader.blob.bytes.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        // A block that could not be read is left empty, and is read anew.
        let mut reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reader.go_to(offset);
        let read = reader.read_exact(buf);
        read.map_err(|error| lift(error, &reader.blob.subject))
    }
}

impl Verified for VerifiedBlocks<'_> {}

/// Blocks that are verified ahead of who reads them.
const AHEAD: usize = 3;

/// As [`VerifiedReader`], for one who has better things to do than to read and to hash: a thread
/// does that, a few blocks ahead, where there is one.
pub(super) enum Fetched<'a> {
    Ahead(FetchedAhead),
    Here(VerifiedReader<'a>),
}

impl<'scope> Fetched<'scope> {
    /// From byte `at` of the blob on.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        blob: &'scope Blob,
        digests: &'scope Digests,
        at: u64,
    ) -> Fetched<'scope> {
        match FetchedAhead::start(scope, blob, digests, at) {
            Some(ahead) => Fetched::Ahead(ahead),
            None => Fetched::Here(VerifiedReader::new(blob, digests, at)),
        }
    }
}

impl Read for Fetched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Fetched::Ahead(blocks) => blocks.read(buf),
            Fetched::Here(blocks) => blocks.read(buf),
        }
    }
}

/// Blocks from another thread, which ends when this is dropped.
pub(super) struct FetchedAhead {
    blocks: Receiver<Result<Vec<u8>>>,
    /// Takes the memory of blocks back.
    used: Sender<Vec<u8>>,
    block: Vec<u8>,
    from: usize,
}

impl FetchedAhead {
    /// From byte `at` of the blob on; `None` where the system has no thread for it.
    fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        blob: &'scope Blob,
        digests: &'scope Digests,
        at: u64,
    ) -> Option<FetchedAhead> {
        let (sender, blocks) = sync_channel(AHEAD);
        let (used, free) = channel();
        let first = at / digests.size;
        Builder::new()
            .name("layer-fetch".into())
            .spawn_scoped(scope, move || fetch(blob, digests, first, &sender, &free))
            .ok()?;
        Some(FetchedAhead {
            blocks,
            used,
            block: Vec::new(),
            from: (at % digests.size) as usize,
        })
    }
}

fn fetch(
    blob: &Blob,
    digests: &Digests,
    first: u64,
    blocks: &SyncSender<Result<Vec<u8>>>,
    free: &Receiver<Vec<u8>>,
) {
    let end = blob.bytes.len().div_ceil(digests.size);
    for number in first..end {
        let mut block = free.try_recv().unwrap_or_default();
        let read = digests.read(blob, number, &mut block);
        let failed = read.is_err();
        if blocks.send(read.map(|()| block)).is_err() || failed {
            return;
        }
    }
}

impl Read for FetchedAhead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.from >= self.block.len() {
            // A closed channel is the end of the blob: an error is sent before it closes.
            let Ok(next) = self.blocks.recv() else {
                return Ok(0);
            };
            let before = std::mem::replace(&mut self.block, next.map_err(io::Error::other)?);
            if !before.is_empty() {
                self.from = 0;
                let _ = self.used.send(before);
            }
        }
        let mut rest = self.block.get(self.from..).unwrap_or_default();
        let n = rest.read(buf)?;
        self.from += n;
        Ok(n)
    }
}
