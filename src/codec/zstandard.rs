//! Zstandard (RFC 8878): one frame per segment.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use super::CodecError;

const INVALID: CodecError = CodecError::Invalid("zstd");
/// What every frame begins with; skippable frames begin with something else.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Most bytes of a block.
const MAX_BLOCK: usize = 128 << 10;
/// Windows up to this size are accepted whatever the size of the content: the format's smallest.
const MIN_WINDOW: u64 = 1 << 10;

/// Appends a frame that holds `input`: with its size, without checksum and dictionary.
pub(super) fn encode(
    compressor: &mut Option<Compressor<'_>>,
    level: u8,
    input: &[u8],
    out: &mut Vec<u8>,
) {
    if compressor.is_none() {
        *compressor = Compressor::new(level.into()).ok();
    }
    let frame = compressor.as_mut().and_then(|c| c.compress(input).ok());
    match frame {
        Some(frame) => out.extend(frame),
        // The library fails only for want of memory.
        None => encode_raw(input, out),
    }
}

/// Appends a frame of raw blocks.
pub(super) fn encode_raw(input: &[u8], out: &mut Vec<u8>) {
    out.extend(MAGIC);
    out.push(0b1110_0000); // eight bytes of size; the window is the content
    out.extend((input.len() as u64).to_le_bytes());
    let mut blocks = input.chunks(MAX_BLOCK).peekable();
    if blocks.peek().is_none() {
        out.extend([1, 0, 0]);
    }
    while let Some(block) = blocks.next() {
        let header = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        out.extend(&header.to_le_bytes()[..3]);
        out.extend(block);
    }
}

/// Decodes the whole of `frame` into the whole of `out`.
///
/// # Errors
/// [`CodecError`] when `frame` is anything else than exactly one frame, without dictionary, that
/// states its size and holds exactly `out.len()` bytes, and whose window is no larger.
pub(super) fn decode(
    decompressor: &mut Option<Decompressor<'_>>,
    frame: &[u8],
    out: &mut [u8],
) -> Result<(), CodecError> {
    let wrong_length = CodecError::WrongLength {
        expected: out.len(),
    };
    if frame.len() < 6 {
        return Err(CodecError::Truncated);
    }
    if !frame.starts_with(&MAGIC) || zstd_safe::get_dict_id_from_frame(frame).is_some() {
        return Err(INVALID);
    }
    match zstd_safe::find_frame_compressed_size(frame) {
        Ok(size) if size == frame.len() => {}
        Ok(_) => return Err(INVALID),
        Err(_) => return Err(CodecError::Truncated),
    }
    match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) if usize::try_from(size) == Ok(out.len()) => {}
        Ok(Some(_)) => return Err(wrong_length),
        _ => return Err(INVALID),
    }
    if window(frame).is_some_and(|window| window > (out.len() as u64).max(MIN_WINDOW)) {
        return Err(INVALID);
    }
    let decompressor = match decompressor {
        Some(decompressor) => decompressor,
        None => decompressor.insert(Decompressor::new().map_err(|_| INVALID)?),
    };
    match decompressor.decompress_to_buffer(frame, out) {
        Ok(size) if size == out.len() => Ok(()),
        Ok(_) => Err(wrong_length),
        Err(_) => Err(INVALID),
    }
}

/// The window that a frame declares (RFC 8878, section 3.1.1.1.2); `None` when it is the content.
fn window(frame: &[u8]) -> Option<u64> {
    let [_, _, _, _, descriptor, window, ..] = *frame else {
        return None;
    };
    if descriptor & 0x20 != 0 {
        return None;
    }
    let base = 1u64 << (10 + (window >> 3));
    Some(base + base / 8 * u64::from(window & 7))
}
