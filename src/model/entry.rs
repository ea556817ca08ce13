//! What a manifest says of one file.

use std::sync::Arc;

use crate::entry_path::EntryPath;
use crate::layer::Reading;
use crate::oci::Stated;

/// A layer that holds a file.
#[derive(Debug, Clone)]
pub(super) struct FileLayer {
    pub(super) path: EntryPath,
    /// Its place in the manifest's list.
    pub(super) number: usize,
    pub(super) stated: Arc<Stated>,
    pub(super) reading: Reading,
}
