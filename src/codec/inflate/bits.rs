//! The bits of a stream.

use super::entry::payload;
use crate::codec::CodecError;

pub(super) const INVALID: CodecError = CodecError::Invalid("deflate");

/// Reads bits, least significant first. Beyond the end it reads zeros, and knows that it did.
pub(super) struct Bits<'a> {
    pub(super) input: &'a [u8],
    /// The next byte to load; may lie beyond the end.
    pub(super) next: usize,
    pub(super) buffer: u64,
    pub(super) count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(input: &'a [u8], bit: u64) -> Bits<'a> {
        let mut bits = Bits {
            input,
            next: usize::try_from(bit / 8).unwrap_or(usize::MAX / 2),
            buffer: 0,
            count: 0,
        };
        bits.refill();
        bits.drop((bit % 8) as u32);
        bits
    }

    /// To at least 56 bits.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        match self.input.get(self.next..).and_then(<[u8]>::first_chunk) {
            Some(word) => {
                // Bits above `count` may be loaded twice, to the same value.
                self.buffer |= u64::from_le_bytes(*word) << self.count;
                self.next += ((63 - self.count) >> 3) as usize;
                self.count |= 56;
            }
            None => self.refill_slowly(),
        }
    }

    #[cold]
    pub(super) fn refill_slowly(&mut self) {
        // The fast path leaves bits above `count`; here they would be loaded by a later byte.
        self.buffer &= (1u64 << self.count) - 1;
        while self.count < 56 {
            let byte = self.input.get(self.next).copied().unwrap_or(0);
            self.buffer |= u64::from(byte) << self.count;
            self.next += 1;
            self.count += 8;
        }
    }

    #[inline(always)]
    pub(super) fn drop(&mut self, n: u32) {
        self.buffer >>= n;
        self.count -= n;
    }

    /// `n` bits, at most 16, of those that a refill made sure of.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u32) -> u32 {
        let value = (self.buffer & ((1 << n) - 1)) as u32;
        self.drop(n);
        value
    }

    /// A length or a distance, from the entry of its code.
    #[inline(always)]
    pub(super) fn take_value(&mut self, entry: u32) -> usize {
        // One shift takes code and extra bits together: the next lookup waits for nothing else.
        let total = entry & 0xff;
        let extra = (self.buffer & ((1 << total) - 1)) >> (entry >> 28);
        self.drop(total);
        payload(entry) + extra as usize
    }

    pub(super) fn skip_to_byte(&mut self) {
        self.drop(self.count % 8);
    }

    /// Bits read so far, from the start of the input.
    pub(super) fn consumed(&self) -> u64 {
        (self.next as u64 * 8).saturating_sub(u64::from(self.count))
    }

    /// True when bits beyond the end of the input were read.
    pub(super) fn overrun(&self) -> bool {
        self.consumed() > self.input.len() as u64 * 8
    }

    /// Whole bytes not yet read.
    pub(super) fn left(&self) -> usize {
        let read = usize::try_from(self.consumed().div_ceil(8)).unwrap_or(usize::MAX);
        self.input.len().saturating_sub(read)
    }

    /// Up to `n` whole bytes; the position must be a byte's.
    pub(super) fn take_bytes(&mut self, n: usize) -> &'a [u8] {
        let start = usize::try_from(self.consumed() / 8).unwrap_or(usize::MAX);
        let rest = self.input.get(start..).unwrap_or_default();
        let bytes = rest.get(..n.min(rest.len())).unwrap_or_default();
        (self.next, self.buffer, self.count) = (start + bytes.len(), 0, 0);
        bytes
    }
}
