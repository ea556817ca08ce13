//! Writes an outer archive in one pass: blobs whose digest is known only at their end, documents,
//! the end of the archive.
//!
//! Guarantees: regular entries but for links to blobs, mode 0644, owner 0, one time; each blob once, however often it
//! is added. In a file a blob's header is filled in when the blob is complete; to a stream a blob
//! goes by way of an unlinked temporary file.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::calls;
use crate::files::scratch::Scratch;
use crate::oci::Descriptor;
use crate::tar::{BLOCK, write};

/// Small writes are gathered up to this many bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// What file systems share whole, in bytes: their usual blocks.
const SHARED_BYTES: u64 = 4 << 10;
/// Permission bits of every entry.
const MODE: u32 = 0o644;

/// An archive that is being written.
pub(super) struct Archive {
    target: Target,
    /// Names the output in errors.
    name: PathBuf,
    mtime: u64,
    blobs: HashSet<Digest>,
    /// Bytes of the archive up to the current blob, in full entries.
    length: u64,
}

enum Target {
    /// The archive itself; a blob is written where it will stand.
    File(Positioned),
    /// One blob at a time is gathered in `spool`, then copied to `out`.
    Stream {
        out: Box<dyn Write + Send>,
        spool: Positioned,
    },
}

impl Archive {
    /// An archive in an empty file; `name` stands in errors.
    pub(super) fn in_file(file: File, name: &Path, mtime: u64) -> Archive {
        Archive::new(Target::File(Positioned::new(file)), name, mtime)
    }

    /// An archive that goes to a stream.
    pub(super) fn to_stream(
        out: Box<dyn Write + Send>,
        name: &Path,
        mtime: u64,
    ) -> Result<Archive> {
        let spool = Scratch::Temporary.create().map_err(Error::io(
            "create a temporary file in",
            std::env::temp_dir(),
        ))?;
        let spool = Positioned::new(spool);
        Ok(Archive::new(Target::Stream { out, spool }, name, mtime))
    }

    fn new(target: Target, name: &Path, mtime: u64) -> Archive {
        Archive {
            target,
            name: name.to_path_buf(),
            mtime,
            blobs: HashSet::new(),
            length: 0,
        }
    }

    /// What stands for the archive in errors.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// Begins a blob; what is written until [`end_blob`](Archive::end_blob) is its content.
    pub(super) fn begin_blob(&mut self) -> Result<()> {
        match &mut self.target {
            Target::File(file) => file.write(&[0; BLOCK as usize]),
            Target::Stream { spool, .. } => spool.truncate(0),
        }
        .map_err(Error::io("write", &self.name))
    }

    /// Appends to the current blob.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.target {
            Target::File(file) => file.write(bytes),
            Target::Stream { spool, .. } => spool.write(bytes),
        }
        .map_err(Error::io("write", &self.name))
    }

    /// Appends bytes of a file to the current blob, up to `length`; returns how many. The kernel copies
    /// them, where it can by sharing the blocks that hold them.
    pub(super) fn copy_from(&mut self, file: &File, offset: u64, length: u64) -> Result<u64> {
        match &mut self.target {
            Target::File(to) => to.copy_from(file, offset, length),
            Target::Stream { .. } => Err(std::io::ErrorKind::Unsupported.into()),
        }
        .map_err(Error::io("write", &self.name))
    }

    /// Ends the current blob, whose digest is now known. A blob that the archive holds already is
    /// dropped again.
    pub(super) fn end_blob(&mut self, digest: &Digest) -> Result<()> {
        let new = self.blobs.insert(*digest);
        self.end(&digest.blob_path(), new)
            .map_err(Error::io("write", &self.name))
    }

    fn end(&mut self, path: &str, keep: bool) -> std::io::Result<()> {
        let header = |size| write::file_header(path, size, MODE, self.mtime);
        match &mut self.target {
            Target::File(file) if keep => {
                let size = file.end() - self.length - BLOCK;
                file.write(&vec![0; write::padding(size)])?;
                file.patch(self.length, &header(size))?;
                self.length = file.end();
            }
            Target::File(file) => file.truncate(self.length)?,
            Target::Stream { out, spool } if keep => {
                let size = spool.end();
                out.write_all(&header(size))?;
                spool.copy_to(out)?;
                out.write_all(&vec![0; write::padding(size)])?;
                self.length += entry_bytes(size);
            }
            Target::Stream { .. } => {}
        }
        Ok(())
    }

    /// Adds a small blob.
    pub(super) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if self.blobs.insert(descriptor.digest) {
            self.document(&descriptor.digest.blob_path(), bytes)?;
        }
        Ok(descriptor)
    }

    /// Adds a file that is no blob.
    pub(super) fn document(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let mut entry = write::file_header(path, size, MODE, self.mtime);
        entry.extend_from_slice(bytes);
        entry.resize(entry.len() + write::padding(size), 0);
        self.append(&entry)
    }

    /// Adds a second name for a blob that the archive holds: a hard link, or where that cannot be said, a
    /// copy of its `bytes`.
    pub(super) fn link(&mut self, path: &str, digest: &Digest, bytes: &[u8]) -> Result<()> {
        match write::link_header(path, &digest.blob_path(), MODE, self.mtime) {
            Some(header) => self.append(&header),
            None => self.document(path, bytes),
        }
    }

    /// Ends the archive. Returns its length in bytes.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.append(&write::END_OF_ARCHIVE)?;
        match &mut self.target {
            Target::File(file) => file.flush(),
            Target::Stream { out, .. } => out.flush(),
        }
        .map_err(Error::io("write", &self.name))?;
        Ok(self.length)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.target {
            Target::File(file) => file.write(bytes),
            Target::Stream { out, .. } => out.write_all(bytes),
        }
        .map_err(Error::io("write", &self.name))?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// Bytes of an entry with `size` bytes of data and one header block.
fn entry_bytes(size: u64) -> u64 {
    BLOCK + size + write::padding(size) as u64
}

/// A file that is written from the start, where earlier bytes can be replaced.
struct Positioned {
    file: File,
    /// Bytes not yet in the file.
    buffer: Vec<u8>,
    /// Where `buffer` will stand.
    start: u64,
}

impl Positioned {
    fn new(file: File) -> Positioned {
        Positioned {
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            start: 0,
        }
    }

    /// Bytes written so far.
    fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            calls::write_all_at(&self.file, bytes, self.start)?;
            self.start += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        calls::write_all_at(&self.file, &self.buffer, self.start)?;
        self.start = self.end();
        self.buffer.clear();
        Ok(())
    }

    /// Replaces bytes that were written as one piece.
    fn patch(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let at = offset
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| self.buffer.get_mut(at..at.checked_add(bytes.len())?)) {
            Some(place) => place.copy_from_slice(bytes),
            None => calls::write_all_at(&self.file, bytes, offset)?,
        }
        Ok(())
    }

    /// Forgets everything from `length` on.
    fn truncate(&mut self, length: u64) -> std::io::Result<()> {
        self.flush()?;
        calls::set_len(&self.file, length)?;
        self.start = length;
        Ok(())
    }

    fn copy_from(&mut self, from: &File, offset: u64, length: u64) -> std::io::Result<u64> {
        self.flush()?;
        // Blocks are shared whole: what is in front of one is copied by itself.
        let before = (SHARED_BYTES - offset % SHARED_BYTES) % SHARED_BYTES;
        let alike = offset % SHARED_BYTES == self.start % SHARED_BYTES;
        let length = match alike && before > 0 && before < length {
            true => before,
            false => length,
        };
        let copied = calls::copy(from, offset, &self.file, self.start, length)?;
        self.start += copied;
        Ok(copied)
    }

    fn copy_to(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut at = 0;
        let mut piece = vec![0; BUFFER_BYTES];
        while at < self.start {
            let length = piece
                .len()
                .min(usize::try_from(self.start - at).unwrap_or(usize::MAX));
            let piece = &mut piece[..length];
            self.file.read_exact_at(piece, at)?;
            out.write_all(piece)?;
            at += length as u64;
        }
        out.write_all(&self.buffer)
    }
}
