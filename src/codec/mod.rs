//! Compression of single chunks, and the framing that makes them one standard gzip or zstd stream.
//!
//! A closed set: every way in which a chunk can be stored is a [`ChunkKind`]. An encoder appends a
//! *segment* that decodes alone: no back-reference leaves it, and it ends on a byte boundary. A
//! deflate segment followed by `03 00` is a complete deflate stream.

mod bits;
mod cpu;
mod decode;
mod deflate;
mod encode;
mod error;
pub(crate) mod frames;
pub mod gzip;
mod huffman;
pub(crate) mod inflate;
mod kinds;
mod literal;
pub mod seek;
pub(crate) mod stored;
mod zstandard;

pub use decode::Decoder;
pub use encode::Encoder;
pub use error::CodecError;
pub use kinds::{ChunkKind, Compression, Encoded, SUB_STREAMS, SubOffsets};

use std::io::{self, Read};

/// What a gzip stream decodes to, as layers are read: for fuzzing.
#[doc(hidden)]
pub fn gunzip(source: impl Read) -> impl Read {
    gzip::Gunzip::new(source, None)
}

/// What a zstd stream decodes to, as layers are read: for fuzzing.
#[doc(hidden)]
pub fn unzstd(source: impl Read) -> io::Result<impl Read> {
    frames::Frames::new(source, None, Box::new(|_| Ok(())))
}

#[cfg(test)]
mod tests;
