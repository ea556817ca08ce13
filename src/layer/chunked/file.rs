//! A file in a layer with a chunk table: each chunk is verified, then decoded, then chunks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::chunks::{Chunks, LARGE, at_once};
use super::claim::Claim;
use super::table::{ChunkTable, Framing, GZIP_HEADER};
use super::{verify, wrap};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::layer::file_digests::FileDigests;
use crate::layer::foreign::{self, ForeignFile, Looked};
use crate::layer::readahead::Readahead;
use crate::layer::reader::{FileAttr, FileReader, LayerSpec};
use crate::limits;
use crate::memory::context::Context;
use crate::memory::flight::Flight;
use crate::memory::limiter::{Term, Unit};
use crate::memory::shared_work::Helpers;
use crate::memory::tables::Forget;
use crate::oci::stated::{StatedTable, TablePlace};
use crate::source::ReadAt;
use crate::stream::{Advance, Wait, Within};
use crate::tar::{EntryKind, Members};
use crate::work::cores;

/// What the manifest's annotations pin: the table, and the size of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pinned {
    table: StatedTable,
    file_size: u64,
}

impl Pinned {
    /// What a layer's annotations state; `None` when they state no table, or one that is not there.
    pub(crate) fn of(spec: &LayerSpec) -> Option<Pinned> {
        let table = spec.stated.chunks?;
        if table.place == TablePlace::Blob && spec.table.is_none() {
            return None;
        }
        Some(Pinned {
            table,
            file_size: spec.stated.file_size?,
        })
    }
}

/// A file read through its chunk table; through the whole layer when the table is gone.
pub(crate) struct ChunkedFile {
    chunks: Arc<Chunks>,
    pinned: Pinned,
    spec: LayerSpec,
    loaded: Arc<Loaded>,
    opening: Flight<(), Access>,
    readahead: Arc<Readahead>,
    /// The blob, whose reads are counted there.
    advance: Arc<Advance>,
    /// Reads of it may wait for a network.
    far: bool,
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
            let path = crate::printable::printable_bytes(&self.path);
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
    pub(crate) fn new(
        blob: Arc<dyn ReadAt>,
        spec: LayerSpec,
        pinned: Pinned,
        context: Arc<Context>,
    ) -> ChunkedFile {
        let subject = format!("{} ({})", spec.path, spec.stated.digest);
        let layer = context.next_layer();
        let far = blob.would_wait(0, blob.len());
        let advance = Advance::of(blob, Arc::clone(&context));
        let blob = Arc::<Advance>::clone(&advance);
        ChunkedFile {
            chunks: Arc::new(Chunks {
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
            advance,
            far,
        }
    }

    fn known_access(&self) -> Option<Access> {
        self.loaded.lock().clone()
    }

    /// How to read the file: loads and checks the table when there is none. A failure is not kept, so
    /// that storage may recover.
    fn access(&self) -> Result<Access> {
        if let Some(access) = self.known_access() {
            return Ok(access);
        }
        let open = || {
            // Another reader may have finished between the look and the flight.
            if let Some(access) = self.known_access() {
                return Ok(access);
            }
            let access = match self.load_table()? {
                Some(table) => Access::Table(Arc::new(table)),
                None => Access::Foreign(self.open_foreign()?),
            };
            *self.loaded.lock() = Some(access.clone());
            if let Access::Table(_) = access {
                let loaded: Arc<dyn Forget> = Arc::<Loaded>::clone(&self.loaded);
                self.chunks.context.tables.loaded(Arc::downgrade(&loaded));
            }
            Ok(access)
        };
        self.opening.run((), open).0
    }

    /// The table, checked against the manifest and the layer's own header; `None` when it is not
    /// in the blob any more, because a tool recompressed the layer and kept the annotations.
    fn load_table(&self) -> Result<Option<Table>> {
        let chunks = &self.chunks;
        // Kept until the table is checked: nothing below waits for more.
        let mut unit = None;
        let found = match (self.pinned.table.place, &self.spec.table) {
            // Recompressed to fewer bytes.
            (TablePlace::Members(offset, length), _)
                if offset.saturating_add(length) > self.spec.stated.size =>
            {
                None
            }
            (TablePlace::Members(offset, length), _) => {
                unit = Some(self.table_memory(length)?);
                let members = read(&*chunks.blob, offset, length)?;
                let gzip = members.starts_with(&GZIP_HEADER[..2]);
                let framing = if gzip { Framing::Gzip } else { Framing::Zstd };
                wrap::unwrap(framing, &members).map(|bytes| (bytes, framing, offset))
            }
            (TablePlace::Blob, Some(blob)) if blob.len() <= limits::MAX_CHUNK_TABLE_BYTES => {
                unit = Some(self.table_memory(blob.len())?);
                let bytes = read(&**blob, 0, blob.len())?;
                Some((bytes, Framing::Plain, self.spec.stated.size))
            }
            (TablePlace::Blob, _) => None,
        };
        let Some((bytes, framing, data_size)) = found.filter(|(bytes, ..)| {
            Digest::of(self.pinned.table.digest.algorithm(), bytes) == self.pinned.table.digest
        }) else {
            return Ok(None);
        };
        let bytes = match &mut unit {
            Some(unit) => unit.part(bytes.len() as u64).hold(bytes),
            None => bytes.into(),
        };
        let table = ChunkTable::parse(bytes, self.spec.stated.size, &chunks.subject)?;
        let header = table.header();
        if header.framing != framing || header.data_size != data_size {
            return Err(chunks.lies(format!(
                "describes {} bytes of {:?} data; the layer has {data_size} of {framing:?}",
                header.data_size, header.framing
            )));
        }
        if header.file_size != self.pinned.file_size {
            return Err(chunks.lies(format!(
                "says the file has {} bytes, the manifest says {}",
                header.file_size, self.pinned.file_size
            )));
        }
        Claim::of(&self.spec)
            .check_table(&self.spec, header)
            .map_err(|problem| Error::corrupt(&chunks.subject, problem))?;
        let head = self.check_head(&table)?;
        Ok(Some(Table {
            chunks: Arc::new(table),
            head,
        }))
    }

    /// The layer's own tar header must say what the table and the manifest say. Returns what else it
    /// says; `None` when there is no header.
    fn check_head(&self, table: &ChunkTable) -> Result<Option<Head>> {
        let chunks = &self.chunks;
        let header = table.header();
        if header.framing == Framing::Plain && header.tar_size == header.file_size {
            return Ok(None); // a raw layer: the file alone
        }
        let head = chunks.decode_head(table)?;
        let lies = |rule: String| chunks.head_lies(rule);
        // The members after the head are cut off, so only the first one can be read.
        let entry = Members::new(&head[..], &*chunks.subject)
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
        head.check(self.spec.path.file_name(), executable(&self.spec))
            .map_err(lies)?;
        Ok(Some(head))
    }

    /// True when a read waits for more than the storage of this machine: for the table, or for a chunk.
    fn would_wait(&self, offset: u64, len: usize) -> bool {
        if !self.far {
            return false;
        }
        let chunks = &self.chunks;
        match self.known_access() {
            None => match (self.pinned.table.place, &self.spec.table) {
                (TablePlace::Members(at, length), _) => chunks.blob.would_wait(at, length),
                (TablePlace::Blob, Some(table)) => table.would_wait(0, table.len()),
                (TablePlace::Blob, None) => false,
            },
            Some(Access::Table(table)) => {
                let header = table.chunks.header();
                let chunk_size = u64::from(header.chunk_size);
                let end = offset.saturating_add(len as u64).min(header.file_size);
                let mut numbers = offset / chunk_size..end.div_ceil(chunk_size);
                numbers.any(|number| chunks.would_wait(&table.chunks, number))
            }
            Some(Access::Foreign(_)) => false,
        }
    }

    /// The attributes of the file under a descriptor, which may be another than the layer was opened
    /// for. The size is the one that the table is compared with, whatever descriptor states it.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it pins something else; those of reads
    /// when the file is empty.
    pub(crate) fn attr_of(&self, spec: &LayerSpec) -> Result<FileAttr> {
        if Pinned::of(spec).as_ref() != Some(&self.pinned) {
            let rule = "states another chunk table or file size than others with its blob";
            let subject = format!("{} ({})", spec.path, spec.stated.digest);
            return Err(Error::malformed(subject, rule));
        }
        self.prove_if_empty(spec)?;
        Ok(FileAttr {
            size: self.pinned.file_size,
            executable: executable(spec),
            mtime: 0,
        })
    }

    /// Nobody reads an empty file: that it is one, and what else a descriptor states of it, is verified
    /// when it is opened, or never.
    ///
    /// # Errors
    /// As those of reads.
    fn prove_if_empty(&self, spec: &LayerSpec) -> Result<()> {
        if self.pinned.file_size > 0 {
            return Ok(());
        }
        let bytes = self.table_bytes();
        if !self.chunks.context.opening.affords(bytes) {
            let problem = format!("a chunk table of {bytes} bytes for an empty file");
            return Err(self.chunks.lies(problem));
        }
        self.confirm(spec.path.file_name(), executable(spec))
    }

    /// Bytes of the table, as far as they count.
    fn table_bytes(&self) -> u64 {
        let length = match (self.pinned.table.place, &self.spec.table) {
            (TablePlace::Members(_, length), _) => length.min(self.spec.stated.size),
            (TablePlace::Blob, blob) => blob.as_ref().map_or(0, |blob| blob.len()),
        };
        length.min(limits::MAX_CHUNK_TABLE_BYTES)
    }

    /// Says no to a table for which there can be no memory.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment), with the cache size that would do.
    pub(crate) fn check_table_fits(&self) -> Result<()> {
        let chunks = &self.chunks;
        let limiter = &chunks.context.limiter;
        limiter.check(self.table_takes(), Term::Short, &chunks.subject)
    }

    /// Bytes of memory for the table: its own, and what they hold.
    fn table_takes(&self) -> u64 {
        self.table_bytes().saturating_mul(2)
    }

    /// Waits for memory for a table of `length` bytes in the blob: these, and what they hold.
    fn table_memory(&self, length: u64) -> Result<Unit> {
        let chunks = &self.chunks;
        let bytes = length.saturating_mul(2);
        let limiter = &chunks.context.limiter;
        limiter.take(bytes, Term::Short, &chunks.subject)
    }

    /// Has the pool decode the next chunks when this read continues a sequence of them.
    fn decode_ahead(&self, table: &Arc<ChunkTable>, start: u64, end: u64) {
        let context = &self.chunks.context;
        let Some(pool) = &context.pool else { return };
        let chunk_size = u64::from(table.header().chunk_size);
        // The reader decodes too; and the cache must have room for what is not wanted yet.
        let depth = (context.readahead_bytes.min(context.cache.capacity() / 4) / chunk_size)
            .min(3 * (pool.threads() as u64 + 1))
            .min(table.chunks().saturating_sub(end.div_ceil(chunk_size)));
        let ahead = self.readahead.note(
            start..end,
            limits::KERNEL_READAHEAD_BYTES.into(),
            chunk_size,
            depth,
        );
        for chunk in ahead {
            let (chunks, table) = (Arc::clone(&self.chunks), Arc::clone(table));
            let readahead = Arc::clone(&self.readahead);
            let asked = pool.submit(move || {
                if readahead.claim(chunk) {
                    // An error is the reader's to meet: it reads the same chunk again.
                    drop(chunks.chunk(&table, chunk, true, || false));
                }
            });
            if !asked {
                self.readahead.claim(chunk);
            }
        }
    }

    /// A chunk for a read of `len` bytes. While another thread is at it, and nobody decodes ahead, this one
    /// decodes what will be wanted next: else the two would wake each other after every chunk; and of a
    /// chunk that is larger than the kernel's requests, several readers would wait while other processors
    /// rest. Where there are threads that decode ahead, the reader is not kept waiting for more.
    fn chunk(
        &self,
        table: &ChunkTable,
        number: u64,
        len: usize,
        patient: bool,
    ) -> Result<Option<Bytes>> {
        let chunks = &self.chunks;
        // Large chunks take turns: waiting for one is as good.
        let most = cores().min(at_once(table.header().chunk_size.into()));
        chunks.chunk(table, number, patient, || {
            let alone = chunks.context.pool.is_none();
            let next = match alone && chunks.streams(number, len) {
                true => chunks.next_idle(table, number, most),
                false => None,
            };
            // An error is the reader's to meet: it reads the same chunk again.
            next.map(|next| chunks.chunk(table, next, patient, || false))
                .is_some_and(|next| !matches!(next, Ok(None)))
        })
    }

    /// Reads through the table; `None` when a chunk is only to be had by patient readers.
    fn read_chunks(
        &self,
        table: &Arc<ChunkTable>,
        offset: u64,
        len: usize,
        patient: bool,
    ) -> Result<Option<Bytes>> {
        let available = self.pinned.file_size.saturating_sub(offset);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(Some(Bytes::new()));
        }
        let chunk_size = u64::from(table.header().chunk_size);
        self.decode_ahead(table, offset, offset + len as u64);
        let (mut number, start) = (offset / chunk_size, (offset % chunk_size) as usize);
        let Some(mut chunk) = self.chunk(table, number, len, patient)? else {
            return Ok(None);
        };
        if start + len <= chunk.len() {
            self.chunks.served(number, len);
            if chunk.len() > LARGE {
                // An answer that waits for its turn must not keep all of a large chunk: others would
                // wait for its memory.
                let mut copy = self.chunks.context.buffers.take(len);
                copy.as_mut().copy_from_slice(&chunk[start..start + len]);
                return Ok(Some(copy.freeze()));
            }
            return Ok(Some(chunk.slice(start..start + len)));
        }
        let mut joined = self.chunks.context.buffers.take(len);
        let mut rest = joined.as_mut();
        let mut piece = chunk.get(start..).unwrap_or_default();
        loop {
            let take = piece.len().min(rest.len());
            let (to, later) = rest.split_at_mut(take);
            to.copy_from_slice(&piece[..take]);
            self.chunks.served(number, take);
            rest = later;
            if rest.is_empty() {
                break;
            }
            number += 1;
            // Not kept while the next one is decoded.
            drop(chunk);
            match self.chunk(table, number, len, patient)? {
                Some(next) => chunk = next,
                None => return Ok(None),
            }
            piece = &chunk;
        }
        Ok(Some(joined.freeze()))
    }

    fn open_foreign(&self) -> Result<Arc<ForeignFile>> {
        let chunks = &self.chunks;
        log::warn!(
            "{}: the chunk table that the manifest names is not in the layer (was it \
             recompressed?); reading the whole layer before its first byte",
            chunks.subject
        );
        let looked = foreign::look(
            Arc::clone(&chunks.blob),
            self.spec.clone(),
            Arc::clone(&chunks.context),
        )
        .map_err(|error| match error {
            // The archive was opened long ago: what a read finds wrong is damage.
            Error::Malformed { subject, rule } => Error::corrupt(subject, rule),
            other => other,
        })?;
        let Looked::File(file) = looked else {
            return Err(Error::corrupt(
                &chunks.subject,
                "does not hold the one file",
            ));
        };
        // Compares the size that the manifest states, too.
        file.attr_of(&self.spec)?;
        file.confirm(self.spec.path.file_name(), executable(&self.spec))?;
        Ok(file)
    }
}

/// Whether a descriptor states that its file is executable; `pack` states it only of files that are.
fn executable(spec: &LayerSpec) -> bool {
    spec.stated.executable == Some(true)
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
    fn shown_size(&self) -> u64 {
        self.pinned.file_size
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        match self.read_within(Some(Wait::Pass), offset, len)? {
            Within::Read(bytes) => Ok(bytes),
            Within::Waits(_) => Err(Error::corrupt(&self.chunks.subject, "waits for ever")),
        }
    }

    fn read_within(&self, may: Option<Wait>, offset: u64, len: usize) -> Result<Within> {
        if may.is_none() && self.would_wait(offset, len) {
            return Ok(Within::Waits(Wait::Work));
        }
        let patient = may >= Some(Wait::Memory);
        let access = match self.known_access() {
            Some(access) => access,
            None if !patient && !self.chunks.context.limiter.is_small(self.table_takes()) => {
                return Ok(Within::Waits(Wait::Memory));
            }
            None => self.access()?,
        };
        match access {
            Access::Table(table) => {
                let read = self.read_chunks(&table.chunks, offset, len, patient)?;
                Ok(read.map_or(Within::Waits(Wait::Memory), Within::Read))
            }
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
            Some(Access::Table(_)) | None => self.advance.get(),
        }
    }

    fn confirm(&self, name: &str, executable: bool) -> Result<()> {
        match self.access()? {
            Access::Table(table) => match &table.head {
                Some(head) => head
                    .check(name, executable)
                    .map_err(|rule| self.chunks.head_lies(rule)),
                None => Ok(()),
            },
            Access::Foreign(file) => file.confirm(name, executable),
        }
    }

    fn verify_with(&self, also: &[Algorithm], helpers: &Helpers) -> Result<Vec<FileDigests>> {
        match self.access()? {
            Access::Table(table) => {
                verify::verify(&self.chunks, &table.chunks, &self.spec, also, helpers)
                    .map(|digests| vec![digests])
            }
            Access::Foreign(file) => file.verify_with(also, helpers),
        }
    }
}
