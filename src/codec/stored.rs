//! Stored deflate blocks (RFC 1951, section 3.2.4): bytes as they are, in pieces.

use super::CodecError;

/// Most bytes of one stored block.
const MAX_BLOCK: usize = 65_535;
/// Bytes in front of the data of a block that starts on a byte boundary.
const HEADER: usize = 5;

/// Size of the segment that holds `len` bytes, in bytes.
pub(super) fn size(len: usize) -> usize {
    len.saturating_add(len.div_ceil(MAX_BLOCK).saturating_mul(HEADER))
}

/// Appends the segment that holds `input`: as few blocks as possible, each but the last full.
pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    out.reserve(size(input.len()));
    for block in input.chunks(MAX_BLOCK) {
        let len = block.len() as u16;
        out.push(0);
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(block);
    }
}

/// Decodes the whole of `segment` into the whole of `out`.
///
/// # Errors
/// [`CodecError`] when `segment` is anything else than stored blocks, none marked as the last,
/// with zeros as padding, that hold exactly `out.len()` bytes.
pub(super) fn decode(segment: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let wrong_length = CodecError::WrongLength {
        expected: out.len(),
    };
    let (mut segment, mut out) = (segment, out);
    while let Some((&header, rest)) = segment.split_first() {
        let (&[a, b, c, d], rest) = rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        let len = u16::from_le_bytes([a, b]);
        if header != 0 || len != !u16::from_le_bytes([c, d]) {
            return Err(CodecError::Invalid("stored deflate"));
        }
        let len = usize::from(len);
        let (data, rest) = rest.split_at_checked(len).ok_or(CodecError::Truncated)?;
        let (to, free) = out.split_at_mut_checked(len).ok_or(wrong_length)?;
        to.copy_from_slice(data);
        (segment, out) = (rest, free);
    }
    if !out.is_empty() {
        return Err(wrong_length);
    }
    Ok(())
}
