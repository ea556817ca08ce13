//! Deflate decoding (RFC 1951) that can be stopped and resumed at any symbol, to the bit.
//!
//! Other inflate libraries keep their bit position to themselves, or give it only between blocks,
//! which some writers make as long as the file. This one takes the position from its caller and
//! gives it back, so a *seek point* (see [`seek`](crate::codec::seek)) can be anywhere.
//!
//! Accepts and refuses exactly the streams that zlib does. Never panics, never reads a byte before
//! the history it was given, never writes beyond the buffer it was given.

use super::bits::{Bits, INVALID};
use super::entry::{
    KIND_COPY, KIND_END, KIND_LINK, KIND_LITERAL, KIND_PAIR, NOT_LITERALS, kind, payload,
};
use super::table::{Table, distance_entry, literal_entry};
use crate::codec::CodecError;
use crate::codec::bits::BitReader;
use crate::codec::cpu::{Cpu, multiversion};
use crate::codec::huffman::{Dialect, DynamicHeader, FIXED_DISTANCE, FIXED_LITLEN};

/// Room that [`Inflate::run`] needs in the output behind the position where it shall stop: the
/// longest match, the literals of one round, and the width of the copies.
pub(crate) const SLOP: usize = 258 + 8 + 16;
/// Input below which a block header is not begun while more is to come: the longest one has 14 bits,
/// 19 lengths of 3 bits, and 316 code lengths of up to 7 + 7 bits.
const HEADER_BYTES: usize = 640;
/// Input below which a symbol is not begun while more is to come: 48 bits, and the bits before them.
const SYMBOL_BYTES: usize = 8;
/// How far back a match reaches.
pub(crate) const WINDOW: usize = 32 << 10;

/// Where the decoder stands in a stream of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Before a block.
    Boundary,
    /// Between two symbols of a compressed block.
    Symbols,
    /// Inside a stored block, with so many bytes to go.
    Stored(u16),
    /// After the last block; the bit position is where its last code ended.
    End,
}

/// Why [`Inflate::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It needs more input than there is.
    Input,
    /// The output has reached the position asked for, at a symbol's end.
    Output,
    /// The last block has ended.
    End,
}

/// Where the output goes.
pub(crate) struct Output<'a> {
    /// What was decoded before, and room for more.
    pub(crate) bytes: &'a mut [u8],
    /// Where the next byte goes.
    pub(crate) pos: usize,
    /// The first byte that a match may refer to.
    pub(crate) history: usize,
    /// Where to stop: at the first symbol's end from here on. [`SLOP`] bytes of room must follow.
    pub(crate) stop: usize,
}

/// A deflate decoder: the state between two symbols.
pub(crate) struct Inflate {
    cpu: Cpu,
    position: Position,
    last_block: bool,
    tables: Box<Tables>,
    /// The header of the compressed block it stands in, from the byte it begins in.
    header: Vec<u8>,
    header_bit: u8,
}

impl Inflate {
    /// At the start of a stream.
    pub(crate) fn new() -> Inflate {
        Inflate {
            cpu: Cpu::detect(),
            position: Position::Boundary,
            last_block: false,
            tables: Box::default(),
            header: Vec::new(),
            header_bit: 0,
        }
    }

    /// To the start of another stream.
    pub(crate) fn reset(&mut self) {
        (self.position, self.last_block) = (Position::Boundary, false);
    }

    /// Where it stands.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// True when the block it stands in is the last one.
    pub(crate) fn in_last_block(&self) -> bool {
        self.last_block
    }

    /// The header of the block it stands in: what [`resume_symbols`](Inflate::resume_symbols) needs.
    pub(crate) fn header(&self) -> (&[u8], u8) {
        (&self.header, self.header_bit)
    }

    /// Into a stored block with `left` bytes to go.
    pub(crate) fn resume_stored(&mut self, left: u16, last_block: bool) {
        (self.position, self.last_block) = (Position::Stored(left), last_block);
    }

    /// Into a compressed block whose header stands at bit `bit` of `header`.
    ///
    /// # Errors
    /// When there is no such header.
    pub(crate) fn resume_symbols(&mut self, header: &[u8], bit: u8) -> Result<(), CodecError> {
        let mut bits = Bits::new(header, u64::from(bit));
        self.block_header(&mut bits)?;
        match (bits.overrun(), self.position) {
            (false, Position::Symbols) => Ok(()),
            _ => Err(INVALID),
        }
    }

    /// Decodes from bit `*bit` of `input` until `out` has reached its end. With `last`, nothing
    /// follows `input`; without, it stops with [`Stop::Input`] when less than the longest unit is
    /// left. What stands behind `out.pos` afterwards is unspecified.
    ///
    /// # Errors
    /// [`CodecError::Invalid`], or [`CodecError::Truncated`] when `last` input ends too early.
    pub(crate) fn run(
        &mut self,
        input: &[u8],
        bit: &mut u64,
        last: bool,
        out: &mut Output<'_>,
    ) -> Result<Stop, CodecError> {
        if out.bytes.len() < out.stop.saturating_add(SLOP) || out.history > out.pos {
            return Err(CodecError::WrongLength { expected: out.stop });
        }
        let mut bits = Bits::new(input, *bit);
        let result = self.blocks(&mut bits, last, out);
        *bit = bits.consumed();
        match result {
            Ok(_) if bits.overrun() => Err(CodecError::Truncated),
            // Zeros beyond the end can look like anything.
            Err(_) if last && bits.overrun() => Err(CodecError::Truncated),
            result => result,
        }
    }

    fn blocks(
        &mut self,
        bits: &mut Bits<'_>,
        last: bool,
        out: &mut Output<'_>,
    ) -> Result<Stop, CodecError> {
        loop {
            match self.position {
                Position::End => return Ok(Stop::End),
                _ if bits.overrun() => return Err(CodecError::Truncated),
                Position::Boundary if self.last_block => self.position = Position::End,
                _ if out.pos >= out.stop => return Ok(Stop::Output),
                Position::Boundary => {
                    if !last && bits.left() < HEADER_BYTES {
                        return Ok(Stop::Input);
                    }
                    self.block_header(bits)?;
                }
                Position::Stored(0) => self.position = Position::Boundary,
                Position::Stored(left) => {
                    let bytes = bits.take_bytes((left as usize).min(out.stop - out.pos));
                    if bytes.is_empty() {
                        return match last {
                            true => Err(CodecError::Truncated),
                            false => Ok(Stop::Input),
                        };
                    }
                    let end = out.pos + bytes.len();
                    let room = out.bytes.get_mut(out.pos..end).ok_or(INVALID)?;
                    room.copy_from_slice(bytes);
                    out.pos = end;
                    self.position = Position::Stored(left - bytes.len() as u16);
                }
                Position::Symbols => {
                    if fast(self.cpu, &self.tables, bits, out)? {
                        self.position = Position::Boundary;
                        continue;
                    }
                    match self.tables.careful(bits, last, out)? {
                        Symbols::EndOfBlock => self.position = Position::Boundary,
                        Symbols::Pause => {}
                        Symbols::Input => return Ok(Stop::Input),
                    }
                }
            }
        }
    }

    /// Reads a block header, and the tables that a dynamic block brings.
    fn block_header(&mut self, bits: &mut Bits<'_>) -> Result<(), CodecError> {
        let start = bits.consumed();
        bits.refill();
        self.last_block = bits.take(1) == 1;
        self.position = match bits.take(2) {
            0 => {
                bits.skip_to_byte();
                bits.refill();
                let (length, complement) = (bits.take(16) as u16, bits.take(16) as u16);
                if length != !complement {
                    return Err(INVALID);
                }
                Position::Stored(length)
            }
            1 => {
                self.tables.fixed()?;
                Position::Symbols
            }
            2 => {
                self.tables.dynamic(bits)?;
                Position::Symbols
            }
            _ => return Err(INVALID),
        };
        if self.position == Position::Symbols {
            let bytes = (start / 8) as usize..bits.consumed().div_ceil(8) as usize;
            let header = bits.input.get(bytes).ok_or(CodecError::Truncated)?;
            self.header.clear();
            self.header.extend_from_slice(header);
            self.header_bit = (start % 8) as u8;
        }
        Ok(())
    }
}

/// Why decoding symbol by symbol stopped.
enum Symbols {
    EndOfBlock,
    /// The output is where it shall stop, or the fast path has room again.
    Pause,
    Input,
}

const LITERAL_BITS: u32 = 11;
const DISTANCE_BITS: u32 = 9;

/// The two codes of a block.
struct Tables {
    literals: Table<{ 1 << LITERAL_BITS }>,
    distances: Table<{ 1 << DISTANCE_BITS }>,
    /// True when they are those of fixed blocks.
    are_fixed: bool,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables {
            literals: Table::new(),
            distances: Table::new(),
            are_fixed: false,
        }
    }
}

impl Tables {
    fn fixed(&mut self) -> Result<(), CodecError> {
        if self.are_fixed {
            return Ok(());
        }
        self.literals.build(&FIXED_LITLEN, false, literal_entry)?;
        self.distances
            .build(&FIXED_DISTANCE, false, distance_entry)?;
        self.are_fixed = true;
        Ok(())
    }

    fn dynamic(&mut self, bits: &mut Bits<'_>) -> Result<(), CodecError> {
        self.are_fixed = false;
        let mut reader = BitReader::new(bits.input, bits.consumed() as usize);
        let header = DynamicHeader::read(&mut reader, Dialect::Zlib);
        *bits = Bits::new(bits.input, reader.position() as u64);
        let header = header?;
        self.literals.build(&header.litlen, true, literal_entry)?;
        self.literals.pair_up();
        self.distances.build(&header.distance, true, distance_entry)
    }

    /// Decodes as long as neither input nor output is near its end; true at the end of the block.
    #[inline(always)]
    fn fast(&self, bits: &mut Bits<'_>, out: &mut Output<'_>) -> Result<bool, CodecError> {
        // One round writes at most four pairs and a match, and loads at most 16 bytes.
        let room = out.stop.saturating_sub(ROUND_OUTPUT);
        let loadable = bits.input.len().saturating_sub(ROUND_INPUT);
        let (mut at, history) = (out.pos, out.history);
        let bytes = &mut *out.bytes;
        let mut end_of_block = false;
        bits.refill();
        let mut found = self.literals.look_up(bits);
        while at < room && bits.next < loadable {
            // `found` stands for the next of at least 56 bits. A round of literals takes 44 of
            // them at most, which leaves enough to look up the next before loading more.
            let mut lookups = 0;
            while found & NOT_LITERALS == 0 && lookups < 4 {
                let pair = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
                *pair.ok_or(INVALID)? = (payload(found) as u16).to_le_bytes();
                at += 1 + (kind(found) as usize);
                bits.drop(found & 0xff);
                found = self.literals.look_up(bits);
                lookups += 1;
            }
            // A match takes up to 48 bits.
            bits.refill();
            if lookups == 4 {
                continue;
            }
            if kind(found) == KIND_LINK {
                bits.drop(LITERAL_BITS);
                found = self.literals.follow(found, bits);
            }
            if kind(found) == KIND_COPY {
                let length = bits.take_value(found);
                let distance = self.distance(bits)?;
                bits.refill();
                found = self.literals.look_up(bits);
                copy(bytes, at, distance, length, history)?;
                at += length;
                continue;
            }
            bits.drop(found & 0xff);
            match kind(found) {
                KIND_LITERAL => {
                    *bytes.get_mut(at).ok_or(INVALID)? = payload(found) as u8;
                    at += 1;
                }
                KIND_END => {
                    end_of_block = true;
                    break;
                }
                _ => return Err(INVALID),
            }
            bits.refill();
            found = self.literals.look_up(bits);
        }
        out.pos = at;
        Ok(end_of_block)
    }

    /// Decodes symbol by symbol until the fast way is open again.
    #[inline(never)]
    fn careful(
        &self,
        bits: &mut Bits<'_>,
        last: bool,
        out: &mut Output<'_>,
    ) -> Result<Symbols, CodecError> {
        loop {
            if bits.overrun() {
                return Err(CodecError::Truncated);
            }
            if out.pos >= out.stop {
                return Ok(Symbols::Pause);
            }
            if !last && bits.left() < SYMBOL_BYTES {
                return Ok(Symbols::Input);
            }
            bits.refill();
            let mut found = self.literals.look_up(bits);
            if kind(found) == KIND_LINK {
                bits.drop(LITERAL_BITS);
                found = self.literals.follow(found, bits);
            }
            match kind(found) {
                KIND_LITERAL | KIND_PAIR => {
                    *out.bytes.get_mut(out.pos).ok_or(INVALID)? = payload(found) as u8;
                    out.pos += 1;
                    bits.drop(match kind(found) {
                        KIND_PAIR => found >> 28,
                        _ => found & 0xff,
                    });
                }
                KIND_COPY => {
                    let length = bits.take_value(found);
                    let distance = self.distance(bits)?;
                    copy(out.bytes, out.pos, distance, length, out.history)?;
                    out.pos += length;
                    if out.pos + ROUND_OUTPUT < out.stop
                        && bits.next + ROUND_INPUT < bits.input.len()
                    {
                        return Ok(Symbols::Pause);
                    }
                }
                KIND_END => {
                    bits.drop(found & 0xff);
                    return Ok(Symbols::EndOfBlock);
                }
                _ => return Err(INVALID),
            }
        }
    }

    #[inline(always)]
    fn distance(&self, bits: &mut Bits<'_>) -> Result<usize, CodecError> {
        let mut found = self.distances.look_up(bits);
        if kind(found) == KIND_LINK {
            bits.drop(DISTANCE_BITS);
            found = self.distances.follow(found, bits);
        }
        if kind(found) != KIND_COPY {
            return Err(INVALID);
        }
        Ok(bits.take_value(found))
    }
}

multiversion! {
    /// [`Tables::fast`], for this machine.
    fn fast(tables: &Tables, bits: &mut Bits<'_>, out: &mut Output<'_>) -> Result<bool, CodecError> =
        |tables: &Tables, bits, out| tables.fast(bits, out)
}

/// Output of one round of the fast path: four pairs or three and a match, and what the last write
/// may spill.
const ROUND_OUTPUT: usize = 8 + 258 + 1;
/// Input that one round of the fast path may load.
const ROUND_INPUT: usize = 24;

/// Copies `length` bytes from `distance` before `at`, which may overlap. Spills up to 15 bytes.
#[inline(always)]
fn copy(
    out: &mut [u8],
    at: usize,
    distance: usize,
    length: usize,
    history: usize,
) -> Result<(), CodecError> {
    if distance > at - history {
        return Err(INVALID);
    }
    let (mut from, mut to, end) = (at - distance, at, at + length);
    if end + 16 > out.len() {
        return Err(INVALID);
    }
    if distance >= 8 {
        // Two words at once: most matches are shorter, and a loop would have to be guessed.
        copy_word(out, from, to)?;
        copy_word(out, from + 8, to + 8)?;
        if length <= 16 {
            return Ok(());
        }
        if distance >= length && length > 48 {
            out.copy_within(from..from + length, at);
            return Ok(());
        }
        (from, to) = (from + 16, to + 16);
        while to < end {
            copy_word(out, from, to)?;
            (from, to) = (from + 8, to + 8);
        }
    } else if distance == 1 {
        let byte = *out.get(from).ok_or(INVALID)?;
        out.get_mut(at..end).ok_or(INVALID)?.fill(byte);
    } else {
        while to < end {
            let byte = *out.get(from).ok_or(INVALID)?;
            *out.get_mut(to).ok_or(INVALID)? = byte;
            (from, to) = (from + 1, to + 1);
        }
    }
    Ok(())
}

#[inline(always)]
fn copy_word(out: &mut [u8], from: usize, to: usize) -> Result<(), CodecError> {
    let word = out.get(from..).and_then(<[u8]>::first_chunk::<8>).copied();
    let word = word.ok_or(INVALID)?;
    let room = out.get_mut(to..).and_then(<[u8]>::first_chunk_mut);
    *room.ok_or(INVALID)? = word;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
