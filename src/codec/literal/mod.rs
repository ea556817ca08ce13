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

#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod encode;
mod histogram;
mod kernel;
mod shape;

pub(super) use decode::LiteralDecoder;
pub(super) use encode::LiteralPlan;
pub(super) use shape::MIN_INPUT;

#[cfg(test)]
mod tests;
