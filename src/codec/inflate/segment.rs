//! A strict inflate (RFC 1951) for one segment.
//!
//! A segment is correct when it is a sequence of blocks none of which is marked as the last, ends
//! on a byte boundary where a block ends, and holds exactly the expected bytes. General decoders
//! cannot tell: they stop at the first last block, or run over the end of the segment into
//! whatever follows, so that a segment could mean one thing alone and another within its stream.
//! This one knows where each block begins.
//!
//! Where neither buffer is near its end, the symbols are decoded by the inner loop of [`kernel`],
//! and elsewhere one by one. Both are safe code.
//!
//! It refuses what no encoder writes and decoders treat differently (an incomplete literal code),
//! and otherwise accepts what zlib accepts.

use super::kernel;
use super::state::{INVALID, State};
use super::tables::{Symbol, Tables};
use crate::codec::CodecError;
use crate::codec::bits::BitReader;
use crate::codec::cpu::Cpu;
use crate::codec::huffman::{Dialect, DynamicHeader, FIXED_DISTANCE, FIXED_LITLEN};

/// The tables of one block, and the choice of the inner loop.
pub(in crate::codec) struct Inflater {
    tables: Box<Tables>,
    /// Whether the tables are those of the fixed codes.
    fixed: bool,
    /// None: no inner loop, as if buffers were always near their ends. For tests to compare with.
    cpu: Option<Cpu>,
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new(Some(Cpu::detect()))
    }
}

/// Where the last block stands in a deflate stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec) struct LastBlock {
    /// Its first bit: the mark that it is the last.
    pub(in crate::codec) start: usize,
    /// The first bit after its end.
    pub(in crate::codec) end: usize,
}

impl Inflater {
    /// An inflater that uses the given inner loop.
    fn new(cpu: Option<Cpu>) -> Inflater {
        Inflater {
            tables: Box::new(Tables::new()),
            fixed: false,
            cpu,
        }
    }

    /// Decodes the whole of a segment into the whole of `out`.
    ///
    /// # Errors
    /// [`CodecError`] when `segment` is no correct segment of exactly `out.len()` bytes.
    pub(in crate::codec) fn segment(
        &mut self,
        segment: &[u8],
        out: &mut [u8],
    ) -> Result<(), CodecError> {
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
    pub(in crate::codec) fn stream(
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
            0b01 => {
                if !self.fixed {
                    self.tables.set(&FIXED_LITLEN, &FIXED_DISTANCE);
                    self.fixed = true;
                }
            }
            0b10 => {
                let header = DynamicHeader::read(&mut bits, Dialect::Common)?;
                self.fixed = false;
                self.tables.set(&header.litlen, &header.distance);
            }
            _ => return Err(INVALID),
        }
        state.bit = bits.position();
        self.symbols(state)?;
        Ok(last)
    }

    /// Decodes the symbols of one block, end of block included.
    fn symbols(&self, state: &mut State<'_>) -> Result<(), CodecError> {
        if let Some(cpu) = self.cpu
            && kernel::run(cpu, &self.tables, state).ok_or(INVALID)?
        {
            return Ok(());
        }
        last_symbols(&self.tables, state)
    }
}

/// Decodes the symbols up to the end of the block, one by one, with every check.
fn last_symbols(tables: &Tables, state: &mut State<'_>) -> Result<(), CodecError> {
    let mut reader = BitReader::new(state.input, state.bit);
    loop {
        let bits = reader.peek();
        let (symbol, code) = tables.symbol(bits).ok_or(INVALID)?;
        let length = match symbol {
            Symbol::Literal(byte) => {
                reader.skip(code);
                reader.check()?;
                let wrong_length = state.wrong_length();
                *state.out.get_mut(state.at).ok_or(wrong_length)? = byte;
                state.at += 1;
                continue;
            }
            Symbol::End => {
                reader.skip(code);
                reader.check()?;
                state.bit = reader.position();
                return Ok(());
            }
            Symbol::Length(length) => length,
        };
        reader.skip(length.consumed() & 63);
        let length = length.get(bits);
        let bits = reader.peek();
        let distance = tables.distance(bits).ok_or(INVALID)?;
        reader.skip(distance.consumed() & 63);
        reader.check()?;
        let from = state.at.checked_sub(distance.get(bits)).ok_or(INVALID)?;
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
