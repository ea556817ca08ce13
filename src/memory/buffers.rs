//! Recycled memory for decoded chunks.
//!
//! A fresh megabyte costs 256 page faults, a good part of the time in which a chunk decodes. So the
//! memory of a chunk that nobody holds any more serves the next one, if that is about as long: what
//! is cached counts with its length, so it must not hold much more memory than that. And what is
//! fresh comes in huge pages where a chunk is about as long as a part of one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::pages::{PAGE_BYTES, Slot};

/// Most bytes that are kept for reuse, the rest of one huge page aside.
const KEEP_BYTES: usize = 16 << 20;
/// A buffer may be longer than what it is taken for by one part in so many.
const SPARE: usize = 16;
/// Smallest part of a huge page.
const SMALLEST_SLOT: usize = 64 << 10;

/// Buffers that wait for their next use.
#[derive(Default)]
pub(crate) struct Buffers {
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    memory: Vec<Memory>,
    bytes: usize,
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

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is held.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `len` bytes of unspecified content.
    pub(crate) fn take(self: &Arc<Buffers>, len: usize) -> Buffer {
        Buffer {
            memory: self.recycled(len).unwrap_or_else(|| self.fresh(len)),
            len,
            home: Arc::clone(self),
        }
    }

    fn recycled(&self, len: usize) -> Option<Memory> {
        let mut free = self.lock();
        let fits = |m: &Memory| (len..=len.saturating_add(len / SPARE)).contains(&m.len());
        // The last one that came is the likeliest to be in a cache of the processor.
        let at = free.memory.iter().rposition(fits)?;
        let memory = free.memory.remove(at);
        free.bytes -= memory.len();
        Some(memory)
    }

    fn fresh(&self, len: usize) -> Memory {
        let mut slots = slot_for(len).map(Slot::of_new_page).unwrap_or_default();
        let Some(first) = slots.pop() else {
            return Memory::Heap(vec![0; len]);
        };
        // The first touch takes memory for the whole page: the others are the next to be used.
        let mut free = self.lock();
        free.bytes += slots.iter().map(Slot::len).sum::<usize>();
        free.memory.extend(slots.into_iter().map(Memory::Slot));
        Memory::Slot(first)
    }

    fn put_back(&self, memory: Memory) {
        let mut free = self.lock();
        if free.bytes + memory.len() <= KEEP_BYTES {
            free.bytes += memory.len();
            free.memory.push(memory);
            return;
        }
        drop(free);
        if let Memory::Slot(slot) = memory {
            slot.release();
        }
    }
}

/// Memory that goes back to its [`Buffers`] when it is dropped.
pub(crate) struct Buffer {
    memory: Memory,
    /// At most the memory's.
    len: usize,
    home: Arc<Buffers>,
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        let memory = match &mut self.memory {
            Memory::Heap(bytes) => bytes.as_mut_slice(),
            Memory::Slot(slot) => slot.as_mut(),
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
        let memory = match &self.memory {
            Memory::Heap(bytes) => bytes.as_slice(),
            Memory::Slot(slot) => slot.as_ref(),
        };
        &memory[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Memory::Heap(Vec::new()));
        if memory.len() > 0 {
            self.home.put_back(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_stays_within_the_bound() {
        for full in [1 << 20, 512 << 10, 100_000] {
            let buffers = Arc::new(Buffers::default());
            let first = buffers.take(full).freeze();
            let address = first.as_ptr();
            drop(first);
            let again = buffers.take(full - 1000);
            assert_eq!(again.as_ref().as_ptr(), address);
            assert_eq!(again.as_ref().len(), full - 1000);
            drop((0..100).map(|_| buffers.take(full)).collect::<Vec<_>>());
            let free = buffers.lock();
            assert!(free.bytes <= KEEP_BYTES);
            assert_eq!(
                free.bytes,
                free.memory.iter().map(Memory::len).sum::<usize>()
            );
        }
    }

    #[test]
    fn buffers_do_not_share_memory() {
        let buffers = Arc::new(Buffers::default());
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
        let buffers = Arc::new(Buffers::default());
        drop(buffers.take(16 << 20));
        for len in [0, 1, 1000, 64 << 10, 65 << 10, 1 << 20, 15 << 20] {
            let taken = buffers.take(len);
            assert!(taken.memory.len() <= len + len / SPARE, "{len}");
        }
        assert!(buffers.take(16 << 20).memory.len() == 16 << 20);
    }
}
