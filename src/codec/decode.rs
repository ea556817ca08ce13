//! Decoding of one segment.

use super::inflate::StrictInflate;
use super::literal::LiteralDecoder;
use super::{ChunkKind, CodecError, SubOffsets, stored, zstandard};

/// Decodes segments; keeps the state that is expensive to build. One per worker thread.
#[derive(Default)]
pub struct Decoder {
    literal: LiteralDecoder,
    inflater: Option<StrictInflate>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// Decodes the whole of `compressed` into the whole of `out`.
    ///
    /// The result is what any inflate (or zstd) yields for the same bytes, or an error: sub-offsets
    /// that do not describe `compressed` exactly are an error, never other bytes. A deflate segment
    /// must also end where a block ends, on a byte boundary, with no block marked as the last, so
    /// that it means the same alone and within its stream.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are damaged or do not decode to exactly `out.len()` bytes;
    /// `out` is then unspecified.
    pub fn decode(
        &mut self,
        kind: ChunkKind,
        sub_offsets: &SubOffsets,
        compressed: &[u8],
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        if kind != ChunkKind::Literal && *sub_offsets != SubOffsets::default() {
            return Err(CodecError::Invalid("single-part"));
        }
        match kind {
            ChunkKind::Stored => stored::decode(compressed, out),
            ChunkKind::Literal => self.literal.decode(sub_offsets, compressed, out),
            ChunkKind::Deflate => {
                let inflater = self.inflater.get_or_insert_with(StrictInflate::default);
                inflater.segment(compressed, out)
            }
            ChunkKind::Zstd => zstandard::decode(&mut self.zstd, compressed, out),
            ChunkKind::Plain if compressed.len() == out.len() => {
                out.copy_from_slice(compressed);
                Ok(())
            }
            ChunkKind::Plain => Err(CodecError::WrongLength {
                expected: out.len(),
            }),
        }
    }
}
