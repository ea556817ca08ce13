//! Layers of any number of files, whose names no manifest states: a directory that was pushed as one,
//! a layer of a container image.
//!
//! Such a layer is read and verified as a whole when it is opened, as it must be before a name in it is
//! given to anybody: see `listing`. What the pass has found is kept in an index, so that a later run
//! opens it without one. Its files are ranges of its stream, which they share: seek points, digests of
//! blocks and decoded pieces are had once for all of them.

use std::sync::Arc;

use bytes::Bytes;

use super::file_digests::{FileDigests, FileHasher};
use super::listing::{Listed, Lister, Listing, Place, packing_of};
use super::reader::{FileAttr, FileReader, Whole};
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::memory::context::Context;
use crate::memory::shared_work::Helpers;
use crate::oci::Stated;
use crate::source::ReadAt;
use crate::stream::{Guess, Listener, Plan, Proven, Stream, Taken, Tuning, Wait, Within};

/// A layer of any number of files.
pub struct Archive {
    stream: Stream,
    files: Box<[Place]>,
}

/// The members of a layer that was read and verified.
pub struct OpenedArchive {
    /// Reads its files.
    pub archive: Arc<Archive>,
    /// All of them, in the order of the tar.
    pub members: Vec<Listed>,
    /// Bytes of the list that they were parsed of.
    pub(crate) list_bytes: usize,
}

impl Archive {
    /// Reads and verifies the layer, unless an index says what is in it. Lists of so many bytes are `held`
    /// already.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not what the manifest says,
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it is no tar, or one that is refused.
    pub fn open(
        blob: Arc<dyn ReadAt>,
        stated: &Stated,
        subject: Arc<str>,
        held: usize,
        context: &Arc<Context>,
    ) -> Result<OpenedArchive> {
        let size = blob.len();
        if size != stated.size {
            let said = stated.size;
            let rule = format!("the layer has {size} bytes, the manifest says {said}");
            return Err(Error::malformed(subject, rule));
        }
        let packing = packing_of(&*blob)?;
        let memory = context.limiter.limit();
        let lister = Arc::new(Lister::new(&subject, packing, size, memory, held));
        let taken = Taken {
            digest: stated.digest,
            subject: Arc::clone(&subject),
            plan: Guess::of(Plan::of_all(packing, size)),
            measured: true,
            expected: Arc::<Lister>::clone(&lister),
        };
        let stream = Stream::open(blob, taken, Arc::clone(context), Tuning::DEFAULT)?;
        stream.touch()?;
        let Listing {
            members,
            files,
            bytes,
        } = lister
            .take()
            .ok_or_else(|| Error::corrupt(subject, "was not listed"))?;
        Ok(OpenedArchive {
            archive: Arc::new(Archive {
                stream,
                files: files.into(),
            }),
            members,
            list_bytes: bytes,
        })
    }

    /// Number of its files.
    pub fn files(&self) -> u32 {
        u32::try_from(self.files.len()).unwrap_or(u32::MAX)
    }

    /// Memory, in bytes, that is taken by what is known of them.
    pub(crate) fn memory(&self) -> u64 {
        size_of_val(&*self.files) as u64
    }

    /// The file that has a number among its files, and what its header says of it.
    pub fn file(self: &Arc<Archive>, number: u32) -> Option<(MemberFile, Guess<FileAttr>)> {
        let place = *self.files.get(usize::try_from(number).ok()?)?;
        let archive = Arc::clone(self);
        let file = MemberFile {
            archive,
            number,
            place,
        };
        Some((file, Guess::of(place.attr)))
    }
}

/// A file in a layer of several.
pub struct MemberFile {
    archive: Arc<Archive>,
    number: u32,
    place: Place,
}

impl MemberFile {
    /// Where bytes `offset..offset + len` of the file are in the stream, and how many there are of them.
    fn range(&self, offset: u64, len: usize) -> (u64, usize) {
        let left = self.place.attr.size.saturating_sub(offset);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        (self.place.start.saturating_add(offset), len)
    }
}

impl FileReader for MemberFile {
    fn shown_size(&self) -> u64 {
        self.place.attr.size
    }

    fn whole(&self) -> Whole {
        Whole {
            layer: Arc::as_ptr(&self.archive).addr(),
            file: self.number,
        }
    }

    fn proof(&self) -> Option<Result<Proven>> {
        self.archive.stream.proof()
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let (at, len) = self.range(offset, len);
        self.archive.stream.read_at(at, len)
    }

    fn read_within(&self, may: Option<Wait>, offset: u64, len: usize) -> Result<Within> {
        let (at, len) = self.range(offset, len);
        self.archive.stream.read_within(may, at, len)
    }

    fn touch(&self) -> Result<()> {
        self.archive.stream.touch()
    }

    fn advance(&self) -> u64 {
        self.archive.stream.advance()
    }

    fn verify_with(&self, also: &[Algorithm], _helpers: &Helpers) -> Result<Vec<FileDigests>> {
        let mut digesting = Digesting::of(&self.archive.files, FileHasher::new(also));
        self.archive.stream.verify(&mut digesting)?;
        digesting.finish().ok_or_else(|| {
            Error::corrupt(self.archive.stream.subject(), "its files were not hashed")
        })
    }
}

/// Computes the digests of all files that a pass goes over.
struct Digesting<'a> {
    files: &'a [Place],
    start: FileHasher,
    /// Offset of the next byte of the stream.
    at: u64,
    hasher: FileHasher,
    done: Vec<FileDigests>,
}

impl<'a> Digesting<'a> {
    fn of(files: &'a [Place], start: FileHasher) -> Digesting<'a> {
        Digesting {
            files,
            hasher: start.clone(),
            start,
            at: 0,
            done: Vec::new(),
        }
    }

    /// The digest of each file; `None` unless all of them have passed.
    fn finish(self) -> Option<Vec<FileDigests>> {
        (self.done.len() == self.files.len()).then_some(self.done)
    }

    /// Ends the files that are behind us.
    fn end_files(&mut self) {
        while let Some(Place { start, attr }) = self.files.get(self.done.len())
            && start.saturating_add(attr.size) <= self.at
        {
            let hasher = std::mem::replace(&mut self.hasher, self.start.clone());
            self.done.push(hasher.finish());
        }
    }
}

impl Listener for Digesting<'_> {
    fn begin(&mut self) {
        *self = Digesting::of(self.files, self.start.clone());
    }

    fn hear(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            self.end_files();
            let Some(Place { start, attr }) = self.files.get(self.done.len()) else {
                return;
            };
            // To the start of the next file, or to its end.
            let (before, inside) = (start.saturating_sub(self.at), self.at >= *start);
            let rest = match inside {
                true => start.saturating_add(attr.size).saturating_sub(self.at),
                false => before,
            };
            let now = content
                .len()
                .min(usize::try_from(rest).unwrap_or(usize::MAX));
            let (now, later) = content.split_at(now);
            if inside {
                self.hasher.update(now);
            }
            self.at += now.len() as u64;
            content = later;
        }
        self.end_files();
    }
}
