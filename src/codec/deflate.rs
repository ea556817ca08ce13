//! Generic deflate: LZ77 and Huffman codes by libdeflate, made into a segment.
//!
//! libdeflate compresses better and several times faster than zlib, but it writes complete streams
//! only. What makes a stream a segment is small: clear the mark of its last block, and append an
//! empty stored block, which ends on a byte boundary. To find that block the stream is decoded,
//! which proves on the way that it holds the input.

use libdeflater::{CompressionLvl, Compressor};

use super::inflate::{LastBlock, StrictInflate};

/// Compresses at one level; keeps its memory.
pub(super) struct DeflateEncoder {
    compressor: Compressor,
    inflater: StrictInflate,
    decoded: Vec<u8>,
}

impl DeflateEncoder {
    /// An encoder at a level from 1 to 9.
    pub(super) fn new(level: u8) -> DeflateEncoder {
        DeflateEncoder {
            compressor: compressor(level),
            inflater: StrictInflate::default(),
            decoded: Vec::new(),
        }
    }

    /// Appends the segment that holds `input` if it is smaller than `limit` bytes; else appends
    /// nothing and returns false.
    pub(super) fn encode(&mut self, input: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        let base = out.len();
        out.resize(base + limit, 0);
        let size = self.compressor.deflate_compress(input, &mut out[base..]);
        let segment = size.ok().and_then(|size| {
            out.truncate(base + size);
            self.decoded.resize(input.len(), 0);
            let last = self.inflater.stream(&out[base..], &mut self.decoded).ok()?;
            (self.decoded == input).then_some(last)
        });
        if let Some(LastBlock { start, end }) = segment {
            out[base + start / 8] &= !(1 << (start % 8));
            // Three zero bits, and zeros to the byte boundary: what is left of the last byte is
            // zero already.
            out.resize(base + (end + 3).div_ceil(8), 0);
            out.extend([0, 0, 0xff, 0xff]);
            if out.len() - base < limit {
                return true;
            }
        }
        out.truncate(base);
        false
    }
}

/// How well LZ77 does on a sample.
pub(super) struct Probe {
    compressor: Compressor,
    buffer: Vec<u8>,
}

impl Probe {
    /// A probe at a level from 1 to 9.
    pub(super) fn new(level: u8) -> Probe {
        Probe {
            compressor: compressor(level),
            buffer: Vec::new(),
        }
    }

    /// The size of `sample` as a deflate stream, in bytes.
    pub(super) fn size(&mut self, sample: &[u8]) -> usize {
        let bound = self.compressor.deflate_compress_bound(sample.len());
        self.buffer.resize(bound, 0);
        match self.compressor.deflate_compress(sample, &mut self.buffer) {
            Ok(size) => size,
            Err(_) => sample.len(),
        }
    }
}

/// A compressor for a level from 1 to 9 as zlib counts them. At level 6 libdeflate writes up to
/// 1.7 % more than `pigz -6` (JSON in chunks of 1 MiB); its next level at most 0.6 % more, and still
/// takes less time. The levels around it are shifted alike.
fn compressor(level: u8) -> Compressor {
    let level = match level {
        0..=3 => level.max(1),
        4..=8 => level + 1,
        9.. => 10,
    };
    Compressor::new(CompressionLvl::new(level.into()).unwrap_or_default())
}
