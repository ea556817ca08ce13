//! Packing: a directory becomes layers, layers become an archive.

use std::path::{Path, PathBuf};

use crate::codec::Compression;
use crate::digest::{Algorithm, Digest};
use crate::error::Result;
use crate::limits;
use crate::oci::{Descriptor, OciConfig};

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
    /// Replace an existing output.
    pub force: bool,
}

impl Default for PackOptions {
    fn default() -> PackOptions {
        PackOptions {
            compression: Compression::Auto,
            chunk_size: limits::DEFAULT_CHUNK_BYTES,
            chunk_digest: Algorithm::Blake3,
            jobs: 0,
            force: false,
        }
    }
}

/// Where the archive goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// A file: written beside it under a temporary name, synced, renamed.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Digest of the manifest: what `--digest` pins.
    pub manifest_digest: Digest,
    /// Layer descriptors, in path order.
    pub layers: Vec<Descriptor>,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Things that the user should know: empty directories that were left out.
    pub warnings: Vec<String>,
}

/// Called with (bytes done, bytes in total) while work goes on, from any thread.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Packs `model_dir` into an archive.
///
/// # Errors
/// See `docs` of each rule; nothing is left at the output's name, and no temporary file.
pub fn pack(
    model_dir: &Path,
    config: &OciConfig,
    output: &Output,
    options: &PackOptions,
    progress: Progress<'_>,
) -> Result<Packed> {
    let _ = (model_dir, config, output, options, progress);
    todo!()
}

/// Adds one file to an archive, in place: the manifest, index and config stay true, and the
/// archive is replaced atomically.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the title exists already.
pub fn add_layer(
    archive: &Path,
    file: &Path,
    title: Option<&str>,
    options: &PackOptions,
) -> Result<Packed> {
    let _ = (archive, file, title, options);
    todo!()
}
