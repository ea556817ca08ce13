//! What can be asked of packing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::codec::Compression;
use crate::digest::Algorithm;
use crate::error::Result;
use crate::limits;
use crate::memory::promise::Packing;
use crate::memory::room::{Fitted, Room};

/// How to pack.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// How chunks are compressed.
    pub compression: Compression,
    /// Chunk size in bytes: a power of two from 64 KiB to 16 MiB.
    pub chunk_size: u32,
    /// Algorithm of chunk digests: SHA-256 or BLAKE3.
    pub chunk_digest: Algorithm,
    /// Worker threads; 0 for one per core. Does not change the result.
    pub jobs: usize,
    /// Bytes of memory that packing may take in all; `None` for what makes it fastest.
    pub memory: Option<u64>,
    /// Replace an existing output.
    pub force: bool,
    /// Leave out what matches, in the syntax of gitignore(5): a directory with all that is in it.
    /// The same can be asked for in a file `.modelociignore` at the model's root.
    pub exclude: Vec<String>,
    /// Pack only what matches, and is not left out otherwise; no pattern matches everything.
    pub include: Vec<String>,
    /// Leave out [`DEFAULT_EXCLUDES`](super::DEFAULT_EXCLUDES).
    pub default_excludes: bool,
    /// Follow links wherever they lead: whatever they name is packed, so that it is for directories
    /// that are trusted.
    pub dereference: bool,
    /// Pack what looks like an incomplete download: a part, a git-lfs pointer, an index whose
    /// shards are missing.
    pub allow_incomplete: bool,
    /// Pack what looks like a secret.
    pub allow_secrets: bool,
    /// Annotations of the manifest, beside those that packing writes itself.
    pub annotations: BTreeMap<String, String>,
    /// Where the files tell it, the framework is theirs, not the config's.
    pub find_framework: bool,
    /// Where the files tell it, the architecture is theirs, not the config's.
    pub find_architecture: bool,
    /// A JSON Schema that the config has to keep.
    pub config_schema: Option<serde_json::Value>,
    /// Stops when it becomes true; nothing is left behind then.
    pub cancel: Option<&'static AtomicBool>,
}

impl Default for PackOptions {
    fn default() -> PackOptions {
        PackOptions {
            compression: Compression::Auto,
            chunk_size: limits::DEFAULT_CHUNK_BYTES,
            chunk_digest: Algorithm::Blake3,
            jobs: 0,
            memory: None,
            force: false,
            exclude: Vec::new(),
            include: Vec::new(),
            default_excludes: true,
            dereference: false,
            allow_incomplete: false,
            allow_secrets: false,
            annotations: BTreeMap::new(),
            find_framework: false,
            find_architecture: false,
            config_schema: None,
            cancel: None,
        }
    }
}

impl PackOptions {
    /// Makes packing keep within the memory that this process may have: that of its control groups, and of
    /// its own limits. Where no number of threads was asked for, there are as many as fit, at most one per
    /// core.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when not even one thread fits.
    pub fn fit_memory(&mut self) -> Result<Fitted> {
        let advice = match self.chunk_size > limits::DEFAULT_CHUNK_BYTES {
            true => ", or ask for smaller chunks",
            false => "",
        };
        let takes = |workers| self.packing(workers).least();
        let fitted = Room::here().fit(self.jobs, "packing", advice, takes)?;
        self.memory = fitted.memory;
        self.jobs = fitted.threads;
        Ok(fitted)
    }

    /// What so many workers take.
    pub(super) fn packing(&self, workers: usize) -> Packing {
        Packing {
            workers,
            chunk_size: self.chunk_size,
            encoder: self.compression.encoder_bytes(self.chunk_size.into()),
        }
    }
}

/// Where the archive goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// A file: written beside it without a name, synced, then given its name.
    File(PathBuf),
    /// Standard output; refused when it is a terminal.
    Stdout,
}
