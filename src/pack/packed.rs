//! What comes of packing.

use super::select::LeftOut;
use crate::digest::Digest;
use crate::oci::{Descriptor, OciConfig};

/// Something that the files of a model tell about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `framework`, `architecture`, or the key of an annotation.
    pub what: &'static str,
    /// What it is.
    pub value: String,
    /// The file that tells it.
    pub path: String,
}

impl Found {
    pub(super) fn new(what: &'static str, value: String, path: String) -> Found {
        Found { what, value, path }
    }
}

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The model's config, as it was written; `None` when a layer was changed.
    pub config: Option<OciConfig>,
    /// What of it, and of the annotations, the files tell.
    pub found: Vec<Found>,
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
    /// What was left out, by pattern.
    pub left_out: Vec<LeftOut>,
    /// Things that the user should know: empty directories that were left out.
    pub warnings: Vec<String>,
}
