//! What can be asked of unpacking, and what comes of it.

use std::sync::atomic::AtomicBool;

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
