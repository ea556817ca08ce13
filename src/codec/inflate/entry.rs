//! One entry of a decoding table.

// A table entry: `length | payload << 8 | kind << 24`. The length is the number of bits of the code
// (or codes) and of the extra bits behind it; for a link it is that of the second lookup. The
// payload is 16 bits.
pub(super) const KIND_LITERAL: u32 = 0; // payload: the byte
pub(super) const KIND_PAIR: u32 = 1; // payload: two bytes; bits 28..32: length of the first code
pub(super) const KIND_COPY: u32 = 2; // payload: base; bits 28..32: length of the code
pub(super) const KIND_END: u32 = 3;
pub(super) const KIND_LINK: u32 = 4; // payload: where in `links`
pub(super) const KIND_INVALID: u32 = 5;

pub(super) const fn entry(kind: u32, payload: u32, length: u32) -> u32 {
    length | payload << 8 | kind << 24
}

pub(super) const fn kind(entry: u32) -> u32 {
    entry >> 24 & 15
}

pub(super) const fn payload(entry: u32) -> usize {
    (entry >> 8 & 0xffff) as usize
}

/// The bits of the kind that are zero for literals and pairs.
pub(super) const NOT_LITERALS: u32 = 14 << 24;
