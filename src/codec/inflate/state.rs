//! Where the decoder of a segment stands.

use crate::codec::CodecError;

pub(super) const INVALID: CodecError = CodecError::Invalid("deflate");

/// What is decoded, and how far.
pub(super) struct State<'a> {
    pub(super) input: &'a [u8],
    pub(super) out: &'a mut [u8],
    /// The next bit of `input`.
    pub(super) bit: usize,
    /// Where the next byte of `out` goes.
    pub(super) at: usize,
}

impl<'a> State<'a> {
    pub(super) fn new(input: &'a [u8], out: &'a mut [u8]) -> State<'a> {
        State {
            input,
            out,
            bit: 0,
            at: 0,
        }
    }

    /// Copies the stored block whose LEN stands at byte `from`; returns where it ends.
    pub(super) fn stored(&mut self, from: usize) -> Result<usize, CodecError> {
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

    pub(super) fn wrong_length(&self) -> CodecError {
        CodecError::WrongLength {
            expected: self.out.len(),
        }
    }

    pub(super) fn expect_full(&self) -> Result<(), CodecError> {
        if self.at != self.out.len() {
            return Err(self.wrong_length());
        }
        Ok(())
    }
}
