//! The proof that a layer's blob, chunk table, stream and file say the same thing.

use bytes::Bytes;

use super::{FILE_ALGORITHM, Shared};
use crate::codec::{ChunkKind, Decoder};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::layer::LayerSpec;
use crate::layer::table::{self, ChunkTable, DEFLATE_END, Framing, GZIP_HEADER};

/// Reads the blob once, in order, and checks everything there is:
///
/// - the blob against the descriptor's digest, the data against the table's;
/// - every segment against its digest, and that it decodes to the length that the table gives it;
/// - that a literal-only segment decodes to what a plain inflate makes of it, so that a scanner
///   that knows nothing of the table sees the same file;
/// - the framing: gzip header, end, CRC-32 and length; nothing between the data and the table, and
///   nothing after the footer;
/// - that only zeros follow the file in the tar.
///
/// Returns the file's digest, which the caller compares with the manifest's.
pub(super) fn verify(shared: &Shared, table: &ChunkTable, spec: &LayerSpec) -> Result<Digest> {
    let header = table.header();
    let mut blob = Hashed {
        shared,
        at: 0,
        blob: Hasher::new(spec.descriptor.digest.algorithm()),
        data: Hasher::new(header.algorithm),
        data_end: header.data_size,
    };
    let mut file = Hasher::new(FILE_ALGORITHM);
    let mut crc = crc32fast::Hasher::new();
    let mut decoder = Decoder::default();
    if header.framing == Framing::Gzip {
        blob.expect(&GZIP_HEADER, "gzip header")?;
    }
    let last = table.segments() - 1;
    for segment in 0..=last {
        let row = table
            .row(segment)
            .ok_or_else(|| shared.lies(format!("has no row {segment}")))?;
        let compressed = blob.read(row.length as usize)?;
        shared.check(&compressed, &row)?;
        let mut out = shared
            .context
            .buffers
            .take(table.decoded_len(segment) as usize);
        let mut decode = |kind, out: &mut [u8]| {
            decoder
                .decode(kind, &row.sub_offsets, &compressed, out)
                .map_err(|e| shared.lies(format!("segment at offset {}: {e}", row.offset)))
        };
        decode(row.kind, out.as_mut())?;
        if row.kind == ChunkKind::Literal {
            let mut plain = shared.context.buffers.take(out.as_ref().len());
            decode(ChunkKind::Deflate, plain.as_mut())?;
            if plain.as_ref() != out.as_ref() {
                return Err(shared.lies(format!(
                    "sub-streams at offset {} decode to other bytes than the stream",
                    row.offset
                )));
            }
        }
        crc.update(out.as_ref());
        if segment == last {
            if out.as_ref().iter().any(|byte| *byte != 0) {
                return Err(Error::corrupt(
                    &shared.subject,
                    "more than padding follows the file",
                ));
            }
        } else if segment > 0 {
            file.update(out.as_ref());
        }
    }
    if header.framing == Framing::Gzip {
        blob.expect(&DEFLATE_END, "end of the deflate stream")?;
        blob.expect(&crc.finalize().to_le_bytes(), "CRC-32")?;
        blob.expect(
            &(header.tar_size as u32).to_le_bytes(),
            "length modulo 2^32",
        )?;
    }
    if blob.data.clone().finish() != header.data_digest {
        return Err(shared.lies("its digest of the data is wrong".into()));
    }
    check_table(shared, table, &mut blob)?;
    let found = blob.blob.finish();
    if found != spec.descriptor.digest {
        return Err(Error::corrupt(
            &shared.subject,
            format!("the blob is {found}"),
        ));
    }
    Ok(file.finish())
}

/// What follows the data: the table that was read, its footer, and nothing else.
fn check_table(shared: &Shared, table: &ChunkTable, blob: &mut Hashed<'_>) -> Result<()> {
    let header = table.header();
    let rest = shared.blob.len().saturating_sub(header.data_size);
    let (expected, _) = table::wrap(header.framing, &table.to_bytes(), header.data_size);
    if rest != expected.len() as u64 {
        return Err(Error::corrupt(
            &shared.subject,
            format!(
                "{rest} bytes follow the data, the chunk table has {}",
                expected.len()
            ),
        ));
    }
    blob.expect(&expected, "chunk table")
}

/// The blob, hashed as it is read.
struct Hashed<'a> {
    shared: &'a Shared,
    at: u64,
    blob: Hasher,
    data: Hasher,
    data_end: u64,
}

impl Hashed<'_> {
    fn read(&mut self, len: usize) -> Result<Bytes> {
        let mut buffer = self.shared.context.buffers.take(len);
        self.shared.blob.read_exact_at(buffer.as_mut(), self.at)?;
        self.blob.update(buffer.as_ref());
        if self.at < self.data_end {
            self.data.update(buffer.as_ref());
        }
        self.at += len as u64;
        Ok(buffer.freeze())
    }

    fn expect(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        let at = self.at;
        if self.read(bytes.len())? != bytes {
            return Err(Error::corrupt(
                &self.shared.subject,
                format!("{what} at offset {at} is not what the content asks for"),
            ));
        }
        Ok(())
    }
}
