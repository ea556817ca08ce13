//! The proof that a layer's blob, chunk table, stream and file say the same thing.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;

use super::chunks::Chunks;
use super::table::{ChunkTable, DEFLATE_END, Framing, GZIP_HEADER, Row};
use super::wrap;
use crate::codec::{ChunkKind, Decoder, SubOffsets};
use crate::digest::{Algorithm, Hasher};
use crate::error::{Error, Result};
use crate::layer::file_digests::{FileDigests, FileHasher};
use crate::layer::reader::LayerSpec;

/// Layers of fewer segments are not worth threads of their own.
const MIN_PARALLEL_SEGMENTS: u64 = 8;
/// Decoded bytes of segments on their way, for each of which some five wait in all.
const BYTES_UNDER_WAY: usize = 8 << 20;

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
/// Segments are decoded on all cores, and hashed in order as they come. Returns the file's digests,
/// which the caller compares with the manifest's.
pub(super) fn verify(
    shared: &Chunks,
    table: &ChunkTable,
    spec: &LayerSpec,
    also: &[Algorithm],
) -> Result<FileDigests> {
    let workers = match table.segments() {
        0..MIN_PARALLEL_SEGMENTS => 1,
        _ => {
            let fitting = BYTES_UNDER_WAY / table.header().chunk_size as usize;
            let cores = thread::available_parallelism().map_or(1, usize::from);
            cores.min(fitting.max(1))
        }
    };
    let no_thread = |source| Error::Io {
        action: "start a thread for",
        subject: shared.subject.clone(),
        source: Arc::new(source),
    };
    thread::scope(|scope| {
        // Segments wait in the channels only: memory is bounded by their capacity.
        let (jobs, queue) = sync_channel::<Job>(workers);
        let (decoded, in_order) = sync_channel::<Receiver<Result<Bytes>>>(2 * workers);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..workers {
            let queue = Arc::clone(&queue);
            let work = move || decode_jobs(shared, &queue);
            match thread::Builder::new().spawn_scoped(scope, work) {
                Err(error) if number == 0 => return Err(no_thread(error)),
                Err(_) => break,
                Ok(_) => {}
            }
        }
        drop(queue);
        let hashing = thread::Builder::new()
            .spawn_scoped(scope, move || hash_in_order(shared, table, in_order, also))
            .map_err(no_thread)?;
        let algorithm = spec.stated.digest.algorithm();
        let read = read_blob(shared, table, algorithm, jobs, decoded);
        let hashed = hashing
            .join()
            .unwrap_or_else(|_| Err(Error::corrupt(&shared.subject, "could not be verified")));
        // A reader that stopped early did so because hashing met an error: that one counts.
        let (blob, hashed) = match (read, hashed) {
            (_, Err(error)) | (Err(error), _) => return Err(error),
            (Ok(blob), Ok(hashed)) => (blob, hashed),
        };
        finish(shared, table, spec, blob, hashed)
    })
}

/// One segment on its way to a decoder.
struct Job {
    row: Row,
    compressed: Bytes,
    decoded_len: usize,
    reply: SyncSender<Result<Bytes>>,
}

/// Reads the segments in order, hashes the blob, and hands them to the decoders.
fn read_blob<'a>(
    shared: &'a Chunks,
    table: &ChunkTable,
    algorithm: Algorithm,
    jobs: SyncSender<Job>,
    decoded: SyncSender<Receiver<Result<Bytes>>>,
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
        let compressed = blob.read(row.length as usize)?;
        let decoded_len = table.decoded_len(segment) as usize;
        let (reply, result) = sync_channel(1);
        let sent = jobs
            .send(Job {
                row,
                compressed,
                decoded_len,
                reply,
            })
            .is_ok()
            && decoded.send(result).is_ok();
        if !sent {
            break; // hashing met an error, and is the one to report it
        }
    }
    Ok(blob)
}

fn decode_jobs(shared: &Chunks, queue: &Mutex<Receiver<Job>>) {
    let mut decoder = Decoder::default();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The other end is gone when an earlier segment failed.
        let _ = job.reply.send(decode(shared, &job, &mut decoder));
    }
}

fn decode(shared: &Chunks, job: &Job, decoder: &mut Decoder) -> Result<Bytes> {
    let Job {
        row,
        compressed,
        decoded_len,
        ..
    } = job;
    shared.check(compressed, row)?;
    let mut decode = |kind, sub_offsets: &SubOffsets| {
        let mut out = shared.context.buffers.take(*decoded_len);
        decoder
            .decode(kind, sub_offsets, compressed, out.as_mut())
            .map_err(|e| shared.lies(format!("segment at offset {}: {e}", row.offset)))?;
        Ok(out.freeze())
    };
    let out = decode(row.kind, &row.sub_offsets)?;
    if row.kind == ChunkKind::Literal && decode(ChunkKind::Deflate, &[0; 5])? != out {
        return Err(shared.lies(format!(
            "sub-streams at offset {} decode to other bytes than the stream",
            row.offset
        )));
    }
    Ok(out)
}

/// What is known once every segment is decoded.
struct Stream {
    file: FileDigests,
    crc: u32,
}

fn hash_in_order(
    shared: &Chunks,
    table: &ChunkTable,
    segments: Receiver<Receiver<Result<Bytes>>>,
    also: &[Algorithm],
) -> Result<Stream> {
    let mut file = FileHasher::new(also);
    let mut crc = crc32fast::Hasher::new();
    let last = table.segments() - 1;
    for (segment, result) in (0..).zip(segments) {
        let out = result
            .recv()
            .unwrap_or_else(|_| Err(Error::corrupt(&shared.subject, "could not be decoded")))?;
        crc.update(&out);
        if segment == last && out.iter().any(|byte| *byte != 0) {
            return Err(Error::corrupt(
                &shared.subject,
                "more than padding follows the file",
            ));
        }
        if segment > 0 && segment < last {
            file.update(&out);
        }
    }
    Ok(Stream {
        file: file.finish(),
        crc: crc.finalize(),
    })
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
    let (expected, _) = wrap::wrap(header.framing, &table.to_bytes(), header.data_size);
    if rest != expected.len() as u64 {
        return Err(Error::corrupt(
            &shared.subject,
            format!(
                "{rest} bytes follow the data, the chunk table has {}",
                expected.len()
            ),
        ));
    }
    blob.expect(&expected, "chunk table")?;
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
    fn read(&mut self, len: usize) -> Result<Bytes> {
        let mut buffer = self.shared.context.buffers.take(len);
        self.shared.blob.read_exact_at(buffer.as_mut(), self.at)?;
        self.blob.update(buffer.as_ref());
        if self.at < self.data_end
            && let Some(data) = &mut self.data
        {
            data.update(buffer.as_ref());
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
