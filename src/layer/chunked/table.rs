//! The chunk table: what it says, its bytes, and the checks that make it trustworthy.
//!
//! `docs/layer-format.md` is the specification. All integers are little-endian.
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
//! ([`GZIP_HEADER`], nothing otherwise), the last ends before the framing's own end (`03 00` and the
//! 8-byte trailer for gzip, nothing otherwise). A raw layer has an empty head and tail.

use bytes::Bytes;

use crate::codec::{ChunkKind, Encoded, SubOffsets};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::limits;

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"modeloci";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 104;
const ROW_BYTES: usize = 72;

/// The header of the one gzip member that `pack` writes: no name, no time, unknown system.
pub const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The final, empty deflate block that ends the member's stream.
pub const DEFLATE_END: [u8; 2] = [0x03, 0x00];
/// Bytes after the last row of a gzip layer: [`DEFLATE_END`], CRC-32, length modulo 2^32.
pub const GZIP_END_BYTES: u64 = 10;

/// Most tar bytes before the file: its header, and a pax record for the longest path.
const MAX_HEAD_BYTES: u64 = 64 << 10;
/// Most tar bytes after the file: padding, end of archive, a record of GNU tar's default size.
const MAX_TAIL_BYTES: u64 = 64 << 10;

/// The stream around the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Framing {
    /// One gzip member.
    Gzip = 0,
    /// Concatenated zstd frames.
    Zstd = 1,
    /// No compression: a plain tar, or the file itself.
    Plain = 2,
}

impl Framing {
    /// Where the first row starts in the blob, in bytes.
    pub fn start(self) -> u64 {
        if self == Framing::Gzip {
            GZIP_HEADER.len() as u64
        } else {
            0
        }
    }

    /// How many bytes stand between the last row and the end of the data.
    pub fn end(self) -> u64 {
        if self == Framing::Gzip {
            GZIP_END_BYTES
        } else {
            0
        }
    }

    /// The kind of a row's number. An unknown number in a gzip layer is still deflate: any
    /// inflate reads it.
    fn kind(self, number: u8) -> Option<ChunkKind> {
        match (self, ChunkKind::from_u8(number)) {
            (
                Framing::Gzip,
                Some(kind @ (ChunkKind::Stored | ChunkKind::Literal | ChunkKind::Deflate)),
            ) => Some(kind),
            (Framing::Gzip, Some(ChunkKind::Zstd | ChunkKind::Plain)) => None,
            (Framing::Gzip, None) => Some(ChunkKind::Deflate),
            (Framing::Zstd, Some(ChunkKind::Zstd)) => Some(ChunkKind::Zstd),
            (Framing::Plain, Some(ChunkKind::Plain)) => Some(ChunkKind::Plain),
            _ => None,
        }
    }
}

/// What a table says before its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Algorithm of the digests in the rows: SHA-256 or BLAKE3.
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
    /// SHA-256 of the data: what the blob's own digest passes through on its way.
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
#[derive(Debug, Default)]
pub struct TableBuilder {
    rows: Vec<u8>,
}

impl TableBuilder {
    /// No rows yet.
    pub fn new() -> TableBuilder {
        TableBuilder::default()
    }

    /// Adds the next segment: head first, then the data chunks, then the tail. `offset` and
    /// `length` count compressed bytes of the blob; `digest` is that of the compressed bytes, of
    /// 32 bytes.
    pub fn push(&mut self, offset: u64, length: u32, encoded: Encoded, digest: &Digest) {
        self.rows.extend_from_slice(&offset.to_le_bytes());
        self.rows.extend_from_slice(&length.to_le_bytes());
        self.rows.push(encoded.kind as u8);
        self.rows.extend_from_slice(&[0; 7]);
        for sub_offset in encoded.sub_offsets {
            self.rows.extend_from_slice(&sub_offset.to_le_bytes());
        }
        self.rows.extend_from_slice(&digest.as_bytes()[..32]);
    }

    /// The table's bytes.
    pub fn finish(self, header: &Header) -> Vec<u8> {
        let rows = (self.rows.len() / ROW_BYTES) as u64;
        let mut out = Vec::with_capacity(HEADER_BYTES + self.rows.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(if header.algorithm == Algorithm::Sha256 {
            1
        } else {
            2
        });
        out.push(header.framing as u8);
        out.extend_from_slice(&header.chunk_size.to_le_bytes());
        for number in [
            header.file_size,
            header.file_offset,
            header.tar_size,
            header.data_size,
            rows,
            0,
            0,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&header.data_digest.as_bytes()[..32]);
        out.extend_from_slice(&self.rows);
        out
    }
}

/// A table that was checked: rows tile the data exactly, and all sizes agree.
#[derive(Debug, Clone)]
pub struct ChunkTable {
    header: Header,
    bytes: Bytes,
    /// The rows as they are stored; read in place.
    rows: Bytes,
}

impl ChunkTable {
    /// Checks `bytes` (already matched against the digest in the manifest) in full. `subject` names
    /// the layer in errors; `blob_size` bounds the data.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming the row and the rule.
    pub fn parse(bytes: Bytes, blob_size: u64, subject: &str) -> Result<ChunkTable> {
        let lies = |problem: String| Error::corrupt(subject, format!("chunk table: {problem}"));
        let header = parse_header(&bytes).map_err(lies)?;
        check_header(&header, blob_size).map_err(lies)?;
        let rows = bytes.slice(HEADER_BYTES..);
        let chunks = header.file_size.div_ceil(u64::from(header.chunk_size));
        let expected = chunks + 2;
        let found = u64_at(&bytes, 48).unwrap_or(0);
        if found != expected {
            return Err(lies(format!(
                "says it has {found} rows, a file of this size has {expected}"
            )));
        }
        if rows.len() as u64 != expected.saturating_mul(ROW_BYTES as u64) {
            return Err(lies(format!(
                "has {} bytes of rows, {expected} rows have {}",
                rows.len(),
                expected.saturating_mul(ROW_BYTES as u64)
            )));
        }
        let table = ChunkTable {
            header,
            bytes,
            rows,
        };
        table.check_rows().map_err(lies)?;
        Ok(table)
    }

    fn check_rows(&self) -> Result<(), String> {
        let framing = self.header.framing;
        let mut at = framing.start();
        for (number, bytes) in self.rows.chunks_exact(ROW_BYTES).enumerate() {
            let lies = |rule: String| format!("row {number} {rule}");
            let kind_number = bytes.get(12).copied().unwrap_or(u8::MAX);
            let row = self
                .parse_row(bytes)
                .ok_or_else(|| lies(format!("has kind {kind_number}, not one of its framing")))?;
            if bytes.get(13..20) != Some(&[0; 7]) {
                return Err(lies("has reserved bytes that are not zero".into()));
            }
            if row.offset != at {
                return Err(lies(format!(
                    "starts at {}, the one before ends at {at}",
                    row.offset
                )));
            }
            let decoded = self.decoded_len(number as u64);
            let length = u64::from(row.length);
            // No encoder expands further; a reader allocates this much.
            if length > decoded + decoded / 8 + 1024 || (decoded > 0 && length == 0) {
                return Err(lies(format!(
                    "holds {decoded} bytes in {length} compressed ones"
                )));
            }
            if row.kind == ChunkKind::Plain && length != decoded {
                return Err(lies(format!("is plain, but {decoded} bytes take {length}")));
            }
            let subs = row.sub_offsets;
            let in_order = subs.iter().zip(&subs[1..]).all(|(a, b)| a < b);
            let valid = match row.kind {
                ChunkKind::Literal => subs[0] > 0 && in_order && subs[4] < row.length,
                _ => kind_number > ChunkKind::Plain as u8 || subs == [0; 5],
            };
            if !valid {
                return Err(lies(format!("has sub-offsets {subs:?} in {length} bytes")));
            }
            at = at
                .checked_add(length)
                .ok_or_else(|| lies("overflows".into()))?;
        }
        match at.checked_add(framing.end()) {
            Some(end) if end == self.header.data_size => Ok(()),
            _ => Err(format!(
                "rows end at {at}, the data at {}",
                self.header.data_size
            )),
        }
    }

    /// The table's bytes, as they were parsed.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// What the table says before its rows.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of data chunks.
    pub fn chunks(&self) -> u64 {
        self.segments() - 2
    }

    /// Number of rows: head, data chunks, tail.
    pub fn segments(&self) -> u64 {
        (self.rows.len() / ROW_BYTES) as u64
    }

    /// The row of segment `number`: 0 is the head, `1 + k` data chunk `k`, the last the tail.
    /// `None` beyond the last.
    pub fn row(&self, number: u64) -> Option<Row> {
        let start = usize::try_from(number).ok()?.checked_mul(ROW_BYTES)?;
        self.parse_row(self.rows.get(start..start.checked_add(ROW_BYTES)?)?)
    }

    /// Decoded length of segment `number`, in bytes; 0 beyond the last.
    pub fn decoded_len(&self, number: u64) -> u64 {
        let header = &self.header;
        let size = u64::from(header.chunk_size);
        if number == 0 {
            header.file_offset
        } else if number + 1 < self.segments() {
            size.min(
                header
                    .file_size
                    .saturating_sub((number - 1).saturating_mul(size)),
            )
        } else if number + 1 == self.segments() {
            header
                .tar_size
                .saturating_sub(header.file_offset)
                .saturating_sub(header.file_size)
        } else {
            0
        }
    }

    fn parse_row(&self, bytes: &[u8]) -> Option<Row> {
        let mut sub_offsets = [0; 5];
        for (n, sub_offset) in sub_offsets.iter_mut().enumerate() {
            *sub_offset = u32_at(bytes, 20 + 4 * n)?;
        }
        let number = *bytes.get(12)?;
        if ChunkKind::from_u8(number).is_none() {
            sub_offsets = [0; 5]; // what they mean to an unknown kind is unknown too
        }
        Some(Row {
            offset: u64_at(bytes, 0)?,
            length: u32_at(bytes, 8)?,
            kind: self.header.framing.kind(number)?,
            sub_offsets,
            digest: Digest::from_bytes(self.header.algorithm, bytes.get(40..72)?)?,
        })
    }
}

fn parse_header(bytes: &[u8]) -> Result<Header, String> {
    let short = || {
        format!(
            "has {} bytes, its header alone has {HEADER_BYTES}",
            bytes.len()
        )
    };
    if bytes.get(..8) != Some(MAGIC) {
        return Err("does not begin with \"modeloci\"".into());
    }
    let version = u16_at(bytes, 8).ok_or_else(short)?;
    if version != VERSION {
        return Err(format!(
            "has version {version}, this program reads {VERSION}"
        ));
    }
    let algorithm = match bytes.get(10).ok_or_else(short)? {
        1 => Algorithm::Sha256,
        2 => Algorithm::Blake3,
        n => return Err(format!("has an unknown digest algorithm {n}")),
    };
    let framing = match bytes.get(11).ok_or_else(short)? {
        0 => Framing::Gzip,
        1 => Framing::Zstd,
        2 => Framing::Plain,
        n => return Err(format!("has an unknown framing {n}")),
    };
    if bytes.get(56..72).ok_or_else(short)? != [0; 16] {
        return Err("has reserved bytes that are not zero".into());
    }
    let number = |at| u64_at(bytes, at).ok_or_else(short);
    Ok(Header {
        algorithm,
        framing,
        chunk_size: u32_at(bytes, 12).ok_or_else(short)?,
        file_size: number(16)?,
        file_offset: number(24)?,
        tar_size: number(32)?,
        data_size: number(40)?,
        data_digest: bytes
            .get(72..HEADER_BYTES)
            .and_then(|b| Digest::from_bytes(Algorithm::Sha256, b))
            .ok_or_else(short)?,
    })
}

fn check_header(header: &Header, blob_size: u64) -> Result<(), String> {
    let Header {
        chunk_size,
        file_size,
        file_offset,
        tar_size,
        data_size,
        ..
    } = *header;
    if !(limits::MIN_CHUNK_BYTES..=limits::MAX_CHUNK_BYTES).contains(&chunk_size)
        || !chunk_size.is_power_of_two()
    {
        return Err(format!("has a chunk size of {chunk_size} bytes"));
    }
    if file_size > limits::MAX_FILE_BYTES {
        return Err(format!("has a file size of {file_size} bytes"));
    }
    let tail = tar_size
        .checked_sub(file_offset)
        .and_then(|n| n.checked_sub(file_size));
    if file_offset > MAX_HEAD_BYTES || tail.is_none_or(|tail| tail > MAX_TAIL_BYTES) {
        return Err(format!(
            "puts {file_size} bytes of file at {file_offset} of a tar of {tar_size} bytes"
        ));
    }
    if data_size > blob_size {
        return Err(format!(
            "says {data_size} bytes of data, the blob has {blob_size}"
        ));
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
