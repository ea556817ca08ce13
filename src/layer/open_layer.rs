//! One open layer for all files whose descriptors name its blob.
//!
//! A manifest may name one blob thousands of times. What is costly (looking at the blob's first
//! bytes, its chunk table, what is known after a pass, decoded chunks) is kept once, here. What a
//! descriptor says for itself is compared file by file: the name, the size, the execute bit.

use std::sync::{Arc, OnceLock};

use super::chunked::claim::Claim;
use super::chunked::file::{ChunkedFile, Pinned};
use super::damaged::{self, DamagedFile};
use super::foreign::{self, ForeignFile, Looked};
use super::reader::{Attributes, FileAttr, FileReader, LayerSpec, LinkTarget, Opened, Reading};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::memory::context::Context;
use crate::source::ReadAt;
use crate::stream::Guess;

/// Opens a layer for the one file that names it: see [`OpenLayer`].
///
/// # Errors
/// As [`OpenLayer::open`].
pub fn open(blob: Arc<dyn ReadAt>, spec: LayerSpec, context: Arc<Context>) -> Result<Opened> {
    OpenLayer::open(blob, &spec, &context)?.entry(&spec)
}

/// What stands for a layer that was taken for one of several files, and could not be opened because of
/// `error`: a file that cannot be read, if the layer was damaged. That costs the other files of a model
/// nothing.
///
/// # Errors
/// `error` itself when the layer is what the manifest names, or when storage failed.
pub fn damaged(
    blob: &Arc<dyn ReadAt>,
    spec: &LayerSpec,
    error: Error,
    context: &Context,
) -> Result<Opened> {
    let file = damaged::open(blob, spec, error, context)?;
    let attr = Guess::of(FileAttr::of_damaged(blob.len()));
    Ok(Opened::File(Arc::new(file), Attributes::Guessed(attr)))
}

/// What decides how a blob is read: descriptors that agree about it share one [`OpenLayer`].
///
/// That descriptors of one blob do not name different chunk tables is a rule of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LayerKey {
    digest: Digest,
    /// How its media type says that it is packed, where it is read through a chunk table.
    chunked: Option<Claim>,
    reading: Reading,
    /// The media type says that it must be a compressed tar.
    claims_tar: bool,
}

impl LayerKey {
    /// The key of a layer.
    pub fn of(spec: &LayerSpec) -> LayerKey {
        LayerKey {
            digest: spec.stated.digest,
            chunked: Pinned::of(spec).map(|_| Claim::of(spec)),
            reading: spec.reading,
            claims_tar: foreign::claims_tar(&spec.stated.media_type),
        }
    }
}

/// A layer that was opened.
pub struct OpenLayer {
    blob: Arc<dyn ReadAt>,
    context: Arc<Context>,
    /// What the descriptor states that it was opened for, which its readers compare themselves: the
    /// base name of the file,
    name: Box<str>,
    /// and whether it is executable.
    executable: Option<bool>,
    content: Content,
    /// The file that cannot be read, once the blob was found to be damaged.
    damaged: OnceLock<Arc<DamagedFile>>,
}

enum Content {
    Chunked(Arc<ChunkedFile>),
    Foreign(Arc<ForeignFile>),
    Link(LinkTarget),
    Directory,
    Members,
    Damaged,
}

impl OpenLayer {
    /// Opens a layer for the first of the files that name it. Costs nothing but the manifest when it
    /// states a chunk table and the file's size, unless that is 0; otherwise at most the layer's first
    /// kilobytes are read, for the file's size and mode; all of it only when these are damaged.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when an annotation or the layer's
    /// header breaks a rule, or when too much would have to be decoded; content is checked when it
    /// is read.
    pub fn open(
        blob: Arc<dyn ReadAt>,
        spec: &LayerSpec,
        context: &Arc<Context>,
    ) -> Result<OpenLayer> {
        let damaged = OnceLock::new();
        let content = match Pinned::of(spec) {
            Some(pinned) => {
                let subject = || format!("{} ({})", spec.path, spec.stated.digest);
                Claim::of(spec)
                    .check_stated(spec)
                    .map_err(|problem| Error::malformed(subject(), problem))?;
                let (blob, context) = (Arc::clone(&blob), Arc::clone(context));
                let file = ChunkedFile::new(blob, spec.clone(), pinned, context);
                file.check_table_fits()?;
                Content::Chunked(Arc::new(file))
            }
            None => match foreign::look(Arc::clone(&blob), spec.clone(), Arc::clone(context)) {
                Ok(Looked::File(file)) => Content::Foreign(file),
                Ok(Looked::Link(target)) => Content::Link(target),
                Ok(Looked::Directory) => Content::Directory,
                Ok(Looked::Members) => Content::Members,
                Err(error) => {
                    context.opening.check()?;
                    let file = damaged::open(&blob, spec, error, context)?;
                    damaged.get_or_init(|| Arc::new(file));
                    Content::Damaged
                }
            },
        };
        Ok(OpenLayer {
            blob,
            context: Arc::clone(context),
            name: spec.path.file_name().into(),
            executable: spec.stated.executable,
            content,
            damaged,
        })
    }

    /// What the layer holds under a descriptor of the same [`LayerKey`].
    ///
    /// # Errors
    /// As [`open`](OpenLayer::open), when the descriptor and the layer's header disagree.
    pub fn entry(&self, spec: &LayerSpec) -> Result<Opened> {
        match &self.content {
            Content::Chunked(file) => match file.attr_of(spec).map(Attributes::Stated) {
                Ok(attr) => Ok(Opened::File(Arc::clone(file) as Arc<dyn FileReader>, attr)),
                Err(error) => self.blame(spec, error),
            },
            Content::Foreign(file) => match file.attr_of(spec).map(Attributes::Guessed) {
                Ok(attr) => Ok(Opened::File(Arc::clone(file) as Arc<dyn FileReader>, attr)),
                Err(error) => self.blame(spec, error),
            },
            Content::Link(target) => match *self.name == *spec.path.file_name() {
                true => Ok(Opened::Link(target.clone())),
                false => Err(Error::malformed(
                    format!("{} ({})", spec.path, spec.stated.digest),
                    format!("the layer holds a link of another name, \"{}\"", self.name),
                )),
            },
            Content::Directory => Ok(Opened::Directory),
            Content::Members => Ok(Opened::Members),
            Content::Damaged => self.blame(spec, Error::corrupt(&spec.path, "is damaged")),
        }
    }

    /// What the layer is by its bytes, where its media type says something else. No more than a
    /// remark: it may not be verified yet.
    pub fn disagreement(&self) -> Option<&'static str> {
        match &self.content {
            Content::Foreign(file) => file.disagreement(),
            Content::Chunked(_)
            | Content::Link(_)
            | Content::Directory
            | Content::Members
            | Content::Damaged => None,
        }
    }

    /// True when the layer's readers compare what this descriptor states with the layer's header
    /// themselves; otherwise [`FileReader::confirm`] must be asked.
    pub fn is_opened_for(&self, spec: &LayerSpec) -> bool {
        *self.name == *spec.path.file_name() && self.executable == spec.stated.executable
    }

    /// What to do about a header that does not say what a descriptor says: the layer's digest tells
    /// which of the two is wrong.
    fn blame(&self, spec: &LayerSpec, error: Error) -> Result<Opened> {
        let file = match self.damaged.get() {
            Some(file) => file,
            None => {
                let file = damaged::open(&self.blob, spec, error, &self.context)?;
                self.damaged.get_or_init(|| Arc::new(file))
            }
        };
        let attr = FileAttr::of_damaged(self.blob.len());
        let attr = Attributes::Guessed(Guess::of(attr));
        Ok(Opened::File(Arc::clone(file) as Arc<dyn FileReader>, attr))
    }
}
