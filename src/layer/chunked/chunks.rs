//! The chunks of a layer, in the order of their numbers: each verified, then decoded, then shared.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::sync::Arc;

use bytes::Bytes;

use super::table::{ChunkTable, Row};
use crate::codec::{ChunkKind, Decoder, stored};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::memory::cache::ChunkKey;
use crate::memory::context::{Context, Stats};
use crate::memory::flight::Flight;
use crate::memory::limiter::{Term, Unit};
use crate::memory::units::{can_wait_in, is_part_of_a_stream};
use crate::source::{LOCAL_PIECE, ReadAt};
use crate::work::cores;

// What comes from this machine's storage is read in place, piece by piece: see `Chunks::decode`.
const _: () = assert!(LOCAL_PIECE <= stored::PIECE);

/// What decoding a chunk needs.
pub(super) struct Chunks {
    pub(super) blob: Arc<dyn ReadAt>,
    pub(super) context: Arc<Context>,
    /// Names the layer in messages.
    pub(super) subject: String,
    pub(super) layer: u32,
    pub(super) decoding: Flight<u32, Bytes>,
}

/// Chunks of more bytes are cut for their answers.
pub(super) const LARGE: usize = 2 << 20;

/// How many chunks of so many bytes one reader decodes ahead of itself at a time.
pub(super) fn at_once(bytes: u64) -> usize {
    const MOST_BYTES: u64 = 16 << 20;
    match usize::try_from(bytes) {
        Ok(bytes) if bytes <= LARGE => usize::MAX,
        _ => usize::try_from(MOST_BYTES / bytes.max(1))
            .unwrap_or(1)
            .max(1),
    }
}

thread_local! {
    /// What one thread needs to decode: kept, as it is expensive to build.
    static DECODING: RefCell<Decoder> = RefCell::default();
}

impl Chunks {
    /// The base name of a tar member's path must be that of the file.
    pub(super) fn head_lies(&self, rule: String) -> Error {
        Error::corrupt(&self.subject, format!("tar header: {rule}"))
    }

    pub(super) fn lies(&self, problem: String) -> Error {
        Error::corrupt(&self.subject, format!("chunk table: {problem}"))
    }

    /// A data chunk, from the cache or decoded now; decoded once, however many readers ask. While
    /// another one decodes it, `meanwhile` is called: see [`Flight::run_or`]. `None` when it is only to be
    /// had by `patient` readers: those that may wait for memory as long as a pass takes.
    pub(super) fn chunk(
        &self,
        table: &ChunkTable,
        number: u64,
        patient: bool,
        meanwhile: impl FnMut() -> bool,
    ) -> Result<Option<Bytes>> {
        let stats = &self.context.stats;
        let key = self
            .key(number)
            .ok_or_else(|| Error::corrupt(&self.subject, "has more chunks than can be numbered"))?;
        if let Some(bytes) = self.context.cache.get(key) {
            Stats::add(&stats.cache_hits, 1);
            return Ok(Some(bytes));
        }
        // Nor does it join one that waits.
        if !patient && !self.is_small(table, number) {
            return Ok(None);
        }
        let work = || {
            // Another reader may have finished between the look and the flight.
            if let Some(bytes) = self.context.cache.get(key) {
                return Ok(bytes);
            }
            // What it took is in the cache before the unit ends: whoever waits for memory finds it.
            let (bytes, _unit) = self.decode(table, number + 1)?;
            self.context.cache.insert(key, bytes.clone());
            Ok(bytes)
        };
        let (result, shared) = self.decoding.run_or(key.chunk, work, meanwhile);
        if shared {
            Stats::add(&stats.waits, 1);
        }
        result.map(Some)
    }

    /// True when decoding a chunk stands behind no long work.
    pub(super) fn is_small(&self, table: &ChunkTable, number: u64) -> bool {
        let segment = number + 1;
        // One that has no row takes no memory either.
        table.row(segment).is_none_or(|row| {
            let decoded = table.decoded_len(segment);
            let takes = match row.kind {
                ChunkKind::Plain => decoded,
                _ => decoded + decoded.max(row.length.into()),
            };
            self.context.limiter.is_small(takes)
        })
    }

    pub(super) fn streams(&self, number: u64, len: usize) -> bool {
        let before = number.checked_sub(1).and_then(|before| self.key(before));
        is_part_of_a_stream(&*self.context.cache, len, before)
    }

    /// One of the chunks that follow `number` which nobody has decoded or decodes now, when fewer
    /// than `most` are being decoded.
    pub(super) fn next_idle(&self, table: &ChunkTable, number: u64, most: usize) -> Option<u64> {
        let cache = &*self.context.cache;
        if !can_wait_in(cache, table.header().chunk_size.into()) {
            return None;
        }
        let following = (number + 1..table.chunks()).take(cores());
        let mut keys = following.filter_map(|number| self.key(number));
        let idle = |key: &ChunkKey| {
            self.decoding.has_room_for(&key.chunk, most) && cache.get(*key).is_none()
        };
        keys.find(idle).map(|key| key.chunk.into())
    }

    /// True when a chunk would have to be read from further away than the storage of this machine.
    pub(super) fn would_wait(&self, table: &ChunkTable, number: u64) -> bool {
        let far = |row: Row| self.blob.would_wait(row.offset, row.length.into());
        let cached = |key| self.context.cache.get(key).is_some();
        table.row(number + 1).is_some_and(far) && !self.key(number).is_some_and(cached)
    }

    /// Notes that bytes of a chunk were served.
    pub(super) fn served(&self, number: u64, bytes: usize) {
        if let Some(key) = self.key(number) {
            self.context.cache.served(key, bytes);
        }
    }

    fn key(&self, number: u64) -> Option<ChunkKey> {
        let chunk = u32::try_from(number).ok()?;
        Some(ChunkKey {
            layer: self.layer,
            chunk,
        })
    }

    /// Reads, verifies and decodes one segment. Nothing unverified reaches the decoder.
    fn decode(&self, table: &ChunkTable, segment: u64) -> Result<(Bytes, Unit)> {
        let row = table
            .row(segment)
            .ok_or_else(|| self.lies(format!("has no row {segment}")))?;
        let decoded_len = table.decoded_len(segment) as usize;
        let (buffers, length) = (&self.context.buffers, row.length as usize);
        if matches!(row.kind, ChunkKind::Plain | ChunkKind::Stored) {
            let (unit, mut out, _) =
                buffers.take_unit(decoded_len, 0, Term::Short, &self.subject)?;
            let in_place = match row.kind {
                ChunkKind::Plain => self.read(out.as_mut(), &row).map(|()| true)?,
                // One long way instead of several, for the price of a copy.
                _ if self.blob.piece() > stored::PIECE => false,
                _ => self.read_stored(out.as_mut(), &row)?,
            };
            if in_place {
                Stats::add(&self.context.stats.chunks_decoded, 1);
                return Ok((out.freeze(), unit));
            }
        }
        // As long as the result where that is enough, so that the memory of one serves the other.
        let scratch = decoded_len.max(length);
        let (unit, mut out, mut scratch) =
            buffers.take_unit(decoded_len, scratch, Term::Short, &self.subject)?;
        let compressed = scratch.as_mut().get_mut(..length).unwrap_or_default();
        self.read(compressed, &row)?;
        self.decode_row(&row, compressed, out.as_mut())?;
        Stats::add(&self.context.stats.chunks_decoded, 1);
        Ok((out.freeze(), unit))
    }

    /// The same for the few bytes before the file, for one who has a unit.
    pub(super) fn decode_head(&self, table: &ChunkTable) -> Result<Bytes> {
        let row = table
            .row(0)
            .ok_or_else(|| self.lies("has no row 0".into()))?;
        let buffers = &self.context.buffers;
        let mut head = buffers.take(table.decoded_len(0) as usize);
        if row.kind == ChunkKind::Plain {
            self.read(head.as_mut(), &row)?;
        } else {
            let mut compressed = buffers.take(row.length as usize);
            self.read(compressed.as_mut(), &row)?;
            self.decode_row(&row, compressed.as_mut(), head.as_mut())?;
        }
        Stats::add(&self.context.stats.chunks_decoded, 1);
        Ok(head.freeze())
    }

    fn decode_row(&self, row: &Row, compressed: &[u8], out: &mut [u8]) -> Result<()> {
        DECODING
            .with_borrow_mut(|decoder| decoder.decode(row.kind, &row.sub_offsets, compressed, out))
            .map_err(|e| self.lies(format!("segment at offset {}: {e}", row.offset)))
    }

    /// Reads a segment's compressed bytes and compares them with their digest, each piece hashed
    /// while it is still in the processor's cache.
    fn read(&self, compressed: &mut [u8], row: &Row) -> Result<()> {
        let mut hasher = Hasher::new(row.digest.algorithm());
        let mut offset = row.offset;
        for piece in compressed.chunks_mut(self.blob.piece().max(1)) {
            self.blob.read_exact_at(piece, offset)?;
            hasher.update(piece);
            offset += piece.len() as u64;
        }
        self.compare(hasher.finish(), row)
    }

    /// Reads a stored segment to where its data belongs, and compares it with its digest; false when
    /// it is of another shape than `pack` writes, and `out` is not what it says.
    fn read_stored(&self, out: &mut [u8], row: &Row) -> Result<bool> {
        let mut hasher = Hasher::new(row.digest.algorithm());
        let mut offset = row.offset;
        let read = |slices: &mut [IoSliceMut<'_>]| {
            let len: usize = slices.iter().map(|slice| slice.len()).sum();
            self.blob.read_exact_vectored_at(slices, offset)?;
            offset += len as u64;
            Ok::<_, Error>(())
        };
        let seen = |bytes: &[u8]| hasher.update(bytes);
        let in_place = stored::decode_as_read(out, row.length as usize, read, seen)?;
        // Otherwise it is read again, and compared then.
        if in_place {
            self.compare(hasher.finish(), row)?;
        }
        Ok(in_place)
    }

    pub(super) fn check(&self, compressed: &[u8], row: &Row) -> Result<()> {
        self.compare(Digest::of(row.digest.algorithm(), compressed), row)
    }

    fn compare(&self, found: Digest, row: &Row) -> Result<()> {
        if found != row.digest {
            return Err(Error::corrupt(
                &self.subject,
                format!(
                    "{} bytes at offset {} are {found}, the chunk table says {}",
                    row.length, row.offset, row.digest
                ),
            ));
        }
        Stats::add(&self.context.stats.chunks_verified, 1);
        Ok(())
    }
}
