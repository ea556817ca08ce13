//! Where a decoder stands, and the ways to go on from there that are not worth a hurry.

use super::tables::{Symbol, Tables, Value};
use crate::codec::CodecError;
use crate::codec::bits::BitReader;

pub(super) const INVALID: CodecError = CodecError::Invalid("deflate");

/// What is decoded, and how far.
pub(super) struct State<'a> {
    /// The input, and the next bit of it.
    pub(super) bits: BitReader<'a>,
    /// The output, from the first byte that a match may refer to.
    pub(super) out: &'a mut [u8],
    /// Where the next byte of `out` goes.
    pub(super) at: usize,
    /// Where in `out` to stop: no symbol begins here or behind. The last one may end behind it, if `out`
    /// does.
    pub(super) stop: usize,
}

impl<'a> State<'a> {
    /// At the start of both, to fill the whole of `out`.
    pub(super) fn new(input: &'a [u8], out: &'a mut [u8]) -> State<'a> {
        State {
            bits: BitReader::new(input, 0),
            stop: out.len(),
            out,
            at: 0,
        }
    }

    /// Copies up to `length` bytes of a stored block, as many as there are and as fit in front of `stop`;
    /// returns how many.
    pub(super) fn copy_stored(&mut self, length: usize) -> usize {
        let data = self.bits.rest();
        let room = self.out.get_mut(self.at..self.stop).unwrap_or_default();
        let length = length.min(data.len()).min(room.len());
        room[..length].copy_from_slice(&data[..length]);
        self.bits.skip_bytes(length);
        self.at += length;
        length
    }

    /// Decodes one symbol, with every check; true when it ended the block.
    pub(super) fn symbol(&mut self, tables: &Tables) -> Result<bool, CodecError> {
        let (symbol, code) = tables.symbol(self.bits.peek()).ok_or(INVALID)?;
        match symbol {
            Symbol::Literal(byte) => {
                self.bits.skip(code);
                self.bits.check()?;
                let wrong_length = self.wrong_length();
                *self.out.get_mut(self.at).ok_or(wrong_length)? = byte;
                self.at += 1;
            }
            Symbol::End => {
                self.bits.skip(code);
                self.bits.check()?;
                return Ok(true);
            }
            Symbol::Length(length) => {
                let length = self.value(length);
                let distance = tables.distance(self.bits.peek()).ok_or(INVALID)?;
                let distance = self.value(distance);
                self.bits.check()?;
                self.copy_match(distance, length)?;
            }
        }
        Ok(false)
    }

    /// Takes the bits of a length or distance.
    fn value(&mut self, value: Value) -> usize {
        let bits = self.bits.peek();
        self.bits.skip(value.consumed() & 63);
        value.get(bits)
    }

    /// Copies `length` bytes from `distance` before, where bytes just written count.
    fn copy_match(&mut self, distance: usize, length: usize) -> Result<(), CodecError> {
        let from = self.at.checked_sub(distance).ok_or(INVALID)?;
        if length > self.out.len() - self.at {
            return Err(self.wrong_length());
        }
        for i in 0..length {
            self.out[self.at + i] = self.out[from + i];
        }
        self.at += length;
        Ok(())
    }

    pub(super) fn wrong_length(&self) -> CodecError {
        CodecError::WrongLength {
            expected: self.out.len(),
        }
    }
}
