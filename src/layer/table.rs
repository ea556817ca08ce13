//! The chunk table: what it says, its bytes, and the checks that make it trustworthy.
//!
//! All integers are little-endian. `docs/layer-format.md` is the specification.
//!
//! ```text
//! header, 104 bytes                          row, 72 bytes
//!   0  8  magic "modeloci"                     0  8  offset in the blob
//!   8  2  version = 1                          8  4  compressed length
//!  10  1  digest algorithm: 1 SHA-256,        12  1  kind (ChunkKind)
//!         2 BLAKE3                            13  7  zero
//!  11  1  framing: 0 gzip, 1 zstd, 2 plain    20 20  sub-offsets 1..=5, 4 bytes each
//!  12  4  chunk size C                        40 32  digest of the compressed bytes
//!  16  8  file size
//!  24  8  offset of the file in the tar
//!  32  8  length of the whole tar
//!  40  8  length of the data in the blob
//!  48  8  number of rows
//!  56 16  zero
//!  72 32  digest of the data, blob bytes 0..length
//! ```
//!
//! Row 0 is the head (tar headers), the last row the tail (padding, end of archive), those between
//! are data chunks 0, 1, ... Rows are contiguous: the first starts after the framing's own header
//! (10 bytes for gzip, 0 otherwise), the last ends before the framing's own end (`03 00` and the
//! 8-byte trailer for gzip, nothing otherwise). A raw layer has empty head and tail.

use crate::codec::{ChunkKind, Encoded, SubOffsets};
use crate::digest::{Algorithm, Digest};
use crate::error::Result;

/// The stream around the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Framing {
    /// One gzip member.
    Gzip = 0,
    /// Concatenated zstd frames.
    Zstd = 1,
    /// No compression: a plain tar, or the file itself.
    Plain = 2,
}

/// What a table says before its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Algorithm of every digest in the table: SHA-256 or BLAKE3.
    pub algorithm: Algorithm,
    /// The stream around the chunks.
    pub framing: Framing,
    /// Data chunk size, in bytes of the file.
    pub chunk_size: u32,
    /// Size of the file, in bytes.
    pub file_size: u64,
    /// Where the file starts in the tar, in bytes.
    pub file_offset: u64,
    /// Length of the tar, in bytes.
    pub tar_size: u64,
    /// Length of the data in the blob, in compressed bytes.
    pub data_size: u64,
    /// Digest of the data.
    pub data_digest: Digest,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where its compressed bytes start in the blob.
    pub offset: u64,
    /// How many compressed bytes there are.
    pub length: u32,
    /// How they are stored.
    pub kind: ChunkKind,
    /// Where sub-streams start.
    pub sub_offsets: SubOffsets,
    /// Digest of the compressed bytes.
    pub digest: Digest,
}

/// Collects rows while a layer is written.
pub struct TableBuilder {
    rows: Vec<u8>,
}

impl TableBuilder {
    /// No rows yet.
    pub fn new() -> TableBuilder {
        TableBuilder { rows: Vec::new() }
    }

    /// Adds the next segment: head first, then the data chunks, then the tail.
    pub fn push(&mut self, offset: u64, length: u32, encoded: Encoded, digest: &Digest) {
        let _ = (offset, length, encoded, digest, &mut self.rows);
        todo!()
    }

    /// The table's bytes.
    pub fn finish(self, header: &Header) -> Vec<u8> {
        let _ = header;
        todo!()
    }
}

/// A table that was checked: rows tile the data exactly, and all sizes agree.
#[derive(Debug)]
pub struct ChunkTable {
    header: Header,
    rows: bytes::Bytes,
}

impl ChunkTable {
    /// Checks `bytes` (already matched against the digest in the manifest) in full.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming the row and the rule.
    pub fn parse(bytes: bytes::Bytes, blob_size: u64, subject: &str) -> Result<ChunkTable> {
        let _ = (bytes, blob_size, subject);
        todo!()
    }

    /// What the table says before its rows.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of data chunks.
    pub fn chunks(&self) -> u32 {
        let _ = &self.rows;
        todo!()
    }
}

/// The table's bytes as they stand after the data: for gzip, empty members with FEXTRA and the
/// footer; for zstd, skippable frames. Plain layers keep the table in a blob of its own.
///
/// `data_size` is the offset in the blob at which the result will stand.
pub fn wrap(framing: Framing, table: &[u8], data_size: u64) -> Vec<u8> {
    let _ = (framing, table, data_size);
    todo!()
}
