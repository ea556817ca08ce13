//! Recycled memory for decoded chunks.
//!
//! A fresh megabyte costs 256 page faults, a good part of the time in which a chunk decodes; so the
//! memory of a chunk that nobody holds any more serves the next one, if that is about as long: what
//! is cached counts with its length, so it must not hold much more memory than that.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Most bytes that are kept for reuse.
const KEEP_BYTES: usize = 16 << 20;
/// A buffer may be longer than what it is taken for by one part in so many.
const SPARE: usize = 16;

/// Buffers that wait for their next use.
#[derive(Default)]
pub(super) struct Buffers {
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer of `len` bytes of unspecified content.
    pub(super) fn take(self: &Arc<Buffers>, len: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |b: &Vec<u8>| (len..=len.saturating_add(len / SPARE)).contains(&b.capacity());
        let fitting = free.buffers.iter().rposition(fits);
        let data = fitting.map(|at| free.buffers.swap_remove(at));
        free.bytes -= data.as_ref().map_or(0, Vec::capacity);
        drop(free);
        let data = match data {
            // Shrinking is free; growing within the capacity writes zeros only beyond the old
            // length.
            Some(mut data) => {
                data.resize(len, 0);
                data
            }
            None => vec![0; len],
        };
        Buffer {
            data,
            home: Arc::clone(self),
        }
    }
}

/// Memory that goes back to its [`Buffers`] when it is dropped.
pub(super) struct Buffer {
    data: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffer {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// The content, shared without a copy; the memory goes back when the last share is dropped.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let mut free = self
            .home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if data.capacity() > 0 && free.bytes + data.capacity() <= KEEP_BYTES {
            free.bytes += data.capacity();
            free.buffers.push(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_stays_within_the_bound() {
        let buffers = Arc::new(Buffers::default());
        let first = buffers.take(1 << 20).freeze();
        let address = first.as_ptr();
        drop(first);
        let again = buffers.take((1 << 20) - 1000);
        assert_eq!(again.as_ref().as_ptr(), address);
        assert_eq!(again.as_ref().len(), (1 << 20) - 1000);
        drop((0..40).map(|_| buffers.take(1 << 20)).collect::<Vec<_>>());
        assert!(buffers.free.lock().unwrap().bytes <= KEEP_BYTES);
    }

    /// A cache counts lengths: small chunks in large buffers would take many times what it may.
    #[test]
    fn r9_a_small_chunk_does_not_hold_a_large_buffer() {
        let buffers = Arc::new(Buffers::default());
        drop(buffers.take(16 << 20));
        for len in [0, 1, 1000, 64 << 10, 1 << 20, 15 << 20] {
            let taken = buffers.take(len);
            assert!(taken.data.capacity() <= len + len / SPARE, "{len}");
        }
        assert!(buffers.take(16 << 20).data.capacity() == 16 << 20);
    }
}
