//! How to mount.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::labels::Labels;
use crate::digest::Digest;
use crate::limits;
use crate::model::{Memory, OpenOptions, Subtree};
use crate::source::registry;

/// How to mount. Everything has a default but the two paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// The archive, an image-layout directory, or a reference to a model in a registry.
    pub archive: PathBuf,
    /// Where to mount: an empty directory. For a connection that is mounted already, what it is called.
    pub mountpoint: PathBuf,
    /// The digest that the manifest must have.
    pub digest: Option<Digest>,
    /// The name that the archive's index must give the manifest.
    pub reference: Option<String>,
    /// Which part of the model is shown.
    pub subtree: Subtree,
    /// Bytes of decoded chunks to keep.
    pub cache_bytes: u64,
    /// Where seek tables of foreign layers are kept; `None` to keep none.
    pub index_dir: Option<PathBuf>,
    /// Let other users read the mount.
    pub allow_other: bool,
    /// Owner of all files; `None` for the user who mounts.
    pub uid: Option<u32>,
    /// Group of all files; `None` for that of the user who mounts.
    pub gid: Option<u32>,
    /// Forbid executing files.
    pub noexec: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// Labels of SELinux, which only root can set.
    pub labels: Labels,
    /// Event loops, which answer requests side by side.
    pub threads: usize,
    /// What the kernel may read ahead of a reader, in bytes.
    pub max_readahead: u32,
    /// How long nothing that a read waits for may get on before the read is an error.
    pub stall_timeout: Duration,
    /// How to reach a registry.
    pub registry: registry::Options,
}

/// Largest request that the kernel makes: one chunk of the default size, so that an answer is a slice
/// of a chunk and need not be put together from two.
pub(super) const MAX_REQUEST_BYTES: u32 = limits::DEFAULT_CHUNK_BYTES;
/// Event loops when none are asked for: requests wait for decodes, so more than cores.
const DEFAULT_THREADS: usize = 8;
/// How long what a read waits for may stand still when nothing else is asked for.
const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What a path of the form `/dev/fd/N` calls a descriptor; `/proc/self/fd` is the same.
pub fn descriptor_name(path: &Path) -> Option<&str> {
    let name = path
        .strip_prefix("/dev/fd")
        .or_else(|_| path.strip_prefix("/proc/self/fd"));
    let name = name.ok()?.to_str()?;
    (!name.is_empty() && !name.contains('/') && name != "..").then_some(name)
}

impl MountOptions {
    /// Mounts `archive` at `mountpoint` with every default.
    pub fn new(archive: impl Into<PathBuf>, mountpoint: impl Into<PathBuf>) -> MountOptions {
        MountOptions {
            archive: archive.into(),
            mountpoint: mountpoint.into(),
            digest: None,
            reference: None,
            subtree: Subtree::Usual,
            cache_bytes: limits::DEFAULT_CACHE_BYTES,
            index_dir: None,
            allow_other: false,
            uid: None,
            gid: None,
            noexec: false,
            nonempty: false,
            labels: Labels::default(),
            threads: DEFAULT_THREADS,
            max_readahead: limits::KERNEL_READAHEAD_BYTES,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            registry: registry::Options::default(),
        }
    }

    /// How to open the model that is to be mounted.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            pin: self.digest,
            reference: self.reference.clone(),
            subtree: self.subtree.clone(),
            cache_bytes: self.cache_bytes,
            index_dir: self.index_dir.clone(),
            // The kernel reads little ahead, for the sake of lone faults; and where it is not root's
            // mount, or /sys cannot be written, less than it is asked to.
            readahead: true,
            memory: Memory::Served {
                threads: self.threads,
            },
            registry: self.registry.clone(),
            cancel: None,
        }
    }
}
