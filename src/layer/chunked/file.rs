//! A file in a layer with a chunk table: each chunk is verified, then decoded, then shared.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::file_digests::FileDigests;
use super::foreign::ForeignFile;
use super::readahead::Readahead;
use super::table::{self, ChunkTable, Framing, GZIP_HEADER, Row};
use super::{FileAttr, FileReader, LayerSpec, foreign};
use crate::codec::{ChunkKind, Decoder, stored};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::limits;
use crate::memory::cache::ChunkKey;
use crate::memory::context::{Context, Stats};
use crate::memory::flight::Flight;
use crate::memory::limiter::{Term, Unit};
use crate::memory::tables::Forget;
use crate::memory::units::{can_wait_in, is_part_of_a_stream};
use crate::oci::stated::TablePlace;
use crate::source::ReadAt;
use crate::stream::{Wait, Within};
use crate::tar::{EntryKind, Members};
use crate::work::cores;

mod verify;

/// What the manifest's annotations pin: the table, and the size of the file.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    /// SHA-256 of the table's bytes.
    table: Digest,
    place: TablePlace,
    file_size: u64,
    executable: bool,
}

impl Pinned {
    /// What a layer's annotations state; `None` when they state no table, or one that is not there.
    pub(super) fn of(spec: &LayerSpec) -> Option<Pinned> {
        let table = spec.stated.chunks?;
        if table.place == TablePlace::Blob && spec.table.is_none() {
            return None;
        }
        Some(Pinned {
            table: table.digest,
            place: table.place,
            file_size: spec.stated.file_size?,
            executable: spec.stated.executable == Some(true),
        })
    }
}

impl Pinned {
    /// The attributes of the file, without opening the layer.
    pub(super) fn attr(&self) -> FileAttr {
        FileAttr {
            size: self.file_size,
            executable: self.executable,
            mtime: 0,
        }
    }
}

/// A file read through its chunk table; through the whole layer when the table is gone.
pub(super) struct ChunkedFile {
    shared: Arc<Shared>,
    pinned: Pinned,
    spec: LayerSpec,
    loaded: Arc<Loaded>,
    opening: Flight<(), Access>,
    readahead: Arc<Readahead>,
}

/// What decoding a chunk needs.
struct Shared {
    blob: Arc<dyn ReadAt>,
    context: Arc<Context>,
    /// Names the layer in messages.
    subject: String,
    layer: u32,
    decoding: Flight<u32, Bytes>,
}

#[derive(Clone)]
enum Access {
    Table(Arc<Table>),
    Foreign(Arc<ForeignFile>),
}

/// A chunk table that was checked.
struct Table {
    chunks: Arc<ChunkTable>,
    /// What the layer's own header says of the file; `None` when there is no header.
    head: Option<Head>,
}

/// What a tar header says, besides the size.
struct Head {
    path: Box<[u8]>,
    executable: bool,
}

impl Head {
    /// Compares it with what a descriptor states.
    fn check(&self, name: &str, executable: bool) -> std::result::Result<(), String> {
        let base = self.path.rsplit(|byte| *byte == b'/').next();
        if base.unwrap_or(&self.path) != name.as_bytes() {
            let path = crate::entry_path::printable_bytes(&self.path);
            return Err(format!("names \"{path}\", the manifest \"{name}\""));
        }
        if self.executable != executable {
            let (found, stated) = (foreign::kind(self.executable), foreign::kind(executable));
            return Err(format!("is of {found}, the manifest's of {stated}"));
        }
        Ok(())
    }
}

/// How a file is read, once the first touch has found out; and again after its table was forgotten.
#[derive(Default)]
struct Loaded(Mutex<Option<Access>>);

impl Loaded {
    fn lock(&self) -> MutexGuard<'_, Option<Access>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forget for Loaded {
    fn forget(&self) {
        // Dropped after the lock.
        let _table = self
            .lock()
            .take_if(|access| matches!(access, Access::Table(_)));
    }
}

impl ChunkedFile {
    pub(super) fn new(
        blob: Arc<dyn ReadAt>,
        spec: LayerSpec,
        pinned: Pinned,
        context: Arc<Context>,
    ) -> ChunkedFile {
        let subject = format!("{} ({})", spec.path, spec.stated.digest);
        let layer = context.next_layer();
        ChunkedFile {
            shared: Arc::new(Shared {
                blob,
                context,
                subject,
                layer,
                decoding: Flight::new(),
            }),
            pinned,
            spec,
            loaded: Arc::default(),
            opening: Flight::new(),
            readahead: Arc::default(),
        }
    }

    /// How to read the file: loads and checks the table when there is none. A failure is not kept, so
    /// that storage may recover.
    fn access(&self) -> Result<Access> {
        let known = || self.loaded.lock().clone();
        if let Some(access) = known() {
            return Ok(access);
        }
        let open = || {
            // Another reader may have finished between the look and the flight.
            if let Some(access) = known() {
                return Ok(access);
            }
            let access = match self.load_table()? {
                Some(table) => Access::Table(Arc::new(table)),
                None => Access::Foreign(self.open_foreign()?),
            };
            *self.loaded.lock() = Some(access.clone());
            if let Access::Table(_) = access {
                let loaded: Arc<dyn Forget> = Arc::<Loaded>::clone(&self.loaded);
                self.shared.context.tables.loaded(Arc::downgrade(&loaded));
            }
            Ok(access)
        };
        self.opening.run((), open).0
    }

    /// The table, checked against the manifest and the layer's own header; `None` when it is not
    /// in the blob any more, because a tool recompressed the layer and kept the annotations.
    fn load_table(&self) -> Result<Option<Table>> {
        let shared = &self.shared;
        // Kept until the table is checked: nothing below waits for more.
        let mut unit = None;
        let found = match (self.pinned.place, &self.spec.table) {
            // Recompressed to fewer bytes.
            (TablePlace::Members(offset, length), _)
                if offset.saturating_add(length) > self.spec.stated.size =>
            {
                None
            }
            (TablePlace::Members(offset, length), _) => {
                unit = Some(self.table_memory(length)?);
                let members = read(&*shared.blob, offset, length)?;
                let gzip = members.starts_with(&GZIP_HEADER[..2]);
                let framing = if gzip { Framing::Gzip } else { Framing::Zstd };
                table::unwrap(framing, &members).map(|bytes| (bytes, framing, offset))
            }
            (TablePlace::Blob, Some(blob)) if blob.len() <= limits::MAX_CHUNK_TABLE_BYTES => {
                unit = Some(self.table_memory(blob.len())?);
                let bytes = read(&**blob, 0, blob.len())?;
                Some((bytes, Framing::Plain, self.spec.stated.size))
            }
            (TablePlace::Blob, _) => None,
        };
        let Some((bytes, framing, data_size)) = found.filter(|(bytes, ..)| {
            Digest::of(self.pinned.table.algorithm(), bytes) == self.pinned.table
        }) else {
            return Ok(None);
        };
        let bytes = match &mut unit {
            Some(unit) => unit.part(bytes.len() as u64).hold(bytes),
            None => bytes.into(),
        };
        let table = ChunkTable::parse(bytes, self.spec.stated.size, &shared.subject)?;
        let header = table.header();
        if header.framing != framing || header.data_size != data_size {
            return Err(shared.lies(format!(
                "describes {} bytes of {:?} data; the layer has {data_size} of {framing:?}",
                header.data_size, header.framing
            )));
        }
        if header.file_size != self.pinned.file_size {
            return Err(shared.lies(format!(
                "says the file has {} bytes, the manifest says {}",
                header.file_size, self.pinned.file_size
            )));
        }
        let head = self.check_head(&table)?;
        Ok(Some(Table {
            chunks: Arc::new(table),
            head,
        }))
    }

    /// The layer's own tar header must say what the table and the manifest say. Returns what else it
    /// says; `None` when there is no header.
    fn check_head(&self, table: &ChunkTable) -> Result<Option<Head>> {
        let shared = &self.shared;
        let header = table.header();
        if header.framing == Framing::Plain && header.tar_size == header.file_size {
            return Ok(None); // a raw layer: the file alone
        }
        let head = shared.decode_head(table)?;
        let lies = |rule: String| shared.head_lies(rule);
        // The members after the head are cut off, so only the first one can be read.
        let entry = Members::new(&head[..], &*shared.subject)
            .next_member()
            .map_err(|e| lies(e.to_string()))?
            .ok_or_else(|| lies("is missing".into()))?;
        if entry.kind != EntryKind::File {
            return Err(lies(format!("is of a {:?}, not of a file", entry.kind)));
        }
        if entry.size != header.file_size || entry.data_offset != header.file_offset {
            return Err(lies(format!(
                "puts {} bytes at {}, the chunk table {} bytes at {}",
                entry.size, entry.data_offset, header.file_size, header.file_offset
            )));
        }
        let head = Head {
            path: entry.path.into(),
            executable: entry.mode & 0o111 != 0,
        };
        head.check(self.spec.path.file_name(), self.pinned.executable)
            .map_err(lies)?;
        Ok(Some(head))
    }

    /// Nobody reads an empty file: that it is one, and what else a descriptor states of it, is verified
    /// when it is opened, or never.
    ///
    /// # Errors
    /// As those of reads.
    pub(super) fn prove_if_empty(&self, spec: &LayerSpec) -> Result<()> {
        if self.pinned.file_size > 0 {
            return Ok(());
        }
        let bytes = self.table_bytes();
        if !self.shared.context.opening.affords(bytes) {
            let problem = format!("a chunk table of {bytes} bytes for an empty file");
            return Err(self.shared.lies(problem));
        }
        let executable = spec.stated.executable == Some(true);
        self.confirm(spec.path.file_name(), executable)
    }

    /// Bytes of the table, as far as they count.
    fn table_bytes(&self) -> u64 {
        let length = match (self.pinned.place, &self.spec.table) {
            (TablePlace::Members(_, length), _) => length.min(self.spec.stated.size),
            (TablePlace::Blob, blob) => blob.as_ref().map_or(0, |blob| blob.len()),
        };
        length.min(limits::MAX_CHUNK_TABLE_BYTES)
    }

    /// Says no to a table for which there can be no memory.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment), with the cache size that would do.
    pub(super) fn check_table_fits(&self) -> Result<()> {
        let shared = &self.shared;
        let limiter = &shared.context.limiter;
        let bytes = self.table_bytes().saturating_mul(2);
        limiter.check(bytes, Term::Short, &shared.subject)
    }

    /// Waits for memory for a table of `length` bytes in the blob: these, and what they hold.
    fn table_memory(&self, length: u64) -> Result<Unit> {
        let shared = &self.shared;
        let bytes = length.saturating_mul(2);
        let limiter = &shared.context.limiter;
        limiter.take(bytes, Term::Short, &shared.subject)
    }

    /// Has the pool decode the next chunks when this read continues a sequence of them.
    fn decode_ahead(&self, table: &Arc<ChunkTable>, start: u64, end: u64) {
        let context = &self.shared.context;
        let Some(pool) = &context.pool else { return };
        let chunk_size = u64::from(table.header().chunk_size);
        // The reader decodes too; and the cache must have room for what is not wanted yet.
        let depth = (context.readahead_bytes.min(context.cache.capacity() / 4) / chunk_size)
            .min(3 * (pool.threads() as u64 + 1))
            .min(table.chunks().saturating_sub(end.div_ceil(chunk_size)));
        for chunk in self.readahead.note(start, end, chunk_size, depth) {
            let (shared, table) = (Arc::clone(&self.shared), Arc::clone(table));
            let readahead = Arc::clone(&self.readahead);
            let asked = pool.submit(move || {
                if readahead.claim(chunk) {
                    // An error is the reader's to meet: it reads the same chunk again.
                    drop(shared.chunk(&table, chunk, || false));
                }
            });
            if !asked {
                self.readahead.claim(chunk);
            }
        }
    }

    /// A chunk for a read of `len` bytes. While another thread is at it, this one decodes what will be
    /// wanted next: else the two would wake each other after every chunk; and of a chunk that is
    /// larger than the kernel's requests, several readers would wait while other processors rest.
    fn chunk(&self, table: &ChunkTable, number: u64, len: usize) -> Result<Bytes> {
        let shared = &self.shared;
        // Large chunks take turns: waiting for one is as good.
        let most = cores().min(at_once(table.header().chunk_size.into()));
        shared.chunk(table, number, || {
            let next = match &shared.context.pool {
                Some(_) if most == cores() => self.readahead.claim_first(),
                None if shared.streams(number, len) => shared.next_idle(table, number, most),
                _ => None,
            };
            // An error is the reader's to meet: it reads the same chunk again.
            next.map(|next| drop(shared.chunk(table, next, || false)))
                .is_some()
        })
    }

    fn open_foreign(&self) -> Result<Arc<ForeignFile>> {
        let shared = &self.shared;
        log::warn!(
            "{}: the chunk table that the manifest names is not in the layer (was it \
             recompressed?); reading the whole layer before its first byte",
            shared.subject
        );
        let looked = foreign::look(
            Arc::clone(&shared.blob),
            self.spec.clone(),
            Arc::clone(&shared.context),
        )
        .map_err(|error| match error {
            // The archive was opened long ago: what a read finds wrong is damage.
            Error::Malformed { subject, rule } => Error::corrupt(subject, rule),
            other => other,
        })?;
        let Ok(file) = looked else {
            return Err(Error::corrupt(&shared.subject, "holds a link, not a file"));
        };
        // Compares the size that the manifest states, too.
        file.attr_of(&self.spec)?;
        file.confirm(self.spec.path.file_name(), self.pinned.executable)?;
        Ok(Arc::new(file))
    }
}

/// Bytes of a table, at most [`limits::MAX_CHUNK_TABLE_BYTES`].
fn read(blob: &dyn ReadAt, offset: u64, length: u64) -> Result<Vec<u8>> {
    // Not trusted with an allocation before the blob is known to hold it.
    if offset
        .checked_add(length)
        .is_none_or(|end| end > blob.len())
    {
        return Err(Error::corrupt(
            "chunk table",
            "lies beyond the end of its blob",
        ));
    }
    let mut bytes = vec![0; length as usize];
    blob.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

impl FileReader for ChunkedFile {
    fn size(&self) -> u64 {
        self.pinned.file_size
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let table = match self.access()? {
            Access::Table(table) => Arc::clone(&table.chunks),
            Access::Foreign(file) => return file.read_at(offset, len),
        };
        let available = self.pinned.file_size.saturating_sub(offset);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(Bytes::new());
        }
        let chunk_size = u64::from(table.header().chunk_size);
        self.decode_ahead(&table, offset, offset + len as u64);
        let (mut number, start) = (offset / chunk_size, (offset % chunk_size) as usize);
        let mut chunk = self.chunk(&table, number, len)?;
        if start + len <= chunk.len() {
            self.shared.served(number, len);
            if chunk.len() > LARGE {
                // An answer that waits for its turn must not keep all of a large chunk: others would
                // wait for its memory.
                let mut copy = self.shared.context.buffers.take(len);
                copy.as_mut().copy_from_slice(&chunk[start..start + len]);
                return Ok(copy.freeze());
            }
            return Ok(chunk.slice(start..start + len));
        }
        let mut joined = self.shared.context.buffers.take(len);
        let mut rest = joined.as_mut();
        let mut piece = chunk.get(start..).unwrap_or_default();
        loop {
            let take = piece.len().min(rest.len());
            let (to, later) = rest.split_at_mut(take);
            to.copy_from_slice(&piece[..take]);
            self.shared.served(number, take);
            rest = later;
            if rest.is_empty() {
                break;
            }
            number += 1;
            // Not kept while the next one is decoded.
            drop(chunk);
            chunk = self.chunk(&table, number, len)?;
            piece = &chunk;
        }
        Ok(joined.freeze())
    }

    fn read_within(&self, may: Option<Wait>, offset: u64, len: usize) -> Result<Within> {
        match self.access()? {
            Access::Table(_) => self.read_at(offset, len).map(Within::Read),
            Access::Foreign(file) => file.read_within(may, offset, len),
        }
    }

    fn touch(&self) -> Result<()> {
        match self.access()? {
            Access::Table(_) => Ok(()),
            Access::Foreign(file) => file.touch(),
        }
    }

    fn advance(&self) -> u64 {
        let access = self.loaded.lock();
        match &*access {
            Some(Access::Foreign(file)) => file.advance(),
            Some(Access::Table(_)) | None => 0,
        }
    }

    fn confirm(&self, name: &str, executable: bool) -> Result<()> {
        match self.access()? {
            Access::Table(table) => match &table.head {
                Some(head) => head
                    .check(name, executable)
                    .map_err(|rule| self.shared.head_lies(rule)),
                None => Ok(()),
            },
            Access::Foreign(file) => file.confirm(name, executable),
        }
    }

    fn verify(&self, also: &[Algorithm]) -> Result<FileDigests> {
        match self.access()? {
            Access::Table(table) => verify::verify(&self.shared, &table.chunks, &self.spec, also),
            Access::Foreign(file) => file.verify(also),
        }
    }
}

/// Chunks of more bytes are cut for their answers.
const LARGE: usize = 2 << 20;

/// How many chunks of so many bytes one reader decodes ahead of itself at a time.
fn at_once(bytes: u64) -> usize {
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

impl Shared {
    /// The base name of a tar member's path must be that of the file.
    fn head_lies(&self, rule: String) -> Error {
        Error::corrupt(&self.subject, format!("tar header: {rule}"))
    }

    fn lies(&self, problem: String) -> Error {
        Error::corrupt(&self.subject, format!("chunk table: {problem}"))
    }

    /// A data chunk, from the cache or decoded now; decoded once, however many readers ask. While
    /// another one decodes it, `meanwhile` is called: see [`Flight::run_or`].
    fn chunk(
        &self,
        table: &ChunkTable,
        number: u64,
        meanwhile: impl FnMut() -> bool,
    ) -> Result<Bytes> {
        let stats = &self.context.stats;
        let key = self
            .key(number)
            .ok_or_else(|| Error::corrupt(&self.subject, "has more chunks than can be numbered"))?;
        if let Some(bytes) = self.context.cache.get(key) {
            Stats::add(&stats.cache_hits, 1);
            return Ok(bytes);
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
        result
    }

    fn streams(&self, number: u64, len: usize) -> bool {
        let before = number.checked_sub(1).and_then(|before| self.key(before));
        is_part_of_a_stream(&*self.context.cache, len, before)
    }

    /// One of the chunks that follow `number` which nobody has decoded or decodes now, when fewer
    /// than `most` are being decoded.
    fn next_idle(&self, table: &ChunkTable, number: u64, most: usize) -> Option<u64> {
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

    /// Notes that bytes of a chunk were served.
    fn served(&self, number: u64, bytes: usize) {
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
    fn decode_head(&self, table: &ChunkTable) -> Result<Bytes> {
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
        const PIECE: usize = 256 << 10;
        let mut hasher = Hasher::new(row.digest.algorithm());
        let mut offset = row.offset;
        for piece in compressed.chunks_mut(PIECE) {
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

    fn check(&self, compressed: &[u8], row: &Row) -> Result<()> {
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
