//! One file of a model.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::node::Inode;
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::layer::{Attributes, FileAttr, FileReader};
use crate::oci::stated::FileMetadata;
use crate::systems::Parts;

/// One file of a model: what the manifest says about it.
#[derive(Debug, Clone)]
pub struct FileInfo {
    /// Its inode.
    pub inode: Inode,
    /// Its path.
    pub path: EntryPath,
    /// Size in bytes, as it is shown: where a layer's first bytes say it, a guess until somebody opens the
    /// file ([`Model::facts`](super::Model::facts)).
    pub shown_size: u64,
    /// The layers that hold it.
    pub parts: Parts,
    /// SHA-256 of the file where the manifest states it (`io.modeloci.file.digest`).
    pub digest: Option<Digest>,
}

impl FileInfo {
    /// Names the file and its layers in messages.
    pub fn subject(&self) -> String {
        format!("{} ({})", self.path, self.parts.digests())
    }
}

/// What a file is: its layer's own bytes say so, and are proven; or the manifest states it, and the chunk
/// table is compared with that before a byte is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Size in bytes.
    pub size: u64,
    /// True when it may be run.
    pub executable: bool,
    /// The time that the archive itself states of it, since the epoch: in its layer, or else in the
    /// manifest.
    pub time: Option<Duration>,
}

/// A file of an open model.
pub(super) struct File {
    pub(super) info: FileInfo,
    pub(super) attributes: Attributes,
    /// Shared by all files whose descriptors name the same blob.
    pub(super) reader: Arc<dyn FileReader>,
    /// The base name that the layer's header must give the file, where the reader was opened for a
    /// descriptor that states another, or another execute bit.
    pub(super) unconfirmed: Option<Box<str>>,
    pub(super) verified: AtomicBool,
    /// Some of it was found not to be what its digests say; that does not heal.
    pub(super) damaged: AtomicBool,
    /// The file that a link leads to.
    pub(super) link_to: Option<Box<EntryPath>>,
}

impl File {
    /// The attributes, when they are proven; why they never will be; `None` while nobody knows.
    pub(super) fn proven(&self) -> Option<Result<FileAttr>> {
        match &self.attributes {
            Attributes::Stated(attr) => Some(Ok(*attr)),
            Attributes::Guessed(guess) => {
                let proof = self.reader.proof()?;
                Some(proof.map(|proof| *guess.confirmed(proof).value()))
            }
        }
    }

    /// The attributes that a directory shows: facts, or guesses; of a file that was found damaged what
    /// layers show that could not be opened, which is no guess of what was in them.
    pub(super) fn shown(&self) -> FileAttr {
        match self.proven() {
            Some(Err(_)) => FileAttr::of_damaged(self.info.parts.first().stated.size),
            Some(Ok(_)) | None => *self.attributes.shown(),
        }
    }

    /// What its descriptor states of it, where it states it of this file.
    fn metadata(&self) -> Option<&FileMetadata> {
        let stated = self.info.parts.first().of_file()?;
        stated.metadata.as_deref()
    }

    /// The time that its descriptor states, or else its layer, which has these attributes.
    pub(super) fn time(&self, attr: &FileAttr) -> Option<Duration> {
        let metadata = self.metadata();
        let stated = metadata
            .and_then(|metadata| metadata.mtime)
            .map(NonZeroU64::get);
        let mtime = stated.unwrap_or(attr.mtime);
        (mtime > 0).then(|| Duration::from_secs(mtime))
    }

    /// Whether it is executable by its descriptor, or else by its layer, which has these attributes.
    pub(super) fn executable(&self, attr: &FileAttr) -> bool {
        let metadata = self.metadata();
        let stated = metadata.and_then(|metadata| metadata.executable);
        stated.unwrap_or(attr.executable)
    }

    /// Checks what was shown of what the descriptor says of the file, where its reader does not.
    pub(super) fn confirmed(&self) -> Result<()> {
        match &self.unconfirmed {
            Some(name) => self
                .reader
                .confirm(name, self.attributes.shown().executable),
            None => Ok(()),
        }
    }
}
