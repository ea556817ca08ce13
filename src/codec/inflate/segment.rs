//! The strict decoder: of one segment.
//!
//! A segment is correct when it is a sequence of blocks none of which is marked as the last, ends
//! on a byte boundary where a block ends, and holds exactly the expected bytes. General decoders
//! cannot tell: they stop at the first last block, or run over the end of the segment into
//! whatever follows, so that a segment could mean one thing alone and another within its stream.
//! This one knows where each block begins.
//!
//! It refuses what no encoder writes and decoders treat differently (an incomplete literal code),
//! and otherwise accepts what zlib accepts.

use super::header::{BlockHeader, Body};
use super::kernel;
use super::state::{INVALID, State};
use super::tables::Tables;
use crate::codec::CodecError;
use crate::codec::cpu::Cpu;
use crate::codec::huffman::Dialect;

/// A decoder of segments; keeps the memory of its tables.
pub(in crate::codec) struct StrictInflate {
    tables: Box<Tables>,
    /// None: no inner loop, as if buffers were always near their ends. For tests to compare with.
    cpu: Option<Cpu>,
}

impl Default for StrictInflate {
    fn default() -> StrictInflate {
        StrictInflate::new(Some(Cpu::detect()))
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

impl StrictInflate {
    /// A decoder that uses the given inner loop.
    fn new(cpu: Option<Cpu>) -> StrictInflate {
        StrictInflate {
            tables: Box::new(Tables::new()),
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
        while state.bits.position() < segment.len() * 8 {
            if self.block(&mut state)? {
                return Err(INVALID);
            }
        }
        expect_full(&state)
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
            let start = state.bits.position();
            if self.block(&mut state)? {
                expect_full(&state)?;
                let end = state.bits.position();
                return Ok(LastBlock { start, end });
            }
        }
    }

    /// Decodes one block; true when it is marked as the last.
    fn block(&mut self, state: &mut State<'_>) -> Result<bool, CodecError> {
        let header = BlockHeader::read(&mut state.bits, Dialect::Common, &mut self.tables)?;
        match header.body {
            Body::Stored(length) => stored(state, length.into())?,
            Body::Symbols => self.symbols(state)?,
        }
        Ok(header.last)
    }

    /// Decodes the symbols of one block, end of block included.
    fn symbols(&self, state: &mut State<'_>) -> Result<(), CodecError> {
        if let Some(cpu) = self.cpu
            && kernel::run(cpu, &self.tables, state).ok_or(INVALID)?
        {
            return Ok(());
        }
        while !state.symbol(&self.tables)? {}
        Ok(())
    }
}

/// Copies the whole of a stored block.
fn stored(state: &mut State<'_>, length: usize) -> Result<(), CodecError> {
    if state.bits.rest().len() < length {
        return Err(CodecError::Truncated);
    }
    match state.copy_stored(length) == length {
        true => Ok(()),
        false => Err(state.wrong_length()),
    }
}

fn expect_full(state: &State<'_>) -> Result<(), CodecError> {
    match state.at == state.out.len() {
        true => Ok(()),
        false => Err(state.wrong_length()),
    }
}

#[cfg(test)]
mod tests;
