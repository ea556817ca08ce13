//! What one pass over a layer found, kept in a file for the next run: `<algorithm>-<hex>.idx`.
//!
//! It is written only after the blob's digest was found to be the manifest's, and read only for a blob
//! of that digest and size, which is packed in the same way and has its file in the same place. What it
//! vouches for is what takes the whole blob to find out: its digest, that nothing else is in it, and
//! where it can be entered. What its first bytes say, of name, mode, time and packaging, it does not
//! know: they are looked at again, in blocks that it has the digests of, since an index that a run for
//! one archive kept is used for every other one that names the blob
//! (`facts::prove_from_index`). Every block that is read is verified against
//! it, so it can save the pass and nothing else. It is as trustworthy as the directory it lies in, so
//! one that another user owns or can write to is not used, nor is such a file, nor one that is damaged.
//!
//! All integers are little-endian.
//!
//! ```text
//!   0   8  magic "mociidx", version 3           then 32 for each block: its BLAKE3
//!   8   1  0 not compressed, 1 gzip, 2 zstd     then 64 for each span:
//!   9   1  1 where the stream has many files       0  8  decompressed offset
//!  10   2  length of the digest's text             8  8  gzip: bit of the blob; zstd: byte
//!  12   4  bytes of the list of these files       16  8  checkpoint: offset in this file
//!  16 136  the blob's digest as text, zeros       24  4  its length
//! 152   8  size of the blob                       28  1  0 gzip's start, 1 gzip, 2 zstd frame
//! 160   8  size of the file (of the stream)       29  3  zero
//! 168   8  its offset in the decompressed layer   32 32  BLAKE3 of the checkpoint
//! 176   8  size of a block                      then the list of files
//! 184   8  number of spans                      then the checkpoints
//!                                               then the SHA-256 of all before it
//! ```

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::facts::Plan;
use super::index_dir::{IndexDir, Problem, index_name};
use super::packing::Packing;
use super::spans::{Blocks, Entry, Span, Spans, Tuning, distance};
use super::store::{Kept, Piece, Store};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::files::calls;
use crate::files::write_back::{WriteBack, WrittenBack};
use crate::limits;

const MAGIC: &[u8; 8] = b"mociidx\x03";
const HEADER: usize = 192;
const DIGEST_TEXT: usize = 136;
const BLOCK_ROW: usize = 32;
const SPAN_ROW: usize = 64;
const TRAILER: u64 = 32;
/// Bytes that are written at once.
const BUFFER: usize = 256 << 10;

/// What an index is about: what it was proven of when it is written, what it must say when it is read.
pub(super) struct Identity {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) plan: Plan,
    /// Its content is all of the stream; what the plan says of the end is not known before it is read.
    pub(super) measured: bool,
    pub(super) tuning: Tuning,
}

/// What an index says.
pub(super) struct Loaded {
    /// Where the content ends in the stream.
    pub(super) end: u64,
    /// What was found in it.
    pub(super) found: Vec<u8>,
    pub(super) blocks: Blocks,
    pub(super) spans: Spans,
}

impl Identity {
    fn block_size(&self) -> u64 {
        self.tuning.block(self.plan.packing, self.size)
    }

    /// Compares a header with what it must say. Returns what that is, with the end of the content where
    /// only the index knows it; the number of spans; and the bytes of the list.
    fn compared(&self, header: &[u8; HEADER]) -> Result<(Identity, u64, u32), Problem> {
        let mut plan = self.plan;
        let found = header.get(12..).and_then(|bytes| bytes.first_chunk());
        let (Some(spans), Some(end), Some(found)) =
            (read_u64(header, 184), read_u64(header, 160), found)
        else {
            return Err("it is truncated".into());
        };
        if self.measured {
            plan.end = end;
        }
        let (identity, found) = (Identity { plan, ..*self }, u32::from_le_bytes(*found));
        match header[..] == identity.header(spans as usize, found) {
            true => Ok((identity, spans, found)),
            false => Err("it is about another layer, or of another version".into()),
        }
    }

    fn header(&self, spans: usize, found: u32) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let digest = self.digest.to_string();
        out.extend_from_slice(&[self.plan.packing as u8, u8::from(self.measured)]);
        out.extend_from_slice(&(digest.len() as u16).to_le_bytes());
        out.extend_from_slice(&found.to_le_bytes());
        out.extend_from_slice(digest.as_bytes());
        out.resize(16 + DIGEST_TEXT, 0);
        for number in [
            self.size,
            self.plan.content(),
            self.plan.start,
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
pub(super) fn load(dir: &Path, identity: &Identity) -> Result<Option<Loaded>, Problem> {
    let Some(dir) = IndexDir::open(dir, false)? else {
        return Ok(None);
    };
    let Some((file, size)) = dir.load(&index_name(&identity.digest))? else {
        return Ok(None);
    };
    let body = size.checked_sub(TRAILER).ok_or("it is truncated")?;

    // The tables are used from the very bytes that are hashed.
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut header = [0; HEADER];
    calls::read_exact(&file, &mut header).map_err(text)?;
    hasher.update(&header);
    let (identity, spans, found) = &identity.compared(&header)?;
    let (spans, found) = (*spans, *found);
    let block_size = identity.block_size();
    let blocks = identity.size.div_ceil(block_size);
    let tables = spans
        .checked_mul(SPAN_ROW as u64)
        .and_then(|bytes| bytes.checked_add(blocks.checked_mul(BLOCK_ROW as u64)?))
        .and_then(|bytes| bytes.checked_add(u64::from(found)))
        .filter(|bytes| {
            bytes
                .checked_add(HEADER as u64)
                .is_some_and(|end| end <= body)
        })
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or("it is truncated")?;
    let mut rows = vec![0; tables]; // no more than the file has
    calls::read_exact(&file, &mut rows).map_err(text)?;
    hasher.update(&rows);
    check_rest(&file, hasher, body.saturating_sub((HEADER + tables) as u64))?;

    let (digests, rows) = rows
        .split_at_checked(blocks as usize * BLOCK_ROW)
        .ok_or("it is truncated")?;
    let digests = digests.as_chunks::<BLOCK_ROW>().0.to_vec();
    let (rows, found) = rows
        .split_at_checked(spans as usize * SPAN_ROW)
        .ok_or("it is truncated")?;
    let spans = rows
        .as_chunks::<SPAN_ROW>()
        .0
        .iter()
        .map(parse_span)
        .collect::<Option<Vec<_>>>()
        .filter(|spans| is_sound(spans, identity))
        .ok_or("its spans make no sense")?;
    Ok(Some(Loaded {
        end: identity.plan.end,
        found: found.to_vec(),
        blocks: Blocks {
            size: block_size,
            digests,
        },
        spans: Spans {
            spans,
            store: Some(Arc::new(Store::of(Kept::Loaded(Arc::new(file)), body))),
        },
    }))
}

/// Reads `left` bytes more, and compares the digest of all with the one that follows them.
fn check_rest(file: &File, mut hasher: Hasher, mut left: u64) -> Result<(), Problem> {
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        let n = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = buffer.get_mut(..n).unwrap_or_default();
        calls::read_exact(file, part).map_err(text)?;
        hasher.update(part);
        left -= n as u64;
    }
    let mut trailer = [0; TRAILER as usize];
    calls::read_exact(file, &mut trailer).map_err(text)?;
    match hasher.finish().as_bytes() == trailer {
        true => Ok(()),
        false => Err("it is damaged".into()),
    }
}

/// Writes the index of a layer, under its name complete or not at all. The spans then take their
/// checkpoints from it.
///
/// # Errors
/// Why it could not be kept.
pub(super) fn save(
    dir: &Path,
    identity: &Identity,
    found: &[u8],
    blocks: &Blocks,
    spans: &mut Spans,
    write_back: &Arc<WriteBack>,
) -> Result<(), Problem> {
    let rows = blocks.digests.len() * BLOCK_ROW + spans.spans.len() * SPAN_ROW;
    let tables = HEADER + rows + found.len();
    let found_bytes = u32::try_from(found.len()).map_err(text)?;
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

    let dir = IndexDir::open(dir, true)?.ok_or("there is no directory")?;
    let unfinished = dir.create().map_err(text)?;
    let file = unfinished.file.try_clone().map_err(text)?;
    let file = WrittenBack::new(file, write_back);
    let mut out = Hashed {
        file: &file,
        at: 0,
        buffer: Vec::with_capacity(BUFFER),
        hasher: Hasher::new(Algorithm::Sha256),
    };
    out.write(&identity.header(moved.len(), found_bytes))?;
    for digest in &blocks.digests {
        out.write(digest)?;
    }
    for span in &moved {
        out.write(&span_row(span))?;
    }
    out.write(found)?;
    for number in 0..spans.spans.len() {
        if let Some(place) = spans.place(number)
            && let Entry::Gzip { checkpoint, .. } = &place.entry
        {
            let bytes = place.piece(checkpoint, "checkpoint").map_err(text)?;
            out.write(&bytes)?;
        }
    }
    out.finish()?;
    let name = index_name(&identity.digest);
    unfinished.give_name(&name).map_err(text)?;
    // Kept open also so that its last bytes are written back.
    let store = Store::of(Kept::Disk(file), body);
    (spans.spans, spans.store) = (moved, Some(Arc::new(store)));
    dir.prune(&name);
    Ok(())
}

/// Writes and hashes.
struct Hashed<'a> {
    file: &'a Arc<WrittenBack>,
    at: u64,
    buffer: Vec<u8>,
    hasher: Hasher,
}

impl Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Problem> {
        self.file
            .write_all_at(&self.buffer, self.at)
            .map_err(text)?;
        self.at = self.at.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), Problem> {
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256)).finish();
        self.buffer.extend_from_slice(digest.as_bytes());
        self.flush()
    }
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
        Entry::After { .. } => (u8::MAX, 0, &NONE),
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
    let end = identity.plan.end;
    // What has to be measured is planned for what it might be.
    let usual = Plan::of_all(identity.plan.packing, identity.size).end;
    let size = match identity.measured {
        true => usual.max(identity.plan.content()),
        false => identity.plan.content(),
    };
    // A span ends with the first symbol, or the first frame, behind the distance.
    let largest = distance(tuning.span, size).saturating_add(tuning.frame as u64 + (1 << 20));
    let ends = spans.iter().skip(1).map(|span| span.out);
    let sizes_fit = spans
        .iter()
        .zip(ends.chain([end.max(spans.last().map_or(0, |span| span.out))]))
        .all(|(span, end)| end.checked_sub(span.out).is_some_and(|len| len <= largest));
    let packing = identity.plan.packing;
    let compressed = match packing {
        Packing::Plain => spans.is_empty(),
        Packing::Gzip | Packing::Zstd => spans.first().is_some_and(|span| span.out == 0),
    };
    let places_fit = spans.iter().all(|span| match &span.entry {
        Entry::GzipStart => span.out == 0 && packing == Packing::Gzip,
        Entry::Gzip { bit, checkpoint } => {
            bit / 8 <= identity.size && packing == Packing::Gzip && checkpoint.length <= 64 << 10
        }
        Entry::Frame(byte) => *byte <= identity.size && packing == Packing::Zstd,
        Entry::Spooled(_) | Entry::After { .. } => false,
    });
    compressed && sizes_fit && places_fit
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn text(error: impl std::fmt::Display) -> Problem {
    error.to_string()
}
