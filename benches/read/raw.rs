//! What bounds reading: one chunk alone, the digest alone, another decoder alone.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use modeloci::codec::{ChunkKind, Decoder};
use modeloci::layer::table::{ChunkTable, Framing};
use modeloci::layer::wrap;
use modeloci::model::OpenOptions;
use modeloci::oci::stated::TablePlace;
use modeloci::source::ReadAt;
use modeloci::{Digest, Model};
use serde_json::{Value, json};

use crate::{Args, Result, sample};

/// Buffer of sequential reads.
const BLOCK: usize = 1 << 20;

/// Reads, verifies and decodes one random chunk of the largest layer after another, with nothing
/// around it: no lookup, no cache, no sharing. A chunk table must be there.
pub(crate) fn chunks(archive: &str, args: &Args) -> Result<Value> {
    let (blob, table) = largest(archive)?;
    let header = table.header();
    let sizes = [header.file_size];
    let chunk = u64::from(header.chunk_size);
    let places = sample::places(
        &sizes,
        4096,
        args.size("count", 200)?,
        args.number("seed", 1)?,
    );
    let mut decoder = Decoder::default();
    let mut compressed = Vec::new();
    let mut out = vec![0; header.chunk_size as usize];
    let mut each = Vec::with_capacity(places.len());
    let mut bytes = 0;
    let start = Instant::now();
    for (_, offset) in places {
        let begun = Instant::now();
        let number = offset / chunk;
        let row = table.row(number + 1).ok_or("the table ends early")?;
        let len = chunk.min(header.file_size - number * chunk) as usize;
        compressed.resize(row.length as usize, 0);
        blob.read_exact_at(&mut compressed, row.offset)?;
        if Digest::of(row.digest.algorithm(), &compressed) != row.digest {
            return Err("a chunk is not what its digest says".into());
        }
        if row.kind == ChunkKind::Plain {
            out[..len].copy_from_slice(&compressed);
        } else {
            decoder.decode(row.kind, &row.sub_offsets, &compressed, &mut out[..len])?;
        }
        each.push(begun.elapsed());
        bytes += len as u64;
    }
    Ok(sample::report("chunks", bytes, start.elapsed(), each))
}

/// The largest layer's blob and its table.
fn largest(archive: &str) -> Result<(Arc<dyn ReadAt>, ChunkTable)> {
    let model = Model::open(archive, &OpenOptions::default())?;
    let file = model.files().max_by_key(|file| file.shown_size);
    let layer = &file.ok_or("the archive has no files")?.parts.first().stated;
    let source = modeloci::source::open(archive.as_ref())?;
    let blob = source
        .blob(&layer.digest, None)?
        .ok_or("the blob is missing")?;
    let stated = layer.chunks.ok_or("no table")?;
    let bytes = match stated.place {
        TablePlace::Members(offset, length) => {
            let mut members = vec![0; usize::try_from(length)?];
            blob.read_exact_at(&mut members, offset)?;
            let gzip = members.starts_with(&[0x1f, 0x8b]);
            let framing = if gzip { Framing::Gzip } else { Framing::Zstd };
            wrap::unwrap(framing, &members).ok_or("the table is missing")?
        }
        TablePlace::Blob => {
            let own = source.blob(&stated.digest, None)?.ok_or("no table blob")?;
            let mut bytes = vec![0; usize::try_from(own.len())?];
            own.read_exact_at(&mut bytes, 0)?;
            bytes
        }
    };
    let table = ChunkTable::parse(bytes.into(), layer.size, archive)?;
    Ok((blob, table))
}

/// BLAKE3 of a file in blocks of 1 MiB that threads take in turn: what verifying costs at least.
/// With `--memory on` the blocks were read before.
pub(crate) fn blake3(file: &str, args: &Args) -> Result<Value> {
    let threads = args.size("threads", 2)?.max(1);
    let file = File::open(file)?;
    let size = file.metadata()?.len();
    let memory = if args.on("memory", false) {
        let mut bytes = vec![0; usize::try_from(size)?];
        file.read_exact_at(&mut bytes, 0)?;
        Some(bytes)
    } else {
        None
    };
    let next = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> std::io::Result<()> {
                    let mut buf = vec![0; BLOCK];
                    loop {
                        let at = next.fetch_add(BLOCK as u64, Ordering::Relaxed);
                        if at >= size {
                            return Ok(());
                        }
                        let len = (size - at).min(BLOCK as u64) as usize;
                        let block = match &memory {
                            Some(bytes) => &bytes[at as usize..at as usize + len],
                            None => {
                                file.read_exact_at(&mut buf[..len], at)?;
                                &buf[..len]
                            }
                        };
                        std::hint::black_box(::blake3::hash(block));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    Ok(sample::report("blake3", size, start.elapsed(), Vec::new()))
}

/// Decodes a gzip file with zlib-rs on one thread, into nothing.
pub(crate) fn gunzip(file: &str) -> Result<Value> {
    let start = Instant::now();
    let input = BufReader::with_capacity(BLOCK, File::open(file)?);
    let mut decoder = flate2::bufread::MultiGzDecoder::new(input);
    let mut buf = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        match decoder.read(&mut buf)? {
            0 => break,
            n => bytes += n as u64,
        }
    }
    Ok(json!({
        "operation": "gunzip",
        "bytes": bytes,
        "seconds": start.elapsed().as_secs_f64(),
    }))
}
