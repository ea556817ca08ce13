//! One file of a model.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::node::Inode;
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::layer::{FileAttr, FileReader};
use crate::systems::Parts;

/// One file of a model: what the manifest says about it.
#[derive(Debug, Clone)]
pub struct FileInfo {
    /// Its inode.
    pub inode: Inode,
    /// Its path.
    pub path: EntryPath,
    /// Size in bytes.
    pub size: u64,
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

/// A file of an open model.
pub(super) struct File {
    pub(super) info: FileInfo,
    pub(super) attr: FileAttr,
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
    /// The time that its layer states.
    pub(super) fn stated_time(&self) -> Option<Duration> {
        let metadata = self.info.parts.first().stated.metadata.as_ref();
        let stated = metadata
            .and_then(|metadata| metadata.mtime)
            .map(NonZeroU64::get);
        let mtime = stated.unwrap_or(self.attr.mtime);
        (mtime > 0).then(|| Duration::from_secs(mtime))
    }

    /// Whether it is executable.
    pub(super) fn executable(&self) -> bool {
        let metadata = self.info.parts.first().stated.metadata.as_ref();
        let stated = metadata.and_then(|metadata| metadata.executable);
        stated.unwrap_or(self.attr.executable)
    }

    /// Checks what the descriptor says of the file, where its reader does not.
    pub(super) fn confirmed(&self) -> Result<()> {
        match &self.unconfirmed {
            Some(name) => self.reader.confirm(name, self.attr.executable),
            None => Ok(()),
        }
    }
}
