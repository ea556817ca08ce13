//! The shape of a literal-only segment.

use std::ops::Range;

use crate::codec::SUB_STREAMS;
use crate::codec::huffman::END_OF_BLOCK;

/// Longest code, in bits: what one table lookup decodes.
pub(super) const MAX_BITS: u8 = 11;
/// Symbols that have a code: the 256 literals and end of block.
pub(super) const SYMBOLS: usize = END_OF_BLOCK + 1;
/// Lengths of the distance codes. Unused; but some readers want a complete code of at least two.
pub(super) const DISTANCE_LENGTHS: [u8; 2] = [1, 1];
/// What follows the three header bits and the padding of an empty stored block: LEN and NLEN.
pub(super) const SYNC: [u8; 4] = [0, 0, 0xff, 0xff];
/// Smallest input that is worth six headers.
pub(in crate::codec) const MIN_INPUT: usize = 16 << 10;

/// The part of `len` input bytes that sub-stream `index` holds: `len / 6` bytes each, and one more
/// in each of the first `len % 6`.
pub(super) fn part(len: usize, index: usize) -> Range<usize> {
    let start = |i: usize| len / SUB_STREAMS * i + i.min(len % SUB_STREAMS);
    start(index)..start(index + 1)
}
