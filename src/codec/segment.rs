//! A strict inflate (RFC 1951) for one segment.
//!
//! A segment is correct when it is a sequence of blocks none of which is marked as the last, ends
//! on a byte boundary where a block ends, and holds exactly the expected bytes. General decoders
//! cannot tell: they stop at the first last block, or run over the end of the segment into
//! whatever follows, so that a segment could mean one thing alone and another within its stream.
//! This one knows where each block begins, and is as fast as the best of them; and it is safe code.
//!
//! It refuses what no encoder writes and decoders treat differently (an incomplete literal code),
//! and otherwise accepts what zlib accepts.

use super::CodecError;
use super::bits::BitReader;
use super::cpu::{Cpu, multiversion};
use super::huffman::{
    DISTANCE_SYMBOLS, DISTANCES, DynamicHeader, FIXED_DISTANCE, FIXED_LITLEN, LENGTHS,
    LITLEN_SYMBOLS, canonical_codes,
};

const INVALID: CodecError = CodecError::Invalid("deflate");

/// Bits that index the first level of a table; longer codes continue in a second level.
const LITLEN_ROOT: u32 = 11;
const DISTANCE_ROOT: u32 = 8;
/// Sizes of the tables with their second levels: powers of two above the most that codes of 15
/// bits can need (2,342 entries for 288 symbols and 402 for 32, by zlib's `enough`).
const LITLEN_SIZE: usize = 4096;
const DISTANCE_SIZE: usize = 512;

// Entries of the tables. The low six bits are always what is consumed with the entry.
//
//   literal            LITERAL | literal << 16 | bits of the code
//   length, distance   base << 16 | bits of the code << 8 | bits of the code and extra bits
//   link to 2nd level  OTHER | LINK | start << 16 | bits that index there << 8 | bits of the root
//   end of block       OTHER | END | bits of the code
//   no symbol          OTHER
const LITERAL: u32 = 1 << 31;
const OTHER: u32 = 1 << 15;
const LINK: u32 = 1 << 14;
const END: u32 = 1 << 13;

/// The number of bits that an entry consumes.
#[inline(always)]
fn consumed(entry: u32) -> u32 {
    entry & 63
}

/// A length or distance: its base, and the extra bits that follow its code in `bits`.
#[inline(always)]
fn value(entry: u32, bits: u64) -> usize {
    let code_and_extra = bits & ((1 << consumed(entry)) - 1);
    (entry >> 16) as usize + (code_and_extra >> (entry >> 8 & 15)) as usize
}

/// Where the entry that a link leads to stands, given the bits after those of the root.
#[inline(always)]
fn linked<const SIZE: usize>(table: &[u32; SIZE], link: u32, bits: u64) -> u32 {
    let index = bits as usize & ((1 << (link >> 8 & 15)) - 1);
    table[((link >> 16) as usize + index) & (SIZE - 1)]
}

/// The tables of one block, and the choice of the inner loop.
pub(super) struct Inflater {
    litlen: Box<[u32; LITLEN_SIZE]>,
    distance: Box<[u32; DISTANCE_SIZE]>,
    cpu: Cpu,
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new(Cpu::detect())
    }
}

/// Where the last block stands in a deflate stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastBlock {
    /// Its first bit: the mark that it is the last.
    pub(super) start: usize,
    /// The first bit after its end.
    pub(super) end: usize,
}

impl Inflater {
    /// An inflater that uses the given inner loop.
    pub(super) fn new(cpu: Cpu) -> Inflater {
        Inflater {
            litlen: Box::new([0; LITLEN_SIZE]),
            distance: Box::new([0; DISTANCE_SIZE]),
            cpu,
        }
    }

    /// Decodes the whole of a segment into the whole of `out`.
    ///
    /// # Errors
    /// [`CodecError`] when `segment` is no correct segment of exactly `out.len()` bytes.
    pub(super) fn segment(&mut self, segment: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        let mut state = State::new(segment, out);
        while state.bit < segment.len() * 8 {
            if self.block(&mut state)? {
                return Err(INVALID);
            }
        }
        state.expect_full()
    }

    /// Decodes a complete stream into the whole of `out`, and says where its last block stands.
    ///
    /// # Errors
    /// [`CodecError`] when `stream` does not begin with a deflate stream of `out.len()` bytes.
    pub(super) fn stream(
        &mut self,
        stream: &[u8],
        out: &mut [u8],
    ) -> Result<LastBlock, CodecError> {
        let mut state = State::new(stream, out);
        loop {
            let start = state.bit;
            if self.block(&mut state)? {
                state.expect_full()?;
                let end = state.bit;
                return Ok(LastBlock { start, end });
            }
        }
    }

    /// Decodes one block; true when it is marked as the last.
    fn block(&mut self, state: &mut State<'_>) -> Result<bool, CodecError> {
        let mut bits = BitReader::new(state.input, state.bit);
        let last = bits.take(1) == 1;
        let kind = bits.take(2);
        bits.check()?;
        match kind {
            0b00 => {
                bits.align();
                let at = bits.position() / 8;
                state.bit = state.stored(at)? * 8;
                return Ok(last);
            }
            0b01 => self.fill(&FIXED_LITLEN, &FIXED_DISTANCE)?,
            0b10 => {
                let header = DynamicHeader::read(&mut bits)?;
                self.fill(&header.litlen, &header.distance)?;
            }
            _ => return Err(INVALID),
        }
        state.bit = bits.position();
        huffman_block(self.cpu, &self.litlen, &self.distance, state)?;
        Ok(last)
    }

    fn fill(
        &mut self,
        litlen: &[u8; LITLEN_SYMBOLS],
        distance: &[u8; DISTANCE_SYMBOLS],
    ) -> Result<(), CodecError> {
        fill_table(
            &mut self.litlen[..],
            LITLEN_ROOT,
            litlen,
            |symbol| match symbol {
                0..256 => (LITERAL | (symbol as u32) << 16, 0),
                256 => (OTHER | END, 0),
                _ => match_entry(&LENGTHS, symbol - 257),
            },
        )?;
        fill_table(&mut self.distance[..], DISTANCE_ROOT, distance, |symbol| {
            match_entry(&DISTANCES, symbol)
        })
    }
}

/// The entry for a length or distance without its bits, and the number of extra bits; no symbol
/// for the two of each that the fixed code only reserves.
fn match_entry(table: &[(u32, u32)], index: usize) -> (u32, u32) {
    match table.get(index) {
        Some((base, extra)) => (base << 16, *extra),
        None => (OTHER, 0),
    }
}

/// Fills a table for a prefix code of at most 15 bits.
fn fill_table(
    table: &mut [u32],
    root: u32,
    lengths: &[u8],
    entry: impl Fn(usize) -> (u32, u32),
) -> Result<(), CodecError> {
    let root_size = 1usize << root;
    // Complete codes reach every entry; others, which have codes of one bit only, have no second
    // level.
    table[..root_size].fill(OTHER);
    let codes = canonical_codes(lengths);
    // How many more bits the longest code with each root index has.
    let mut deeper = [0u8; 1 << LITLEN_ROOT];
    for (&length, &code) in lengths.iter().zip(&codes) {
        let more = u32::from(length).saturating_sub(root);
        let slot = &mut deeper[usize::from(code) & (root_size - 1)];
        *slot = (*slot).max(more as u8);
    }
    let mut end = root_size;
    for (index, &more) in deeper[..root_size].iter().enumerate() {
        if more > 0 {
            table[index] = OTHER | LINK | (end as u32) << 16 | u32::from(more) << 8 | root;
            end += 1 << more;
        }
    }
    if end > table.len() {
        return Err(INVALID);
    }
    for (symbol, (&length, &code)) in lengths.iter().zip(&codes).enumerate() {
        let (length, code) = (u32::from(length), usize::from(code));
        if length == 0 {
            continue;
        }
        let (entry, extra) = entry(symbol);
        let (level, index, bits) = if length <= root {
            (&mut table[..root_size], code, length)
        } else {
            let link = table[code & (root_size - 1)];
            let start = (link >> 16) as usize;
            let size = 1 << (link >> 8 & 15);
            (&mut table[start..start + size], code >> root, length - root)
        };
        let filled = entry | bits << 8 | (bits + extra);
        for slot in level.iter_mut().skip(index).step_by(1 << bits) {
            *slot = filled;
        }
    }
    Ok(())
}

/// What is decoded, and how far.
struct State<'a> {
    input: &'a [u8],
    /// The next bit of `input`.
    bit: usize,
    out: &'a mut [u8],
    /// Where the next byte goes.
    at: usize,
}

impl<'a> State<'a> {
    fn new(input: &'a [u8], out: &'a mut [u8]) -> State<'a> {
        State {
            input,
            bit: 0,
            out,
            at: 0,
        }
    }

    /// Copies the stored block whose LEN stands at byte `from`; returns where it ends.
    fn stored(&mut self, from: usize) -> Result<usize, CodecError> {
        let rest = self.input.get(from..).ok_or(CodecError::Truncated)?;
        let (&[a, b, c, d], rest) = rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        let len = u16::from_le_bytes([a, b]);
        if len != !u16::from_le_bytes([c, d]) {
            return Err(INVALID);
        }
        let len = usize::from(len);
        let data = rest.get(..len).ok_or(CodecError::Truncated)?;
        let wrong_length = self.wrong_length();
        let to = self
            .out
            .get_mut(self.at..self.at + len)
            .ok_or(wrong_length)?;
        to.copy_from_slice(data);
        self.at += len;
        Ok(from + 4 + len)
    }

    fn wrong_length(&self) -> CodecError {
        CodecError::WrongLength {
            expected: self.out.len(),
        }
    }

    fn expect_full(&self) -> Result<(), CodecError> {
        if self.at != self.out.len() {
            return Err(self.wrong_length());
        }
        Ok(())
    }
}

multiversion! {
    /// Decodes the symbols of one block, end of block included.
    fn huffman_block(
        litlen: &[u32; LITLEN_SIZE],
        distance: &[u32; DISTANCE_SIZE],
        state: &mut State<'_>,
    ) -> Result<(), CodecError> = huffman_block_body
}

#[inline(always)]
fn huffman_block_body(
    litlen: &[u32; LITLEN_SIZE],
    distance: &[u32; DISTANCE_SIZE],
    state: &mut State<'_>,
) -> Result<(), CodecError> {
    if fast_symbols(litlen, distance, state)? {
        return Ok(());
    }
    last_symbols(litlen, distance, state)
}

/// Bytes of output that one pass of the fast loop may write: two literals, the longest match, and
/// what a copy by whole words may write beyond it.
const OUTPUT_MARGIN: usize = 2 + 258 + 15;
/// Bytes of input that one pass may load: three words, each at most 7 bytes after the one before.
const INPUT_MARGIN: usize = 7 + 7 + 8;
/// Most bits of a distance: its code and extra bits.
const DISTANCE_BITS: u32 = 15 + 13;

/// Decodes symbols while neither buffer is near its end; true when the block ended.
#[inline(always)]
fn fast_symbols(
    litlen: &[u32; LITLEN_SIZE],
    distance: &[u32; DISTANCE_SIZE],
    state: &mut State<'_>,
) -> Result<bool, CodecError> {
    let input = state.input;
    let out = &mut *state.out;
    let (Some(last_at), Some(last_next)) = (
        out.len().checked_sub(OUTPUT_MARGIN),
        input.len().checked_sub(INPUT_MARGIN),
    ) else {
        return Ok(false);
    };
    let mut at = state.at;
    // `bits` holds `count` bits and more from the position on; `next` is where more come from. Only
    // the low six bits of `count` are the count: an entry can be subtracted as it is.
    let mut next = state.bit / 8;
    let (mut bits, mut count) = (0u64, 0u32);
    // Leaves at least 56 bits. Within the margin of the head of the loop there is always a word.
    macro_rules! refill {
        () => {
            let Some(word) = input.get(next..).and_then(|rest| rest.first_chunk()) else {
                return Err(INVALID);
            };
            bits |= u64::from_le_bytes(*word) << (count & 63);
            next += 7 - (count >> 3 & 7) as usize;
            count |= 56;
        };
    }
    // Consumes what the entry says; gives the bits as they were before.
    macro_rules! consume {
        ($entry:expr) => {{
            let before = bits;
            bits >>= $entry & 63;
            count = count.wrapping_sub($entry);
            before
        }};
    }
    macro_rules! root {
        ($table:expr, $bits:expr) => {
            $table[bits as usize & ((1 << $bits) - 1)]
        };
    }
    macro_rules! literal {
        ($entry:expr) => {
            consume!($entry);
            out[at] = ($entry >> 16) as u8;
            at += 1;
        };
    }

    if at > last_at || next > last_next {
        return Ok(false);
    }
    refill!();
    bits >>= state.bit % 8;
    count -= state.bit as u32 % 8;
    let mut entry = root!(litlen, LITLEN_ROOT);
    // At the head of the loop no symbol is half consumed, so that it can be left: `entry` only
    // looks ahead, and its load overlaps with the copy of the match before.
    let ended = loop {
        if at > last_at || next > last_next {
            break false;
        }
        refill!();
        if entry & LITERAL != 0 {
            // At most three codes of the first level, of 11 bits each.
            literal!(entry);
            entry = root!(litlen, LITLEN_ROOT);
            if entry & LITERAL != 0 {
                literal!(entry);
                entry = root!(litlen, LITLEN_ROOT);
                if entry & LITERAL != 0 {
                    literal!(entry);
                    entry = root!(litlen, LITLEN_ROOT);
                    continue;
                }
            }
        }
        // At least 34 bits are left: enough for the code and extra bits of a length.
        if entry & OTHER != 0 {
            if entry & LINK != 0 {
                consume!(entry);
                entry = linked(litlen, entry, bits);
            }
            if entry & LITERAL != 0 {
                literal!(entry);
                entry = root!(litlen, LITLEN_ROOT);
                continue;
            }
            if entry & OTHER != 0 {
                if entry & END == 0 {
                    return Err(INVALID);
                }
                count = count.wrapping_sub(entry);
                break true;
            }
        }
        let length = value(entry, consume!(entry));
        if count & 63 < DISTANCE_BITS {
            refill!();
        }
        entry = root!(distance, DISTANCE_ROOT);
        if entry & OTHER != 0 {
            if entry & LINK == 0 {
                return Err(INVALID);
            }
            consume!(entry);
            entry = linked(distance, entry, bits);
            if entry & OTHER != 0 {
                return Err(INVALID);
            }
        }
        let back = value(entry, consume!(entry));
        let from = at.checked_sub(back).ok_or(INVALID)?;
        if count & 63 < LITLEN_ROOT {
            refill!();
        }
        entry = root!(litlen, LITLEN_ROOT);
        copy_match(out, from, at, length);
        at += length;
    };
    state.bit = next * 8 - (count & 63) as usize;
    state.at = at;
    Ok(ended)
}

/// Copies `length` bytes from `from` to `to`, where bytes just written count; may write up to 15
/// bytes more.
#[inline(always)]
fn copy_match(out: &mut [u8], from: usize, to: usize, length: usize) {
    /// Copies by pieces that do not overlap their source.
    #[inline(always)]
    fn by<const N: usize>(out: &mut [u8], from: usize, to: usize, length: usize) {
        let mut done = 0;
        while done < length {
            let piece = out.get(from + done..).and_then(|s| s.first_chunk::<N>());
            let Some(piece) = piece.copied() else { return };
            let place = out.get_mut(to + done..).and_then(|s| s.first_chunk_mut());
            let Some(place) = place else { return };
            *place = piece;
            done += N;
        }
    }
    match to - from {
        16.. => {
            out.copy_within(from..from + 16, to);
            if length > 16 {
                by::<16>(out, from + 16, to + 16, length - 16);
            }
        }
        8.. => by::<8>(out, from, to, length),
        1 => {
            let byte = out[from];
            out[to..to + length].fill(byte);
        }
        _ => by::<1>(out, from, to, length),
    }
}

/// Decodes the symbols up to the end of the block, one by one, with every check.
#[inline(never)]
fn last_symbols(
    litlen: &[u32; LITLEN_SIZE],
    distance: &[u32; DISTANCE_SIZE],
    state: &mut State<'_>,
) -> Result<(), CodecError> {
    /// The entry for the next code, and the bits that begin with its code (within its level).
    fn next<const SIZE: usize>(
        table: &[u32; SIZE],
        root: u32,
        reader: &mut BitReader<'_>,
    ) -> (u32, u64) {
        let mut bits = reader.peek();
        let mut entry = table[bits as usize & ((1 << root) - 1)];
        if entry & LINK != 0 {
            reader.skip(root);
            bits >>= root;
            entry = linked(table, entry, bits);
        }
        reader.skip(consumed(entry));
        (entry, bits)
    }

    let mut reader = BitReader::new(state.input, state.bit);
    loop {
        let (entry, bits) = next(litlen, LITLEN_ROOT, &mut reader);
        reader.check()?;
        if entry & LITERAL != 0 {
            let wrong_length = state.wrong_length();
            *state.out.get_mut(state.at).ok_or(wrong_length)? = (entry >> 16) as u8;
            state.at += 1;
            continue;
        }
        if entry & OTHER != 0 {
            if entry & END == 0 {
                return Err(INVALID);
            }
            state.bit = reader.position();
            return Ok(());
        }
        let length = value(entry, bits);
        let (entry, bits) = next(distance, DISTANCE_ROOT, &mut reader);
        reader.check()?;
        if entry & OTHER != 0 {
            return Err(INVALID);
        }
        let from = state.at.checked_sub(value(entry, bits)).ok_or(INVALID)?;
        if length > state.out.len() - state.at {
            return Err(state.wrong_length());
        }
        for i in 0..length {
            state.out[state.at + i] = state.out[from + i];
        }
        state.at += length;
    }
}

#[cfg(test)]
mod tests;
