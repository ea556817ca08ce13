//! The decoder of anyone's streams: it can be stopped and resumed at any symbol, to the bit.
//!
//! Other inflate libraries keep their bit position to themselves, or give it only between blocks,
//! which some writers make as long as the file. This one takes the position from its caller and
//! gives it back, so a *seek point* (see [`seek`](crate::codec::seek)) can be anywhere.
//!
//! Accepts and refuses exactly the streams that zlib does. Never panics, never reads a byte before
//! the history it was given, never writes beyond the buffer it was given.

use super::header::{BlockHeader, Body};
use super::kernel;
use super::state::{INVALID, State};
use super::tables::Tables;
use crate::codec::CodecError;
use crate::codec::bits::BitReader;
use crate::codec::cpu::Cpu;
use crate::codec::huffman::Dialect;

/// Room that [`Inflate::run`] needs in the output behind the position where it shall stop: for the
/// longest match, and for what the inner loop writes beyond what it decodes.
pub(crate) const SLOP: usize = kernel::OUTPUT_MARGIN - kernel::BEFORE_STOP;
/// Input below which a block header is not begun while more is to come: the longest one has 17 bits,
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
            tables: Box::new(Tables::new()),
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
        let mut bits = BitReader::new(header, bit.into());
        match self.block_header(&mut bits) {
            Ok(()) if self.position == Position::Symbols => Ok(()),
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
        let mut state = State {
            bits: BitReader::new(input, usize::try_from(*bit).unwrap_or(usize::MAX)),
            out: out.bytes.get_mut(out.history..).unwrap_or_default(),
            at: out.pos - out.history,
            stop: out.stop.saturating_sub(out.history),
        };
        let result = self.blocks(&mut state, last);
        *bit = state.bits.position() as u64;
        out.pos = out.history + state.at;
        match result {
            Ok(_) if state.bits.overrun() => Err(CodecError::Truncated),
            // Zeros beyond the end can look like anything.
            Err(_) if last && state.bits.overrun() => Err(CodecError::Truncated),
            result => result,
        }
    }

    fn blocks(&mut self, state: &mut State<'_>, last: bool) -> Result<Stop, CodecError> {
        loop {
            match self.position {
                Position::End => return Ok(Stop::End),
                _ if state.bits.overrun() => return Err(CodecError::Truncated),
                Position::Boundary if self.last_block => self.position = Position::End,
                _ if state.at >= state.stop => return Ok(Stop::Output),
                Position::Boundary => {
                    if !last && state.bits.rest().len() < HEADER_BYTES {
                        return Ok(Stop::Input);
                    }
                    self.block_header(&mut state.bits)?;
                }
                Position::Stored(0) => self.position = Position::Boundary,
                Position::Stored(left) => {
                    let copied = state.copy_stored(left.into());
                    if copied == 0 {
                        return match last {
                            true => Err(CodecError::Truncated),
                            false => Ok(Stop::Input),
                        };
                    }
                    self.position = Position::Stored(left - copied as u16);
                }
                Position::Symbols => match self.symbols(state, last)? {
                    Some(stop) => return Ok(stop),
                    None => self.position = Position::Boundary,
                },
            }
        }
    }

    /// Decodes the symbols of a block; `None` at its end.
    fn symbols(&self, state: &mut State<'_>, last: bool) -> Result<Option<Stop>, CodecError> {
        if kernel::run(self.cpu, &self.tables, state).ok_or(INVALID)? {
            return Ok(None);
        }
        loop {
            if state.at >= state.stop {
                return Ok(Some(Stop::Output));
            }
            if !last && state.bits.rest().len() < SYMBOL_BYTES {
                return Ok(Some(Stop::Input));
            }
            if state.symbol(&self.tables)? {
                return Ok(None);
            }
        }
    }

    /// Reads a block header, and keeps the one of a compressed block.
    fn block_header(&mut self, bits: &mut BitReader<'_>) -> Result<(), CodecError> {
        let start = bits.position();
        let header = BlockHeader::read(bits, Dialect::Zlib, &mut self.tables)?;
        self.last_block = header.last;
        self.position = match header.body {
            Body::Stored(length) => Position::Stored(length),
            Body::Symbols => {
                let bytes = start / 8..bits.position().div_ceil(8);
                let header = bits.input().get(bytes).ok_or(CodecError::Truncated)?;
                self.header.clear();
                self.header.extend_from_slice(header);
                self.header_bit = (start % 8) as u8;
                Position::Symbols
            }
        };
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
