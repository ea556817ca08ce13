//! What one pass over a layer found, kept in a file for the next run: `<algorithm>-<hex>.idx`.
//!
//! It is written only after the blob's digest was found to be the manifest's, and read only for a
//! blob of that digest and size, so it can save the pass and nothing else: every block that is read
//! is still verified against it. It is as trustworthy as the directory it lies in, so one that
//! another user owns or can write to is not used, nor is such a file, nor one that is damaged.
//!
//! All integers are little-endian.
//!
//! ```text
//!   0   8  magic "mociidx", version 1           then 32 for each block: its BLAKE3
//!   8   1  packaging                            then 64 for each span:
//!   9   1  1 when the file is executable           0  8  decompressed offset
//!  10   2  length of the digest's text             8  8  gzip: bit of the blob; zstd: byte
//!  12   4  zero                                   16  8  checkpoint: offset in this file
//!  16 136  the blob's digest as text, zeros       24  4  its length
//! 152   8  size of the blob                       28  1  0 gzip's start, 1 gzip, 2 zstd frame
//! 160   8  size of the file                       29  3  zero
//! 168   8  its offset in the decompressed layer   32 32  BLAKE3 of the checkpoint
//! 176   8  its modification time                then the checkpoints
//! 184   8  size of a block                      then the SHA-256 of all before it
//! 192   8  number of spans
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{BufWriter, ErrorKind, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scan::{Head, Packaging};
use super::spans::{Blocks, Entry, Span, Spans, Tuning, distance};
use super::store::{Piece, Store};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::limits;

const MAGIC: &[u8; 8] = b"mociidx\x01";
const HEADER: usize = 200;
const DIGEST_TEXT: usize = 136;
const BLOCK_ROW: usize = 32;
const SPAN_ROW: usize = 64;
const TRAILER: u64 = 32;
/// How long a temporary file of a killed process stays, in seconds.
const ABANDONED: u64 = 24 * 3600;

/// Why an index is not used or kept.
type Problem = String;

/// What an index must be about.
pub(super) struct Identity {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) packaging: Packaging,
    pub(super) head: Head,
    pub(super) tuning: Tuning,
}

impl Identity {
    fn path(&self, dir: &Path) -> PathBuf {
        let name = self.digest.algorithm().name();
        dir.join(format!("{name}-{}.idx", self.digest.hex()))
    }

    fn block_size(&self) -> u64 {
        let least = match self.packaging {
            Packaging::Raw | Packaging::Tar => self.tuning.plain_block,
            Packaging::Gzip | Packaging::Zstd => self.tuning.packed_block,
        };
        distance(least, self.size)
    }

    fn header(&self, spans: usize) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let digest = self.digest.to_string();
        out.push(self.packaging as u8);
        out.push(u8::from(self.head.attr.executable));
        out.extend_from_slice(&(digest.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(digest.as_bytes());
        out.resize(16 + DIGEST_TEXT, 0);
        for number in [
            self.size,
            self.head.attr.size,
            self.head.data_offset,
            self.head.attr.mtime,
            self.block_size(),
            spans as u64,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }
}

/// Loads the index of a layer; `None` when there is none.
///
/// # Errors
/// Why the one that there is cannot be used.
pub(super) fn load(dir: &Path, identity: &Identity) -> Result<Option<(Blocks, Spans)>, Problem> {
    let path = identity.path(dir);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    check_owner(&fs::metadata(dir).map_err(text)?, "its directory")?;
    let metadata = file.metadata().map_err(text)?;
    if !metadata.is_file() {
        return Err("it is no regular file".into());
    }
    check_owner(&metadata, "it")?;
    let size = metadata.len();
    if size > limits::MAX_INDEX_BYTES {
        return Err(format!("it has {size} bytes, more than allowed"));
    }
    let body = size.checked_sub(TRAILER).ok_or("it is truncated")?;

    // The tables are used from the very bytes that are hashed.
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(text)?;
    hasher.update(&header);
    let spans = read_u64(&header, 192).ok_or("it is truncated")?;
    if header != *identity.header(spans as usize) {
        return Err("it is about another layer, or of another version".into());
    }
    let block_size = identity.block_size();
    let blocks = identity.size.div_ceil(block_size);
    let tables = spans
        .checked_mul(SPAN_ROW as u64)
        .and_then(|bytes| bytes.checked_add(blocks.checked_mul(BLOCK_ROW as u64)?))
        .filter(|bytes| {
            bytes
                .checked_add(HEADER as u64)
                .is_some_and(|end| end <= body)
        })
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or("it is truncated")?;
    let mut rows = vec![0; tables]; // no more than the file has
    file.read_exact(&mut rows).map_err(text)?;
    hasher.update(&rows);
    let mut buffer = vec![0; 256 << 10];
    let mut left = body.saturating_sub((HEADER + tables) as u64);
    while left > 0 {
        let n = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = buffer.get_mut(..n).unwrap_or_default();
        file.read_exact(part).map_err(text)?;
        hasher.update(part);
        left -= n as u64;
    }
    let mut trailer = [0; TRAILER as usize];
    file.read_exact(&mut trailer).map_err(text)?;
    if hasher.finish().as_bytes() != trailer {
        return Err("it is damaged".into());
    }

    let (digests, rows) = rows
        .split_at_checked(blocks as usize * BLOCK_ROW)
        .ok_or("it is truncated")?;
    let digests = digests.as_chunks::<BLOCK_ROW>().0.to_vec();
    let spans = rows
        .as_chunks::<SPAN_ROW>()
        .0
        .iter()
        .map(parse_span)
        .collect::<Option<Vec<_>>>()
        .filter(|spans| is_sound(spans, identity))
        .ok_or("its spans make no sense")?;
    Ok(Some((
        Blocks {
            size: block_size,
            digests,
        },
        Spans {
            spans,
            store: Some(Arc::new(Store::of(file, body))),
        },
    )))
}

/// Writes the index of a layer, under its name complete or not at all. The spans then take their
/// checkpoints from it.
///
/// # Errors
/// Why it could not be kept.
pub(super) fn save(
    dir: &Path,
    identity: &Identity,
    blocks: &Blocks,
    spans: &mut Spans,
) -> Result<(), Problem> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(text)?;
    check_owner(&fs::metadata(dir).map_err(text)?, "its directory")?;

    let tables = HEADER + blocks.digests.len() * BLOCK_ROW + spans.spans.len() * SPAN_ROW;
    let mut offset = tables as u64;
    let mut moved = spans.spans.clone();
    for span in &mut moved {
        if let Entry::Gzip { checkpoint, .. } = &mut span.entry {
            checkpoint.offset = offset;
            offset += u64::from(checkpoint.length);
        }
    }
    let body = offset;
    if body + TRAILER > limits::MAX_INDEX_BYTES {
        return Err(format!("it would have {body} bytes, more than allowed"));
    }

    // Made with mode 0600.
    let temporary = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(dir)
        .map_err(text)?;
    let mut out = Hashed {
        file: BufWriter::new(temporary),
        hasher: Hasher::new(Algorithm::Sha256),
    };
    out.write(&identity.header(moved.len()))?;
    for digest in &blocks.digests {
        out.write(digest)?;
    }
    for span in &moved {
        out.write(&span_row(span))?;
    }
    for number in 0..spans.spans.len() {
        if let Some(place) = spans.place(number)
            && let Entry::Gzip { checkpoint, .. } = &place.entry
        {
            let bytes = place.piece(checkpoint, "checkpoint").map_err(text)?;
            out.write(&bytes)?;
        }
    }
    let Hashed { mut file, hasher } = out;
    file.write_all(hasher.finish().as_bytes()).map_err(text)?;
    let temporary = file.into_inner().map_err(text)?;
    let path = identity.path(dir);
    let file = temporary.persist(&path).map_err(text)?;
    (spans.spans, spans.store) = (moved, Some(Arc::new(Store::of(file, body))));
    prune(dir, &path);
    Ok(())
}

/// Writes and hashes.
struct Hashed<W> {
    file: W,
    hasher: Hasher,
}

impl<W: Write> Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(text)
    }
}

/// Removes the oldest files when the directory has grown too large, and what killed processes left.
/// Whatever fails here costs space, no more.
fn prune(dir: &Path, keep: &Path) {
    prune_to(dir, keep, limits::MAX_INDEX_DIR_BYTES);
}

fn prune_to(dir: &Path, keep: &Path, limit: u64) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let (path, name) = (entry.path(), entry.file_name());
        let age = metadata.modified().ok().and_then(|t| t.elapsed().ok());
        if name.as_encoded_bytes().starts_with(b".tmp-")
            && age.is_some_and(|age| age.as_secs() > ABANDONED)
        {
            let _ = fs::remove_file(path);
        } else if metadata.is_file() && path.extension().is_some_and(|e| e == "idx") {
            files.push((metadata.modified().ok(), metadata.len(), path));
        }
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in files {
        if total <= limit {
            return;
        }
        if path != keep && fs::remove_file(path).is_ok() {
            total -= size;
        }
    }
}

fn check_owner(metadata: &fs::Metadata, what: &str) -> Result<(), Problem> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(format!("{what} belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!("others can write to {what}"));
    }
    Ok(())
}

fn span_row(span: &Span) -> [u8; SPAN_ROW] {
    const NONE: Piece = Piece {
        offset: 0,
        length: 0,
        digest: [0; 32],
    };
    let (kind, place, piece): (u8, u64, &Piece) = match &span.entry {
        Entry::GzipStart => (0, 0, &NONE),
        Entry::Gzip { bit, checkpoint } => (1, *bit, checkpoint),
        Entry::Frame(byte) => (2, *byte, &NONE),
        // Never saved; a row that is refused when it is read.
        Entry::Spooled(piece) => (u8::MAX, 0, piece),
    };
    let mut row = [0; SPAN_ROW];
    let fields: [(usize, &[u8]); 6] = [
        (0, &span.out.to_le_bytes()),
        (8, &place.to_le_bytes()),
        (16, &piece.offset.to_le_bytes()),
        (24, &piece.length.to_le_bytes()),
        (28, &[kind]),
        (32, &piece.digest),
    ];
    for (at, bytes) in fields {
        if let Some(field) = row.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
    row
}

fn parse_span(row: &[u8; SPAN_ROW]) -> Option<Span> {
    let place = read_u64(row, 8)?;
    let piece = Piece {
        offset: read_u64(row, 16)?,
        length: u32::from_le_bytes(*row.get(24..)?.first_chunk()?),
        digest: *row.get(32..)?.first_chunk()?,
    };
    let entry = match row.get(28)? {
        0 => Entry::GzipStart,
        1 => Entry::Gzip {
            bit: place,
            checkpoint: piece,
        },
        2 => Entry::Frame(place),
        _ => return None,
    };
    let out = read_u64(row, 0)?;
    Some(Span { out, entry })
}

/// True when the spans begin at 0, ascend, lie in the blob, and none is larger than a pass makes it.
fn is_sound(spans: &[Span], identity: &Identity) -> bool {
    let tuning = &identity.tuning;
    let size = identity.head.attr.size;
    let end = size.saturating_add(identity.head.data_offset);
    // A span ends with the first symbol, or the first frame, behind the distance.
    let largest = distance(tuning.span, size).saturating_add(tuning.frame as u64 + (1 << 20));
    let ends = spans.iter().skip(1).map(|span| span.out);
    let sizes_fit = spans
        .iter()
        .zip(ends.chain([end.max(spans.last().map_or(0, |span| span.out))]))
        .all(|(span, end)| end.checked_sub(span.out).is_some_and(|len| len <= largest));
    let compressed = match identity.packaging {
        Packaging::Raw | Packaging::Tar => spans.is_empty(),
        Packaging::Gzip | Packaging::Zstd => spans.first().is_some_and(|span| span.out == 0),
    };
    let places_fit = spans.iter().all(|span| match &span.entry {
        Entry::GzipStart => span.out == 0 && identity.packaging == Packaging::Gzip,
        Entry::Gzip { bit, checkpoint } => {
            bit / 8 <= identity.size
                && identity.packaging == Packaging::Gzip
                && checkpoint.length <= 64 << 10
        }
        Entry::Frame(byte) => *byte <= identity.size && identity.packaging == Packaging::Zstd,
        Entry::Spooled(_) => false,
    });
    compressed && sizes_fit && places_fit
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn text(error: impl std::fmt::Display) -> Problem {
    error.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_strangers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (age, name) in ["a.idx", "b.idx", "c.idx", "d.txt"].iter().enumerate() {
            let file = fs::File::create(path(name)).unwrap();
            file.set_len(100).unwrap();
            let then = std::time::SystemTime::UNIX_EPOCH;
            file.set_modified(then + std::time::Duration::from_secs(age as u64))
                .unwrap();
        }
        prune_to(dir.path(), &path("a.idx"), 200);
        assert!(path("a.idx").exists(), "it was just written");
        assert!(!path("b.idx").exists());
        assert!(path("c.idx").exists() && path("d.txt").exists());
    }
}
