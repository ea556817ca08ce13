//! Unpacking: a model becomes a directory, complete or not at all.
//!
//! Files are written below the handle of a temporary directory beside the output, which takes the
//! output's name in one rename once every byte was verified, written and synced. Until then
//! nothing stands at that name; afterwards nothing of a former tree does. Nothing is written
//! outside the temporary directory, even while someone else plants links in it: paths are resolved
//! by the kernel beneath the handle, without following any link. Nothing is removed but what was
//! made here, and the tree that `--force` replaces: both are known by their handles, not by names.
//!
//! Directories above the output that are missing are made, and removed again when unpacking fails.
//!
//! An output that is an empty directory (a volume, perhaps) is kept, and filled at the end.
//!
//! Only regular files and directories are made, with modes 0644, 0755 for executables, less the
//! umask; no owner, no special bit and no link comes out of an archive.

mod include;
mod staging;
mod unpackager;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicBool;

pub use unpackager::ModelUnpackager;

use crate::error::Result;
use crate::model::{FileInfo, Model};
use crate::work::Progress;

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub struct UnpackOptions {
    /// Restore only files that match one of these globs, or are in a directory that does; empty for
    /// all. A glob without `/` is matched against names at any depth, one with `/` against whole paths.
    pub include: Vec<String>,
    /// Replace an existing output directory, as a whole.
    pub force: bool,
    /// Worker threads; 0 for one per core.
    pub jobs: usize,
    /// Looked at while files are written: once it is true, unpacking stops and cleans up.
    pub cancel: Option<&'static AtomicBool>,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Number of files restored.
    pub files: u64,
    /// Bytes restored.
    pub bytes: u64,
}

/// Restores the model's files below `output`, which appears complete or not at all.
///
/// # Errors
/// - [`ErrorKind::Usage`](crate::ErrorKind::Usage): a glob is invalid;
/// - [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): the globs match no file;
/// - [`ErrorKind::Refused`](crate::ErrorKind::Refused): the output exists, is not empty and `force`
///   is not set, or it is no directory; something else was changing the temporary directory; cancelled;
/// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): a layer is damaged;
/// - [`ErrorKind::Environment`](crate::ErrorKind::Environment): disk full, permissions.
///
/// After any of them neither a new output, nor a directory made above it, nor the temporary directory
/// is left, and an old output is untouched.
pub fn unpack(
    model: &Model,
    output: &Path,
    options: &UnpackOptions,
    progress: Progress<'_>,
) -> Result<Unpacked> {
    let include = include::Include::new(&options.include)?;
    let files: Vec<&FileInfo> = model
        .files()
        .filter(|file| include.matches(&file.path))
        .collect();
    include.check(files.len())?;

    let staging = staging::Staging::create(output, options.force)?;
    let unpacked =
        write::Writer::new(model, &files, staging.dir(), output, options, progress)?.run()?;
    staging.publish()?;
    Ok(unpacked)
}
