//! Bits as deflate orders them: least significant first (RFC 1951, section 3.1.1).

use super::CodecError;

/// Eight bytes from `at`, as a little-endian number; bytes beyond the end read as zero.
#[inline]
pub(super) fn load_padded(input: &[u8], at: usize) -> u64 {
    let rest = input.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk() {
        return u64::from_le_bytes(*word);
    }
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

/// A position in `input`, in bits.
///
/// Reading never goes wrong: what lies beyond the end reads as zero, and whoever reads checks
/// [`overrun`](BitReader::overrun) before the result is used.
#[derive(Clone, Copy)]
pub(super) struct BitReader<'a> {
    input: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// A reader that starts `position` bits into `input`.
    pub(super) fn new(input: &'a [u8], position: usize) -> BitReader<'a> {
        BitReader { input, position }
    }

    /// At least 56 bits from the position on, in the low bits.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        load_padded(self.input, self.position / 8) >> (self.position % 8)
    }

    /// Moves on by `count` bits.
    #[inline]
    pub(super) fn skip(&mut self, count: u32) {
        self.position = self.position.saturating_add(count as usize);
    }

    /// The next `count` bits (at most 32).
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let value = self.peek() & ((1 << count) - 1);
        self.skip(count);
        value as u32
    }

    /// Moves on to the next byte boundary.
    pub(super) fn align(&mut self) {
        self.position = self.position.saturating_add(7) & !7;
    }

    /// All of the input, also what lies before the position.
    pub(super) fn input(&self) -> &'a [u8] {
        self.input
    }

    /// The bytes of which nothing was read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        let next = self.position.div_ceil(8);
        self.input.get(next..).unwrap_or_default()
    }

    /// Moves on to the next byte boundary, and by `count` bytes.
    pub(super) fn skip_bytes(&mut self, count: usize) {
        self.align();
        self.position = self.position.saturating_add(count.saturating_mul(8));
    }

    /// Moves to a position, in bits.
    pub(super) fn seek(&mut self, position: usize) {
        self.position = position;
    }

    /// The position, in bits.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// True when bits beyond the end were read.
    pub(super) fn overrun(&self) -> bool {
        self.position > self.input.len().saturating_mul(8)
    }

    /// An error when bits beyond the end were read.
    pub(super) fn check(&self) -> Result<(), CodecError> {
        if self.overrun() {
            return Err(CodecError::Truncated);
        }
        Ok(())
    }
}

/// Collects bits into bytes.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `count` bits (at most 32) of `value`; its other bits are zero.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        self.pending |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Number of bits so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() * 8 + self.count as usize
    }

    /// The whole bytes, and the bits (fewer than 8) that do not fill one, with their number.
    pub(super) fn finish(self) -> (Vec<u8>, u64, u32) {
        (self.bytes, self.pending, self.count)
    }
}
