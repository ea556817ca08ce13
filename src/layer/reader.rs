//! What is asked of a layer, and how its one file answers.

use std::sync::Arc;

use bytes::Bytes;

use super::file_digests::FileDigests;
use crate::digest::Algorithm;
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::memory::shared_work::Helpers;
use crate::oci::Stated;
use crate::source::ReadAt;
use crate::stream::{Guess, Proven, Wait, Within};

/// What the manifest says about one layer and the file in it.
#[derive(Clone)]
pub struct LayerSpec {
    /// What the layer's descriptor states.
    pub stated: Arc<Stated>,
    /// The path of the file, for messages and to check the layer's own header.
    pub path: EntryPath,
    /// How the layer is read.
    pub reading: Reading,
    /// The blob that the annotations name as the chunk table, of layers that do not carry it
    /// themselves; its content is not verified yet.
    pub table: Option<Arc<dyn ReadAt>>,
}

/// How a layer without a chunk table is read: its media type and its system say it, not its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reading {
    /// The blob is the file, whatever its bytes look like.
    File,
    /// It is an archive that holds the file; its bytes say how it is packed. Where they are those of
    /// no archive, the blob is the file.
    Archive,
    /// The same, if the first file of the archive has the name of the file; else as `Members`.
    Either,
    /// It is an archive of any number of files, with names of their own.
    Members,
}

/// Which file of what is verified as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Whole {
    /// The same number for all files of a layer, and another for every other layer that is open.
    pub layer: usize,
    /// The file's number in the layer.
    pub file: u32,
}

/// One file, readable at any offset.
pub trait FileReader: Send + Sync {
    /// Size of the file, in bytes, as it is shown: a guess until its layer is proven.
    fn shown_size(&self) -> u64;

    /// Which file it is of what is verified as one.
    fn whole(&self) -> Whole {
        Whole {
            layer: std::ptr::from_ref(self).cast::<()>().addr(),
            file: 0,
        }
    }

    /// What has become of proving what the layer's first bytes said; `None` while nobody has tried.
    /// Asked of layers whose attributes are [`Attributes::Guessed`].
    fn proof(&self) -> Option<Result<Proven>> {
        None
    }

    /// The bytes from `offset`: `len` of them, fewer only at the end of the file. Never unverified.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) naming the layer, its digest and the
    /// offset; [`ErrorKind::Environment`](crate::ErrorKind::Environment) when storage fails.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;

    /// As [`read_at`](FileReader::read_at), when that waits for no more than `may`; otherwise what
    /// it would wait for. With `None` it waits for storage of this
    /// machine, and for the decoding of small chunks, which stand behind no long work.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn read_within(&self, may: Option<Wait>, offset: u64, len: usize) -> Result<Within> {
        let _ = may;
        self.read_at(offset, len).map(Within::Read)
    }

    /// Makes the pass that [`Wait::Pass`] is about, or waits until another thread has.
    ///
    /// # Errors
    /// What will be the error of all reads, or of this attempt.
    fn touch(&self) -> Result<()> {
        Ok(())
    }

    /// A number that grows as long as what a read would wait for gets on: a count of bytes.
    fn advance(&self) -> u64 {
        0
    }

    /// Checks that the layer's own header gives the file this base name, and says the same of its
    /// execute bit, where it has a header and the file was not opened for a descriptor that states
    /// these. It may be read for that.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn confirm(&self, _name: &str, _executable: bool) -> Result<()> {
        Ok(())
    }

    /// Verifies everything there is to verify of the layer: the blob against its digest, the table
    /// against the stream. Returns the digests of the file: SHA-256, and those by the other
    /// algorithms that are asked for.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn verify(&self, also: &[Algorithm]) -> Result<FileDigests> {
        let mut all = self.verify_with(also, &Helpers::default())?;
        let number = self.whole().file as usize;
        match number < all.len() {
            true => Ok(all.swap_remove(number)),
            false => Err(Error::corrupt("a file of the layer", "was not hashed")),
        }
    }

    /// The same with the help of others, of all files of the layer, by their numbers; a foreign layer has a
    /// thread of its own besides.
    ///
    /// # Errors
    /// As [`read_at`](FileReader::read_at).
    fn verify_with(&self, also: &[Algorithm], helpers: &Helpers) -> Result<Vec<FileDigests>>;
}

/// What a layer holds.
pub enum Opened {
    /// A file.
    File(Arc<dyn FileReader>, Attributes),
    /// A link, in a layer that was verified as a whole.
    Link(LinkTarget),
    /// A directory with nothing in it, in a layer that was verified as a whole.
    Directory,
    /// Several files, whose names are their own: the layer is to be opened as an
    /// [`Archive`](super::Archive).
    Members,
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTarget {
    /// The target as stored, no longer than a path can be; shared by all descriptors of the layer.
    pub path: Arc<str>,
    /// True for a symbolic link, whose target counts from the directory it is in; that of a hard
    /// link counts from the root of the model.
    pub symbolic: bool,
}

/// The attributes of a layer's file, as far as they are known when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// The manifest states them, and the chunk table is compared with them.
    Stated(FileAttr),
    /// The layer's first bytes say so, as they were read: see [`Guess`].
    Guessed(Guess<FileAttr>),
}

impl Attributes {
    /// What a directory shows of a file that nobody has opened: a guess, maybe.
    pub fn shown(&self) -> &FileAttr {
        match self {
            Attributes::Stated(attr) => attr,
            Attributes::Guessed(guess) => guess.unproven(),
        }
    }
}

impl FileAttr {
    /// Of a file of which nothing is known but that its layer, of so many bytes, is damaged. One of no
    /// bytes would read as an empty file, without an error.
    pub(crate) fn of_damaged(layer_bytes: u64) -> FileAttr {
        FileAttr {
            size: layer_bytes.max(1),
            executable: false,
            mtime: 0,
        }
    }
}

/// Attributes of a layer's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAttr {
    /// Size in bytes.
    pub size: u64,
    /// True when any execute bit is set.
    pub executable: bool,
    /// Modification time, in seconds since the epoch; 0 when unknown.
    pub mtime: u64,
}
