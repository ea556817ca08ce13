//! A model as a read-only tree of files: the one view that mount, unpack and tests share.
//!
//! The tree is built once from the manifest and never changes; inode numbers are indexes into it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::layer::Stats;
use crate::limits;
use crate::oci::{Descriptor, OciConfig, OciManifest};
use crate::source::BlobSource;

pub mod resolve;

/// The number of a file or directory. The root is [`Inode::ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(pub u64);

impl Inode {
    /// The root directory.
    pub const ROOT: Inode = Inode(1);
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// Attributes of an inode. They never change while the model is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub inode: Inode,
    /// What it is.
    pub kind: NodeKind,
    /// Size of a file in bytes; 0 for directories.
    pub size: u64,
    /// Permission bits: 0o444, 0o555 for executables and directories.
    pub mode: u16,
    /// Modification time, seconds since the epoch; 0 when unknown.
    pub mtime: u64,
    /// Link count: 1 for files, 2 + sub-directories for directories.
    pub links: u32,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The inode that the name leads to.
    pub inode: Inode,
    /// What it is.
    pub kind: NodeKind,
    /// The name; `.` and `..` come first.
    pub name: &'a str,
    /// The offset that continues after this entry.
    pub next_offset: u64,
}

/// How to open a model.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The digest that the manifest must have (`--digest`).
    pub pin: Option<Digest>,
    /// Bytes of decoded chunks to keep.
    pub cache_bytes: u64,
    /// Where seek tables of foreign layers are kept between runs (`--index-dir`); `None` to keep
    /// none (`--no-index`).
    pub index_dir: Option<PathBuf>,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            pin: None,
            cache_bytes: limits::DEFAULT_CACHE_BYTES,
            index_dir: None,
        }
    }
}

/// One file of a model: what the manifest says about it.
#[derive(Debug, Clone)]
pub struct FileInfo {
    /// Its inode.
    pub inode: Inode,
    /// Its path.
    pub path: EntryPath,
    /// Size in bytes.
    pub size: u64,
    /// The layer that holds it.
    pub layer: Descriptor,
    /// SHA-256 of the file where the manifest states it (`io.modeloci.file.digest`).
    pub digest: Option<Digest>,
}

/// An open model.
pub struct Model {
    source: Arc<dyn BlobSource>,
}

impl Model {
    /// Opens an archive file or an image-layout directory.
    ///
    /// Costs the manifest, not the data.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when the archive breaks a rule,
    /// [`ErrorKind::PinMismatch`](crate::ErrorKind::PinMismatch) when the manifest is not the
    /// pinned one, [`ErrorKind::Environment`](crate::ErrorKind::Environment) when it cannot be read.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        Model::from_source(crate::source::open(path.as_ref())?, options)
    }

    /// Opens a model from any source of blobs.
    ///
    /// # Errors
    /// As [`open`](Model::open).
    pub fn from_source(source: Arc<dyn BlobSource>, options: &OpenOptions) -> Result<Model> {
        let _ = options;
        let _ = Model { source };
        todo!()
    }

    /// Names the archive in messages.
    pub fn name(&self) -> String {
        self.source.name()
    }

    /// The digest of the manifest.
    pub fn manifest_digest(&self) -> &Digest {
        todo!()
    }

    /// The manifest.
    pub fn manifest(&self) -> &OciManifest {
        todo!()
    }

    /// The model's config; `None` when the archive is of a system that has none.
    pub fn config(&self) -> Option<&OciConfig> {
        todo!()
    }

    /// All files, in the order of their paths' bytes.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &FileInfo> {
        std::iter::empty()
    }

    /// The file of an inode; `None` for directories and unknown inodes.
    pub fn file(&self, inode: Inode) -> Option<&FileInfo> {
        let _ = inode;
        todo!()
    }

    /// The inode of a name in a directory.
    pub fn lookup(&self, parent: Inode, name: &OsStr) -> Option<Attr> {
        let _ = (parent, name);
        todo!()
    }

    /// The inode of a path from the root (`""` is the root).
    pub fn find(&self, path: &str) -> Option<Attr> {
        let _ = path;
        todo!()
    }

    /// The attributes of an inode.
    pub fn attr(&self, inode: Inode) -> Option<Attr> {
        let _ = inode;
        todo!()
    }

    /// The entries of a directory from `offset` (0, or an entry's `next_offset`), each exactly once
    /// in a fixed order, `.` and `..` first; `None` when the inode is no directory.
    pub fn readdir(&self, inode: Inode, offset: u64) -> Option<impl Iterator<Item = DirEntry<'_>>> {
        let _ = (inode, offset);
        Some(std::iter::empty())
    }

    /// Number of inodes, directories included.
    pub fn inodes(&self) -> u64 {
        todo!()
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        todo!()
    }

    /// The bytes of a file from `offset`: `len` of them, fewer only at the end of the file. Every
    /// byte was verified. Decodes on the calling thread; safe to call from any number of threads.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the inode is no file,
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the layer is damaged.
    pub fn read_at(&self, inode: Inode, offset: u64, len: usize) -> Result<Bytes> {
        let _ = (inode, offset, len);
        todo!()
    }

    /// Verifies one file's layer in full: blob digest, chunk table, stream, file digest. Returns
    /// the SHA-256 of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming layer and digest.
    pub fn verify(&self, inode: Inode) -> Result<Digest> {
        let _ = inode;
        todo!()
    }

    /// True once bytes of the file were verified and decoded.
    pub fn verified(&self, inode: Inode) -> bool {
        let _ = inode;
        todo!()
    }

    /// What was read so far.
    pub fn stats(&self) -> &Stats {
        todo!()
    }

    /// Bytes of decoded chunks kept now.
    pub fn cache_used(&self) -> u64 {
        todo!()
    }
}
