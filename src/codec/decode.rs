//! Decoding of one segment.

use super::{ChunkKind, CodecError, SubOffsets};

/// Decodes segments; keeps the state that is expensive to build. One per worker thread.
#[derive(Default)]
pub struct Decoder {}

impl Decoder {
    /// Decodes the whole of `compressed` into the whole of `out`.
    ///
    /// The result is what any inflate (or zstd) yields for the same bytes, or an error: sub-offsets
    /// that do not describe `compressed` exactly are an error, never other bytes.
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
        let _ = (kind, sub_offsets, compressed, out);
        todo!()
    }
}
