//! Recycled memory for decoded chunks.
//!
//! A fresh megabyte costs 256 page faults, a good part of the time in which a chunk decodes. So the
//! memory of a chunk that nobody holds any more serves the next one, if that is about as long: what
//! is cached counts with its length, so it must not hold much more memory than that. And what is
//! fresh comes in huge pages where a chunk is about as long as a part of one.
//!
//! Every buffer holds the grant of its memory, in use or waiting for its next use; what waits is the
//! first that the limiter takes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::limiter::{Grant, Limiter, Reclaim, Term, Unit};
use super::pages::{PAGE_BYTES, Slot};
use crate::error::Result;

/// Most bytes that are kept for reuse, the rest of one huge page aside.
const KEEP_BYTES: usize = 16 << 20;
/// A buffer may be longer than what it is taken for by one part in so many.
const SPARE: usize = 16;
/// Smallest part of a huge page.
const SMALLEST_SLOT: usize = 64 << 10;

/// Buffers that wait for their next use.
pub(crate) struct Buffers {
    limiter: Arc<Limiter>,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    memory: Vec<Piece>,
    bytes: usize,
}

/// Memory and what counts it.
struct Piece {
    memory: Memory,
    grant: Grant,
}

/// Initialised bytes, as many as its length says.
enum Memory {
    Heap(Vec<u8>),
    Slot(Slot),
}

impl Memory {
    fn len(&self) -> usize {
        match self {
            Memory::Heap(bytes) => bytes.len(),
            Memory::Slot(slot) => slot.len(),
        }
    }
}

/// Length of the slot that a buffer of `len` bytes may take.
fn slot_for(len: usize) -> Option<usize> {
    let slot = len.checked_next_power_of_two()?;
    let fits = (SMALLEST_SLOT..=PAGE_BYTES).contains(&slot) && slot - len <= len / SPARE;
    fits.then_some(slot)
}

impl Free {
    fn find(&mut self, len: usize) -> Option<Piece> {
        let fits = |m: &Memory| (len..=len.saturating_add(len / SPARE)).contains(&m.len());
        // The last one that came is the likeliest to be in a cache of the processor.
        let at = self.memory.iter().rposition(|piece| fits(&piece.memory))?;
        let piece = self.memory.remove(at);
        self.bytes -= piece.memory.len();
        Some(piece)
    }

    fn put(&mut self, piece: Piece) {
        self.bytes += piece.memory.len();
        self.memory.push(piece);
    }
}

impl Buffers {
    pub(crate) fn new(limiter: Arc<Limiter>) -> Buffers {
        Buffers {
            limiter,
            free: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is held.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `len` bytes of unspecified content, now: for an answer.
    pub(crate) fn take(self: &Arc<Buffers>, len: usize) -> Buffer {
        let recycled = self.lock().find(len);
        let piece = recycled
            .or_else(|| self.slot(len))
            .unwrap_or_else(|| heap(len, self.limiter.charge(len as u64)));
        self.buffer(piece, len)
    }

    /// Waits until a decode may begin that yields `len` bytes, with `scratch` bytes beside them.
    /// The second buffer is empty when `scratch` is 0. The caller must hold no other unit.
    ///
    /// # Errors
    /// When they can never fit.
    pub(crate) fn take_unit(
        self: &Arc<Buffers>,
        len: usize,
        scratch: usize,
        term: Term,
        subject: &str,
    ) -> Result<(Unit, Buffer, Buffer)> {
        // Who waits must hold nothing that others wait for: what was found for it has been given back.
        if let Some(unit) = self.try_unit(len, scratch, term) {
            return Ok(unit);
        }
        let unit = self.limiter.take((len + scratch) as u64, term, subject)?;
        Ok(self.filled(unit, (None, len), (None, scratch)))
    }

    /// The same if it may begin now.
    pub(crate) fn try_unit(
        self: &Arc<Buffers>,
        len: usize,
        scratch: usize,
        term: Term,
    ) -> Option<(Unit, Buffer, Buffer)> {
        let mut free = self.lock();
        let (out, beside) = (free.find(len), free.find(scratch));
        drop(free);
        let missing =
            out.as_ref().map_or(len as u64, |_| 0) + beside.as_ref().map_or(scratch as u64, |_| 0);
        let unit = match term {
            Term::Short => self.limiter.try_take(missing),
            Term::Long => self.limiter.more(missing),
        };
        unit.map(|unit| self.filled(unit, (out, len), (beside, scratch)))
    }

    /// A unit with its two buffers: of recycled memory, or of its own.
    fn filled(
        self: &Arc<Buffers>,
        mut unit: Unit,
        out: (Option<Piece>, usize),
        beside: (Option<Piece>, usize),
    ) -> (Unit, Buffer, Buffer) {
        let mut buffer = |(recycled, len): (Option<Piece>, usize)| {
            let piece = recycled.or_else(|| self.slot(len));
            let piece = piece.unwrap_or_else(|| heap(len, unit.part(len as u64)));
            self.buffer(piece, len)
        };
        let (out, beside) = (buffer(out), buffer(beside));
        (unit, out, beside)
    }

    fn buffer(self: &Arc<Buffers>, piece: Piece, len: usize) -> Buffer {
        Buffer {
            piece: Some(piece),
            len,
            home: Arc::clone(self),
        }
    }

    /// A part of a huge page, if there may be one more.
    fn slot(&self, len: usize) -> Option<Piece> {
        let slot = slot_for(len)?;
        // The first touch takes memory for the whole page: the others are the next to be used.
        let mut page = self.limiter.more(PAGE_BYTES as u64)?;
        let mut grant = page.part(PAGE_BYTES as u64);
        let mut pieces = Slot::of_new_page(slot).into_iter().map(|slot| Piece {
            grant: grant.split(slot.len() as u64),
            memory: Memory::Slot(slot),
        });
        let first = pieces.next();
        let mut free = self.lock();
        pieces.for_each(|piece| free.put(piece));
        first
    }

    fn put_back(&self, piece: Piece) {
        let mut free = self.lock();
        if free.bytes + piece.memory.len() <= KEEP_BYTES {
            free.put(piece);
            drop(free);
            if self.limiter.is_short() {
                self.reclaim(u64::MAX);
            }
            return;
        }
        drop(free);
        release(piece);
    }
}

impl Reclaim for Buffers {
    fn reclaim(&self, _: u64) -> bool {
        let mut free = self.lock();
        let pieces = std::mem::take(&mut free.memory);
        free.bytes = 0;
        drop(free);
        let some = !pieces.is_empty();
        pieces.into_iter().for_each(release);
        some
    }
}

fn heap(len: usize, grant: Grant) -> Piece {
    Piece {
        memory: Memory::Heap(vec![0; len]),
        grant,
    }
}

/// Gives memory back to the system, and then its grant.
fn release(piece: Piece) {
    match piece.memory {
        Memory::Slot(slot) => slot.release(),
        Memory::Heap(bytes) => drop(bytes),
    }
    drop(piece.grant);
}

/// Memory that goes back to its [`Buffers`] when it is dropped.
pub(crate) struct Buffer {
    /// There until it is dropped.
    piece: Option<Piece>,
    /// At most the memory's.
    len: usize,
    home: Arc<Buffers>,
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        let memory = match self.piece.as_mut().map(|piece| &mut piece.memory) {
            Some(Memory::Heap(bytes)) => bytes.as_mut_slice(),
            Some(Memory::Slot(slot)) => slot.as_mut(),
            None => &mut [],
        };
        &mut memory[..self.len]
    }

    /// The content, shared without a copy; the memory goes back when the last share is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        let memory = match self.piece.as_ref().map(|piece| &piece.memory) {
            Some(Memory::Heap(bytes)) => bytes.as_slice(),
            Some(Memory::Slot(slot)) => slot.as_ref(),
            None => &[],
        };
        &memory[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take().filter(|piece| piece.memory.len() > 0) {
            self.home.put_back(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::promise::Promise;

    fn buffers() -> Arc<Buffers> {
        let promise = Promise::new(256 << 20, 2, 0);
        Arc::new(Buffers::new(Limiter::new(promise, Duration::ZERO)))
    }

    #[test]
    fn memory_comes_back_and_stays_within_the_bound() {
        for full in [1 << 20, 512 << 10, 100_000] {
            let buffers = buffers();
            let first = buffers.take(full).freeze();
            let address = first.as_ptr();
            drop(first);
            let again = buffers.take(full - 1000);
            assert_eq!(again.as_ref().as_ptr(), address);
            assert_eq!(again.as_ref().len(), full - 1000);
            drop((0..100).map(|_| buffers.take(full)).collect::<Vec<_>>());
            drop(again);
            let free = buffers.lock();
            assert!(free.bytes <= KEEP_BYTES);
            assert_eq!(
                free.bytes,
                free.memory
                    .iter()
                    .map(|piece| piece.memory.len())
                    .sum::<usize>()
            );
            let bytes = free.bytes as u64;
            drop(free);
            assert_eq!(
                buffers.limiter.taken() - bytes,
                0,
                "all counted, and given back"
            );
        }
    }

    #[test]
    fn buffers_do_not_share_memory() {
        let buffers = buffers();
        let lens = [
            1 << 20,
            64 << 10,
            3,
            512 << 10,
            (512 << 10) - 5,
            2 << 20,
            3 << 20,
        ];
        for _ in 0..3 {
            let mut taken: Vec<Buffer> = lens.iter().map(|len| buffers.take(*len)).collect();
            for (n, buffer) in taken.iter_mut().enumerate() {
                buffer.as_mut().fill(n as u8);
            }
            for (n, buffer) in taken.iter().enumerate() {
                assert_eq!(buffer.as_ref(), vec![n as u8; lens[n]]);
            }
        }
    }

    /// A cache counts lengths: small chunks in large buffers would take many times what it may.
    #[test]
    fn r9_a_small_chunk_does_not_hold_a_large_buffer() {
        let buffers = buffers();
        drop(buffers.take(16 << 20));
        for len in [0, 1, 1000, 64 << 10, 65 << 10, 1 << 20, 15 << 20] {
            let taken = buffers.take(len);
            assert!(
                taken.piece.as_ref().unwrap().memory.len() <= len + len / SPARE,
                "{len}"
            );
        }
        assert!(buffers.take(16 << 20).piece.as_ref().unwrap().memory.len() == 16 << 20);
    }
}
