//! Unpacking: a model becomes a directory, complete or not at all.

use std::path::Path;

use crate::error::Result;
use crate::model::Model;
use crate::pack::Progress;

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub struct UnpackOptions {
    /// Restore only files whose path matches one of these globs; empty for all.
    pub include: Vec<String>,
    /// Replace an existing output directory.
    pub force: bool,
    /// Worker threads; 0 for one per core.
    pub jobs: usize,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Number of files restored.
    pub files: u64,
    /// Bytes restored.
    pub bytes: u64,
}

/// Restores the model's files below `output`.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the output exists and `force` is not set;
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a layer is damaged: nothing is left.
pub fn unpack(
    model: &Model,
    output: &Path,
    options: &UnpackOptions,
    progress: Progress<'_>,
) -> Result<Unpacked> {
    let _ = (model, output, options, progress);
    todo!()
}
