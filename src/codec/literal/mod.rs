//! Literal-only deflate: Huffman codes without matches, in six sub-streams that decode interleaved.
//!
//! In the weights of a model LZ77 finds almost nothing: all that deflate gains there it gains by
//! coding single bytes. A *literal-only* segment does just that, as plain deflate that any inflate
//! reads. What makes it fast is its shape (`docs/layer-format.md` is the specification):
//!
//! ```text
//! segment:     sub-stream 0 | sub-stream 1 | ... | sub-stream 5
//! sub-stream:  dynamic block (no match, not the last) | empty stored block, to a byte boundary
//! ```
//!
//! The chunk is cut into six nearly equal parts, one per sub-stream; all six blocks have the same
//! header, thus the same code, with codes of at most 11 bits. A reader that knows where they start
//! decodes them in one loop, each lookup giving up to three literals, and the processor works on
//! six independent chains at once.
//!
//! The decoder here accepts exactly that shape and refuses everything else: it never yields bytes
//! that another inflate would not yield.

use std::ops::Range;

use super::SUB_STREAMS;
use super::huffman::END_OF_BLOCK;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod encode;
mod histogram;
mod kernel;

pub(super) use decode::LiteralDecoder;
pub(super) use encode::LiteralPlan;

/// Longest code, in bits: what one table lookup decodes.
const MAX_BITS: u8 = 11;
/// Symbols that have a code: the 256 literals and end of block.
const SYMBOLS: usize = END_OF_BLOCK + 1;
/// Lengths of the distance codes. Unused; but some readers want a complete code of at least two.
const DISTANCE_LENGTHS: [u8; 2] = [1, 1];
/// What follows the three header bits and the padding of an empty stored block: LEN and NLEN.
const SYNC: [u8; 4] = [0, 0, 0xff, 0xff];
/// Smallest input that is worth six headers.
pub(super) const MIN_INPUT: usize = 16 << 10;

/// The part of `len` input bytes that sub-stream `index` holds: `len / 6` bytes each, and one more
/// in each of the first `len % 6`.
fn part(len: usize, index: usize) -> Range<usize> {
    let start = |i: usize| len / SUB_STREAMS * i + i.min(len % SUB_STREAMS);
    start(index)..start(index + 1)
}

#[cfg(test)]
mod tests;
