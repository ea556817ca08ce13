//! Decoding tables: what the next bits of a stream mean, for one code.
//!
//! Codes as long as the table's index, or shorter, take one lookup; longer ones two. Two literals
//! whose codes fit into one index share an entry.

use super::bits::{Bits, INVALID};
use super::entry::{
    KIND_COPY, KIND_END, KIND_INVALID, KIND_LINK, KIND_LITERAL, KIND_PAIR, entry, kind, payload,
};
use crate::codec::CodecError;
use crate::codec::huffman::{DISTANCES, LENGTHS};

/// Stands where no code leads.
const INVALID_ENTRY: u32 = entry(KIND_INVALID, 0, 1);
/// Symbols of the largest code.
const MAX_SYMBOLS: usize = 288;
/// A decoding table of `N` entries, with longer codes behind links.
pub(super) struct Table<const N: usize> {
    main: [u32; N],
    links: Vec<u32>,
    link_bits: u32,
    shortest: u32,
}

impl<const N: usize> Table<N> {
    const BITS: u32 = N.trailing_zeros();

    pub(super) fn new() -> Table<N> {
        Table {
            main: [INVALID_ENTRY; N],
            links: Vec::new(),
            link_bits: 0,
            shortest: 0,
        }
    }

    /// The entry for the next bits.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: &Bits<'_>) -> u32 {
        self.main[bits.buffer as usize & (N - 1)]
    }

    /// The entry behind a link, for the bits after the first [`BITS`](Self::BITS).
    #[inline(always)]
    pub(super) fn follow(&self, link: u32, bits: &Bits<'_>) -> u32 {
        let index = payload(link) + (bits.buffer & ((1 << self.link_bits) - 1)) as usize;
        self.links.get(index).copied().unwrap_or(INVALID_ENTRY)
    }

    /// Builds the table of a canonical code (RFC 1951, 3.2.2) from its code lengths. Refuses what
    /// zlib refuses: over-subscribed codes, and incomplete ones but for a single code of one bit.
    pub(super) fn build(
        &mut self,
        lengths: &[u8],
        may_be_incomplete: bool,
        make: impl Fn(usize, u32) -> u32,
    ) -> Result<(), CodecError> {
        let mut counts = [0u32; 16];
        for &length in lengths {
            if let Some(count) = counts.get_mut(length as usize) {
                *count += 1;
            }
        }
        counts[0] = 0;
        let longest = counts.iter().rposition(|&n| n > 0).unwrap_or(0) as u32;
        self.shortest = counts.iter().position(|&n| n > 0).unwrap_or(0) as u32;
        self.links.clear();
        self.link_bits = longest.saturating_sub(Self::BITS);
        let (mut next, mut first) = ([0u32; 16], [0usize; 16]);
        let (mut left, mut code, mut before) = (1i32, 0, 0);
        for ((next, first), &count) in next.iter_mut().zip(&mut first).zip(&counts).skip(1) {
            (*next, *first) = (code, before);
            code = (code + count) << 1;
            before += count as usize;
            left = (left << 1) - count as i32;
            if left < 0 {
                return Err(INVALID);
            }
        }
        if left > 0 && !(may_be_incomplete && longest <= 1) {
            return Err(INVALID);
        }
        // The symbols by length, each length in order.
        let mut sorted = [0u16; MAX_SYMBOLS];
        let mut place = first;
        for (symbol, &length) in lengths.iter().enumerate() {
            if length > 0 {
                let place = place.get_mut(length as usize).ok_or(INVALID)?;
                *sorted.get_mut(*place).ok_or(INVALID)? = symbol as u16;
                *place += 1;
            }
        }
        let mut sorted = sorted.get(..before).unwrap_or_default().iter();

        // What the first bits of a code mean stands wherever these bits do: each length doubles the
        // table of the lengths before it, then adds its own codes.
        let mut size = 1;
        self.main[0] = INVALID_ENTRY;
        for (length, (&count, next)) in (0..).zip(counts.iter().zip(&mut next)).skip(1) {
            if length <= Self::BITS {
                self.main.copy_within(..size, size);
                size *= 2;
            }
            for &symbol in sorted.by_ref().take(count as usize) {
                let symbol = usize::from(symbol);
                let code = (next.reverse_bits() >> (32 - length)) as usize;
                *next += 1;
                if length <= Self::BITS {
                    *self.main.get_mut(code).ok_or(INVALID)? = make(symbol, length);
                } else {
                    self.link(code, length, make(symbol, length - Self::BITS))?;
                }
            }
        }
        Ok(())
    }

    /// Adds a code that is longer than the main table's.
    fn link(&mut self, code: usize, length: u32, made: u32) -> Result<(), CodecError> {
        let link = self.main.get_mut(code & (N - 1)).ok_or(INVALID)?;
        if kind(*link) != KIND_LINK {
            *link = entry(KIND_LINK, self.links.len() as u32, 0);
            let end = self.links.len() + (1 << self.link_bits);
            self.links.resize(end, INVALID_ENTRY);
        }
        let start = payload(*link);
        let table = self.links.get_mut(start..).ok_or(INVALID)?;
        let table = table.get_mut(..1 << self.link_bits).ok_or(INVALID)?;
        let step = 1 << (length - Self::BITS);
        for slot in table.iter_mut().skip(code >> Self::BITS).step_by(step) {
            *slot = made;
        }
        Ok(())
    }

    /// Makes one entry of two literals wherever both codes fit into one lookup.
    pub(super) fn pair_up(&mut self) {
        if self.shortest * 2 > Self::BITS {
            return;
        }
        // Downwards: the second code is looked up at a smaller index, which is not paired yet.
        for index in (0..N).rev() {
            let first = self.main[index & (N - 1)];
            let length = first & 0xff;
            if kind(first) != KIND_LITERAL || length >= Self::BITS {
                continue;
            }
            let second = self.main[index >> length & (N - 1)];
            let both = length + (second & 0xff);
            if kind(second) == KIND_LITERAL && both <= Self::BITS {
                let bytes = (payload(first) | payload(second) << 8) as u32;
                self.main[index & (N - 1)] = entry(KIND_PAIR, bytes, both) | length << 28;
            }
        }
    }
}

/// The entry of a literal/length symbol.
pub(super) fn literal_entry(symbol: usize, length: u32) -> u32 {
    match symbol {
        0..=255 => entry(KIND_LITERAL, symbol as u32, length),
        256 => entry(KIND_END, 0, length),
        _ => copy_entry(LENGTHS.get(symbol - 257), length),
    }
}

/// The entry of a distance symbol.
pub(super) fn distance_entry(symbol: usize, length: u32) -> u32 {
    copy_entry(DISTANCES.get(symbol), length)
}

fn copy_entry(value: Option<&(u32, u32)>, length: u32) -> u32 {
    match value {
        Some((base, extra)) => entry(KIND_COPY, *base, length + extra) | length << 28,
        None => entry(KIND_INVALID, 0, length),
    }
}
