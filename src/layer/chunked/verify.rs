//! The proof that a layer's blob, chunk table, stream and file say the same thing.

use std::sync::Arc;

use bytes::Bytes;

use super::chunks::Chunks;
use super::line::{Line, Taker};
use super::table::{ChunkTable, DEFLATE_END, Framing, GZIP_HEADER, Row};
use super::wrap;
use crate::codec::{ChunkKind, Decoder, SubOffsets};
use crate::digest::{Algorithm, Hasher};
use crate::error::{Error, Result};
use crate::layer::file_digests::{FileDigests, FileHasher};
use crate::layer::reader::LayerSpec;
use crate::memory::buffers::Buffer;
use crate::memory::limiter::{Term, Unit};
use crate::memory::shared_work::{Help, Helpers};

/// Layers of fewer segments are not worth anybody's help.
const MIN_PARALLEL_SEGMENTS: u64 = 8;
/// More helpers have nothing to do: one thread reads and hashes the blob.
const MOST_HELPERS: usize = 16;

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
/// Whoever has time for it helps to decode the segments, and to hash them in order. A segment is read when
/// the limiter has granted the memory for it and for what it decodes to. Returns the file's digests, which
/// the caller compares with the manifest's.
pub(super) fn verify(
    shared: &Arc<Chunks>,
    table: &ChunkTable,
    spec: &LayerSpec,
    also: &[Algorithm],
    helpers: &Helpers,
) -> Result<FileDigests> {
    let wanted = match table.segments() {
        0..MIN_PARALLEL_SEGMENTS => 0,
        _ => MOST_HELPERS,
    };
    let most = wanted.min(helpers.others());
    let order = InOrder::new(&shared.subject, table, also);
    let segments = Arc::new(Segments {
        line: Line::new(2 * most + 2, order, &shared.subject),
        shared: Arc::clone(shared),
    });
    let offered: Arc<dyn Help> = Arc::<Segments>::clone(&segments);
    let _offered = (most > 0).then(|| helpers.offer(offered, most));
    let line = &segments.line;
    let mut decode = decoder(shared);
    let read = {
        let _ended = Ended(line);
        let algorithm = spec.stated.digest.algorithm();
        read_blob(shared, table, algorithm, line, &mut decode)
    };
    // A reader that stopped early did so because of an error in a segment: that one counts.
    let order = line.finish(&mut decode)?;
    finish(shared, table, spec, read?, order.finish())
}

/// The segments of a layer under way.
struct Segments {
    line: Line<Job, InOrder>,
    shared: Arc<Chunks>,
}

impl Help for Segments {
    fn help(&self) {
        self.line.help(&mut decoder(&self.shared));
    }
}

/// Nothing comes any more, whatever has become of the reader.
struct Ended<'a>(&'a Line<Job, InOrder>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// One segment on its way to a decoder, with the memory for it.
struct Job {
    row: Row,
    /// Its compressed bytes; then room for what it decodes to by another way.
    read: Buffer,
    decoded: Buffer,
    _unit: Unit,
}

/// Reads the segments in order, hashes the blob, and hands them on as long as they are wanted.
fn read_blob<'a>(
    shared: &'a Chunks,
    table: &ChunkTable,
    algorithm: Algorithm,
    line: &Line<Job, InOrder>,
    decode: &mut impl FnMut(Job) -> Result<Bytes>,
) -> Result<Hashed<'a>> {
    let header = table.header();
    let mut blob = Hashed {
        shared,
        at: 0,
        blob: Hasher::new(algorithm),
        data: (algorithm != Algorithm::Sha256).then(|| Hasher::new(Algorithm::Sha256)),
        data_end: header.data_size,
    };
    if header.framing == Framing::Gzip {
        blob.expect(&GZIP_HEADER, "gzip header")?;
    }
    for segment in 0..table.segments() {
        let row = table
            .row(segment)
            .ok_or_else(|| shared.lies(format!("has no row {segment}")))?;
        let (length, decoded) = (row.length as usize, table.decoded_len(segment) as usize);
        let again = if decodes_twice(&row) { decoded } else { 0 };
        let buffers = &shared.context.buffers;
        let memory = line.memory(
            decode,
            || buffers.try_unit(decoded, length + again, Term::Short),
            || buffers.take_unit(decoded, length + again, Term::Short, &shared.subject),
        )?;
        let Some((unit, decoded, mut read)) = memory else {
            break; // hashing met an error, and is the one to report it
        };
        blob.read(read.as_mut().get_mut(..length).unwrap_or_default())?;
        line.push(Job {
            row,
            read,
            decoded,
            _unit: unit,
        });
    }
    Ok(blob)
}

/// True for a segment that has sub-streams, which have to say what the whole says.
fn decodes_twice(row: &Row) -> bool {
    row.kind == ChunkKind::Literal
}

/// Decodes one segment after the other.
fn decoder(shared: &Chunks) -> impl FnMut(Job) -> Result<Bytes> + '_ {
    let mut decoder = Decoder::default();
    move |job| decode(shared, job, &mut decoder)
}

fn decode(shared: &Chunks, mut job: Job, decoder: &mut Decoder) -> Result<Bytes> {
    let row = &job.row;
    let read = job.read.as_mut();
    let (compressed, again) = read
        .split_at_mut_checked(row.length as usize)
        .unwrap_or_default();
    shared.check(compressed, row)?;
    let mut decode = |kind, sub_offsets: &SubOffsets, out: &mut [u8]| {
        decoder
            .decode(kind, sub_offsets, compressed, out)
            .map_err(|e| shared.lies(format!("segment at offset {}: {e}", row.offset)))
    };
    decode(row.kind, &row.sub_offsets, job.decoded.as_mut())?;
    if decodes_twice(row) {
        decode(ChunkKind::Deflate, &[0; 5], again)?;
        if again != job.decoded.as_ref() {
            return Err(shared.lies(format!(
                "sub-streams at offset {} decode to other bytes than the stream",
                row.offset
            )));
        }
    }
    Ok(job.decoded.freeze())
}

/// What is known once every segment is decoded.
struct Stream {
    file: FileDigests,
    crc: u32,
}

/// Hashes the segments in their order.
struct InOrder {
    /// Names the layer in messages.
    subject: String,
    file: FileHasher,
    crc: crc32fast::Hasher,
    segment: u64,
    last: u64,
}

impl InOrder {
    fn new(subject: &str, table: &ChunkTable, also: &[Algorithm]) -> InOrder {
        InOrder {
            subject: subject.into(),
            file: FileHasher::new(also),
            crc: crc32fast::Hasher::new(),
            segment: 0,
            last: table.segments().saturating_sub(1),
        }
    }

    fn finish(self) -> Stream {
        Stream {
            file: self.file.finish(),
            crc: self.crc.finalize(),
        }
    }
}

impl Taker for InOrder {
    fn take(&mut self, segment: &[u8]) -> Result<()> {
        self.crc.update(segment);
        if self.segment == self.last && segment.iter().any(|byte| *byte != 0) {
            return Err(Error::corrupt(
                &self.subject,
                "more than padding follows the file",
            ));
        }
        if self.segment > 0 && self.segment < self.last {
            self.file.update(segment);
        }
        self.segment += 1;
        Ok(())
    }
}

/// What follows the last segment: the end of the framing, the table that was read, its footer, and
/// nothing else.
fn finish(
    shared: &Chunks,
    table: &ChunkTable,
    spec: &LayerSpec,
    mut blob: Hashed<'_>,
    stream: Stream,
) -> Result<FileDigests> {
    let header = table.header();
    if header.framing == Framing::Gzip {
        blob.expect(&DEFLATE_END, "end of the deflate stream")?;
        blob.expect(&stream.crc.to_le_bytes(), "CRC-32")?;
        blob.expect(
            &(header.tar_size as u32).to_le_bytes(),
            "length modulo 2^32",
        )?;
    }
    let so_far = blob.data.as_ref().unwrap_or(&blob.blob);
    if so_far.clone().finish() != header.data_digest {
        return Err(shared.lies("its digest of the data is wrong".into()));
    }
    let rest = shared.blob.len().saturating_sub(header.data_size);
    let table = table.to_bytes();
    let expected = wrap::wrapped_size(header.framing, table.len());
    if rest != expected {
        return Err(Error::corrupt(
            &shared.subject,
            format!("{rest} bytes follow the data, the chunk table has {expected}"),
        ));
    }
    wrap::pieces(header.framing, &table, header.data_size)
        .try_for_each(|piece| blob.expect(&piece, "chunk table"))?;
    let found = blob.blob.finish();
    if found != spec.stated.digest {
        return Err(Error::corrupt(
            &shared.subject,
            format!("the blob is {found}"),
        ));
    }
    Ok(stream.file)
}

/// The blob, hashed as it is read.
struct Hashed<'a> {
    shared: &'a Chunks,
    at: u64,
    blob: Hasher,
    /// The SHA-256 of the data, where the blob's digest is by another algorithm.
    data: Option<Hasher>,
    data_end: u64,
}

impl Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.shared.blob.read_exact_at(buffer, self.at)?;
        self.blob.update(buffer);
        if self.at < self.data_end
            && let Some(data) = &mut self.data
        {
            data.update(buffer);
        }
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn expect(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        let at = self.at;
        let mut found = self.shared.context.buffers.take(bytes.len());
        self.read(found.as_mut())?;
        if found.as_ref() != bytes {
            return Err(Error::corrupt(
                &self.shared.subject,
                format!("{what} at offset {at} is not what the content asks for"),
            ));
        }
        Ok(())
    }
}
