//! Encoding of one segment: the rule that chooses a kind, and the encoders behind it.

use super::{Compression, Encoded};

/// Encodes segments; keeps the state that is expensive to build. One per worker thread.
pub struct Encoder {
    compression: Compression,
}

impl Encoder {
    /// An encoder for what the user asked for. The choice depends on each chunk's bytes alone.
    pub fn new(compression: Compression) -> Encoder {
        Encoder { compression }
    }

    /// Appends the segment that holds `input` to `out`. An empty input appends nothing decodable
    /// beyond an empty segment (zero bytes for deflate kinds and plain).
    pub fn encode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Encoded {
        let _ = (input, out, self.compression);
        todo!()
    }

    /// Appends a generic segment (deflate level 6, one zstd frame, or the bytes): for tar headers
    /// and the end of the archive.
    pub fn encode_generic(&mut self, input: &[u8], out: &mut Vec<u8>) -> Encoded {
        let _ = (input, out);
        todo!()
    }
}
