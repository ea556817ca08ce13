//! What the layers of a model were made into.

use super::file::File;
use crate::entry_path::EntryPath;

/// The tree, as far as it comes from layers.
pub(super) struct Built {
    /// In the order of their paths.
    pub(super) files: Vec<File>,
    /// Directories with nothing in them.
    pub(super) empty: Box<[EntryPath]>,
    /// Memory that was not foreseen, in bytes.
    pub(super) memory: u64,
}
